"""Both ways between this evaluator and lm-evaluation-harness (lm-eval 0.4.13).

| from            | to           | how                                                            |
|-----------------|--------------|----------------------------------------------------------------|
| our benchmarks  | lm-eval task | `VideoTask`: each request names its sample; rows are graded    |
|                 |              | by the protocol's grader, once more from the saved reply       |
| our models      | lm-eval LM   | `HarnessLM`: clips and questions by evals.run; text by the     |
|                 |              | language model alone, log-likelihoods summed over the tokens   |

    python -m evals.lm_harness --model DIR --tasks microworld,arc_easy [--limit 10] [--output F]

lm-eval knows no video: a request carries a description of it, our LM reads the clip. Its own cache
stays off, since its key knows no weights; evals.replies does that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from datasets import Dataset
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from evals import benchmarks
from evals.benchmarks import Benchmark
from evals.errors import BadInput
from evals.metrics import mean
from evals.models import Checkpoint, Model
from evals.prompts import render
from evals.run import evaluate, score
from evals.types import LOST, Decoding, Outcome, Protocol, Reply, Row, Sample

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "reelproof_"


class VideoTask(ConfigurableTask):  # type: ignore[misc]
    """One of our benchmarks under a protocol. Metrics: `score` (mean over questions of the mean
    over replies) and `coverage`, fractions."""

    def __init__(self, benchmark: Benchmark, protocol: Protocol):
        self.benchmark, self.protocol = benchmark, protocol
        self.samples: Mapping[str, Sample] = {s.id: s for s in benchmark.samples}
        docs = [{"id": s.id, "gold": s.gold} for s in benchmark.samples]
        k = protocol.decoding.samples
        super().__init__(
            config={
                "task": PREFIX + benchmark.name,
                "custom_dataset": lambda **given: {"test": Dataset.from_list(docs)},
                "test_split": "test",
                "output_type": "generate_until",
                "doc_to_text": self._text,
                "doc_to_target": "gold",
                "generation_kwargs": {
                    "until": [],
                    "max_gen_toks": protocol.decoding.max_new_tokens,
                },
                "repeats": k,
                "filter_list": [{"name": "all", "filter": [{"function": "take_first_k", "k": k}]}],
                "process_results": self._graded,
                "metric_list": [
                    {"metric": name, "aggregation": mean, "higher_is_better": True}
                    for name in ("score", "coverage")
                ],
                "metadata": {"version": 1.0, "protocol": protocol.hash, "sha256": benchmark.sha256},
            }
        )

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:
        """As lm-eval builds them, with a third argument that names the sample."""
        built = super().construct_requests(doc, ctx, **kwargs)
        requests = built if isinstance(built, list) else [built]
        for request in requests:
            about = {"task": self.config.task, "id": doc["id"], "protocol": self.protocol.hash}
            request.arguments = (*request.arguments[:2], {"reelproof": about})
        return requests

    def _text(self, doc: Mapping[str, Any]) -> str:
        return render(self.samples[doc["id"]], self.protocol).words

    def _graded(self, doc: Mapping[str, Any], results: Sequence[Any]) -> dict[str, float]:
        replies = results[0] if isinstance(results[0], (list, tuple)) else results
        rows = [self.row(doc["id"], k, text) for k, text in enumerate(replies)]
        read = (Outcome.CORRECT, Outcome.WRONG)
        return {
            "score": mean([row.score for row in rows]),
            "coverage": mean([float(row.outcome in read) for row in rows]),
        }

    def row(self, id: str, k: int, text: str) -> Row:
        """The row of an envelope that `HarnessLM` returned, or of a plain text from another LM."""
        sample = self.samples[id]
        try:
            said = json.loads(text)
        except json.JSONDecodeError:
            said = None
        if not isinstance(said, dict) or "reelproof" not in said:
            return score(sample, Reply(text, 0), k, self.protocol)
        if said["outcome"] in LOST:
            lost = replace(score(sample, Reply("", 0), k, self.protocol), outcome=said["outcome"])
            return replace(lost, detail=said["detail"])
        finished = said["outcome"] != Outcome.TRUNCATED
        reply = Reply(said["reelproof"], said["tokens"], finished)
        return score(sample, reply, k, self.protocol, save=True)


class HarnessLM(LM):  # type: ignore[misc]
    """One of our models as lm-eval's LM. Log-likelihoods need a checkpoint on transformers.

    batch: sequences at once. seed: of the draws. evaluation: further arguments of evals.run.
    """

    MULTIMODAL = True

    def __init__(
        self, model: Model, tasks: Sequence[VideoTask] = (), *, batch: int = 16, seed: int = 0,
        **evaluation: Any,
    ):  # fmt: skip
        super().__init__()
        self.model, self.batch, self.seed, self.evaluation = model, batch, seed, evaluation
        self.tasks = {task.config.task: task for task in tasks}

    @property
    def tokenizer_name(self) -> str:
        return self.model.name

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        rendered: str = self._checkpoint().vlm.processor.apply_chat_template(
            chat_history, add_generation_prompt=add_generation_prompt, tokenize=False
        )
        return rendered

    def generate_until(self, requests: list[Instance], **kwargs: Any) -> list[str]:
        """Replies in the order of the requests: envelopes for our tasks, texts for others."""
        found: dict[int, str] = {}
        films: dict[str, list[int]] = {}
        texts = []
        for place, request in enumerate(requests):
            about = request.args[2].get("reelproof") if len(request.args) > 2 else None
            if about is None:
                texts.append(place)
            else:
                films.setdefault(about["task"], []).append(place)
        for task, places in films.items():
            found |= self._asked(self.tasks[task], places, [requests[p].args[2] for p in places])
        for place in texts:
            found[place] = self._continued(*requests[place].args[:2])
        return [found[place] for place in range(len(requests))]

    def _asked(
        self, task: VideoTask, places: Sequence[int], abouts: Sequence[Mapping[str, Any]]
    ) -> dict[int, str]:
        wanted = [about["reelproof"]["id"] for about in abouts]
        asked = replace(
            task.benchmark,
            samples=tuple(task.samples[id] for id in dict.fromkeys(wanted)),
        )
        rows: dict[str, list[Row]] = {}
        for row in evaluate(
            self.model, asked, task.protocol, save_replies=True, seed=self.seed, **self.evaluation
        ):
            rows.setdefault(row.id, []).append(row)
        seen: dict[str, int] = {}
        found = {}
        for place, id in zip(places, wanted, strict=True):
            k = seen[id] = seen.get(id, -1) + 1  # a question's repeats are its samples
            row = rows[id][min(k, len(rows[id]) - 1)]
            found[place] = json.dumps(
                {"reelproof": row.reply or "", "tokens": row.tokens, "outcome": row.outcome,
                 "detail": row.detail}
            )  # fmt: skip
        return found

    # --- text: the language model without a clip -----------------------------------------------

    def _checkpoint(self) -> Checkpoint:
        if not isinstance(self.model, Checkpoint):
            raise BadInput(
                f"{self.model.name} gives no log-likelihoods; name a checkpoint folder for "
                "lm-eval's own tasks"
            )
        return self.model

    def _continued(self, context: str, kwargs: Mapping[str, Any]) -> str:
        """Greedy unless do_sample is given; cut at the first of the stop texts."""
        vlm = self._checkpoint().vlm
        drawn = vlm.sample(
            [self._text(context)],
            Decoding(
                temperature=float(kwargs.get("temperature") or 0) if kwargs.get("do_sample") else 0,
                top_p=float(kwargs.get("top_p") or 1),
                max_new_tokens=int(kwargs.get("max_gen_toks", 256)),
            ),
            [self.seed],
        )
        text = vlm.text(drawn[0][0].ids)
        until = kwargs.get("until") or []
        for stop in [until] if isinstance(until, str) else until:
            text = text.split(stop)[0] if stop else text
        return text

    def _text(self, text: str) -> Any:
        from evals.vlm import Encoded

        vlm = self._checkpoint().vlm
        ids = self._ids(text)
        bare = Encoded(ids, ids.new_empty(3, 0), None, None, 0.0)
        return replace(bare, positions=vlm.positions(bare, "original"))

    def _ids(self, text: str) -> Tensor:
        tokenizer = self._checkpoint().vlm.processor.tokenizer
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"][0].long()
        if len(ids):
            return cast("Tensor", ids)
        return cast("Tensor", ids.new_tensor([tokenizer.eos_token_id]))  # an empty context

    def loglikelihood(self, requests: list[Instance], **kwargs: Any) -> list[tuple[float, bool]]:
        """Sum of log-probabilities of the continuation's tokens, and whether each is the likeliest.

        Context and continuation are tokenised together and cut where the context's tokens end, as
        lm-eval's own models do.
        """
        pairs = [self._pair(*request.args[:2]) for request in requests]
        found: list[tuple[float, bool]] = []
        for first in range(0, len(pairs), self.batch):
            found += self._scored(pairs[first : first + self.batch])
        return found

    def loglikelihood_rolling(self, requests: list[Instance], **kwargs: Any) -> list[float]:
        """Log-likelihood of whole texts, each behind an end-of-text token."""
        import torch

        end = torch.tensor([self._checkpoint().vlm.end])
        texts = [torch.cat([end, self._ids(request.args[0])]) for request in requests]
        return [total for ids in texts for total, _ in self._scored([(ids, 1)])]

    def _pair(self, context: str, continuation: str) -> tuple[Tensor, int]:
        """Ids of both together, and where the continuation begins."""
        kept = context.rstrip()
        context, continuation = kept, context[len(kept) :] + continuation  # spaces go with words
        start = len(self._ids(context))
        ids = self._ids(context + continuation)
        if not context:
            ids = ids.new_tensor([self._checkpoint().vlm.end, *ids.tolist()])
        return ids, start

    def _scored(self, pairs: Sequence[tuple[Tensor, int]]) -> list[tuple[float, bool]]:
        import torch

        vlm = self._checkpoint().vlm
        width = max(len(ids) for ids, _ in pairs)
        batch = torch.full((len(pairs), width), vlm.processor.tokenizer.pad_token_id)
        for row, (ids, _) in enumerate(pairs):
            batch[row, : len(ids)] = ids  # padded on the right: causal, so nothing sees the pads
        positions = torch.arange(width).expand(3, len(pairs), -1).to(vlm.device)
        with torch.no_grad():
            hidden = vlm.run(batch.to(vlm.device), None, positions, None)
            found = []
            for row, (ids, start) in enumerate(pairs):
                logp = (
                    vlm.net.lm_head(hidden[row, start - 1 : len(ids) - 1]).float().log_softmax(-1)
                )
                said = ids[start:].to(logp.device)
                total = logp.gather(-1, said[:, None]).sum()
                found.append((float(total), bool((logp.argmax(-1) == said).all())))
        return found


def run(
    model: Model,
    names: Sequence[str],
    *,
    protocol: Protocol | None = None,
    limit: int | None = None,
    include_path: Path | None = None,
    shipped: bool = True,
    root: Path | None = None,
    data: Path | None = None,
    batch: int = 16,
    seed: int = 0,
    **evaluation: Any,
) -> dict[str, Any]:
    """lm-eval's results for our benchmarks (by their ids) and its own tasks, in one call.

    include_path: folder of further task files; shipped: whether lm-eval's own are known too, which
    takes seconds to index. root, data: of our benchmarks, as
    `evals.benchmarks.load` takes them. Raises BadInput for a name that neither side knows.
    """
    ours = [name.removeprefix(PREFIX) for name in names]
    ours = [name for name in ours if name in benchmarks.NAMES]
    theirs = [name for name in names if name.removeprefix(PREFIX) not in ours]
    tasks: list[Any] = [
        VideoTask(benchmarks.load(name, root=root, data=data), protocol or Protocol("video-r1"))
        for name in ours
    ]
    lm = HarnessLM(model, tasks, batch=batch, seed=seed, **evaluation)
    manager = TaskManager(
        include_path=str(include_path) if include_path else None,
        include_defaults=shipped and bool(theirs),
    )
    unknown = [name for name in theirs if name not in manager.all_tasks]
    if unknown:
        raise BadInput(
            f"neither lm-eval nor this suite has a task {', '.join(unknown)}; ours are "
            f"{', '.join(benchmarks.NAMES)}"
        )
    results: dict[str, Any] = simple_evaluate(
        model=lm, tasks=[*tasks, *theirs], limit=limit, task_manager=manager, bootstrap_iters=0,
        log_samples=False, confirm_run_unsafe_code=False,
    )  # fmt: skip
    return results


def plain(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Task -> metric -> value, of what `run` returned."""
    return {
        task: {
            name.removesuffix(",none").removesuffix(",all"): float(value)
            for name, value in found.items()
            if isinstance(value, (int, float)) and "stderr" not in name and name != "sample_len"
        }
        for task, found in results["results"].items()
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command line of the module's docstring."""
    import argparse

    from evals.models import load

    parser = argparse.ArgumentParser(prog="python -m evals.lm_harness", description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tasks", required=True, help="names with commas")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--include_path", type=Path)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args(argv)
    try:
        results = run(
            load(given.model), given.tasks.split(","), limit=given.limit,
            include_path=given.include_path,
        )  # fmt: skip
    except BadInput as error:
        parser.exit(2, f"error: {error}\n")
    text = json.dumps(plain(results), indent=1)
    if given.output:
        given.output.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
