"""MVBench: 20 temporal tasks of 200 questions each, on clips of eleven video collections.

Score: accuracy per task and its mean over the tasks. The owner shows only the seconds `start` to
`end` where a record has them; Video-R1 shows the whole video (a field of the protocol).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from evals.benchmarks import Card, Golden
from evals.benchmarks._records import Files, Record, lettered
from evals.types import Sample

_STAR = ("star/Charades_v1_480", "star/Charades_segment")
_CLEVRER, _PERCEPTION = ("clevrer/video_validation",), ("perception/videos",)
#: Task -> folders of its videos: the owner's whole ones, then those of branch `video`, of which
#: the star, sta and tvqa ones are already cut. A name alone may occur in several collections.
TASKS = {
    "action_antonym": ("ssv2_video", "ssv2_video_mp4"),
    "action_count": _PERCEPTION,
    "action_localization": ("sta/sta_video", "sta/sta_video_segment"),
    "action_prediction": _STAR,
    "action_sequence": _STAR,
    "character_order": _PERCEPTION,
    "counterfactual_inference": _CLEVRER,
    "egocentric_navigation": ("vlnqa",),
    "episodic_reasoning": ("tvqa/frames_fps3_hq", "tvqa/video_fps3_hq_segment"),
    "fine_grained_action": ("Moments_in_Time_Raw/videos",),
    "fine_grained_pose": ("nturgbd", "nturgbd_convert"),
    "moving_attribute": _CLEVRER,
    "moving_count": _CLEVRER,
    "moving_direction": _CLEVRER,
    "object_existence": _CLEVRER,
    "object_interaction": _STAR,
    "object_shuffle": _PERCEPTION,
    "scene_transition": ("scene_qa/video",),
    "state_change": _PERCEPTION,
    "unexpected_action": ("FunQA_test/test",),
}
CARD = Card(
    dataset="OpenGVLab/MVBench",
    seen="230a2d4 (main), a776e55 (branch video)",
    splits={"train": 4000},
    subsets=dict.fromkeys(TASKS, 200),
    licence="repository MIT; the videos keep their own terms",
    macro="task",
    files=("json/*.json", "video/*.zip"),
    note="fine_grained_pose needs NTU RGB+D from its owner",
)
GOLDEN = Golden(
    row={
        "video": "a.mp4", "question": "What moved?", "candidates": ["cup", "book", "lid"],
        "answer": "book", "start": 0.5, "end": 1.5, "task": "action_sequence",
    },
    protocol="official",
    text="Carefully watch the video and pay attention to the cause and sequence of events, the "
    "detail and movement of objects, and the action and pose of persons. Based on your "
    "observations, select the best option that accurately addresses the question.\nQuestion: What "
    "moved?\nOptions:\n(A) cup\n(B) book\n(C) lid\nOnly give the best option.",
    gold="B",
)  # fmt: skip


def rows(files: Files, split: str, wanted: Sequence[str]) -> Iterator[Record]:
    for task in wanted or TASKS:
        for row in files.rows(f"json/{task}.json", f"{task}.json"):
            yield Record({**row, "task": task}, row.where)


def sample(row: Record, files: Files) -> Sample:
    task, video = row.text("task"), row.text("video").rstrip("/")
    if task not in TASKS:
        raise row.fail(f"unknown task {task!r}")
    options = lettered(row.texts("candidates"))
    places = list(_places(task, video, files))
    media = next(filter(files.holds, places), places[0])
    frames = task == "episodic_reasoning" and not files.holds(media)  # 00001.jpg, 00002.jpg, ...
    whole = row.get("end") is None or media.parent.name.endswith("_segment")
    return Sample(
        id=f"{task}/{row.where.rsplit(' ', 1)[-1]}",
        question=row.text("question"),
        kind="multiple choice",
        gold=row.matching(options, "answer"),
        modality="video",
        media=files.folder(f"{TASKS[task][0]}/{video}") if frames else media,
        options=options,
        cluster=f"{TASKS[task][0]}/{video}",
        tags={"task": task},
        span=None if whole else (row.number("start"), row.number("end")),
        rate=3.0 if frames else None,
    )


def _places(task: str, video: str, files: Files) -> Iterator[Path]:
    stem = str(PurePosixPath(video).with_suffix(""))
    for folder in TASKS[task]:
        yield files.media(f"{folder}/{video}")
        yield files.video(f"{folder}/{stem}")
