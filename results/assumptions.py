"""What we assume where papers are silent: assumptions.yaml, dated, each with its reason.

    protocol   values of an unstated field (or of n); several plausible values must all agree;
               `follows: FIELD` pairs them with those of another field, first with first
    margins    δ of cells whose paper prints no baseline to take half a gain from

An assumption holds for the numbers of `paper` that its other keys select; what is not given
selects everything. It counts for runs that started on or after its day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

from results.benchmarks import load_benchmarks
from results.policy import Policy
from results.printed import FIELDS, ROLES, UNSTATED, Reported, Setting
from results.protocol import Assumed
from results.strict import Node, ReportedError, read_yaml

SELECTORS = ("tables", "benchmarks", "models", "roles")


@dataclass(frozen=True)
class Scope:
    """The numbers an assumption is about; an empty selector selects all."""

    paper: str
    tables: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()

    def covers(self, number: Reported) -> bool:
        """Whether this is one of them. Rows of others are never assumed about."""
        chosen = (
            (self.tables, number.table),
            (self.benchmarks, number.benchmark),
            (self.models, number.model.name),
            (self.roles, number.model.role),
        )
        return (
            number.paper == self.paper
            and number.model.role != "other"
            and all(not allowed or value in allowed for allowed, value in chosen)
        )


@dataclass(frozen=True)
class Assumption:
    """Plausible values of a field that the paper leaves unstated."""

    scope: Scope
    field: str
    values: tuple[Setting, ...]
    source: str
    on: date
    follows: str = ""  # see results.protocol.Assumed


@dataclass(frozen=True)
class Margin:
    """δ of a cell, a fraction, and where it comes from."""

    value: float
    source: str


@dataclass(frozen=True)
class RegisteredMargin:
    """A margin chosen for cells that have no printed baseline."""

    scope: Scope
    margin: Margin
    on: date


@dataclass(frozen=True)
class Assumptions:
    """Everything in assumptions.yaml, in the order of the file."""

    protocol: tuple[Assumption, ...]
    margins: tuple[RegisteredMargin, ...]

    def about(self, number: Reported) -> dict[str, Assumed]:
        """Plausible values of the number's unstated fields, by field; `decide` takes them.

        Raises ReportedError where two assumptions speak about the same field.
        """
        found: dict[str, Assumed] = {}
        for entry in self.protocol:
            if not entry.scope.covers(number) or not _open(number, entry.field):
                continue
            if entry.field in found:
                raise ReportedError(f"{number.id}: two assumptions about {entry.field}")
            found[entry.field] = Assumed(entry.values, entry.on, entry.source, entry.follows)
        for name, guess in found.items():
            lead = found.get(guess.follows)
            if guess.follows and (lead is None or len(lead.values) != len(guess.values)):
                raise ReportedError(
                    f"{number.id}: {name} follows {guess.follows}, which has other values to follow"
                )
        return found

    def unanswered(self, number: Reported) -> tuple[str, ...]:
        """Fields neither stated nor assumed: with any, no run can be comparable."""
        known = self.about(number)
        return tuple(
            field for field in (*FIELDS, "n") if _open(number, field) and field not in known
        )


def registered_margin(
    number: Reported, policy: Policy, assumptions: Assumptions | None = None
) -> Margin | None:
    """δ of a printed number: half of the gain the paper claims over its own strongest baseline on
    that benchmark, clipped to 1 and 3 points, so that inside it more than half of the claim
    survives; a printed loss counts as no gain. Without a printed baseline the margin in
    assumptions.yaml; None where there is neither.

    Raises ReportedError where two registered margins speak about the same number.
    """
    if number.baseline is not None:
        gain = number.fraction - number.baseline.fraction
        text = f"half of {number.printed} - {number.baseline.printed} ({number.baseline.name})"
        return Margin(round(policy.margin(max(gain, 0.0)), 6), f"{text}, clipped")
    entries = assumptions.margins if assumptions else ()
    found = [entry.margin for entry in entries if entry.scope.covers(number)]
    if len(found) > 1:
        raise ReportedError(f"{number.id}: two registered margins")
    return found[0] if found else None


@cache
def load_assumptions(path: Path | None = None) -> Assumptions:
    """assumptions.yaml, strictly. Raises ReportedError naming the place and what is wrong."""
    top = read_yaml(path or Path(__file__).with_name("assumptions.yaml"))
    given = top.mapping(("protocol", "margins"))
    return Assumptions(
        tuple(_assumption(node) for node in given["protocol"].items()),
        tuple(_margin(node) for node in given["margins"].items()),
    )


def _assumption(node: Node) -> Assumption:
    given = node.mapping(("paper", "field", "values", "source", "on"), (*SELECTORS, "follows"))
    values = tuple(value.setting() for value in given["values"].items())
    if not values or UNSTATED in values or len(set(values)) < len(values):
        raise given["values"].fail("expected one or more different values")
    return Assumption(
        scope=_scope(given),
        field=given["field"].one_of(*FIELDS, "n"),
        values=values,
        source=given["source"].text(),
        on=given["on"].day(),
        follows=given["follows"].one_of(*FIELDS) if "follows" in given else "",
    )


def _margin(node: Node) -> RegisteredMargin:
    given = node.mapping(("paper", "margin", "source", "on"), SELECTORS)
    value = float(given["margin"].printed())
    if not 0 < value <= 0.05:
        raise given["margin"].fail(f"{value:g} is no margin: a fraction, 0.01 is one point")
    return RegisteredMargin(_scope(given), Margin(value, given["source"].text()), given["on"].day())


def _scope(given: dict[str, Node]) -> Scope:
    chosen = {key: given[key].items() for key in SELECTORS if key in given}
    find = load_benchmarks().find
    return Scope(
        paper=given["paper"].text(),
        tables=tuple(node.text() for node in chosen.get("tables", ())),
        benchmarks=tuple(find(node).id for node in chosen.get("benchmarks", ())),
        models=tuple(node.text() for node in chosen.get("models", ())),
        roles=tuple(node.one_of(*ROLES) for node in chosen.get("roles", ())),
    )


def _open(number: Reported, field: str) -> bool:
    """Whether the paper leaves this field open for this number."""
    if field == "n":
        return number.n is None
    return number.protocol.get(field) == UNSTATED
