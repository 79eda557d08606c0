"""evals.lm_harness with lm-eval itself: the numbers of the native path, and text by our model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evals import benchmarks
from evals.benchmarks import Benchmark
from evals.errors import BadInput
from evals.models import Checkpoint, Scripted
from evals.run import evaluate, summary
from evals.types import Decoding, Reply
from evals.vlm import VLM
from repro.tiny.model import PROTOCOL

harness = pytest.importorskip("evals.lm_harness")
TWO = replace(PROTOCOL, decoding=Decoding(temperature=1.0, samples=2, max_new_tokens=12))


@pytest.fixture(scope="module")
def made(films: Callable[..., Path]) -> Path:
    """Four films with their records, one of them broken."""
    import shutil

    source = films("test", 4)
    folder = source.parent / "harness"
    shutil.copytree(source, folder, dirs_exist_ok=True)
    next(iter(sorted((folder / "films").glob("*.mp4")))).write_text("no film")
    return folder


def bench(made: Path) -> Benchmark:
    return benchmarks.load("jsonl", data=made / "records.json", root=made)


@pytest.fixture(scope="module")
def model(student: VLM) -> Checkpoint:
    return Checkpoint(student, "student")


@pytest.mark.parametrize("who", ["random", "student"])
def test_parity_with_the_native_path(made: Path, model: Checkpoint, who: str) -> None:
    asked = Scripted("random") if who == "random" else model
    given = {"protocol": TWO, "data": made / "records.json", "root": made, "seed": 5}
    found = harness.plain(harness.run(asked, ["jsonl"], **given))
    native = summary(evaluate(asked, bench(made), TWO, seed=5))
    assert found == {"reelproof_jsonl": {"score": native["score"], "coverage": native["coverage"]}}
    few = harness.plain(harness.run(asked, ["reelproof_jsonl"], limit=3, **given))
    part = summary(evaluate(asked, bench(made), TWO, seed=5, limit=3))
    assert few["reelproof_jsonl"]["score"] == part["score"]


def test_rows_come_back_out_of_envelopes(made: Path, model: Checkpoint) -> None:
    task = harness.VideoTask(bench(made), TWO)
    rows = evaluate(model, bench(made), TWO, seed=5, save_replies=True)
    lm = harness.HarnessLM(model, [task], seed=5)
    task.build_all_requests(rank=0, world_size=1)
    # lm-eval repeats the requests of a question itself
    requests = [r for r in task.instances for _ in range(2)]
    envelopes = lm.generate_until(requests)
    found = [task.row(r.doc["id"], i % 2, e) for i, (r, e) in
             enumerate(zip(requests, envelopes, strict=True))]  # fmt: skip
    lost = [row for row in rows if row.outcome == "undecodable"]
    assert lost and [r for r in found if r.outcome != "undecodable"] == [
        r for r in rows if r.outcome != "undecodable"
    ]
    assert {r.detail for r in found if r.outcome == "undecodable"} == {r.detail for r in lost}


def test_another_lms_plain_text_is_graded_too(made: Path) -> None:
    task = harness.VideoTask(bench(made), TWO)
    sample = next(s for s in bench(made).samples if s.kind == "multiple choice")
    said = f"<think>hm</think><answer>{sample.gold}</answer>"
    assert task.row(sample.id, 0, said).outcome == "correct"
    assert task.row(sample.id, 0, "null").outcome == "unparsed"
    assert Reply("null", 0).text == "null"


# --- text ----------------------------------------------------------------------------------------


def write_tasks(folder: Path) -> Path:
    """Two of lm-eval's own kinds of task, with local data: choices by log-likelihood, and text."""
    docs = [
        {"q": "Which came first?", "choices": ["red circle", "blue square"], "gold": 0},
        {"q": "How many shapes are there?", "choices": ["one", "two", "three"], "gold": 2},
    ]
    folder.mkdir()
    (folder / "docs.json").write_text("\n".join(json.dumps(d) for d in docs))
    common = (
        f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder / 'docs.json'}}}}}\n"
        "test_split: test\ndoc_to_text: '{{q}}'\n"
    )
    (folder / "choices.yaml").write_text(
        f"task: choices_of_ours\n{common}output_type: multiple_choice\n"
        "doc_to_choice: choices\ndoc_to_target: gold\nmetric_list: [{metric: acc}]\n"
    )
    (folder / "text.yaml").write_text(
        f"task: text_of_ours\n{common}output_type: generate_until\ndoc_to_target: '{{{{gold}}}}'\n"
        "generation_kwargs: {until: ['.'], max_gen_toks: 6}\n"
        "metric_list: [{metric: exact_match}]\n"
    )
    return folder


def direct(student: VLM, context: str, continuation: str) -> tuple[float, bool]:
    """The same by transformers alone: no batch, no positions of ours."""
    tokenizer = student.processor.tokenizer
    start = len(tokenizer(context)["input_ids"])
    ids = tokenizer(context + continuation, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logp = student.model(input_ids=ids).logits[0].float().log_softmax(-1)
    said = ids[0, start:]
    rows = logp[start - 1 : -1]
    return float(rows.gather(-1, said[:, None]).sum()), bool((rows.argmax(-1) == said).all())


def test_log_likelihoods_are_those_of_transformers(model: Checkpoint, student: VLM) -> None:
    from lm_eval.api.instance import Instance

    pairs = [
        ("Which came first?", " red circle"), ("Which came first? A. green", " triangle B. yellow"),
        ("How many", " shapes are there?"), ("Which ", "came first"), ("", "red"),
    ]  # fmt: skip
    lm = harness.HarnessLM(model, batch=3)
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    found = lm.loglikelihood(requests)
    for (context, said), (total, greedy) in list(zip(pairs, found, strict=True))[:3]:
        expected, best = direct(student, context, said)
        assert total == pytest.approx(expected, abs=1e-4) and greedy == best
    moved, _ = direct(student, "Which", " came first")  # spaces go with the words
    assert found[3][0] == pytest.approx(moved, abs=1e-4)
    assert found[4][0] < 0
    rolled = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("red circle",), 0)])
    assert rolled[0] == pytest.approx(
        lm.loglikelihood([Instance("loglikelihood", {}, ("", "red circle"), 0)])[0][0], abs=1e-4
    )


def test_lm_evals_own_tasks_run_on_a_checkpoint(
    model: Checkpoint, student: VLM, tmp_path: Path
) -> None:
    folder = write_tasks(tmp_path / "tasks")
    found = harness.plain(
        harness.run(model, ["choices_of_ours", "text_of_ours"], include_path=folder, shipped=False)
    )
    right = 0
    for line in (folder / "docs.json").read_text().splitlines():
        doc = json.loads(line)
        totals = [direct(student, doc["q"], f" {choice}")[0] for choice in doc["choices"]]
        right += totals.index(max(totals)) == doc["gold"]
    assert found["choices_of_ours"]["acc"] == right / 2
    assert 0 <= found["text_of_ours"]["exact_match"] <= 1


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="neither lm-eval nor this suite has a task nonsense"):
        harness.run(
            Scripted("oracle"), ["nonsense"], include_path=write_tasks(tmp_path / "t"),
            shipped=False,
        )  # fmt: skip
    with pytest.raises(BadInput, match="oracle gives no log-likelihoods"):
        harness.run(
            Scripted("oracle"), ["choices_of_ours"], include_path=tmp_path / "t", shipped=False
        )
