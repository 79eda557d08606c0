"""Ask a model, score the replies, file the record. Resumable: no question twice.

<out>/rows.part.jsonl      rows so far; its head line says under which protocol and model
<out>/rows.jsonl.gz, record.json      when all are in; the record is written last
<out>/numbers.json         what the benchmark is known by: micro, macro, mIoU, ... (evals.aggregate)
<out>/work.json            what it cost: idle share, coverage, clips decoded, replies from the cache
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from evals import benchmarks, models, protocols
from evals.aggregate import aggregate, per_reply
from evals.benchmarks import Benchmark
from evals.decoding import Decoding
from evals.errors import BadInput, EnvironmentFault
from evals.models import Model
from evals.probes import under
from evals.replies import ReplyCache
from evals.rows import RowFile
from evals.run import Work, stream, summary
from evals.types import Decoding as Drawing
from evals.types import Outcome, Protocol, Row
from repro import __version__, films, machine
from repro import weights as checkpoints
from repro.arm import start_checkpoint
from repro.folder import write_json
from repro.recipe import Recipe
from results import filing, ledger

PART, WORK, NUMBERS = "rows.part.jsonl", "work.json", "numbers.json"


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
    """A scripted model, a server, a checkpoint folder or the hub's id of one that is here (`vllm:`
    before it for vLLM), or (None) the recipe's start checkpoint."""
    if model in ("oracle", "parrot", "random") or (model or "").startswith("openai:"):
        loaded = models.load(str(model))
        return loaded, Weights(loaded.name)
    from repro.core.checkpoint import weights_sha256

    engine, said = "", (model or "").removeprefix("vllm:")
    path = Path(said)
    if model is None:
        assert recipe is not None
        path, name, revision = start_checkpoint(recipe), recipe.model.id, recipe.model.revision
    else:
        engine, revision = ("vllm" if model.startswith("vllm:") else ""), None
        name = path.parent.name if path.name == "final" else path.name  # a run's own checkpoint
        if checkpoints.is_id(said):
            path, name = checkpoints.located(said), said
            revision = checkpoints.revision_of(path)
    weights = Weights(name, revision, weights_sha256(path))
    identity = {"weights": str(weights.sha256), "processor": _processor_sha256(path)}
    identity |= _engine_of(engine)
    return models.load(f"{engine}:{path}" if engine else path, identity), weights


def _processor_sha256(folder: Path) -> str:
    """sha256 over the names and contents of a checkpoint's small text files."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*")):
        if file.suffix in (".json", ".jinja", ".txt") and not file.name.endswith(".index.json"):
            digest.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def asking(
    recipe: str | None, profile: str, benchmark: str | None, split: str | None, data: Path | None,
    root: Path | None, seed: int, greedy: bool, samples: int | None, temperature: float | None,
    protocol: str | None = None, subset: str | None = None,
) -> tuple[Recipe | None, Benchmark, Protocol]:  # fmt: skip
    """What `repro eval` asks, and how: the recipe's choices, then what the options override.

    protocol: a name of evals.protocols. Without it microworld without a recipe is shown as its
    student sees it, anything else as Video-R1 does. subset: of the benchmark; by default the
    protocol's.
    """
    chosen = Recipe.load(recipe, profile) if recipe else None
    base = chosen or (Recipe.load("ktr") if benchmark == "microworld" else None)
    name, part = benchmark or "", split
    if chosen:
        name, part = benchmark or chosen.evaluation.benchmark, split or chosen.evaluation.split
    named = protocols.load(protocol, name) if protocol else None
    part_of = (named.subset if named else "") if subset is None else subset
    loaded = benchmarks.load(name, split=part, root=root, data=data, subset=part_of)
    if named:
        decoding = (
            Drawing(max_new_tokens=named.decoding.max_new_tokens) if greedy else named.decoding
        )
        decoding = replace(decoding, seed=seed)
    else:
        decoding = base.decoding(greedy=greedy, seed=seed) if base else Drawing(seed=seed)
    if samples is not None:
        decoding = replace(decoding, samples=samples)
    if temperature is not None:
        decoding = replace(decoding, temperature=temperature)
    if decoding.temperature == 0 and decoding.samples > 1:
        raise BadInput("greedy replies are all the same: --samples needs a --temperature above 0")
    asked = named or (base.protocol(decoding) if base else Protocol("video-r1"))
    return chosen, loaded, replace(asked, decoding=decoding, subset=part_of)


@dataclass(frozen=True)
class Means:
    """What an evaluation may use. decoding: reads clips; None: this process does. replies: the
    cache of replies. batch: questions answered at once, by default as many as make
    `model.at_once` replies."""

    decoding: Decoding | None = None
    replies: ReplyCache | None = None
    batch: int | None = None


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
    probe: str | None = None,
    means: Means | None = None,
    trained: Path | None = None,
) -> ledger.Run:
    """Evaluate and file the record in `out`, which the caller holds; returns it as read back.

    Curves and token view of the training run in `trained` (by default the same folder) are filed
    with it. Raises
    EnvironmentFault where the run cannot go on; the rows so far stay, and a second call continues.
    """
    means, work = means or Means(), Work()
    started, clock = datetime.now(UTC), time.monotonic()
    protocol = model.under(protocol)
    protocol = under(protocol, probe) if probe else protocol
    samples = protocol.decoding.samples
    batch = means.batch or max(1, model.at_once // samples)
    clips = means.decoding.clips(protocol) if means.decoding else None
    head = {"protocol": protocol.hash, "seed": label.seed, **asdict(weights)}
    rows: list[Row] = []
    with RowFile(out / PART, head, samples) as part:
        try:
            for answered in stream(
                model, benchmark, protocol, limit=limit, seed=label.seed, progress=progress,
                save_replies=save_replies, resume_rows=part.kept, batch=batch, clips=clips,
                probe=probe, replies=means.replies, work=work,
            ):  # fmt: skip
                part.add(answered)
                rows += answered
        except EnvironmentFault as error:
            raise EnvironmentFault(
                f"{error}; {len(rows)} rows are kept in {part.path}: --resume continues from them"
            ) from error
    seconds, gpu = time.monotonic() - clock, machine.gpu() if weights.sha256 else None
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
        "engine": _engine(model, weights),
        "batch": batch,
        "git": machine.git(),
        "image": machine.image(),
        "machine": {"cpu": machine.cpu(), "gpu": gpu, "driver": machine.driver() if gpu else None},
        "seconds": round(seconds, 1),
        "gpu_hours": round(seconds / 3600 * int(gpu.split(" x ")[0]), 3) if gpu else None,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "partial": limit is not None and limit < len(benchmark.samples),
        "who": machine.who(),
    }
    home = trained or out
    done = (home / "done.json").exists()
    run = ledger.write(
        record, [asdict(row) for row in rows], out,
        curves=home / ledger.CURVES if done else None,
        tokens=home / ledger.TOKENS if done and (home / ledger.TOKENS).exists() else None,
        strips=() if probe else films.strips(benchmark, limit),
    )  # fmt: skip
    _further(record, rows, benchmark, out)
    write_json(out / WORK, _cost(work, rows, means.decoding))
    part.path.unlink()
    return run


def _further(record: dict[str, Any], rows: Sequence[Row], benchmark: Benchmark, out: Path) -> None:
    """A run of its own for every further number that papers print of these rows (mIoU, R1@0.3,
    Acc@QA ...): the same replies, scored otherwise, in `out`/METRIC."""
    for name, values in per_reply(rows, benchmark.card).items():
        scored = [
            replace(row, score=value, outcome=_graded(row, value))
            for row, value in zip(rows, values, strict=True)
        ]
        own = {**record, "metric": name}
        ledger.write(own, [asdict(row) for row in scored], out / filing.plain(name))


def _graded(row: Row, value: float) -> str:
    answered = row.outcome in (Outcome.CORRECT, Outcome.WRONG)
    return (Outcome.CORRECT if value >= 1 else Outcome.WRONG).value if answered else row.outcome


@contextmanager
def noting_failure(
    out: Path, label: Label, model: str, benchmark: str, protocol: Protocol
) -> Iterator[None]:
    """Leaves failure.json in `out` if this machine ends the run: the cell then says `failed` and
    why, until a record of it is filed."""
    try:
        yield
    except EnvironmentFault as error:
        failure = filing.Failure(
            paper=label.paper,
            benchmark=benchmark,
            arm=label.arm,
            model=model,
            frames=protocol.max_frames,
            seed=label.seed,
            reason=str(error).partition(";")[0],
        )
        filing.note_failure(failure, out)
        raise


def finished(
    model: Model, weights: Weights, benchmark: Benchmark, protocol: Protocol, label: Label,
    out: Path, *, limit: int | None, probe: str | None,
) -> ledger.Run | None:  # fmt: skip
    """The run that an earlier call filed in `out`, if it asked the same; None without a record.

    Raises BadInput if it asked otherwise.
    """
    if not (out / ledger.RECORD).exists():
        return None
    run = ledger.read(out)
    protocol = model.under(protocol)
    protocol = under(protocol, probe) if probe else protocol
    record = run.record
    asked = (protocol.hash, label.seed, asdict(weights), benchmark.sha256)
    n = min(limit or len(benchmark.samples), len(benchmark.samples))
    if (record.protocol_hash, record.seed, record.model, record.dataset["sha256"]) != asked or (
        record.n != n
    ):
        raise BadInput(
            f"{out} holds the record of another model, protocol, seed or benchmark; choose "
            "another --out"
        )
    return run


def _cost(work: Work, rows: Sequence[Row], decoding: Decoding | None) -> dict[str, Any]:
    """What the run cost and how much of it could be read; part of no record."""
    return {
        "idle": round(work.idle, 4),
        "seconds": {"waiting": round(work.waiting, 2), "answering": round(work.answering, 2)},
        "asked": work.asked,
        "from_cache": work.cached,
        "coverage": summary(rows)["coverage"],
        "clips": dict(decoding.counts) if decoding else {},
    }


def _engine(model: Model, weights: Weights) -> dict[str, str]:
    if weights.sha256 is None:
        served = model.sees  # only a server has no weights to hash and yet sees
        return {"name": "openai-compatible", "version": "unknown"} if served else {
            "name": "reelproof", "version": __version__
        }  # fmt: skip
    name = "vllm" if (model.identity or {}).get("engine", "").startswith("vllm") else "transformers"
    return {"name": name, "version": version(name)}


def _engine_of(engine: str) -> dict[str, str]:
    """What else may move a reply: the libraries that compute it."""
    names = ("vllm", "torch") if engine else ("transformers", "torch")
    try:
        return {"engine": " ".join(f"{name} {version(name)}" for name in names)}
    except PackageNotFoundError as error:
        raise EnvironmentFault(f"{error.name} is not installed here (requirements/vllm.py)") from (
            error
        )


def numbers(run: ledger.Run, benchmark: Benchmark, out: Path) -> dict[str, float]:
    """The numbers that a benchmark is known by, the protocol's headline first; also written to
    <out>/numbers.json. Fractions.
    """
    data = dict(run.record.protocol)
    protocol = Protocol(**{**data, "decoding": Drawing(**data["decoding"])})
    rows = [Row(**{f.name: getattr(row, f.name) for f in fields(Row)}) for row in run.rows]
    found = aggregate(rows, benchmark.card, protocol)
    first = [name for name in (protocol.aggregation,) if name in found]
    ordered = {name: found[name] for name in dict.fromkeys((*first, *found))}
    write_json(out / NUMBERS, ordered)
    return ordered
