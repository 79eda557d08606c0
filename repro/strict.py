"""Frozen dataclasses from sourced YAML: leaves are `{value, source}`, mistakes one sentence.

A *fragment* is the part of a dataclass that one place of the file sets; `complete` lays fragments
over each other (the last wins) and insists that together they set every field.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Collection
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from evals.errors import BadInput

T = TypeVar("T")
Fragment = dict[str, Any]


class _UniqueKeys(yaml.SafeLoader):
    """YAML lets the last of two equal keys win in silence; a recipe must not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """The top mapping of a YAML file. Raises BadInput with file and line."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # noqa: S506
    except FileNotFoundError:
        raise BadInput(f"there is no file {path}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not a UTF-8 text file") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise BadInput(f"{path}:{line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: {error}") from None
    if not isinstance(data, dict):
        raise BadInput(f"{path}: expected a mapping of keys at the top")
    return data


def nearest(word: str, known: Collection[str]) -> str:
    """`; did you mean 'beta'?`, or the list of what is known."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


@dataclass
class Reader:
    """Reads one file's sections and remembers where every value came from.

    cited: the names a `source` may start with, besides "chosen".
    sources: dotted key -> source, filled while reading.
    """

    file: Path
    cited: Collection[str]
    sources: dict[str, str] = field(default_factory=dict)

    def fail(self, where: str, problem: str) -> BadInput:
        """The error to raise: file, dotted key, what is wrong."""
        return BadInput(f"{self.file}: {where}: {problem}")

    def keys(self, raw: object, known: Collection[str], where: str) -> dict[str, Any]:
        """`raw` as a mapping whose keys are all known."""
        if not isinstance(raw, dict):
            raise self.fail(where, f"expected a mapping of keys, got {raw!r}")
        for key in raw:
            if key not in known:
                raise self.fail(f"{where}.{key}", f"unknown key{nearest(str(key), known)}")
        return raw

    def text(self, raw: object, where: str) -> str:
        """A non-empty string that needs no source of its own (a title, a note)."""
        if not isinstance(raw, str) or not raw.strip():
            raise self.fail(where, f"expected text, got {raw!r}")
        return raw

    def source(self, raw: object, where: str) -> str:
        """A source says "chosen" or starts with a name that the file's `sources` explains."""
        text = self.text(raw, where)
        if text.replace(":", " ").split()[0] not in {"chosen", *self.cited}:
            raise self.fail(
                where,
                f"{text!r} must start with 'chosen' or one of {', '.join(sorted(self.cited))}",
            )
        return text

    def leaf(self, hint: Any, raw: object, where: str) -> Any:
        """One `{value, source}` pair, its value checked against the field's type."""
        if not isinstance(raw, dict) or "value" not in raw or "source" not in raw:
            raise self.fail(where, f"write {{value: …, source: …}} instead of {raw!r}")
        self.keys(raw, ("value", "source"), where)
        self.sources[where] = self.source(raw["source"], f"{where}.source")
        try:
            return _typed(hint, raw["value"])
        except TypeError as error:
            raise self.fail(where, str(error)) from None

    def fragment(self, cls: type, raw: object, where: str) -> Fragment:
        """The fields of `cls` that this place sets. Raises BadInput on an unknown or odd key."""
        hints = get_type_hints(cls)
        given = self.keys(raw, [f.name for f in fields(cls)], where)
        return {
            key: self.fragment(hints[key], value, f"{where}.{key}")
            if is_dataclass(hints[key])
            else self.leaf(hints[key], value, f"{where}.{key}")
            for key, value in given.items()
        }

    def complete(self, cls: type[T], where: str, *layers: Fragment) -> T:
        """`cls` from fragments, later ones over earlier ones; every field without a default must
        be set. What the class itself refuses (ValueError) is BadInput too."""
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        for f in fields(cast(Any, cls)):
            found = [layer[f.name] for layer in layers if f.name in layer]
            if is_dataclass(hints[f.name]) and (found or f.default is MISSING):
                values[f.name] = self.complete(
                    cast(type, hints[f.name]), f"{where}.{f.name}", *found
                )
            elif found:
                values[f.name] = found[-1]
            elif f.default is not MISSING:
                self.sources[f"{where}.{f.name}"] = "chosen: the default"
            else:
                raise self.fail(f"{where}.{f.name}", "this key is missing")
        try:
            return cls(**values)
        except ValueError as error:
            raise self.fail(where, str(error)) from None

    def read(self, cls: type[T], raw: object, where: str) -> T:
        """`cls` from one place that must set everything."""
        return self.complete(cls, where, self.fragment(cls, raw, where))


def _typed(hint: Any, raw: object) -> Any:
    """`raw` as the annotated type; TypeError says what was expected."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        if raw not in arguments or isinstance(raw, bool):
            raise TypeError(f"expected one of {', '.join(map(str, arguments))}, got {raw!r}")
        return raw
    if origin in (Union, types.UnionType):
        return _one_of(arguments, raw)
    if origin is tuple:
        return _items(arguments, raw)
    if hint is float:
        if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
            hint_text = " (YAML reads 1e-4 as text: write 1.0e-4)" if isinstance(raw, str) else ""
            raise TypeError(f"expected a finite number, got {raw!r}{hint_text}")
        return float(raw)
    if not isinstance(raw, hint) or (hint is int and isinstance(raw, bool)):
        names = {int: "a whole number", str: "text", bool: "true or false", type(None): "null"}
        raise TypeError(f"expected {names[hint]}, got {raw!r}")
    return raw


def _one_of(arguments: tuple[Any, ...], raw: object) -> Any:
    problems = []
    for argument in arguments:
        try:
            return _typed(argument, raw)
        except TypeError as error:
            problems.append(str(error).split(", got")[0])
    raise TypeError(f"{', or '.join(problems)}, got {raw!r}")


def _items(arguments: tuple[Any, ...], raw: object) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        raise TypeError(f"expected a list, got {raw!r}")
    if arguments[-1] is Ellipsis:
        return tuple(_typed(arguments[0], item) for item in raw)
    if len(raw) != len(arguments):
        raise TypeError(f"expected {len(arguments)} items, got {raw!r}")
    return tuple(_typed(hint, item) for hint, item in zip(arguments, raw, strict=True))
