"""Anyone's records in the fields of the Video-R1 family, as .jsonl or .json.

| field          | meaning                                                              |
|----------------|----------------------------------------------------------------------|
| `problem`      | the question                                                         |
| `solution`     | `<answer>X</answer>`, or the bare answer                             |
| `problem_type` | multiple choice, numerical, regression, OCR, free-form, ...          |
| `options`      | list of "A. text", or null                                           |
| `data_type`    | video (default), image or text                                       |
| `path`         | file below --videos; not needed for text                             |
| `problem_id`   | optional; the line number otherwise                                  |
| `process`      | optional reasoning, used by supervised fine-tuning                   |
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

from evals.benchmarks import Benchmark, file_hash
from evals.errors import BadInput
from evals.types import Evidence, Kind, Modality, Sample

ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def load(*, split: str, root: Path | None, data: Path | None) -> Benchmark:
    if data is None:
        raise BadInput("the jsonl benchmark needs --data FILE")
    samples = tuple(read(data, root or data.parent))
    return Benchmark("jsonl", split, samples, data.name, file_hash(data))


def rows(path: Path) -> list[dict[str, Any]]:
    """The file's records as dictionaries. Raises BadInput naming the line."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".json":
            records = json.loads(text)
            if not isinstance(records, list):
                raise BadInput(f"{path}: expected a list of records")
            return records
        found = []
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                found.append(json.loads(line))
        return found
    except json.JSONDecodeError as error:
        where = number if path.suffix != ".json" else error.lineno
        raise BadInput(f"{path}, line {where}: not valid JSON ({error.msg})") from error


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
    """One record as a Sample; `number` is its place in the file, from 1."""

    def need(key: str) -> Any:
        if not isinstance(record, dict) or record.get(key) in (None, ""):
            raise BadInput(f"{path}, record {number}: `{key}` is missing")
        return record[key]

    kind, modality = need("problem_type"), record.get("data_type", "video")
    if kind not in get_args(Kind):
        raise BadInput(f"{path}, record {number}: unknown problem_type {kind!r}")
    if modality not in get_args(Modality):
        raise BadInput(f"{path}, record {number}: unknown data_type {modality!r}")
    options = tuple(record.get("options") or ())
    if kind == "multiple choice" and not options:
        raise BadInput(f"{path}, record {number}: multiple choice without options")
    media = None if modality == "text" else videos / need("path")
    solution = str(need("solution"))
    tagged = ANSWER.search(solution)
    tags = {k: str(record[k]) for k in ("family", "film", "twin", "data_source") if record.get(k)}
    where = record.get("evidence")
    return Sample(
        id=str(record.get("problem_id", number)),
        question=need("problem"),
        kind=kind,
        gold=(tagged.group(1) if tagged else solution).strip(),
        modality=modality,
        media=media,
        options=options,
        cluster=str(record.get("path", number)),
        tags=tags,
        evidence=Evidence(tuple(where["interval"]), tuple(where["region"])) if where else None,
    )
