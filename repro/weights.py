"""Checkpoints on this machine, by the id they have on the hub.

ORG/NAME   ->   $REELPROOF_DATA/models/ORG--NAME, fetched by `repro data fetch PAPER`
"""

from __future__ import annotations

import os
from pathlib import Path

from evals.errors import BadInput


def folder_of(name: str) -> Path:
    """Where the checkpoint of that id belongs. Raises BadInput when REELPROOF_DATA is not set."""
    root = os.environ.get("REELPROOF_DATA")
    if not root:
        raise BadInput(
            f"where is {name}? name its folder with --model, or set REELPROOF_DATA and run "
            "repro data fetch PAPER"
        )
    return Path(root) / "models" / name.replace("/", "--")


def located(name: str) -> Path:
    """The folder of a checkpoint: `name` itself if it is one, else where its id belongs.

    Raises BadInput where there is none.
    """
    if Path(name).is_dir():
        return Path(name)
    found = folder_of(name)
    if not (found / "config.json").is_file():
        raise BadInput(
            f"{found} holds no checkpoint; repro data fetch PAPER brings {name} there, or name its "
            "folder with --model"
        )
    return found


def is_id(name: str) -> bool:
    """Whether it reads as ORG/NAME and is no folder here."""
    return name.count("/") == 1 and not name.startswith((".", "/")) and not Path(name).is_dir()


def revision_of(folder: Path) -> str | None:
    """The commit that huggingface_hub wrote beside the files when it fetched them."""
    note = folder / ".cache" / "huggingface" / "download" / "config.json.metadata"
    return note.read_text(encoding="utf-8").split("\n", 1)[0].strip() if note.is_file() else None
