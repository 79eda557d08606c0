"""Checkpoints without pickle: safetensors and JSON, written aside and renamed.

checkpoint-N/  model.safetensors + config, processor | optimizer.safetensors | optimizer.json |
               scheduler.json | trainer_state.json
               under DeepSpeed global_step*/ and latest, its own shards, for the optimizer's files

The shards are pickles, the one exception: they are loaded only from the folder of the run that
wrote them, after their sha256 was found in its provenance.json.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from evals.benchmarks import file_hash
from evals.errors import BadInput
from repro.folder import read_json, write_json


def write_aside(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write a scratch folder, then rename it: the folder exists whole or not at all."""
    with aside(folder) as scratch:
        fill(scratch)


@contextmanager
def aside(folder: Path) -> Iterator[Path]:
    """The same around a block: the scratch folder, renamed if the block succeeds."""
    scratch = scratch_of(folder)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
        if folder.exists():
            discard(folder)
        scratch.rename(folder)
    finally:  # on a full disk, what was half written is given back
        shutil.rmtree(scratch, ignore_errors=True)


def scratch_of(folder: Path) -> Path:
    """Where a folder is written before it is renamed."""
    return folder.with_name(f".{folder.name}.writing")


def vouch(run: Path, name: str, written: Path) -> None:
    """Note in the run's provenance.json the sha256 of every shard of the checkpoint `name`, which
    still lies in `written`; shards of checkpoints that are gone are forgotten."""
    path = run / "provenance.json"
    told = read_json(path) if path.exists() else {}
    kept = {n: s for n, s in told.get("shards", {}).items() if (run / n).exists()}
    write_json(path, {**told, "shards": {**kept, name: shards(written)}})


def trust(run: Path, folder: Path) -> None:
    """Raises BadInput unless this run wrote every shard of the checkpoint as it is now."""
    path = run / "provenance.json"
    told = read_json(path).get("shards", {}) if path.exists() else {}
    if folder.parent.resolve() != run.resolve() or told.get(folder.name) != shards(folder):
        raise BadInput(
            f"{folder} holds DeepSpeed shards that {path} does not vouch for, and they are not "
            "loaded; delete that checkpoint, or start again in another --out"
        )


def shards(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of DeepSpeed's files in a checkpoint."""
    files = [folder / "latest", *sorted(folder.glob("global_step*/**/*"))]
    return {str(f.relative_to(folder)): file_hash(f) for f in files if f.is_file()}


def save_optimizer(optimizer: Any, scheduler: Any, folder: Path) -> None:
    """Tensors to optimizer.safetensors, the rest to JSON."""
    state = optimizer.state_dict()
    tensors = {
        f"{index}.{key}": value.contiguous()
        for index, slots in state["state"].items()
        for key, value in slots.items()
    }
    save_file(tensors, folder / "optimizer.safetensors")
    (folder / "optimizer.json").write_text(json.dumps(state["param_groups"]))
    save_scheduler(scheduler, folder)


def save_scheduler(scheduler: Any, folder: Path) -> None:
    """The learning rate's schedule, to scheduler.json."""
    (folder / "scheduler.json").write_text(json.dumps(scheduler.state_dict()))


def load_optimizer(optimizer: Any, scheduler: Any, folder: Path) -> None:
    """The inverse of `save_optimizer`, bit for bit."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in load_file(folder / "optimizer.safetensors").items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = json.loads((folder / "optimizer.json").read_text())
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    load_scheduler(scheduler, folder)


def load_scheduler(scheduler: Any, folder: Path) -> None:
    """The inverse of `save_scheduler`."""
    scheduler.load_state_dict(json.loads((folder / "scheduler.json").read_text()))


def load_weights(model: Any, folder: Path) -> None:
    """Weights of a checkpoint into a model of the same shape, bit for bit.

    Through from_pretrained, since save_pretrained writes the names of the hub's files, not the
    model's own. Raises ValueError if a weight is missing, left over or of another shape.
    """
    saved, told = type(model).from_pretrained(
        folder, dtype=model.dtype, output_loading_info=True, use_safetensors=True
    )
    wrong = {kind: sorted(map(str, keys))[:3] for kind, keys in told.items() if keys}
    if wrong:
        raise ValueError(f"{folder} does not fit the model: {wrong}")
    model.load_state_dict(saved.state_dict())


def discard(folder: Path) -> None:
    """Remove a checkpoint: renamed first, so that a killed removal leaves none that looks whole."""
    gone = folder.with_name(f".{folder.name}.discarded")
    shutil.rmtree(gone, ignore_errors=True)
    folder.rename(gone)
    shutil.rmtree(gone)


def sweep(folder: Path) -> None:
    """Remove what killed writers and removals left in a run's folder."""
    for rest in (*folder.glob(".*.writing"), *folder.glob(".*.discarded")):
        shutil.rmtree(rest)


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run."""
    return max(folder.glob("checkpoint-*"), key=step_of, default=None)


def step_of(folder: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(folder.name.rsplit("-", 1)[1])


def weights_sha256(folder: Path) -> str:
    """sha256 of the checkpoint's safetensors, in name order."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("model*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
