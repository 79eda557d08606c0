"""Protocols as data: one .yaml file each, resolved for one benchmark into a hashed `Protocol`.

    official            official@direct (MMVU)       ffr
    video-r1            video-r1@32f, @64f           temporal-r1, temporal-r1@no-think
    lmms-eval           vlmevalkit@64frame           ...

Where the whole file has variants, its first one is meant when none is named. A benchmark's fields
win over the file's, a variant's over both; official.yaml explains the keys.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from evals.errors import BadInput
from evals.extract import resolve
from evals.types import Decoding, Protocol

_HERE = Path(__file__).parent
_FIELDS = frozenset(f.name for f in fields(Protocol)) - {"id", "wording"}
_KEYS = frozenset({"about", "source", "any", "fields", "variants", "benchmarks", "prompts"})


def names() -> tuple[str, ...]:
    """The protocols there are, without their variants."""
    return tuple(sorted(path.stem for path in _HERE.glob("*.yaml")))


def variants(name: str, benchmark: str) -> tuple[str, ...]:
    """What may follow the `@` of a protocol for a benchmark."""
    data = document(name)
    own = data["benchmarks"].get(benchmark) or {}
    return tuple(dict.fromkeys((*(data.get("variants") or {}), *(own.get("variants") or {}))))


def covered(name: str) -> tuple[str, ...]:
    """Benchmarks for which the protocol's source says how they are asked."""
    return tuple(document(name)["benchmarks"])


def load(name: str, benchmark: str) -> Protocol:
    """The protocol `name` or `name@variant` for a benchmark.

    Raises BadInput for an unknown protocol or variant, and for a benchmark that it does not cover.
    """
    base, _, variant = name.partition("@")
    data = document(base)
    own = data["benchmarks"].get(benchmark)
    if own is None and not data.get("any"):
        known = ", ".join(data["benchmarks"])
        raise BadInput(f"protocol {base} does not say how {benchmark} is asked; it covers {known}")
    shared = tuple(data.get("variants") or ())
    variant = variant or (shared[0] if shared else "")
    own = dict(own or {})
    choices = {**(data.get("variants") or {}), **(own.pop("variants", None) or {})}
    if variant and variant not in choices:
        known = ", ".join(choices) or "none"
        raise BadInput(f"protocol {base} has no variant {variant!r} for {benchmark}: {known}")
    merged = {**data["fields"], **own, **(choices.get(variant) or {})}
    for key in merged.keys() - _FIELDS:
        near = difflib.get_close_matches(key, _FIELDS, 1)
        raise BadInput(
            f"protocol {base}: unknown field {key!r}" + (f"; {near[0]}?" if near else "")
        )
    merged["grader"] = resolve(merged.get("grader", "reelproof"), benchmark)
    merged["decoding"] = Decoding(**merged.get("decoding", {}))
    prompt = merged.get("prompt", "video-r1")
    full = f"{base}@{variant}" if variant else base
    return Protocol(id=full, wording=wording_hash(prompt), **merged)


@functools.cache
def document(name: str) -> Mapping[str, Any]:
    """A protocol file as read. Raises BadInput for an unknown name or an unknown key."""
    path = _HERE / f"{name}.yaml"
    if name not in names():
        raise BadInput(f"unknown protocol {name!r}; known: {', '.join(names())}")
    import yaml

    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    if unknown := data.keys() - _KEYS:
        raise BadInput(f"{path}: unknown keys: {', '.join(sorted(unknown))}")
    return {**data, "benchmarks": data.get("benchmarks") or {}}


def wording(prompt: str) -> Mapping[str, Any] | None:
    """Templates of the prompt `FILE/KEY`; None where the file has no such prompt."""
    base, _, key = prompt.partition("/")
    if base not in names():
        return None
    found: Mapping[str, Any] | None = (document(base).get("prompts") or {}).get(key)
    return found


def wording_hash(prompt: str) -> str:
    """First 8 hex digits of the sha256 of the templates; "" for a prompt written in code."""
    found = wording(prompt)
    if found is None:
        return ""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:8]
