"""Anyone's records in the fields of the Video-R1 family, as .jsonl or .json.

| field          | meaning                                                              |
|----------------|----------------------------------------------------------------------|
| `problem`      | the question                                                         |
| `solution`     | `<answer>X</answer>`, or the bare answer                             |
| `problem_type` | multiple choice, numerical, regression, OCR, free-form, ...          |
| `options`      | list of "A. text", or null                                           |
| `data_type`    | video (default), image or text                                       |
| `images`       | optional list of pictures below --videos, one for every `<image>` in |
|                | the question; with them an image needs no `path`                     |
| `path`         | file below --videos, relative to it; not needed for text             |
| `rate`         | optional: `path` is a folder of pictures, so many shown a second     |
| `problem_id`   | optional; the record's place in the file otherwise                   |
| `process`      | optional reasoning, used by supervised fine-tuning                   |
| `candidates`   | optional: numbers in an `ordering` answer lie in 1 .. candidates     |
| `evidence`     | optional {"interval": [start, end], "region": [x0, y0, x1, y1]}      |

An optional field may also be null, as exporters write it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

from evals.benchmarks import Benchmark, file_hash
from evals.errors import BadInput
from evals.types import IMAGE, Evidence, Kind, Modality, Sample

ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
#: Fields that a record may carry into the tags of its rows.
TAGS = ("family", "film", "twin", "data_source")
#: Fields that a method or a prompt may need besides.
FACTS = ("candidates",)


def load(*, split: str, root: Path | None, data: Path | None) -> Benchmark:
    if data is None:
        raise BadInput("the jsonl benchmark needs --data FILE")
    samples = tuple(read(data, root or data.parent))
    return Benchmark("jsonl", split, samples, data.name, file_hash(data))


def rows(path: Path) -> list[dict[str, Any]]:
    """The file's records as dictionaries. Raises BadInput naming the line."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not a text file in UTF-8") from error
    if path.suffix == ".json":
        records = _parse(text, path, 1)
        if not isinstance(records, list):
            raise BadInput(f"{path}: expected a list of records")
        return records
    # Not splitlines(): U+2028 and its like may stand inside a JSON string.
    lines = enumerate(text.split("\n"), start=1)
    return [_parse(line, path, number) for number, line in lines if line.strip()]


def _parse(text: str, path: Path, first: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first + error.lineno - 1
        raise BadInput(f"{path}, line {line}: not valid JSON ({error.msg})") from error


def read(path: Path, videos: Path) -> list[Sample]:
    """Samples of a file. Raises BadInput naming the record that cannot be used."""
    records = rows(path)
    if not records:
        raise BadInput(f"{path} holds no record")
    samples = [sample(r, i, path, videos) for i, r in enumerate(records, start=1)]
    ids = [s.id for s in samples]
    if len(set(ids)) < len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise BadInput(f"{path}: problem_id {twice} occurs more than once")
    return samples


def sample(record: dict[str, Any], number: int, path: Path, videos: Path) -> Sample:
    """One record as a Sample; `number` is its place in the file, from 1.

    Raises BadInput, naming the record, for a field that is missing or cannot be used.
    """
    where = f"{path}, record {number}"
    if not isinstance(record, dict):
        raise BadInput(f"{where}: expected an object, not {json.dumps(record)[:40]}")

    def need(key: str) -> Any:
        if record.get(key) in (None, ""):
            raise BadInput(f"{where}: `{key}` is missing")
        return record[key]

    kind = need("problem_type")
    modality: Any = record.get("data_type") or "video"
    if kind not in get_args(Kind):
        raise BadInput(f"{where}: unknown problem_type {kind!r}")
    if modality not in get_args(Modality):
        raise BadInput(f"{where}: unknown data_type {modality!r}")
    options = record.get("options") or []
    if not isinstance(options, list) or not all(isinstance(o, str) for o in options):
        raise BadInput(f'{where}: `options` must be a list of texts like "A. red"')
    if kind in ("multiple choice", "grounded qa") and not options:
        raise BadInput(f"{where}: {kind} without options")
    solution = str(need("solution"))
    tagged = ANSWER.search(solution)
    name = record.get("problem_id")
    images = _images(record, modality, videos, where)
    rate = _rate(record.get("rate"), where)
    pathless = modality == "text" or (images and modality == "image" and not record.get("path"))
    return Sample(
        id=str(number if name is None else name),
        question=str(need("problem")),
        kind=kind,
        gold=(tagged.group(1) if tagged else solution).strip(),
        modality=modality,
        media=None if pathless else videos / _below(need("path"), where),
        options=tuple(options),
        cluster=str((not rate and record.get("path")) or record.get("film") or number),
        tags={k: str(record[k]) for k in TAGS if record.get(k)},
        evidence=_evidence(record.get("evidence"), where),
        images=images,
        rate=rate,
        facts={k: str(record[k]) for k in FACTS if record.get(k)},
    )


def _rate(given: Any, where: str) -> float | None:
    if given is None:
        return None
    if type(given) not in (int, float) or not given > 0:
        raise BadInput(f"{where}: `rate` must be a number of pictures a second above 0")
    return float(given)


def _images(record: dict[str, Any], modality: str, videos: Path, where: str) -> tuple[Path, ...]:
    """The pictures of a record, as many as its question has marks for."""
    names = record.get("images") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInput(f"{where}: `images` must be a list of paths")
    if not names:
        return ()
    if modality == "text":
        raise BadInput(f"{where}: a record with `images` has the data_type image or video")
    marks = str(record.get("problem")).count(IMAGE)
    if marks != len(names):
        raise BadInput(f"{where}: {len(names)} `images` for {marks} {IMAGE} in the question")
    return tuple(videos / _below(name, where) for name in names)


def _below(name: Any, where: str) -> Path:
    """A path that stays inside the folder it is joined to. Links are the user's own business."""
    below = Path(str(name))
    if below.anchor or ".." in below.parts:
        raise BadInput(f"{where}: path {name!r} leaves the folder of the videos")
    return below


def _evidence(given: Any, where: str) -> Evidence | None:
    if given is None:
        return None
    try:
        start, end = map(float, given["interval"])
        x0, y0, x1, y1 = map(float, given["region"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"{where}: `evidence` needs an interval of 2 numbers and a region of 4"
        ) from error
    return Evidence((start, end), (x0, y0, x1, y1))
