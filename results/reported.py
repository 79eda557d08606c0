"""What a paper printed: repro/<paper>/reported.yaml, read strictly, one `Reported` per number.

    file       paper, title, arxiv, repository, commit, checked, status, missing, protocol,
               benchmarks, models, tables, diagnostics, curves
    benchmark  n with its source, protocol, note
    model      role (method, baseline, ablation, other), arm of the recipe, weights, baseline_of
    table      source, verified, columns (benchmark, metric, category), rows (model, values)

Values stay as printed. A protocol field is a value or `unstated`; a benchmark, then a table, then
a row may overwrite fields of the file's protocol.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import cast

from results.benchmarks import Benchmarks, load_benchmarks
from results.printed import (
    FIELDS,
    NOT_APPLICABLE,
    ROLES,
    UNITS,
    VERIFIED,
    About,
    Baseline,
    Curve,
    Diagnostic,
    Model,
    Paper,
    Reported,
    Role,
    Setting,
    Unit,
    Verified,
)
from results.strict import Node, ReportedError, nearest, read_yaml

__all__ = ["Paper", "Reported", "ReportedError", "load_reported", "paper_from"]

KEYS = (
    "paper", "title", "arxiv", "repository", "commit", "checked", "status", "protocol",
    "benchmarks", "models", "tables",
)  # fmt: skip


@dataclass(frozen=True)
class _Column:
    """Where the numbers of a column belong. note: of its benchmark, about the paper's own runs."""

    label: str
    benchmark: str
    category: str | None
    metric: str
    unit: Unit
    n: int | None
    protocol: Mapping[str, Setting]
    note: str


@dataclass(frozen=True)
class _File:
    """What the tables of a file share."""

    paper: str
    checked: date
    protocol: Mapping[str, Setting]
    models: Mapping[str, Model]
    about: Mapping[str, About]
    benchmarks: Benchmarks


def load_reported(path: Path, benchmarks: Benchmarks | None = None) -> Paper:
    """The paper of a reported.yaml. Raises ReportedError naming the place and what is wrong."""
    return paper_from(read_yaml(path), benchmarks or load_benchmarks())


def paper_from(top: Node, benchmarks: Benchmarks) -> Paper:
    """The paper in a parsed file. Raises ReportedError."""
    given = top.mapping(KEYS, ("missing", "diagnostics", "curves"))
    file = _File(
        paper=given["paper"].text(),
        checked=given["checked"].day(),
        protocol=_protocol(given["protocol"].mapping(FIELDS)),
        models={name: _model(name, node) for name, node in given["models"].pairs().items()},
        about=_about(given["benchmarks"], benchmarks),
        benchmarks=benchmarks,
    )
    numbers: list[Reported] = []
    for name, node in given["tables"].pairs().items():
        numbers += _table(node, name, file)
    _check(file, numbers, top)
    return Paper(
        id=file.paper,
        title=given["title"].text(),
        arxiv=given["arxiv"].text(),
        repository=given["repository"].optional(),
        commit=given["commit"].optional(),
        checked=file.checked,
        status=given["status"].text(),
        missing=given["missing"].texts() if "missing" in given else (),
        about=file.about,
        numbers=tuple(_with_baseline(number, numbers) for number in numbers),
        diagnostics=_diagnostics(given["diagnostics"]) if "diagnostics" in given else (),
        curves=_curves(given["curves"]) if "curves" in given else (),
    )


# --- tables --------------------------------------------------------------------------------


def _table(node: Node, name: str, file: _File) -> list[Reported]:
    """The numbers of a table, row by row."""
    given = node.mapping(
        ("source", "verified", "columns", "rows"),
        ("registered", "metric", "unit", "protocol", "note"),
    )
    base = Reported(
        paper=file.paper,
        table=name,
        model=Model("", "other"),
        benchmark="",
        category=None,
        metric=given["metric"].text() if "metric" in given else "accuracy",
        printed="0",
        unit=_unit(given["unit"]) if "unit" in given else "percent",
        n=None,
        protocol=_own(given),  # the file's and a benchmark's fields lie below it, see _column
        source=given["source"].text(),
        verified=_verified(given["verified"]),
        checked=file.checked,
        registered="registered" in given and given["registered"].flag(),
        note=_text(given, "note"),
    )
    columns = tuple(_column(item, base, file) for item in given["columns"].items())
    if len({column.label for column in columns}) < len(columns):
        raise given["columns"].fail("two columns are the same")
    return [
        number for row in given["rows"].items() for number in _row(row, base, columns, file.models)
    ]


def _column(node: Node, base: Reported, file: _File) -> _Column:
    """A benchmark's name, or {benchmark, category, metric, unit}."""
    if isinstance(node.raw, str):
        node = Node({"benchmark": node.raw}, node.where)
    given = node.mapping(("benchmark",), ("category", "metric", "unit"))
    benchmark = file.benchmarks.find(given["benchmark"])
    category = given["category"].text() if "category" in given else None
    metric = given["metric"].text() if "metric" in given else base.metric
    about = file.about.get(benchmark.id, About())
    label = benchmark.id + (f"/{category}" if category else "")
    return _Column(
        label=label + (f" {metric}" if metric != base.metric else ""),
        benchmark=benchmark.id,
        category=category,
        metric=metric,
        unit=_unit(given["unit"]) if "unit" in given else base.unit,
        n=None if category else about.n,
        protocol={**file.protocol, **about.protocol, **base.protocol},
        note=about.note,
    )


def _row(
    node: Node, base: Reported, columns: Sequence[_Column], models: Mapping[str, Model]
) -> list[Reported]:
    """The numbers of a row; null stands where the paper prints none."""
    given = node.mapping(
        ("model", "values"), ("n", "protocol", "source", "verified", "note", "notes")
    )
    name = given["model"].text()
    if name not in models:
        raise given["model"].fail(f"{name!r} is not under models{nearest(name, models)}")
    values = given["values"].items()
    if len(values) != len(columns):
        raise given["values"].fail(f"{len(values)} values for {len(columns)} columns")
    labels = [column.label for column in columns]
    notes = given["notes"].mapping((), labels) if "notes" in given else {}
    if "n" in given:
        given["n"].one_of("unknown")
    own, ours = _text(given, "note"), models[name].role != "other"
    base = dataclasses.replace(
        base,
        model=models[name],
        source=_text(given, "source") or base.source,
        verified=_verified(given["verified"]) if "verified" in given else base.verified,
    )
    return [
        dataclasses.replace(
            base,
            benchmark=column.benchmark,
            category=column.category,
            metric=column.metric,
            unit=column.unit,
            printed=_printed(value, column.unit),
            n=None if "n" in given else column.n,
            protocol=_applicable({**column.protocol, **_own(given)}),
            note="; ".join(
                filter(
                    None, (base.note, own, _text(notes, column.label), column.note if ours else "")
                )
            ),
        )
        for column, value in zip(columns, values, strict=True)
        if value.raw is not None
    ]


def _printed(node: Node, unit: Unit) -> str:
    printed = node.printed()
    most = UNITS[unit]
    if not (-most if unit == "points" else 0) <= float(printed) <= most:
        raise node.fail(f"{printed} is no {unit}")
    return printed


def _with_baseline(number: Reported, numbers: Sequence[Reported]) -> Reported:
    """The number with the strongest of the paper's own baselines on its benchmark, at any number
    of frames. A number that can't turn green takes it from its own table: figures and quotations
    come from other result sets."""
    if number.model.role != "method" or number.derived:
        return number
    rivals = [
        other
        for other in numbers
        if other.model.role == "baseline"
        and number.arm in other.model.baseline_of
        and _place(other) == _place(number)
        and other.may_turn_green == number.may_turn_green
        and (number.may_turn_green or other.table == number.table)
    ]
    if not rivals:
        return number
    best = max(rivals, key=lambda other: other.value)
    return dataclasses.replace(
        number, baseline=Baseline(best.model.name, best.printed, best.fraction, best.id)
    )


def _place(number: Reported) -> tuple[str, str | None, str, str]:
    return number.benchmark, number.category, number.metric, number.unit


def _check(file: _File, numbers: Sequence[Reported], top: Node) -> None:
    """No number twice, and every baseline is one of a method's arm."""
    seen: set[str] = set()
    for number in numbers:
        if number.id in seen:
            raise top.fail(f"{number.id} appears twice")
        seen.add(number.id)
    arms = {model.arm for model in file.models.values() if model.role == "method" and model.arm}
    for model in file.models.values():
        for arm in model.baseline_of:
            if arm not in arms:
                raise top.fail(f"{model.name} is a baseline of {arm!r}{nearest(arm, arms)}")


# --- parts ---------------------------------------------------------------------------------


def _model(name: str, node: Node) -> Model:
    given = node.mapping(("role",), ("printed", "size", "arm", "weights", "baseline_of"))
    role = cast(Role, given["role"].one_of(*ROLES))
    of = given["baseline_of"].texts() if "baseline_of" in given else ()
    if of and role != "baseline":
        raise node.fail(f"baseline_of belongs to a baseline, not to a role {role}")
    return Model(
        name=_text(given, "printed") or name,
        role=role,
        size=_text(given, "size") or None,
        arm=_text(given, "arm") or None,
        weights=_text(given, "weights") or None,
        baseline_of=of,
    )


def _protocol(given: Mapping[str, Node]) -> Mapping[str, Setting]:
    return {key: part.setting() for key, part in given.items()}


def _about(node: Node, benchmarks: Benchmarks) -> Mapping[str, About]:
    """What the file says of each benchmark, by id."""
    found = {}
    for name, part in node.pairs().items():
        given = part.mapping((), ("n", "source", "protocol", "note"))
        if ("n" in given) != ("source" in given):
            raise part.fail("n and its source come together")
        found[benchmarks.find(Node(name, part.where)).id] = About(
            n=given["n"].count() if "n" in given else None,
            source=_text(given, "source"),
            protocol=_own(given),
            note=_text(given, "note"),
        )
    return found


def _text(given: Mapping[str, Node], key: str) -> str:
    """An optional text, "" where it is not given."""
    return given[key].text() if key in given else ""


def _applicable(protocol: Mapping[str, Setting]) -> Mapping[str, Setting]:
    return {key: value for key, value in protocol.items() if value != NOT_APPLICABLE}


def _own(given: Mapping[str, Node]) -> Mapping[str, Setting]:
    """The protocol fields that this place overwrites."""
    return _protocol(given["protocol"].mapping((), FIELDS)) if "protocol" in given else {}


def _unit(node: Node) -> Unit:
    return cast(Unit, node.one_of(*UNITS))


def _verified(node: Node) -> Verified:
    return cast(Verified, node.one_of(*VERIFIED))


def _diagnostics(node: Node) -> tuple[Diagnostic, ...]:
    found: list[Diagnostic] = []
    for block in node.items():
        given = block.mapping(("table", "unit", "source", "verified", "values"), ("n", "note"))
        found += [
            Diagnostic(
                table=given["table"].text(),
                item=item,
                printed=value.printed(),
                unit=given["unit"].text(),
                n=given["n"].count() if "n" in given else None,
                source=given["source"].text(),
                verified=_verified(given["verified"]),
                note=_text(given, "note"),
            )
            for item, value in given["values"].pairs().items()
        ]
    return tuple(found)


def _curves(node: Node) -> tuple[Curve, ...]:
    found = []
    for item in node.items():
        given = item.mapping(("name", "source", "verified", "points"), ("note",))
        points = []
        for point in given["points"].items():
            pair = [float(number.printed()) for number in point.items()]
            if len(pair) != 2:
                raise point.fail("a point is [step, value]")
            points.append((pair[0], pair[1]))
        found.append(
            Curve(
                name=given["name"].text(),
                points=tuple(points),
                source=given["source"].text(),
                verified=_verified(given["verified"]),
                note=_text(given, "note"),
            )
        )
    return tuple(found)
