"""The ledger for other programs: one CSV line per run, and Hugging Face's model-index.

model-index (huggingface.co/docs/hub/model-cards) wants, per model, results with a task, a dataset
and metrics; values are percentages there, and `verified` belongs to the Hub, not to us.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from results.ledger import Run
from results.schema import OUTCOMES, LedgerError

COLUMNS = (
    "paper", "profile", "arm", "benchmark", "split", "metric", "n", "samples", "score",
    *OUTCOMES, "temperature", "protocol_hash", "dataset_revision", "seed", "model", "revision",
    "weights_sha256", "engine", "batch", "commit", "dirty", "image", "cpu", "gpu", "driver",
    "seconds", "gpu_hours", "started", "finished", "rows_sha256", "partial", "who",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run these


def to_csv(runs: Sequence[Run]) -> str:
    """A header and one line per run, in the order given; scores are fractions, unknown is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for run in runs:
        writer.writerow({key: _safe(value) for key, value in _line(run).items()})
    return out.getvalue()


def to_model_index(runs: Sequence[Run], *, name: str | None = None) -> str:
    """YAML front matter for a model card: the whole runs of one model, in the order given.

    name: of the model; by default the recorded one. Raises LedgerError without a whole run, or
    when the runs are of several models.
    """
    whole = [run for run in runs if not run.record.partial]
    names = sorted({run.record.model["id"] or "" for run in whole})
    if len(names) != 1:
        found = ", ".join(names) or "no whole run"
        raise LedgerError(f"a model index is about one model, found {found}")
    entry = {"name": name or names[0], "results": [_result(run) for run in whole]}
    return yaml.safe_dump({"model-index": [entry]}, sort_keys=False, allow_unicode=True)


def _line(run: Run) -> dict[str, Any]:
    r = run.record
    same = ("paper", "profile", "arm", "benchmark", "split", "metric", "n", "samples", "score")
    more = ("protocol_hash", "seed", "batch", "image", "seconds", "gpu_hours", "started")
    return {
        **{key: getattr(r, key) for key in (*same, *more, "finished", "partial", "who")},
        **{name: r.outcomes.get(name, 0) for name in OUTCOMES},
        "temperature": run.temperature,
        "dataset_revision": r.dataset["revision"],
        "model": r.model["id"],
        "revision": r.model["revision"],
        "weights_sha256": r.model["sha256"],
        "engine": f"{r.engine['name']} {r.engine['version']}",
        "commit": r.git["commit"],
        "dirty": r.git["dirty"],
        "cpu": r.machine["cpu"],
        "gpu": r.machine["gpu"],
        "driver": r.machine["driver"],
        "rows_sha256": r.rows["sha256"],
    }


def _result(run: Run) -> Mapping[str, Any]:
    r = run.record
    decoding = "greedy" if run.greedy else f"avg@{r.samples} at T = {run.temperature:g}"
    dataset = {"name": r.benchmark, "type": r.benchmark, "split": r.split}
    if r.dataset["revision"]:
        dataset["revision"] = r.dataset["revision"]
    metric = {
        "type": r.metric,
        "name": f"{r.metric}, {decoding}, seed {r.seed}",
        "value": round(100 * r.score, 2),
        "args": {"protocol": r.protocol_hash, "n": r.n, "profile": r.profile},
    }
    return {
        "task": {"type": "video-text-to-text", "name": "Video question answering"},
        "dataset": dataset,
        "metrics": [metric],
    }


def _safe(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula begins with an apostrophe."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
