"""Every benchmark with data of its owner, loaded from data made in its own layout and schema."""

from __future__ import annotations

import importlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from pyarrow import parquet

from evals import archive, benchmarks, made, models, protocols
from evals.aggregate import aggregate, headline
from evals.benchmarks import Benchmark, mmvu, mvbench, videommmu
from evals.benchmarks._records import Files, Record
from evals.decoding import Decoding as Workers
from evals.errors import BadInput, Undecodable
from evals.extract import GRADERS
from evals.prompts import Turn, render
from evals.run import BACKWARDS, evaluate, score
from evals.types import Decoding, Protocol, Reply, Sample
from evals.verify import verify
from evals.video import Clips, probe
from evals.vlm import VLM

NAMES = sorted(made.MADE)
CHOICE = ("multiple choice", "grounded qa")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """data(benchmark) -> folder of its made data, made once."""
    root = tmp_path_factory.mktemp("made")
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = made.make(name, root)
        return folders[name]

    return folder


def module(name: str) -> Any:
    return importlib.import_module(f"evals.benchmarks.{name}")


def test_every_benchmark_has_made_data() -> None:
    assert set(made.MADE) == set(benchmarks.OWNED)
    assert set(benchmarks.NAMES) == {*made.MADE, "jsonl", "microworld"}


@pytest.mark.parametrize("name", NAMES)
def test_loads_and_every_film_opens(name: str, data: Callable[[str], Path], tmp_path: Path) -> None:
    loaded = benchmarks.load(name, root=data(name))
    card = benchmarks.card(name)
    assert loaded.card == card and loaded.split == next(iter(card.splits))
    assert loaded.revision == card.revision == "unresolved"
    assert len(loaded.sha256) == 64
    assert len({s.id for s in loaded.samples}) == len(loaded.samples)
    for sample in loaded.samples:
        assert sample.media is not None and sample.cluster
        assert (sample.kind in CHOICE) == bool(sample.options)
    for media in {s.media for s in loaded.samples if s.media}:
        info = probe(archive.local(media, tmp_path))
        assert (info.frames, info.fps) == (8, 4.0)


PAIRS = [(n, p) for p in protocols.names() for n in protocols.covered(p)]


def readable(loaded: Benchmark, protocol: Protocol) -> Benchmark:
    """Without the questions whose replies the tool leaves to a judge; Video-R1's evaluator scores
    free-form 0.
    """
    grader = GRADERS[protocol.grader]
    lost = ("free-form",) if grader.match == "video-r1" else ()
    part = tuple(s for s in loaded.samples if s.kind in grader.reads and s.kind not in lost)
    return replace(loaded, samples=part)


@pytest.mark.parametrize(("name", "base"), PAIRS)
def test_oracle_gives_all_of_it(name: str, base: str, data: Callable[[str], Path]) -> None:
    for variant in protocols.variants(base, name) or ("",):
        protocol = protocols.load(f"{base}@{variant}" if variant else base, name)
        loaded = benchmarks.load(name, root=data(name), subset=protocol.subset)
        loaded = readable(loaded, protocol)
        rows = evaluate(models.load("oracle"), loaded, protocol)
        found = aggregate(rows, loaded.card, protocol)
        assert rows and all(value == 1 for value in found.values()), (protocol.id, found)
        assert headline(rows, loaded.card, protocol) == (protocol.aggregation, 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_parrot_and_random_give_what_chance_says(name: str, data: Callable[[str], Path]) -> None:
    """Of letters alone: a number or a time that happens to be right is not chance but luck."""
    samples = benchmarks.load(name, root=data(name)).samples
    part = tuple(s for s in samples if s.kind == "multiple choice")
    if not part:
        rows = evaluate(models.load("random"), benchmarks.Benchmark(name, "", samples, "", ""),
                        Protocol("test"))  # fmt: skip
        assert {row.outcome for row in rows} <= {"unparsed"}  # a lone letter is no interval
        return
    loaded = benchmarks.Benchmark(name, "", part, "", "")
    parrot = evaluate(models.load("parrot"), loaded, Protocol("test"))
    assert sum(r.score for r in parrot) == sum(s.gold == "A" for s in part)
    seeds = 300
    right = sum(
        r.score
        for seed in range(seeds)
        for r in evaluate(models.load("random"), loaded, Protocol("test"), seed=seed)
    )
    chances = [Fraction(1, len(s.options)) for s in part]
    expected = seeds * float(sum(chances))
    deviation = (seeds * float(sum(p * (1 - p) for p in chances))) ** 0.5
    assert abs(right - expected) < 4 * deviation


@pytest.mark.parametrize("name", NAMES)
def test_golden_prompt_is_exact(name: str, tmp_path: Path) -> None:
    golden = module(name).GOLDEN
    sample = module(name).sample(Record(golden.row, "golden, record 1"), Files(name, tmp_path))
    turn = render(sample, protocols.load(golden.protocol, name), (0.0, 1.0))
    assert (turn.before + turn.text, sample.gold) == (golden.text, golden.gold)


@pytest.mark.parametrize("name", NAMES)
def test_loading_twice_gives_the_same(name: str, data: Callable[[str], Path]) -> None:
    assert benchmarks.load(name, root=data(name)) == benchmarks.load(name, root=data(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_film_is_a_path_that_is_not_there(name: str, tmp_path: Path) -> None:
    """It becomes the outcome undecodable, never a question without its film."""
    sample = module(name).sample(
        Record(module(name).GOLDEN.row, "golden, record 1"), Files(name, tmp_path)
    )
    assert sample.modality == "video" and sample.media is not None
    assert sample.media.is_relative_to(tmp_path) and not sample.media.exists()


@pytest.mark.parametrize("name", NAMES)
def test_one_broken_field_is_named_with_its_record(name: str, tmp_path: Path) -> None:
    row = module(name).GOLDEN.row
    files = Files(name, tmp_path)
    refused = 0
    for key in row:
        broken = Record({k: v for k, v in row.items() if k != key}, "file.json, record 7")
        try:
            module(name).sample(broken, files)
        except BadInput as error:
            assert str(error).startswith("file.json, record 7: ") and "\n" not in str(error)
            refused += 1
    assert refused >= 3


@pytest.mark.parametrize("name", NAMES)
def test_files_stay_small(name: str) -> None:
    path = Path(module(name).__file__)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 100


def load(name: str, data: Callable[[str], Path], subset: str = "") -> tuple[Sample, ...]:
    return benchmarks.load(name, root=data(name), subset=subset).samples


def test_subsets(data: Callable[[str], Path]) -> None:
    assert len(load("mmvu", data)) == 8 and len(load("mmvu", data, "mc")) == 6
    assert {s.kind for s in load("mmvu", data, "open")} == {"free-form"}
    assert {s.tags["duration"] for s in load("videomme", data, "short, long")} == {"short", "long"}
    assert {s.tags["part"] for s in load("tempcompass", data, "yes_no")} == {"yes_no"}
    assert len(load("mvbench", data, "action_count")) == 3
    with pytest.raises(BadInput, match="mmvu has no subset 'hard'; known: mc, open"):
        load("mmvu", data, "hard")
    with pytest.raises(BadInput, match="mmvu has no split 'test'; it has validation"):
        benchmarks.load("mmvu", root=data("mmvu"), split="test")


def test_disciplines_hold_the_subjects_that_their_owners_count() -> None:
    """MMVU: 27 subjects in 4 disciplines; Video-MMMU: 30 in 6."""
    assert (len(mmvu.DISCIPLINE), len(set(mmvu.DISCIPLINE.values()))) == (27, 4)
    assert (len(videommmu.DISCIPLINE), len(set(videommmu.DISCIPLINE.values()))) == (30, 6)


def test_question_only_shows_the_clip_of_the_image(data: Callable[[str], Path]) -> None:
    samples = load("videommmu", data, "adaptation,question_only")
    lecture, alone = samples[0], samples[6]
    assert lecture.question == alone.question and lecture.cluster == alone.cluster
    assert lecture.media is not None and lecture.media.name == "validation_Art_1.mp4"
    assert alone.media is not None and alone.media.name == "validation_Art_1_image.mp4"


def test_labels_of_caption_matching_become_letters(data: Callable[[str], Path]) -> None:
    samples = load("tempcompass", data, "caption_matching")
    assert [s.gold for s in samples] == list("ABABAB")
    assert all(s.options == ("A. He runs.", "B. He sits.") for s in samples)
    assert samples[2].question == "2: Which fits the video?"
    text = render(samples[2], protocols.load("official", "tempcompass")).text
    assert text == (
        "2: Which fits the video?\nSentence A: He runs.\nSentence B: He sits.\n"
        "Please directly give the best option:"
    )


def test_subtitles_at_the_shown_frames_or_all(data: Callable[[str], Path]) -> None:
    first, last = load("videomme", data)[0], load("videomme", data)[-1]
    head = "This video's subtitles are listed below:"
    sampled = protocols.load("official@subtitles", "videomme")
    assert render(first, sampled, (0.0, 0.5)).text.startswith(
        f"{head}\nGood morning.\nSelect the best answer"
    )
    assert "We sail at noon." in render(first, sampled, (1.5,)).text
    every = render(first, protocols.load("lmms-eval@subtitles", "videomme"), (0.0,)).text
    assert every.startswith(f"{head} \nGood morning.\nWe sail at noon.\nNever shown.\nSelect")
    assert head not in render(last, sampled, (0.0,)).text  # it has none


def test_spans_and_alternatives(data: Callable[[str], Path]) -> None:
    samples = {s.tags["task"]: s for s in load("mvbench", data)}
    assert samples["action_sequence"].span == (0.5, 1.5) and samples["action_count"].span is None
    assert samples["episodic_reasoning"].span is None  # the mp4 is already cut
    assert load("nextgqa", data)[1].gold == "B [0.25, 1] or [1.25, 2]"


def test_names_that_occur_in_several_collections(data: Callable[[str], Path]) -> None:
    """MVBench's 0.mp4 of clevrer is not that of perception, and data0613 repeats one of star."""
    samples = {s.tags["task"]: s for s in load("mvbench", data)}
    for task, sample in samples.items():
        assert sample.media is not None
        folder = mvbench.TASKS[task][-1 if task == "episodic_reasoning" else 0]
        assert sample.media.parent.as_posix().endswith(folder)
        assert "data0613" not in str(sample.media)


def test_a_prompt_that_needs_the_duration_says_so(data: Callable[[str], Path]) -> None:
    sample = load("rextime", data)[0]
    assert sample.facts["duration"] == "2"
    with pytest.raises(BadInput, match=r"says how long the video is, anet_val0 does not"):
        render(replace(sample, facts={}), protocols.load("official", "rextime"))


def test_what_huggingface_wrote_is_the_revision(tmp_path: Path) -> None:
    folder = made.make("mmvu", tmp_path)
    note = folder / ".cache/huggingface/download/validation.json.metadata"
    note.parent.mkdir(parents=True)
    note.write_text("0123456789" * 4 + "\nabc\n1.0\n")
    assert benchmarks.load("mmvu", root=folder).revision == "0123456789" * 4


def test_equal_ids_are_told_apart(tmp_path: Path) -> None:
    folder = made.make("video_holmes", tmp_path)
    path = folder / "test_Video-Holmes.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([rows[0], rows[0], rows[0]]))
    assert [s.id for s in benchmarks.load("video_holmes", root=folder).samples] == [
        "f0_q0", "f0_q0#2", "f0_q0#3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"Answer": "G"}, "`Answer` 'G' is not one of 6 options"),
        ({"Answer": None}, "`Answer` is missing"),
        ({"Options": "A: red"}, "`Options` must be a list of texts"),
        ({"Options": {}}, "`Answer` 'A' is not one of 0 options"),
        ({"Question": " "}, "`Question` must be a text"),
    ],
)
def test_bad_records_stop_with_their_place(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = made.make("video_holmes", tmp_path)
    path = folder / "test_Video-Holmes.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([rows[1], {**rows[0], **change}]))
    with pytest.raises(BadInput, match="record 2: ") as caught:
        benchmarks.load("video_holmes", root=folder)
    assert said in str(caught.value)


def test_an_interval_that_ends_before_it_starts_costs_its_own_question(tmp_path: Path) -> None:
    folder = made.make("activitynet_captions", tmp_path)
    (path,) = folder.rglob("*.parquet")
    rows = parquet.read_table(path).to_pylist()
    n = len(rows)
    rows[1]["timestamp"] = [9.5, 1.5]
    made.save(path, rows)
    loaded = benchmarks.load("activitynet_captions", root=folder)
    assert len(loaded.samples) == n and loaded.samples[1].gold == "[9.5, 1.5]"
    law = protocols.load("temporal-r1@no-think", "activitynet_captions")
    won = [score(s, Reply("1.5 - 9.5", 1), 0, law) for s in loaded.samples[:2]]
    assert (won[1].outcome, won[1].score, won[1].detail) == ("wrong", 0.0, BACKWARDS)
    assert won[0].detail is None
    assert aggregate(won[1:], loaded.card, law)["mIoU"] == 0.0
    (gold,) = (f for f in verify("activitynet_captions", folder).findings if f.check == "gold")
    assert gold.count == 1 and "[9.5, 1.5] ends before it starts" in gold.examples[0]


def test_where_the_data_is(
    data: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REELPROOF_DATA", raising=False)
    with pytest.raises(BadInput, match="where is the data of mmvu"):
        benchmarks.load("mmvu")
    monkeypatch.setenv("REELPROOF_DATA", str(data("mmvu").parent))
    assert len(benchmarks.load("mmvu").samples) == 8
    with pytest.raises(BadInput, match="no such folder"):
        benchmarks.load("mmvu", root=tmp_path / "none")
    with pytest.raises(BadInput, match=r"no annotations of mmvu \(validation.json"):
        benchmarks.load("mmvu", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("mvbench", "official"),
        ("rextime", "official"),
        ("video_holmes", "video-r1"),
        ("videomme", "official@subtitles"),
    ],
)
def test_a_real_student_is_asked_in_the_protocols_own_words(
    name: str, base: str, data: Callable[[str], Path], student: VLM, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """From the zip through the frame law and the chat template to a scored row."""
    monkeypatch.setenv("REELPROOF_CACHE", str(tmp_path))
    small = Decoding(max_new_tokens=4)
    protocol = replace(protocols.load(base, name), max_frames=4, decoding=small,
                       min_pixels=56 * 56, max_pixels=56 * 56, total_pixels=0)  # fmt: skip
    loaded = benchmarks.load(name, root=data(name))
    loaded = replace(loaded, samples=loaded.samples[:3])
    asked: list[Turn] = []
    encode = student.encode
    monkeypatch.setattr(student, "encode", lambda clip, turn, p: (asked.append(turn),
                        encode(clip, turn, p))[1])  # fmt: skip
    rows = evaluate(models.Checkpoint(student, "tiny"), loaded, protocol)
    assert len(rows) == 3 and "undecodable" not in {r.outcome for r in rows}
    assert {r.tokens for r in rows} <= {1, 2, 3, 4}
    first = asked[0]
    assert first.system == protocol.system and first.prefix == protocol.prefix
    if name == "rextime":
        assert first.text == "" and "Total Video Duration: 2 seconds" in first.before
    if name == "videomme":
        assert "Good morning.\nWe sail at noon." in first.text


def test_cards_agree_with_the_table_that_papers_are_compared_by() -> None:
    """results/benchmarks.yaml knows the same benchmarks by the same ids and sizes."""
    text = (Path(__file__).parents[2] / "results" / "benchmarks.yaml").read_text(encoding="utf-8")
    known = yaml.safe_load(text)["benchmarks"]
    assert set(NAMES) <= set(known)
    for name in NAMES:
        card = benchmarks.card(name)
        assert next(iter(card.splits.values())) == known[name]["n"], name
        for part, n in known[name].get("subsets", {}).items():
            assert card.subsets[part] == n, (name, part)


ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, float("nan"), float("inf"), "", " ", "x", "A", "/etc/passwd",
    "//host/a", "../a.mp4", "a/../../b", "a\x00b", "\u2028", [], [1], ["a"], [None], [[1]],
    [[3, 1]], [[0, 1], [2]], {}, {"a": 1}, {"A": None}, {"A": ["x"]}, 10**400, "9" * 5000,
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_odd_values_are_refused_by_a_sentence_or_taken(name: str, tmp_path: Path) -> None:
    """Whatever stands in a field: a Sample below the root, or BadInput naming the record."""
    files = Files(name, tmp_path)
    for key in module(name).GOLDEN.row:
        for odd in ODD:
            row = Record({**module(name).GOLDEN.row, key: odd}, "file.json, record 7")
            try:
                sample = module(name).sample(row, files)
            except BadInput as error:
                assert str(error).startswith("file.json, record 7: "), (key, odd, error)
            else:
                assert sample.media is not None and sample.media.is_relative_to(tmp_path)
                assert ".." not in sample.media.parts, (key, odd)
                assert isinstance(sample.gold, str) and sample.gold.strip(), (key, odd)
                assert all(isinstance(tag, str) for tag in sample.tags.values()), (key, odd)


@pytest.mark.parametrize(
    ("name", "file", "content", "said"),
    [
        ("nextgqa", "gsub_test.json", [], "expected an object"),
        ("nextgqa", "gsub_test.json", {"3238737531": 1}, "`3238737531` must be an object"),
        ("nextgqa", "gsub_test.json", {}, "`location` is missing"),
        (
            "perceptiontest",
            "cut_frame_mapping_valid.json",
            {"video_0": "x"},
            "`cut` must be a numb",
        ),
        ("lvbench", "data/video_info.meta.jsonl", [{"key": "k0", "qa": 1}], "`qa` must be a list"),
        ("videomme", "videomme/test-00000-of-00001.parquet", [{"a": 1}], "`videoID` is missing"),
    ],
)
def test_odd_annotation_files(
    name: str, file: str, content: Any, said: str, tmp_path: Path
) -> None:
    root = made.make(name, tmp_path)
    made.save(root / file, content)
    with pytest.raises(BadInput, match=said):
        benchmarks.load(name, root=root)


@pytest.mark.parametrize("packed", [True, False])
def test_a_folder_of_frames_is_a_video(
    packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MVBench's tvqa: pictures at 3 per second, of which a record owns some; zipped or not."""
    monkeypatch.setenv("REELPROOF_CACHE", str(tmp_path / "cache"))
    root = made.make("mvbench", tmp_path)
    (root / "video" / "tvqa-video_fps3_hq_segment.zip").unlink()
    pictures = {}
    for i in range(12):
        file = io.BytesIO()
        Image.new("RGB", (32, 32), (20 * i, 20 * i, 20 * i)).save(file, "png")
        pictures[f"tvqa/frames_fps3_hq/5-8/{i + 1:05}.png"] = file.getvalue()
    if packed:
        with zipfile.ZipFile(root / "video" / "tvqa.zip", "w") as out:
            for name, content in pictures.items():
                out.writestr(name, content)
    else:
        for name, content in pictures.items():
            made.on_disk(root, [name], content)
    sample = load_from(root, "mvbench", "episodic_reasoning")[0]
    assert sample.rate == 3.0 and sample.span == (0.5, 1.5)
    law = Protocol("test", sampling="linspace-floor", max_frames=3)
    with Workers() as decoding:
        for clips in (Clips(law), decoding.clips(law)):
            clip = clips.load(sample)
            assert clip is not None and (clip.total, clip.fps) == (3, 3.0)  # 0.5 s is frame 2
            assert [round(f.mean() / 20) for f in clip.frames] == [2, 3, 4]
    report = verify("mvbench", root, subset="episodic_reasoning")
    assert {f.check for f in report.findings} == {"count"}
    lost = replace(sample, media=root / "none")
    with pytest.raises(Undecodable, match="no folder with pictures"):
        Clips(law).load(lost)


def load_from(root: Path, name: str, subset: str) -> tuple[Sample, ...]:
    return benchmarks.load(name, root=root, subset=subset).samples
