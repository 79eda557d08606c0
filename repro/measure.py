"""Ask a model, score the replies, file the record. Resumable: no question twice.

<out>/rows.part.jsonl      rows so far; its head line says under which protocol and model
<out>/rows.jsonl.gz, record.json      when all are in; the record is written last
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evals import benchmarks, models
from evals.benchmarks import Benchmark
from evals.errors import BadInput
from evals.models import Model
from evals.run import stream
from evals.types import Decoding, Outcome, Protocol, Row
from repro import __version__, machine
from repro.arm import start_checkpoint
from repro.recipe import Recipe
from results import ledger

PART = "rows.part.jsonl"
ROWS = 64  # replies drawn at once (chosen: fastest on a CPU); part of what makes a draw repeatable


@dataclass(frozen=True)
class Label:
    """What a record says about whose run it is. `seed` seeds training and, here, the draws."""

    paper: str
    profile: str
    arm: str
    seed: int


@dataclass(frozen=True)
class Weights:
    """The model as a record names it; None where there is nothing to hash."""

    id: str
    revision: str | None = None
    sha256: str | None = None


def answering(model: str | None, recipe: Recipe | None) -> tuple[Model, Weights]:
    """A scripted model, a checkpoint folder, or (None) the recipe's start checkpoint."""
    if model in ("oracle", "parrot", "random"):
        return models.load(model), Weights(model)
    from repro.core.checkpoint import weights_sha256

    if model is None:
        assert recipe is not None
        path, name, revision = start_checkpoint(recipe), recipe.model.id, recipe.model.revision
    else:
        path, revision = Path(model), None
        name = path.parent.name if path.name == "final" else path.name  # a run's own checkpoint
    loaded = models.load(path)
    return loaded, Weights(name, revision, weights_sha256(path))


def asking(
    recipe: str | None, profile: str, benchmark: str | None, split: str | None, data: Path | None,
    root: Path | None, seed: int, greedy: bool, samples: int | None, temperature: float | None,
) -> tuple[Recipe | None, Benchmark, Protocol]:  # fmt: skip
    """What `repro eval` asks, and how: the recipe's choices, then what the options override.

    Microworld without a recipe is shown as its student sees it, anything else as Video-R1 does.
    """
    chosen = Recipe.load(recipe, profile) if recipe else None
    base = chosen or (Recipe.load("ktr") if benchmark == "microworld" else None)
    name, part = benchmark or "", split or "test"
    if chosen:
        name, part = benchmark or chosen.evaluation.benchmark, split or chosen.evaluation.split
    loaded = benchmarks.load(name, split=part, root=root, data=data)
    decoding = base.decoding(greedy=greedy, seed=seed) if base else Decoding(seed=seed)
    if samples is not None:
        decoding = replace(decoding, samples=samples)
    if temperature is not None:
        decoding = replace(decoding, temperature=temperature)
    if decoding.temperature == 0 and decoding.samples > 1:
        raise BadInput("greedy replies are all the same: --samples needs a --temperature above 0")
    return (
        chosen,
        loaded,
        base.protocol(decoding) if base else Protocol("video-r1", decoding=decoding),
    )


def measure(
    model: Model,
    weights: Weights,
    benchmark: Benchmark,
    protocol: Protocol,
    label: Label,
    out: Path,
    *,
    limit: int | None = None,
    save_replies: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ledger.Run:
    """Evaluate and file the record in `out`, which the caller holds; returns it as read back.

    Curves and token view of a training run in the same folder are filed with it.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    part = _Part(out / PART, {"protocol": protocol.hash, "seed": label.seed, **asdict(weights)})
    samples = protocol.decoding.samples
    rows: list[Row] = []
    for batch in stream(
        model, benchmark, protocol, limit=limit, seed=label.seed, progress=progress,
        save_replies=save_replies, resume_rows=part.rows(samples), batch=max(1, ROWS // samples),
    ):  # fmt: skip
        part.add(batch)
        rows += batch
    record = {
        **asdict(label),
        "benchmark": benchmark.name,
        "split": benchmark.split,
        "metric": "accuracy",
        "model": asdict(weights),
        "protocol": protocol.as_dict(),
        "protocol_hash": protocol.hash,
        "dataset": {"revision": benchmark.revision, "sha256": benchmark.sha256},
        "samples": samples,
        "engine": _engine(weights),
        "git": machine.git(),
        "machine": {"cpu": machine.cpu(), "gpu": machine.gpu() if weights.sha256 else None},
        "seconds": round(time.monotonic() - clock, 1),
        "started": started.isoformat(timespec="seconds"),
        "partial": limit is not None and limit < len(benchmark.samples),
        "who": machine.who(),
    }
    trained = (out / "done.json").exists()
    run = ledger.write(
        record, [asdict(row) for row in rows], out,
        curves=out / ledger.CURVES if trained else None,
        tokens=out / ledger.TOKENS if trained and (out / ledger.TOKENS).exists() else None,
    )  # fmt: skip
    part.path.unlink()
    return run


def _engine(weights: Weights) -> dict[str, str]:
    if weights.sha256 is None:
        return {"name": "reelproof", "version": __version__}
    return {"name": "transformers", "version": version("transformers")}


class _Part:
    """Rows on their way: a head line, then one line per reply, appended question by question."""

    def __init__(self, path: Path, head: dict[str, Any]):
        self.path, self.head = path, head
        self.known: dict[str, list[Row]] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if lines and json.loads(lines[0]) != head:
            raise BadInput(
                f"{path} was begun with another model, protocol or seed; choose another --out"
            )
        for row in _whole(lines[1:]):
            self.known.setdefault(row.id, []).append(row)

    def rows(self, samples: int) -> list[Row]:
        """Rows of completely answered questions; rewrites the file to hold just these."""
        self.known = {
            key: rows
            for key, rows in self.known.items()
            if len(rows) == samples or rows[0].outcome == Outcome.UNDECODABLE
        }
        kept = [row for rows in self.known.values() for row in rows]
        draft = self.path.with_suffix(".tmp")
        draft.write_text("".join([json.dumps(self.head) + "\n", *map(_line, kept)]), "utf-8")
        draft.replace(self.path)
        return kept

    def add(self, rows: Iterable[Row]) -> None:
        """Append what is not in the file yet."""
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(_line(row) for row in rows if row.id not in self.known)


def _line(row: Row) -> str:
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


def _whole(lines: list[str]) -> list[Row]:
    """Rows up to the first line that a kill cut short."""
    names, rows = {f.name for f in fields(Row)}, []
    for line in lines:
        try:
            data = json.loads(line)
        except json.JSONDecodeError:
            break
        rows.append(Row(**{name: data[name] for name in names}))
    return rows
