"""One card per printed number: how to run it, whether it is comparable, what was found, why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from html import escape

import numpy as np

from results import charts
from results.arms import arms, label
from results.cells import Cell
from results.charts import MINUS, ends, percent, signed
from results.compare import compare
from results.ledger import Run
from results.policy import Policy
from results.protocol import Field
from results.schema import OUTCOMES
from results.scoreboard import Asked, AskedClaim, Board, Entry, PaperBoard
from results.sections.board import column, delta_plot
from results.sections.evidence import (
    commits_of,
    flip_bar,
    flip_table,
    history_table,
    sample_table,
)
from results.sections.parts import (
    cell,
    clock,
    copyable,
    facts,
    more,
    number,
    row,
    table,
    titled,
    word_badge,
)
from results.stats import Interval, clustered_interval
from results.verdict import Verdict, count

Command = Callable[[Cell], str]
_STATES = {
    "same": ("holds", "stated"),
    "assumed": ("holds", "assumed"),
    "differs": ("not comparable", "differs"),
    "unstated": ("not comparable", "unstated"),
    "not recorded": ("not comparable", "not recorded"),
}
_MOST_TAGS = 12


def how_to_run(cell: Cell) -> str:
    """The command that fills a cell; the command line knows better which arms and benchmarks."""
    return f"repro reproduce {cell.reported.paper} --profile paper"


def cards(board: Board, command: Command = how_to_run) -> str:
    """All cards; those that were measured come first and tell more."""
    text = (
        "Everything behind a number: the command, the protocol beside the paper's, what became of "
        "every question, and the verdict's arithmetic."
    )
    body = "".join(_paper(part, board.policy, command) for part in board.papers if part.entries)
    note = '<p class="faint" data-empty hidden>Every number is filtered out.</p>'
    return titled("numbers", "Every printed number", text, f'<div class="decks">{body}{note}</div>')


def _paper(part: PaperBoard, policy: Policy, command: Command) -> str:
    """Measured numbers in the open, the others folded away."""
    measured: list[str] = []
    folded: list[str] = []
    for entry in part.entries:
        target = folded if entry.shown.verdict.word == "not run" else measured
        target.append(_card(entry, policy, command))
    rest = ""
    if folded:
        title = f"{count(len(folded), 'number')} not run, with the command that would"
        rest = f'<details class="rest"><summary>{title}</summary>{"".join(folded)}</details>'
    paper = part.paper
    cards = f"<h3>{escape(paper.title)}</h3>{''.join(measured)}{rest}"
    return f'<div class="deck" data-paper="{escape(paper.id)}">{cards}</div>'


def _card(entry: Entry, policy: Policy, command: Command) -> str:
    verdict = entry.shown.verdict
    ours = "" if verdict.score is None else f"{percent(verdict.score)} / "
    summary = (
        f'<span class="name"><b>{escape(column(entry))}</b>'
        f'<span class="soft">{escape(entry.row)}</span></span>'
        f'<span class="value">{ours}{escape(entry.number.printed)}</span>'
        f"{word_badge(verdict.word, verdict.text)}"
    )
    body = "".join(_asked(entry, asked, policy, command) for asked in entry.asked)
    body += _claims(entry) + _printed(entry)
    return (
        f'<details class="card cellcard" id="{entry.id}" data-word="{verdict.word}" '
        f'data-paper="{escape(entry.number.paper)}"><summary>{summary}</summary>'
        f'<div class="inside">{body}</div></details>'
    )


# --- one verdict ---------------------------------------------------------------------------


def _asked(entry: Entry, asked: Asked, policy: Policy, command: Command) -> str:
    verdict = asked.verdict
    title = "Released checkpoint" if verdict.question == "E" else "Trained again"
    head = (
        f"<h4>{title} {word_badge(verdict.word, verdict.text)}</h4>"
        f'<p class="soft">{escape(_sentence(verdict))}</p>'
    )
    filled_by = command(asked.cell)
    parts = [head, copyable(filled_by) if filled_by else ""]
    if verdict.delta is not None:
        left = f"<div>{_numbers(verdict)}{_arithmetic(entry, asked)}</div>"
        right = f"<div>{protocol_table(verdict.fields)}</div>"
        parts.append(f'<div class="grid two">{left}{right}</div>')
        parts.append(_evidence(asked, policy))
    else:
        parts.append(_stated(entry))
    return f'<div class="asked">{"".join(parts)}</div>'


def _sentence(verdict: Verdict) -> str:
    text = verdict.reason[:1].upper() + verdict.reason[1:]
    return text + ("" if text.endswith(".") else ".")


def _numbers(verdict: Verdict) -> str:
    """Δ, large, and its row of the forest."""
    assert verdict.delta is not None and verdict.narrow is not None and verdict.wide is not None
    margin = verdict.margin or 0.0
    scale = charts.scale_over([-margin, margin, verdict.wide.low, verdict.wide.high, -1e-3, 1e-3])
    return (
        f'<p class="delta">{signed(verdict.delta.estimate)}<span>points, 90 % '
        f"{ends(verdict.narrow)}, 95 % {ends(verdict.wide)}</span></p>"
        f'<div class="mini">{delta_plot(verdict, scale)}{charts.axis(scale)}</div>'
    )


def _arithmetic(entry: Entry, asked: Asked) -> str:
    verdict, margin = asked.verdict, asked.cell.margin
    assert verdict.delta is not None and verdict.score is not None
    runs = [
        f"{percent(run.record.score)} <small class='faint'>seed {run.record.seed}"
        f"{f', batch {run.record.batch}' if run.record.batch else ''}</small>"
        for run in asked.runs
    ]
    shown_margin = "" if margin is None else f"±{100 * margin.value:.2f} pp"
    source = "" if margin is None else f' <span class="faint">{escape(margin.source)}</span>'
    needed = "" if verdict.needed is None else f"about {verdict.needed} in all would decide"
    counted = "" if verdict.counted else f"no: {_uncounted(asked)}"
    return facts(
        (
            ("printed", f"{escape(entry.number.printed)} {entry.number.unit}"),
            ("ours", f"{percent(verdict.score)} over {verdict.symbol}"),
            ("margin", shown_margin + source),
            ("questions", f"{verdict.n or 0:,} on {count(verdict.clusters or 0, 'video')}"),
            ("standard error", f"{100 * verdict.delta.error:.2f} pp, {escape(verdict.method)}"),
            ("runs", ", ".join(runs)),
            ("to decide", needed),
            ("counts", counted),
            ("left out", "<br>".join(map(escape, verdict.excluded))),
            ("protocols", "<br>".join(_alternative(other) for other in verdict.alternatives)),
        )
    )


def _uncounted(asked: Asked) -> str:
    """Why a number does not enter "x of y reproduced"."""
    if asked.verdict.word in ("failed", "not comparable"):
        return "nothing comparable was measured"
    if not asked.cell.reported.may_turn_green:
        return "its source never turns green"
    return "too few runs"


def _alternative(other: Verdict) -> str:
    """One of several plausible protocols."""
    values = [f"{part.name} {part.ours}" for part in other.fields if " or " in part.paper]
    delta = signed(other.delta.estimate) if other.delta else ""
    return f"{escape(', '.join(values))}: {delta} {word_badge(other.word, other.text)}"


def protocol_table(fields: tuple[Field, ...]) -> str:
    """The paper's protocol beside ours, field by field."""
    rows = []
    for part in fields:
        word, text = _STATES[part.state]
        mark = "✓" if part.comparable else "✗"
        title = f' title="{escape(part.source)}"' if part.source else ""
        rows.append(
            row(
                [
                    cell(escape(part.name.replace("_", " ")), "nowrap"),
                    cell(escape(part.paper)),
                    cell(escape(part.ours)),
                    cell(
                        f'<span class="mark w-{word.replace(" ", "-")}"{title}>{mark}</span> '
                        f"{text}",
                        "nowrap",
                    ),
                ]
            )
        )
    headings = (("Protocol", ""), ("Paper", ""), ("Ours", ""), ("", ""))
    return table(headings, rows)


def _stated(entry: Entry) -> str:
    """What the paper says of its protocol, where there is no run to compare."""
    stated = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in entry.number.protocol.items()
    )
    return f'<p class="faint">The paper: {escape(stated or "no protocol stated")}.</p>'


def _evidence(asked: Asked, policy: Policy) -> str:
    first = asked.runs[0]
    body = outcome_bar(asked.runs) + _tags(asked.runs, policy)
    second = next((run for run in asked.runs[1:] if _pairable(first, run)), None)
    if second is not None:
        found = compare(first, second, policy)
        title = f"Flips between seeds {first.record.seed} and {second.record.seed}"
        body += f"<h5>{title}</h5>{flip_bar(found)}" + more("the questions", flip_table(found))
    body += more("Sampled questions, as answered", sample_table(first, policy))
    return body + _history(asked, policy) + more("Where it ran", _where(asked.runs))


def _history(asked: Asked, policy: Policy) -> str:
    """Score per commit of the suite, where there is more than one."""
    commits = commits_of(asked.runs)
    whole = [run for run in asked.runs if not run.record.partial]
    if len(commits) < 2 or not whole:
        return ""
    return more("Score by commit", history_table(arms(whole, (), policy), commits, policy))


def _pairable(one: Run, other: Run) -> bool:
    return (
        one.record.protocol_hash == other.record.protocol_hash and one.items.ids == other.items.ids
    )


def outcome_bar(runs: tuple[Run, ...]) -> str:
    """What became of every reply of all runs."""
    counts = Counter[str]()
    for run in runs:
        counts.update(dict(run.record.outcomes))
    parts = [(name, counts[name]) for name in OUTCOMES]
    legend = "".join(
        f'<span><i class="box o-{name}"></i>{name} <b>{size:,}</b></span>'
        for name, size in parts
        if size
    )
    bar = charts.stacked(parts, sum(counts.values()))
    return f'<h5>Outcomes of all replies</h5>{bar}<div class="keys">{legend}</div>'


def _tags(runs: tuple[Run, ...], policy: Policy) -> str:
    """Score by tag with intervals over videos, mean over the runs of the first one's protocol."""
    own = [run for run in runs if _pairable(runs[0], run)]
    items = runs[0].items
    scores = np.mean([run.items.scores for run in own], axis=0)
    lanes = []
    for tag in sorted({name for tags in items.tags for name in tags}):
        values = np.array([tags.get(tag, "") for tags in items.tags])
        names = [str(value) for value in np.unique(values) if value]
        if len(names) > _MOST_TAGS:
            continue
        for name in names:
            at = values == name
            interval = clustered_interval(
                scores[at], items.clusters[at], policy.level, policy.draws, policy.draw_seed
            )
            lanes.append((f"{tag}: {name}", int(at.sum()), interval))
    if not lanes:
        return ""
    scale = charts.scale_over([x for *_, i in lanes for x in (i.low, i.estimate, i.high)])
    rows = "".join(
        f'<span class="l">{escape(name)} <small class="faint">{size:,}</small></span>'
        f"<span>{_lane(interval, scale)}</span>"
        f'<span class="r">{percent(interval.estimate)} '
        f'<span class="wide-only">{ends(interval, sign=False)}</span></span>'
        for name, size, interval in lanes
    )
    axis = f"<span></span>{charts.axis(scale, 'percent', 6)}<span></span>"
    return f'<h5>By tag, 95 % over videos</h5><div class="lanes">{rows}{axis}</div>'


def _lane(interval: Interval, scale: charts.Scale) -> str:
    mark = charts.marker(1, scale.at(interval.estimate), 9, percent(interval.estimate))
    return charts.track(charts.bar(interval, scale, 1, 9) + mark, 18)


def _where(runs: tuple[Run, ...]) -> str:
    rows = []
    for run in runs:
        r = run.record
        machine = ", ".join(str(value) for value in r.machine.values() if value)
        hours = "" if r.gpu_hours is None else f"{r.gpu_hours:.1f} h"
        rows.append(
            row(
                [
                    number(f"{r.seed}"),
                    number(percent(r.score)),
                    cell(escape((r.git["commit"] or "no git")[:10]), "mono"),
                    cell(escape((r.image or "")[7:19]), "mono"),
                    cell(escape(f"{r.engine['name']} {r.engine['version']}")),
                    cell(escape(machine)),
                    number(clock(r.seconds)),
                    number(hours),
                    cell(escape(r.started[:10]), "nowrap"),
                    cell(escape(r.who)),
                ]
            )
        )
    headings = (
        ("Seed", "num"), ("Score", "num"), ("Commit", ""), ("Image", ""), ("Engine", ""),
        ("Machine", ""), ("Time", "num"), ("GPU", "num"), ("Started", ""), ("By", ""),
    )  # fmt: skip
    return table(headings, rows)


# --- beside the verdicts -------------------------------------------------------------------


def _claims(entry: Entry) -> str:
    if not entry.claims:
        return ""
    rows = [_claim_row(asked) for asked in entry.claims]
    headings = (
        ("Claim", ""), ("Printed", "num"), ("Ours", "num"), ("Over videos", "num"), ("", ""),
        ("", ""),
    )  # fmt: skip
    return f'<div class="asked"><h4>Claims printed beside it</h4>{table(headings, rows)}</div>'


def _claim_row(asked: AskedClaim) -> str:
    claim, against = asked.claim, asked.cell.against
    rival = against.model.name if against else label(claim.baseline)
    ours = "" if claim.delta is None else signed(claim.delta)
    interval = "" if claim.item_interval is None else ends(claim.item_interval)
    return row(
        [
            cell(f"{escape(asked.cell.reported.model.name)} {MINUS} {escape(rival)}"),
            number(signed(asked.printed)),
            number(ours),
            number(interval, "interval"),
            cell(word_badge(claim.word, claim.text)),
            cell(escape(asked.cell.reason if claim.delta is None else claim.reason), "faint"),
        ]
    )


def _printed(entry: Entry) -> str:
    """Where the number was printed, and how well that is known."""
    n = entry.number
    return facts(
        (
            ("printed in", f"{escape(n.table)}: {escape(n.source)}"),
            ("seen in", escape(n.verified.replace("_", " "))),
            ("note", escape(n.note)),
            ("checked", n.checked.isoformat()),
        )
    )
