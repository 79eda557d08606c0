"""Fetch a benchmark's data from the Hugging Face hub, at one commit and nothing else.

An interrupted call continues where it stopped; files that are already there are not fetched again.
The commit is written beside the files, from where the loaders and `verify` read it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from evals import benchmarks
from evals.errors import BadInput, EnvironmentFault

_COMMIT = re.compile(r"[0-9a-f]{40}")


def commit(name: str, revision: str | None) -> str:
    """The commit to fetch: the one given, else the card's.

    Raises BadInput for anything but 40 hex digits: a branch or tag may move under the numbers.
    """
    card = benchmarks.card(name)
    chosen = revision or card.revision
    if _COMMIT.fullmatch(chosen):
        return chosen
    newest = f" (the newest seen, unchecked: {card.seen})" if card.seen else ""
    if revision:
        raise BadInput(
            f"--revision {revision} is no commit; write the 40 hex digits that "
            f"https://huggingface.co/datasets/{card.dataset}/commits shows{newest}"
        )
    raise BadInput(
        f"no commit of {card.dataset} has been checked yet; choose one with --revision, 40 hex "
        f"digits from https://huggingface.co/datasets/{card.dataset}/commits{newest}"
    )


def fetch(
    name: str,
    root: Path,
    revision: str | None = None,
    patterns: Sequence[str] = (),
    *,
    workers: int = 4,
) -> Path:
    """Download what the card (or `patterns`) names into `root`; returns it.

    Raises BadInput for a benchmark that is not on the hub, a revision that is no commit, or one
    that the hub refuses; EnvironmentFault when the hub cannot be reached or the disk is full.
    """
    card = benchmarks.card(name)
    if card.host != "huggingface":
        raise BadInput(
            f"{name} is not on the hub: take it from https://{card.host}.com/{card.dataset}"
        )
    return snapshot(
        card.dataset, "dataset", commit(name, revision), root, patterns or card.files,
        workers=workers,
    )  # fmt: skip


def snapshot(
    repository: str, kind: str, revision: str, root: Path, patterns: Sequence[str] = ("*",), *,
    workers: int = 4,
) -> Path:  # fmt: skip
    """Download what `patterns` name of a repository (`kind` dataset or model) at one commit into
    `root`; returns it. Raises as `fetch` does."""
    from httpx import HTTPError
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repository}"
    try:
        snapshot_download(
            repository, repo_type=kind, revision=revision, local_dir=root,
            allow_patterns=list(patterns), max_workers=workers,
        )  # fmt: skip
    except GatedRepoError as error:
        raise BadInput(
            f"{page} asks for an agreement: accept it there, then hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise BadInput(f"{page} has no commit {revision}") from error
    except RepositoryNotFoundError as error:
        raise BadInput(f"{page} is not there, or asks for a login (hf auth login)") from error
    except (
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        HfHubHTTPError,
        HTTPError,
    ) as error:
        raise EnvironmentFault(
            f"the hub cannot be reached ({type(error).__name__}); run the command again to continue"
        ) from error
    except OSError as error:
        raise EnvironmentFault(f"{root}: {error.strerror or error}; what is there stays") from error
    return root
