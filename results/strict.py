"""YAML read strictly: no key twice, no unknown key, and numbers kept as the text that was printed.

YAML would read 42.70 as 42.7 and lose a printed digit; here every scalar except null is text, and
the schema that reads it says what it must be.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_TYPED = ("bool", "float", "int", "timestamp")  # scalars that YAML would convert


class ReportedError(ValueError):
    """A YAML file of results breaks its schema; the message names file, place and mistake."""


class _Text(yaml.SafeLoader):
    """SafeLoader that converts no scalar but null, and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # refused by the parent class
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} is given twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Text.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag.rpartition(":")[2] not in _TYPED]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _as_text(loader: _Text, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


for _kind in _TYPED:  # where a file says !!float
    _Text.add_constructor(f"tag:yaml.org,2002:{_kind}", _as_text)


@dataclass(frozen=True)
class Node:
    """A value and its place in the file; every reader below raises ReportedError naming both."""

    raw: Any
    where: str

    def fail(self, message: str) -> ReportedError:
        """The error to raise about this place."""
        return ReportedError(f"{self.where}: {message}")

    def pairs(self) -> dict[str, Node]:
        """A mapping whose keys are free."""
        if not isinstance(self.raw, dict):
            raise self.fail(f"expected a mapping of keys, got {shown(self.raw)}")
        for key in self.raw:
            if not isinstance(key, str) or not key.strip():
                raise self.fail(f"a key must be text, got {shown(key)}")
        return {key: Node(value, f"{self.where}.{key}") for key, value in self.raw.items()}

    def mapping(self, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Node]:
        """A mapping with every required key and no unknown one."""
        found = self.pairs()
        for key in found:
            if key not in required and key not in optional:
                raise self.fail(f"unknown key {key!r}{nearest(key, {*required, *optional})}")
        missing = [key for key in required if key not in found]
        if missing:
            raise self.fail(f"lacks {', '.join(missing)}")
        return found

    def items(self) -> list[Node]:
        """The members of a list."""
        if not isinstance(self.raw, list):
            raise self.fail(f"expected a list, got {shown(self.raw)}")
        return [Node(value, f"{self.where}[{i}]") for i, value in enumerate(self.raw)]

    def texts(self) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(item.text() for item in self.items())

    def text(self) -> str:
        """Text that is not empty."""
        if not isinstance(self.raw, str) or not self.raw.strip():
            raise self.fail(f"expected text, got {shown(self.raw)}")
        return self.raw

    def optional(self) -> str | None:
        """Text, or null."""
        return None if self.raw is None else self.text()

    def printed(self) -> str:
        """A number as it was printed: digits, perhaps a sign and a point."""
        if not isinstance(self.raw, str) or not NUMBER.fullmatch(self.raw):
            raise self.fail(f"expected a number as printed, such as 42.7, got {shown(self.raw)}")
        return self.raw

    def count(self) -> int:
        """A whole number above 0."""
        if not isinstance(self.raw, str) or not re.fullmatch("[1-9][0-9]{0,8}", self.raw):
            raise self.fail(f"expected a whole number above 0, got {shown(self.raw)}")
        return int(self.raw)

    def setting(self) -> str | int | float:
        """A protocol value: a number where it reads as one, else text."""
        text = self.text()
        if not NUMBER.fullmatch(text):
            return text
        return float(text) if "." in text else int(text)

    def flag(self) -> bool:
        """true or false."""
        return self.one_of("true", "false") == "true"

    def one_of(self, *allowed: str) -> str:
        """One of the allowed words."""
        if self.raw not in allowed:
            raise self.fail(f"expected {' or '.join(allowed)}, got {shown(self.raw)}")
        return str(self.raw)

    def day(self) -> date:
        """A date, YYYY-MM-DD."""
        try:
            return date.fromisoformat(self.text())
        except ValueError:
            raise self.fail(f"expected a date such as 2026-01-31, got {shown(self.raw)}") from None


def read_yaml(path: Path) -> Node:
    """The content of a YAML file. Raises ReportedError with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ReportedError(f"there is no file {path}") from None
    except UnicodeDecodeError:
        raise ReportedError(f"{path} is not a UTF-8 text file") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Node:
    """The content of a YAML text. Raises ReportedError with its line."""
    try:
        return Node(yaml.load(text, Loader=_Text), where)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ReportedError(f"{where}:{line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ReportedError(f"{where}: {error}") from None
    except RecursionError:
        raise ReportedError(f"{where}: nested too deeply") from None


def nearest(word: str, known: Collection[str]) -> str:
    """`; did you mean 'value'?`, or the list of what is known."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def shown(raw: object) -> str:
    """A value for an error message: short texts themselves, anything else by its kind."""
    if raw is None:
        return "nothing"
    if isinstance(raw, str):
        return repr(raw if len(raw) <= 60 else raw[:57] + "...")
    if isinstance(raw, dict | list):
        return "a mapping" if isinstance(raw, dict) else "a list"
    return f"a {type(raw).__name__}"


def unique(keys: Mapping[str, str], key: str, owner: str, where: Node) -> None:
    """Raises ReportedError if another owner already has `key`."""
    if keys.get(key, owner) != owner:
        raise where.fail(f"{key!r} belongs to both {keys[key]} and {owner}")
