"""Which commit of each model and data set a recipe means: lock.json beside its recipe.yaml.

    {"model:ORG/NAME" | "dataset:ORG/NAME" | "github:OWNER/NAME/PATH@REF": {"revision", "bytes"}}

`repro data lock` writes it on a connected machine; reading a recipe puts the commits in the place
of `unresolved`. A commit that is locked stays: only --update asks again.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evals.errors import BadInput, EnvironmentFault

NAME = "lock.json"
COMMIT = re.compile(r"[0-9a-f]{40}")
_GITHUB = re.compile(r"github:([^/@]+/[^/@]+)/([^@]+)@([^@]+)")


@dataclass(frozen=True)
class Pin:
    """A commit, and the bytes that fetching it takes; None where nobody could say."""

    revision: str
    bytes: int | None


def key_of(kind: str, repository: str) -> str:
    """The key of a repository; one on GitHub names its own kind."""
    return repository if repository.startswith("github:") else f"{kind}:{repository}"


def read(recipe: Path) -> dict[str, Pin]:
    """The commits locked beside a recipe file. Raises BadInput for a file that is no lock."""
    path = recipe.with_name(NAME)
    if not path.is_file():
        return {}
    try:
        found = {key: Pin(**value) for key, value in json.loads(path.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is no lock; delete it, then run repro data lock") from error
    for key, pin in found.items():
        if not COMMIT.fullmatch(pin.revision):
            raise BadInput(f"{path}: {key} has no commit of 40 hex digits")
    return found


def write(recipe: Path, pins: Mapping[str, Pin]) -> Path:
    """Replace the lock beside a recipe file, keys sorted; returns its path."""
    path = recipe.with_name(NAME)
    data = {key: asdict(pin) for key, pin in sorted(pins.items())}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return path


def resolve(keys: Iterable[str], known: Mapping[str, Pin]) -> dict[str, Pin]:
    """A pin for each key: the known one, else what the hub or GitHub says now.

    Raises BadInput for a repository that is not there or wants a login, EnvironmentFault where no
    answer comes.
    """
    return {key: known.get(key) or _ask(key) for key in keys}


def _ask(key: str) -> Pin:
    if key.startswith("github:"):
        return _ask_github(key)
    from httpx import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    kind, _, name = key.partition(":")
    try:
        found: Any = HfApi().repo_info(name, repo_type=kind, files_metadata=True)
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise BadInput(f"{key} is not on the hub, or asks for a login (hf auth login)") from error
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise _no_answer(key, error) from error
    sizes = [file.size for file in found.siblings or ()]
    return Pin(_commit(key, found.sha), None if None in sizes or not sizes else sum(sizes))


def _ask_github(key: str) -> Pin:
    import httpx

    match = _GITHUB.fullmatch(key)
    if match is None:
        raise BadInput(f"{key} should read github:OWNER/NAME/PATH@REF")
    repository, path, ref = match.groups()
    server = os.environ.get("GITHUB_API_URL", "https://api.github.com")
    try:
        commit = httpx.get(f"{server}/repos/{repository}/commits/{ref}", follow_redirects=True)
        if commit.status_code in (404, 422):
            raise BadInput(f"github.com/{repository} has no commit {ref}")
        sha = _commit(key, commit.raise_for_status().json().get("sha"))
        file = httpx.get(
            f"{server}/repos/{repository}/contents/{path}", params={"ref": sha},
            follow_redirects=True,
        )  # fmt: skip
        size = file.json().get("size") if file.status_code == 200 else None
    except (httpx.HTTPError, json.JSONDecodeError) as error:
        raise _no_answer(key, error) from error
    return Pin(sha, size)


def _commit(key: str, sha: object) -> str:
    if not isinstance(sha, str) or not COMMIT.fullmatch(sha):
        raise EnvironmentFault(f"{key}: the server named no commit but {sha!r}; try again")
    return sha


def _no_answer(key: str, error: Exception) -> EnvironmentFault:
    return EnvironmentFault(
        f"no answer about {key} ({type(error).__name__}); run repro data lock on a machine with "
        "network access and copy lock.json here"
    )
