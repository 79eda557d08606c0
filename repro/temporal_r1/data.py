"""Records as Temporal-R1 published them, in the fields that training reads.

| theirs (dataset_video.py)       | ours (evals.benchmarks.jsonl)                    |
|---------------------------------|--------------------------------------------------|
| `problem`                       | `problem`                                        |
| `solution`: fractions of length | `solution`: `<answer>[start, end]</answer>`, in s |
| `video_length`, s               |                                                  |
| `video`                         | `path`, below Charades/                          |
| `dataset`                       | `data_source`                                    |
| its place in the file           | `problem_id`                                     |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from evals.errors import BadInput

FOLDER = "Charades"  # of the videos, in the authors' data set (issue 3)
#: A true end may lie beyond the film, whose length is rounded or measured otherwise: the reward
#: takes it as it is (repro.temporal_r1.rewards). Beyond this it is no fraction (chosen).
FARTHEST = 1.1


def record(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    """One published record; `number` is its place, from 1. Raises BadInput naming the record and
    what it lacks: an interval that is none is never trained on."""
    try:
        start, end = (float(part) for part in row["solution"])
        length = float(row["video_length"])
        film, text, source = str(row["video"]), str(row["problem"]), str(row["dataset"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"record {number}: dataset, video, problem, solution (two fractions) and video_length "
            f"are needed ({error})"
        ) from None
    if not (math.isfinite(length) and length > 0 and 0 <= start < min(end, 1) and end <= FARTHEST):
        raise BadInput(
            f"record {number}: solution {row['solution']} is no interval of fractions of a video "
            f"of {row['video_length']} s"
        )
    return {
        "problem_id": number,
        "problem": text,
        "data_type": "video",
        "problem_type": "temporal grounding",
        "options": None,
        "solution": f"<answer>[{start * length:.2f}, {end * length:.2f}]</answer>",
        "path": film if film.startswith(f"{FOLDER}/") else f"{FOLDER}/{film}",
        "data_source": source,
    }


def published(row: Mapping[str, Any]) -> dict[str, Any]:
    """A made record in the authors' schema, for a rehearsal: the first half of a film of 2 s."""
    return {
        "dataset": "charades_train",
        "video": f"{row['problem_id']}.mp4",
        "problem": row["problem"],
        "solution": [0.0, 0.5],
        "video_length": 2.0,
    }
