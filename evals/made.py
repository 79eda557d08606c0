"""Small data sets in the layout and schema of each benchmark, made and not copied.

`make(name, root)` writes annotations and real films below root, zipped where the owner zips them.
Every set asks about the film of 8 frames at 4 per second (2 s) that `film` writes once.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from evals import microworld

Maker = Callable[[Path], None]
SECONDS = 2.0
SRT = """1
00:00:00,000 --> 00:00:00,900
<i>Good</i> morning.

2
00:00:01,000 --> 00:00:01,900
We sail
at noon.

3
00:01:00,000 --> 00:01:01,000
Never shown.
"""


@cache
def film() -> bytes:
    """An H.264 mp4 of 8 frames of 32 x 32 pixels at 4 per second, each of its own grey."""
    import tempfile

    frames = np.stack([np.full((32, 32, 3), 30 * i, np.uint8) for i in range(8)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "film.mp4")
        microworld.write_film(frames, path, fps=4)
        return path.read_bytes()


def slides(path: Path, seed: int, seconds: int = 60) -> Path:
    """A film that shows another picture of coarse random colours every second."""
    rng = np.random.default_rng([5, seed])
    coarse = rng.integers(20, 236, (seconds, 4, 6, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    microworld.write_film(coarse.repeat(14, 1).repeat(14, 2), path, fps=1)
    return path


def on_disk(root: Path, names: Iterable[str], content: bytes | None = None) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(film() if content is None else content)


def zipped(path: Path, names: Iterable[str], content: bytes | None = None) -> None:
    """A deflated zip, as most owners make them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, film() if content is None else content)


def tar_in_parts(path: Path, names: Iterable[str], size: int = 4000) -> None:
    """`path.part.aa`, `.ab`, ... of `size` bytes each."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(film())
            archive.addfile(info, io.BytesIO(film()))
    data = whole.getvalue()
    for n, start in enumerate(range(0, len(data), size)):
        part = path.with_name(f"{path.name}.part.{chr(97 + n // 26)}{chr(97 + n % 26)}")
        part.write_bytes(data[start : start + size])


def save(path: Path, rows: Any) -> None:
    """Rows as the file's ending says: json, jsonl, parquet or csv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        path.write_text(json.dumps(rows), encoding="utf-8")


def choices(n: int, k: int) -> list[tuple[str, list[str]]]:
    """n golds with their k option texts, the letters taking turns."""
    return [("ABCDEFGHIJ"[i % k], [f"thing {i} {c}" for c in range(k)]) for i in range(n)]


def video_holmes(root: Path) -> None:
    rows = [
        {
            "video ID": f"f{i % 3}", "Question ID": f"q{i}", "Question Type": ("SR", "TA")[i % 2],
            "Question": f"What {i}?", "Options": dict(zip("ABCDEF", texts, strict=False)),
            "Answer": gold, "Explanation": "seen",
        }
        for i, (gold, texts) in enumerate(choices(12, 6))
    ]  # fmt: skip
    save(root / "test_Video-Holmes.json", rows)
    save(root / "train_Video-Holmes.json", rows[:2])
    zipped(root / "videos.zip", [f"videos/f{i}.mp4" for i in range(3)])


def videommmu(root: Path) -> None:
    for t, track in enumerate(("Perception", "Comprehension", "Adaptation")):
        rows = []
        for i, (gold, texts) in enumerate(choices(6, 4)):
            kind = {"question_type": "multiple-choice"} if track == "Adaptation" else {}
            if track == "Adaptation" and i > 3:
                kind, texts, gold = {"question_type": "open"}, [], ("3.5", "a fugue")[i - 4]
            rows.append({
                "id": f"validation_Art_{i + 1}", "question": f"Which {t}{i}?",
                "options": texts, "answer": gold, "link_selected": "", "image": None, **kind,
            })  # fmt: skip
        save(root / track / "test-00000-of-00001.parquet", rows)
    zipped(root / "Art.zip", [f"Art/validation_Art_{i}.mp4" for i in range(1, 7)])
    zipped(
        root / "question_only_videos.zip",
        [f"question_only/validation_Art_{i}_image.mp4" for i in range(1, 7)],
    )


def mmvu(root: Path) -> None:
    rows: list[dict[str, Any]] = []
    for i, (gold, texts) in enumerate(choices(8, 5)):
        choice = i < 6
        rows.append({
            "id": f"validation_{i}",
            "video": f"https://host/resolve/main/videos/Art/{i % 3}.mp4", "youtube_url": "",
            "question_type": "multiple-choice" if choice else "open-ended",
            "metadata": {"subject": ("Art", "Law")[i % 2], "textbook": "", "rationale": "",
                         "knowledge": []},
            "question": f"Which {i}?", "answer": gold if choice else f"answer {i}",
            "choices": dict(zip("ABCDE", texts if choice else [""] * 5, strict=True)),
        })  # fmt: skip
    save(root / "validation.json", rows)
    on_disk(root, [f"videos/Art/{i}.mp4" for i in range(3)])


def videomme(root: Path) -> None:
    rows = [
        {
            "video_id": f"{i // 3:03}", "duration": ("short", "medium", "long")[i // 3],
            "domain": "Knowledge", "sub_category": "History", "url": "", "videoID": f"y{i // 3}",
            "question_id": f"{i // 3:03}-{i % 3 + 1}", "task_type": "Counting Problem",
            "question": f"How many {i}?",
            "options": [f"{c}. {text}" for c, text in zip("ABCD", texts, strict=True)],
            "answer": gold,
        }
        for i, (gold, texts) in enumerate(choices(9, 4))
    ]  # fmt: skip
    save(root / "videomme" / "test-00000-of-00001.parquet", rows)
    zipped(root / "videos_chunked_01.zip", ["data/y0.mp4", "data/y1.mp4"])
    zipped(root / "videos_chunked_02.zip", ["data/y2.mp4"])
    zipped(root / "subtitle.zip", ["subtitle/y0.srt", "subtitle/y1.srt"], SRT.encode())


def tempcompass(root: Path) -> None:
    def ask(part: str, rows: Sequence[Mapping[str, Any]]) -> None:
        both = [{"video_id": str(i % 2), "dim": ("action", "speed")[i % 2], **row,
                 "question": f"{i}: {row['question']}"} for i, row in enumerate(rows)]  # fmt: skip
        save(root / part / "test-00000-of-00001.parquet", both)

    lines = "A. running\nB. sitting\nC. waving"
    ask("multi-choice", [{"question": f"What is he doing?\n{lines}", "answer": answer}
                         for answer in ("A. running", "B. sitting", "C. waving")])  # fmt: skip
    ask("yes_no", [{"question": "Is he running?", "answer": a} for a in ("yes", "no", "yes")])
    matching = []
    for label, (one, two) in zip(
        ("Option", "Sentence", "Caption"), (("1", "2"), ("A", "B"), ("A", "B")), strict=True
    ):
        texts = {one: "He runs.", two: "He sits."}
        for right in texts:
            matching.append({
                "question": "Which fits the video?\n"
                + "\n".join(f"{label} {k}: {text}" for k, text in texts.items()),
                "answer": f"{label} {right}: {texts[right]}",
            })  # fmt: skip
    ask("caption_matching", matching)
    ask("captioning", [{
        "question": "Describe the action.", "answer": "A man runs.",
        "mc_question": f"What is he doing?\n{lines}", "mc_answer": "A. running",
    }])  # fmt: skip
    zipped(root / "tempcompass_videos.zip", ["videos/0.mp4", "videos/1.mp4"])


def mvbench(root: Path) -> None:
    """Whole videos of main in zips, some with the same name; tvqa as mp4 from branch video."""
    from evals.benchmarks.mvbench import TASKS

    folders = {}
    for t, (task, places) in enumerate(TASKS.items()):
        bounds = {"start": 0.5, "end": 1.5} if places[0].startswith(("star", "sta", "tvqa")) else {}
        name = "5-8" if task == "episodic_reasoning" else f"{t % 3}.mp4"
        rows = [
            {"video": name, "question": f"What {t} {i}?", "candidates": texts,
             "answer": texts["ABC".index(gold)], **bounds}
            for i, (gold, texts) in enumerate(choices(3, 3))
        ]  # fmt: skip
        save(root / "json" / f"{task}.json", rows)
        folders[places[-1 if task == "episodic_reasoning" else 0]] = name
    for folder, name in folders.items():
        names = [f"{folder}/{n}.mp4" for n in ("0", "1", "2")] if name != "5-8" else []
        zipped(root / "video" / f"{folder.replace('/', '-')}.zip", names or [f"{folder}/5-8.mp4"])
    zipped(root / "video" / "data0613.zip", ["data0613/star/Charades_v1_480/0.mp4"])


def vsibench(root: Path) -> None:
    tasks = ("object_rel_direction_easy", "object_rel_direction_hard", "route_planning")
    rows: list[dict[str, Any]] = [
        {"question_type": tasks[i % 3], "options": [f"A. {texts[0]}", f"B. {texts[1]}"],
         "ground_truth": gold}
        for i, (gold, texts) in enumerate(choices(6, 2))
    ]  # fmt: skip
    rows += [
        {"question_type": task, "options": None, "ground_truth": truth}
        for task in ("object_counting", "room_size_estimation")
        for truth in ("4", "12.5")
    ]
    for i, row in enumerate(rows):
        row |= {"id": i, "dataset": "scannet", "scene_name": f"scene{i % 2}",
                "question": f"How {i}?", "pruned": i == 0}  # fmt: skip
    save(root / "test-00000-of-00001.parquet", rows)
    zipped(root / "scannet.zip", ["scannet/scene0.mp4", "scannet/scene1.mp4"])


def longvideobench(root: Path) -> None:
    rows = [
        {
            "id": f"v{i % 2}_{i}", "video_id": f"v{i % 2}", "video_path": f"v{i % 2}.mp4",
            "subtitle_path": f"v{i % 2}_en.json", "question": f"What {i}?", "candidates": texts,
            "correct_choice": "ABCDE".index(gold), "duration": SECONDS,
            "duration_group": (15, 60)[i % 2], "question_category": "S2E", "topic_category": "KH",
            "position": [], "starting_timestamp_for_subtitles": 0,
        }
        for i, (gold, texts) in enumerate(choices(10, 5))
    ]  # fmt: skip
    save(root / "lvb_val.json", rows)
    tar_in_parts(root / "videos.tar", ["videos/v0.mp4", "videos/v1.mp4"])


def lvbench(root: Path) -> None:
    """The owner's file, and videos as the lmms-lab copy zips them."""
    rows = []
    for v in range(2):
        asked = [
            {
                "uid": f"{v}{i}",
                "question": f"What {v}{i}?\n"
                + "\n".join(f"({c}) {text}" for c, text in zip("ABCD", texts, strict=True)),
                "answer": gold, "time_reference": "00:00-00:02",
                "question_type": ["reasoning", "summarization"][: i % 2 + 1],
            }
            for i, (gold, texts) in enumerate(choices(4, 4))
        ]  # fmt: skip
        rows.append({"key": f"k{v}", "type": "cartoon", "video_info": {}, "qa": asked})
    save(root / "data" / "video_info.meta.jsonl", rows)
    zipped(root / "video_chunks" / "videos_chunk_001.zip", ["videos/k0.mp4", "videos/k1.mp4"])


def _grounding(rows: int, name: str) -> list[dict[str, Any]]:
    return [
        {"video": name.format(i % 2), "caption": f"a person does {i}.",
         "timestamp": [np.float16(0.25 * i), np.float16(1.0 + 0.25 * i)]}
        for i in range(rows)
    ]  # fmt: skip


def charades_sta(root: Path) -> None:
    """Times as float16, as the hub's copy has them."""
    save(root / "data" / "test-00000-of-00001.parquet", _grounding(4, "AB{}.mp4"))
    zipped(root / "Charades_v1_480_part_1.zip", ["Charades_v1_480/AB0.mp4"])
    zipped(root / "Charades_v1_480_part_2.zip", ["Charades_v1_480/AB1.mp4"])


def activitynet_captions(root: Path) -> None:
    save(root / "data" / "test-00000-of-00001.parquet", _grounding(4, "v_{}.mp4"))
    on_disk(root, ["videos/v_0.mp4", "videos/v_1.mp4"])


def activitynet_rtl(root: Path) -> None:
    rows = [
        {"question_id": f"q{i}", "vid": f"x{i % 2}", "duration": SECONDS, "question": f"When {i}?",
         "answer": f"<{0.25 * i}> <{0.25 * i + 1}> He sits {i} times."}
        for i in range(3)
    ]  # fmt: skip
    save(root / "temporal_reasoning" / "annot_val_1_q229.json", rows)
    on_disk(root, ["v_x0.mp4", "v_x1.mp4"])


def nextgqa(root: Path) -> None:
    rows, where = [], dict[str, Any]()
    for i, (gold, texts) in enumerate(choices(5, 5)):
        video = str(3238737531 + i % 2)
        rows.append({
            "video_id": video, "frame_count": 8, "width": 32, "height": 32,
            "question": f"why {i}", "answer": texts["ABCDE".index(gold)], "qid": i,
            "type": ("CW", "TN")[i % 2], **{f"a{n}": text for n, text in enumerate(texts)},
        })  # fmt: skip
        own = where.setdefault(video, {"duration": 2, "location": {}, "fps": 4.0})
        own["location"][str(i)] = [[0.25, 1.0], [1.25, 2.0]][: i % 2 + 1]
    save(root / "test.csv", rows)
    save(root / "gsub_test.json", where)
    on_disk(root, [f"NExTVideo/1164/{video}.mp4" for video in where])


def mlvu(root: Path) -> None:
    from evals.benchmarks.mlvu import CHOICE, WRITTEN

    for n, task in enumerate((*CHOICE, *WRITTEN), start=1):
        rows = [
            {"video": f"{task}_{i % 2}.mp4", "duration": SECONDS, "question": f"What {i}?",
             "question_type": task, "answer": texts["ABCD".index(gold)],
             **({"candidates": texts} if task in CHOICE else {"scoring_points": ["one"]})}
            for i, (gold, texts) in enumerate(choices(4, 4))
        ]  # fmt: skip
        save(root / "json" / f"{n}_{task}.json", rows)
        on_disk(root, [f"video/{n}_{task}/{task}_{i}.mp4" for i in range(2)])


def nextqa(root: Path) -> None:
    rows = [
        {"video": 10 + i % 2, "frame_count": 8, "width": 32, "height": 32, "question": f"why {i}",
         "answer": "ABCDE".index(gold), "qid": i, "type": ("CW", "TP", "DO")[i % 3],
         **{f"a{n}": text for n, text in enumerate(texts)}}
        for i, (gold, texts) in enumerate(choices(10, 5))
    ]  # fmt: skip
    save(root / "MC" / "test-00000-of-00001.parquet", rows)
    zipped(root / "videos.zip", ["NExTVideo/10.mp4", "NExTVideo/11.mp4"])


def rextime(root: Path) -> None:
    rows = [
        {"qid": f"anet_val{i}", "question": f"Why {i}?", "options": texts, "ans": gold,
         "vid": f"v_{i % 2}", "span": [0.25, 1.25], "source": "anet_val",
         "category": ("cause-effect", "means-to-an-end")[i % 2]}
        for i, (gold, texts) in enumerate(choices(4, 4))
    ]  # fmt: skip
    save(root / "rextime_val.json", rows)
    told = [{"qid": row["qid"], "query": row["question"], "duration": SECONDS, "vid": row["vid"],
             "relevant_windows": [row["span"]], "ans": row["ans"]} for row in rows]  # fmt: skip
    save(root / "data" / "rextime_val.jsonl", told)
    on_disk(root, ["v_0.mp4", "v_1.mp4"])


def qvhighlights(root: Path) -> None:
    rows = [
        {"qid": i, "query": f"He does {i}.", "duration": 2, "vid": f"a_{i % 2}.0_150.0",
         "relevant_windows": [[0, 1], [1.5, 2]][: i + 1], "relevant_clip_ids": [0],
         "saliency_scores": [[2, 3, 4]]}
        for i in range(3)
    ]  # fmt: skip
    save(root / "data" / "highlight_val_release.jsonl", rows)
    on_disk(root, ["videos/a_0.0_150.0.mp4", "videos/a_1.0_150.0.mp4"])


def perceptiontest(root: Path) -> None:
    """The owner's layout: annotations and videos zipped, cup games to be cut at frame 6."""
    videos: dict[str, Any] = {}
    for i, (gold, texts) in enumerate(choices(9, 3)):
        name = f"video_{i % 2}"
        own = videos.setdefault(name, {"metadata": {"num_frames": 8}, "mc_question": []})
        own["mc_question"].append({
            "id": len(own["mc_question"]), "question": f"Where {i}?", "options": texts,
            "answer_id": "ABC".index(gold), "area": ("memory", "physics")[i % 2],
            "reasoning": "descriptive", "tag": ["object permanence"],
        })  # fmt: skip
    zipped(
        root / "mc_question_valid_annotations.zip",
        ["mc_question_valid.json"],
        json.dumps(videos).encode(),
    )
    save(root / "cut_frame_mapping_valid.json", {"video_0": 6, "video_1": -1})
    zipped(root / "valid_videos.zip", ["videos/video_0.mp4", "videos/video_1.mp4"])


def videomathqa(root: Path) -> None:
    for part, k in (("mcq", 5), ("multi_binary", 2)):
        rows = [
            {"videoID": f"m{i % 2}", "question_id": str(i // 2 if k == 2 else i),
             "question": f"What is {i}?", "answer": gold, "length": "short",
             "category": ("Geometry", "Algebra")[i % 2],
             "options": [f"{c}. {text}" for c, text in zip("ABCDE", texts, strict=False)]}
            for i, (gold, texts) in enumerate(choices(10, k))
        ]  # fmt: skip
        save(root / part / "test-00000-of-00001.parquet", rows)
    zipped(root / "videos.zip", ["m0.mp4", "m1.mp4"])
    zipped(root / "subtitles.zip", ["subtitles/m0.srt"], SRT.encode())


def scivideobench(root: Path) -> None:
    rows = [
        {"video_id": f"{i % 2}", "question_id": str(i), "question": f"What {i}?", "answer": gold,
         "options": dict(zip("ABCDEFGHIJ", texts, strict=True)), "video_duration": 2,
         "question_type": "Conceptual Reasoning", "category": ("Physics", "Biology")[i % 2]}
        for i, (gold, texts) in enumerate(choices(10, 10))
    ]  # fmt: skip
    save(root / "test.jsonl", rows)
    zipped(root / "videos.zip", ["jove_0.mp4", "jove_1.mp4"])


def vcrbench(root: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": i, "dimension": ("Video Plot Analysis", "Temporal Grounding")[i % 2],
         "question": f"Who {i}?", "duration": SECONDS, "multiple-choice": i < 6,
         "choices": dict(zip("ABC", texts, strict=True)) if i < 6 else None,
         "answer": gold if i < 6 else f"the one of {i}", "video_path": f"./a/{i % 2}.mp4",
         "reasoning": [{"type": "video", "step": "see"}]}
        for i, (gold, texts) in enumerate(choices(8, 3))
    ]  # fmt: skip
    save(root / "v1" / "videos" / "meta_info_video.json", rows)
    zipped(root / "v1" / "videos" / "video.zip", ["a/0.mp4", "a/1.mp4"])


MADE: dict[str, Maker] = {
    f.__name__: f
    for f in (
        video_holmes, videommmu, mmvu, videomme, tempcompass, mvbench, vsibench, longvideobench,
        lvbench, charades_sta, activitynet_captions, activitynet_rtl, nextgqa, mlvu, nextqa,
        rextime, qvhighlights, perceptiontest, videomathqa, scivideobench, vcrbench,
    )
}  # fmt: skip


def make(name: str, root: Path) -> Path:
    """The made data of a benchmark below root / name."""
    folder = root / name
    folder.mkdir(parents=True)
    MADE[name](folder)
    return folder


def video_r1_eval(name: str, root: Path) -> None:
    """eval_<name>.json of Video-R1 beside a made set, with that family's own folders in its paths;
    questions that its file cannot hold are left out."""
    from evals import benchmarks

    samples = benchmarks.load(name, root=root).samples
    rows = [
        {
            "problem_id": number, "problem": sample.question, "data_type": "video",
            "problem_type": sample.kind, "original_question_type": "None",
            "options": list(sample.options) or None, "process": "",
            "solution": f"<answer>{sample.gold}</answer>",
            "path": f"./Evaluation/{name}/{Path(str(sample.media)).name}", "data_source": "made",
        }
        for number, sample in enumerate(samples, start=1)
        if sample.kind in ("multiple choice", "numerical")
    ]  # fmt: skip
    save(root / f"eval_{name}.json", rows)
