"""Is all that a recipe takes from elsewhere on this machine, so that it needs no network?

| taken      | whole when                                                                          |
|------------|-------------------------------------------------------------------------------------|
| checkpoint | configuration, tokenizer and processor are there, every shard of the weights is as  |
|            | long as its own header says, and the commit is the locked one                       |
| records    | the file that training reads can be read; every picture and film it names is there  |
| benchmark  | its annotations can be read; every film they name is there                          |

No film is opened and no file is hashed: `repro data verify` does that, in hours.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from evals import benchmarks
from evals.benchmarks import jsonl
from evals.errors import BadInput
from evals.verify import absent
from repro import training, weights
from repro.doctor import Finding
from repro.needs import Need, needs
from repro.recipe import Recipe

#: Bytes before a safetensors header that say how long it is, little-endian; the longest allowed.
_LENGTH, _LONGEST = 8, 100_000_000
#: What a processor and a tokenizer cannot do without, each in one of these files.
_BESIDE = (("preprocessor_config.json", "processor_config.json"), ("tokenizer_config.json",),
           ("tokenizer.json", "vocab.json"))  # fmt: skip


def examine(recipe: Recipe) -> list[Finding]:
    """A finding for each checkpoint, set of records and benchmark. What only the cold start takes
    may be missing: training begins after it."""
    taken = needs(recipe)
    fetch = _fetch(recipe.paper, taken)
    found = [_model(need, fetch) for need in taken if need.key.startswith("model:")]
    if Path(recipe.model.id).is_dir():
        found.append(_told("model", recipe.model.id, broken(Path(recipe.model.id)), "--model DIR"))
    if recipe.data.repository or training.manifest_of(recipe):
        found.append(_records(recipe))
    return found + [_benchmark(name, fetch) for name in _asked(recipe)]


def _asked(recipe: Recipe) -> list[str]:
    names = [*(recipe.scoring.benchmarks if recipe.scoring else ()), recipe.evaluation.benchmark]
    return list(dict.fromkeys(n for n in names if n.partition("/")[0] in benchmarks.OWNED))


def _told(kind: str, name: str, lacks: str, mend: str, *, needed: bool = True) -> Finding:
    return Finding(kind, not lacks, f"{name}: {lacks or 'whole'}", mend, needed)


def _fetch(paper: str, taken: Iterable[Need]) -> str:
    """The commands that bring it, and what they need that this machine may lack."""
    lock = "" if all(need.resolved for need in taken) else f"repro data lock {paper} && "
    offline = ", where there is a network" if os.environ.get("HF_HUB_OFFLINE") else ""
    return f"{lock}{_placed(f'repro data fetch {paper}')}{offline}"


def _placed(command: str) -> str:
    return command if os.environ.get("REELPROOF_DATA") else f"REELPROOF_DATA=DIR {command}"


# --- checkpoints --------------------------------------------------------------------------------


def _model(need: Need, fetch: str) -> Finding:
    name, needed = need.key.partition(":")[2], need.stages != {"sft"}
    try:
        folder = weights.located(name)
    except BadInput:
        return _told("model", name, "not here", fetch, needed=needed)
    lacks, commit = broken(folder), weights.revision_of(folder)
    if not lacks and need.resolved and commit not in (None, need.revision):
        lacks = f"commit {commit}, not {need.revision}"
    return _told("model", name, lacks, fetch, needed=needed)


def broken(folder: Path) -> str:
    """What a checkpoint lacks, in a few words; "" for a whole one."""
    names = ["config.json", *(_first(folder, choice) for choice in _BESIDE)]
    if gone := [name for name in names if not (folder / name).is_file()]:
        return f"no {', '.join(gone)}"
    shards = _shards(folder)
    if not shards:
        return "no weights as safetensors"
    if gone := [name for name in shards if not (folder / name).is_file()]:
        return f"{len(gone)} of {len(shards)} shards are missing, {gone[0]} first"
    cut = [name for name in shards if not _is_whole(folder / name)]
    return f"{', '.join(cut)} cut short or damaged" if cut else ""


def _first(folder: Path, choice: Iterable[str]) -> str:
    """The one of several files that is there, else the first of them."""
    names = list(choice)
    return next((name for name in names if (folder / name).is_file()), names[0])


def _shards(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return sorted(path.name for path in folder.glob("*.safetensors"))
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        return [index.name]  # is no shard, and so is named as damaged


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says: 8 bytes, header, tensors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        if not 0 < length <= min(size - _LENGTH, _LONGEST):
            return False
        try:
            header = json.loads(file.read(length))
            ends = [e["data_offsets"][1] for name, e in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return False
    return size == _LENGTH + length + max(ends, default=0)


# --- records and benchmarks ---------------------------------------------------------------------


def _records(recipe: Recipe) -> Finding:
    manifest, paper = training.manifest_of(recipe), recipe.paper
    name = manifest.folder if manifest else recipe.data.records
    which = "" if manifest is None or manifest.published else f" --profile {recipe.profile_name}"
    try:
        file, folder = training.located(recipe)
    except BadInput:
        return _told(
            "records", name, "not here",
            _placed(f"repro data build {paper}{which} --published FILE") + " (docs/gpu-hosts.md)",
        )  # fmt: skip
    try:
        named = sorted({s.media for s in jsonl.read(file, folder) if s.media is not None})
        lacks = _missing([path for path in named if not path.exists()])
    except BadInput as error:
        lacks = str(error)
    return _told("records", name, lacks, f"repro data verify {paper}{which} --root {folder}")


def _benchmark(asked: str, fetch: str) -> Finding:
    name, _, subset = asked.partition("/")
    data = os.environ.get("REELPROOF_DATA")
    if benchmarks.card(name).host != "huggingface":
        fetch = f"fetch {benchmarks.card(name).dataset} by hand (docs/gpu-hosts.md)"
    if data is None or not Path(data, name).is_dir():
        return _told("data", asked, "not here", fetch)
    try:
        return _told("data", asked, _missing(absent(name, subset=subset)), fetch)
    except BadInput as error:
        return _told("data", asked, str(error), fetch)


def _missing(paths: list[Path]) -> str:
    return f"{len(paths)} films or pictures are missing, {paths[0]} first" if paths else ""
