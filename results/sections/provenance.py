"""What was run, on what, under which rules, and how to run it again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from results.arms import label
from results.charts import percent
from results.ledger import Run
from results.schema import Record
from results.scoreboard import Board
from results.sections.parts import (
    View,
    card,
    cell,
    clock,
    copyable,
    facts,
    more,
    number,
    row,
    section,
    table,
    titled,
)
from results.verdict import Policy, count


def provenance(view: View, command: str, further: Mapping[str, str]) -> str:
    """The command, the facts of the records, every run with its hashes, rules and protocols."""
    runs = [run for arm in view.arms for run in (*arm.runs, *arm.greedy)]
    records = [run.record for run in runs]
    first = records[0]
    known: dict[str, Iterable[str]] = {
        "benchmark": [f"{first.benchmark}, split {first.split}, {first.n:,} questions"],
        "data set": {_revision(record.dataset) for record in records},
        "protocol": {f"{run.record.protocol_hash} ({_decoding(run)})" for run in runs},
        "code": {_commit(record.git) for record in records},
        "engine": {f"{r.engine['name']}, {r.engine['version']}" for r in records},
        "machine": {", ".join(str(v) for v in r.machine.values() if v) for r in records},
        "image": {record.image or "" for record in records},
        "GPU time": [_gpu_hours(records)],
        "run by": {record.who for record in records},
        **{name: [text] for name, text in further.items()},
    }
    items = facts(
        (name, "<br>".join(escape(value) for value in sorted(values) if value))
        for name, values in known.items()
    )
    copy = copyable(command) if command else ""
    body = f"{copy}{items}{_run_list(runs)}{_rules(view.policy)}{_protocols(runs)}"
    return section(view, "provenance", "Provenance", "", card(body))


def whole_provenance(board: Board, command: str, further: Mapping[str, str]) -> str:
    """Of the page with everything: the command, what ran where, and the rules."""
    runs = [run for entry in board.entries for asked in entry.asked for run in asked.runs]
    runs += [run for micro in board.micro for run in micro.runs]
    records = [run.record for run in runs]
    found = {
        "code": sorted({_commit(record.git) for record in records}),
        "images": sorted({record.image for record in records if record.image}),
        "engines": sorted({f"{r.engine['name']}, {r.engine['version']}" for r in records}),
        "machines": sorted({", ".join(v for v in r.machine.values() if v) for r in records}),
        "GPU time": [_gpu_hours(records)],
        "run by": sorted({record.who for record in records}),
        **{name: [text] for name, text in further.items()},
    }
    body = copyable(command) + facts(
        (name, "<br>".join(escape(text) for text in texts if text)) for name, texts in found.items()
    )
    return titled("provenance", "Provenance", "", card(body + _rules(board.policy)))


def _run_list(runs: Sequence[Run]) -> str:
    rows = [
        row(
            [
                cell(escape(label(run.record.arm))),
                number(f"{run.record.seed}"),
                cell(_decoding(run)),
                number(percent(run.record.score)),
                cell(escape((run.record.model["sha256"] or "unknown")[:12]), "mono"),
                cell(escape(run.record.rows["sha256"][:12]), "mono"),
                number(clock(run.record.seconds)),
                cell(escape(run.record.started[:16].replace("T", " ")), "nowrap"),
            ]
        )
        for run in runs
    ]
    headings = (
        ("Arm", ""),
        ("Seed", "num"),
        ("Decoding", ""),
        ("Score", "num"),
        ("Weights sha256", ""),
        ("Rows sha256", ""),
        ("Evaluation", "num"),
        ("Started", ""),
    )
    return more("Every run, with the hashes of its weights and rows", table(headings, rows))


def _rules(policy: Policy) -> str:
    rules = "".join(
        f"<dt>{escape(name.replace('_', ' '))}</dt><dd>{getattr(policy, name):,} "
        f'<span class="soft">{escape(source)}</span></dd>'
        for name, source in policy.sources.items()
    )
    return more("The rules of the verdicts", f"<dl>{rules}</dl>")


def _protocols(runs: Sequence[Run]) -> str:
    by_hash = {run.record.protocol_hash: run.record.protocol for run in runs}
    texts = [
        f"{name}\n{json.dumps(by_hash[name], indent=2, ensure_ascii=False)}"
        for name in sorted(by_hash)
    ]
    return more("The protocols", f"<pre>{escape(chr(10).join(texts))}</pre>")


def _decoding(run: Run) -> str:
    if run.greedy:
        return "greedy"
    return f"{count(run.record.samples, 'sample')} at T = {run.temperature:g}"


def _revision(dataset: Mapping[str, str | None]) -> str:
    sha = dataset["sha256"]
    parts = (dataset["revision"], f"sha256 {sha[:16]}" if sha else None)
    return " ".join(part for part in parts if part)


def _gpu_hours(records: Sequence[Record]) -> str:
    hours = [record.gpu_hours for record in records if record.gpu_hours is not None]
    return f"{sum(hours):.1f} GPU hours over {count(len(hours), 'run')}" if hours else ""


def _commit(git: Mapping[str, Any]) -> str:
    if git["commit"] is None:
        return "no git checkout"
    return f"commit {git['commit'][:12]}" + (" with local changes" if git["dirty"] else "")
