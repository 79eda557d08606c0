"""The scoreboard of the papers, the differences with their margins, and the claims.

A cell shows its word as icon and text, what was printed, and what was measured; it leads to the
card below. Filters by paper and by word act on all of them.
"""

from __future__ import annotations

import re
from html import escape

from results import charts
from results.arms import label
from results.charts import MINUS, ends, percent, signed
from results.scoreboard import Asked, AskedClaim, Board, Entry, PaperBoard
from results.sections.parts import card, icon, titled, word_badge
from results.stats import Interval
from results.verdict import WORDS, Verdict, count

_MEANING = {
    "reproduced": "inside the registered margin",
    "below": "significantly lower than printed",
    "above": "significantly higher: a finding to explain",
    "within noise": "compatible, but not precise enough",
    "not comparable": "a protocol field differs or is unknown",
    "failed": "the run ended in an error",
    "not run": "nobody has measured it yet",
}


def hero(board: Board) -> str:
    """What became of the printed numbers, by word."""
    registered = sum(len(entry.asked) for entry in board.entries)
    lede = (
        f"{count(len(board.papers), 'paper')}, {count(len(board.entries), 'printed number')} in "
        f"their main tables, {count(registered, 'question')} registered before the first run: is "
        "the released checkpoint as good as printed, and is a model trained again?"
    )
    tiles = "".join(
        f'<li class="tile w-{word.replace(" ", "-")}">{icon(word)}<b>{number:,}</b>'
        f"<span>{word}<small>{_MEANING[word]}</small></span></li>"
        for word, number in board.words.items()
    )
    return (
        f'<div class="hero"><p class="kicker">Does it reproduce?</p>'
        f"<h1>{escape(board.headline)}</h1>"
        f'<p class="lede">{lede}</p><ul class="tiles">{tiles}</ul>{_micro(board)}</div>'
    )


def _micro(board: Board) -> str:
    """Where the micro profile's own claims are, in a line of its own."""
    lines = []
    for micro in board.micro:
        anchor = f"{micro.paper}-{micro.benchmark}-{micro.split}-claims".replace("_", "-")
        lines += [
            f'<a href="#{anchor}">{escape(label(c.method))} {MINUS} {escape(label(c.baseline))} '
            f"<b>{'' if c.delta is None else signed(c.delta)}</b></a>{word_badge(c.word, c.text)}"
            for c in micro.claims
        ]
    if not lines:
        return ""
    own = '<span class="soft">Micro profile, our own:</span>'
    return f'<p class="microline">{own}{"".join(lines)}</p>'


def filters(board: Board) -> str:
    """Buttons by paper and by word; each hides what it names."""
    papers = "".join(
        f'<button name="paper" value="{escape(part.paper.id)}" aria-pressed="true">'
        f"{escape(part.paper.id)}</button>"
        for part in board.papers
        if part.entries
    )
    words = "".join(
        f'<button name="word" value="{word}" aria-pressed="true">{icon(word)}{word}</button>'
        for word in WORDS
        if board.words[word]
    )
    return (
        f'<div class="filter" role="group" aria-label="Papers">{papers}</div>'
        f'<div class="filter" role="group" aria-label="Words">{words}</div>'
    )


# --- scoreboard ----------------------------------------------------------------------------


def scoreboard(board: Board) -> str:
    """Papers by benchmarks."""
    text = (
        "Ours over printed, in percent. A number stands for its released checkpoint where that was "
        "scored, else for our own training. Point or tap for the evidence."
    )
    body = "".join(_paper(part) for part in board.papers)
    return titled("scoreboard", "Scoreboard", text, f'<div class="stackup">{body}</div>')


def _paper(part: PaperBoard) -> str:
    paper = part.paper
    words = ""
    if part.entries:
        words = "".join(
            f'<span class="eyebrow">{name} {word_badge(verdict.word)}</span>'
            for name, verdict in (("released", part.score), ("trained again", part.trained))
        )
    head = (
        f'<header class="paperhead"><div><h3>{escape(paper.title)}</h3>'
        f'<p class="faint">{escape(paper.id)} · arXiv {escape(paper.arxiv)}</p></div>'
        f'<div class="words">{words}</div></header>'
    )
    status = f'<p class="status soft">{escape(paper.told)}</p>'
    return (
        f'<article class="card paper" data-paper="{escape(paper.id)}">{head}'
        f"{_matrix(part) if part.entries else ''}{status}</article>"
    )


def _matrix(part: PaperBoard) -> str:
    columns = list(dict.fromkeys(map(column, part.entries)))
    rows: dict[str, dict[str, Entry]] = {}
    for entry in part.entries:
        rows.setdefault(entry.row, {})[column(entry)] = entry
    head = "".join(f'<th scope="col">{_breakable(escape(name))}</th>' for name in columns)
    own = {entry.row for entry in part.entries if entry.number.model.role == "method"}
    body = "".join(
        f'<tr class="{"own" if row in own else "rival"}"><th scope="row">{escape(row)}</th>'
        + "".join(_cell(found.get(name)) for name in columns)
        + "</tr>"
        for row, found in rows.items()
    )
    return (
        f'<div class="scroll"><table class="board"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(entry: Entry | None) -> str:
    if entry is None:
        return '<td class="none"></td>'
    verdict = entry.shown.verdict
    css = verdict.word.replace(" ", "-")
    ours = "" if verdict.score is None else f"<b>{percent(verdict.score)}</b> {_half(verdict)}"
    said = f"{entry.row}, {entry.benchmark}: {verdict.text}, printed {entry.number.printed}"
    return (
        f'<td data-word="{verdict.word}"><a class="score w-{css}" href="#{entry.id}" '
        f'title="{escape(said)}">'
        f"{icon(verdict.word)}<span>{ours}<i>{escape(entry.number.printed)}</i></span>"
        f'<small class="sr">{escape(verdict.text)}</small></a></td>'
    )


def _half(verdict: Verdict) -> str:
    if verdict.narrow is None:
        return ""
    return f"<small>±{100 * verdict.narrow.half_width:.1f}</small>"


def column(entry: Entry) -> str:
    """Name of the benchmark, with the metric where it is not accuracy."""
    metric = entry.number.metric
    return entry.benchmark + ("" if metric == "accuracy" else f" {metric.replace('_', ' ')}")


# --- differences ---------------------------------------------------------------------------


def differences(board: Board) -> str:
    """The main picture: Δ of every measured number with its margin."""
    measured = [
        (entry, asked)
        for entry in board.entries
        for asked in entry.asked
        if asked.verdict.delta is not None
    ]
    text = (
        "Ours minus printed, in percentage points: 90 % interval thick, 95 % thin, the registered "
        "margin shaded. A number is reproduced when the thick bar lies inside the shade."
    )
    if not measured:
        body = card(_nothing("No printed number has been measured here yet."), "ok")
        return titled("differences", "Ours minus printed", text, body)
    scale = charts.forest_scale(
        [v.delta.estimate for _, a in measured if (v := a.verdict).delta is not None],
        [w for _, a in measured if (w := a.verdict.wide) is not None]
        + [Interval(0.0, -m, m, 0.9) for _, a in measured if (m := a.verdict.margin) is not None],
    )
    rows = "".join(_difference(entry, asked, scale) for entry, asked in measured)
    axis = f'<div class="frow"><span></span>{charts.axis(scale)}<span></span><span></span></div>'
    note = '<p class="faint" data-empty hidden>Every row is filtered out.</p>'
    return titled(
        "differences",
        "Ours minus printed",
        text,
        card(f'<div class="effects">{rows}{axis}</div>{note}'),
    )


def _difference(entry: Entry, asked: Asked, scale: charts.Scale) -> str:
    verdict = asked.verdict
    assert verdict.delta is not None and verdict.narrow is not None
    how = "trained" if verdict.question == "T" else "released"
    name = (
        f'<span class="l"><b>{escape(column(entry))}</b>'
        f"<small>{escape(entry.number.paper)} · {escape(entry.row)} · "
        f"{how},{_unbroken(f' {verdict.symbol}')}</small></span>"
    )
    value = f'<span class="r">{signed(verdict.delta.estimate)} {ends(verdict.narrow)}</span>'
    return (
        f'<div class="frow" data-paper="{escape(entry.number.paper)}" data-word="{verdict.word}">'
        f"{name}{delta_plot(verdict, scale)}{value}{word_badge(verdict.word, verdict.text)}</div>"
    )


def delta_plot(verdict: Verdict, scale: charts.Scale, height: int = 30) -> str:
    """One row of the forest: margin, 95 % thin, 90 % thick, the point."""
    assert verdict.delta is not None and verdict.narrow is not None and verdict.wide is not None
    css = f"k-{verdict.word.replace(' ', '-')}"
    middle = height / 2
    margin = verdict.margin
    shade = "" if margin is None else charts.region(-margin, margin, scale, height)
    at = charts.marker(0, scale.at(verdict.delta.estimate), middle, signed(verdict.delta.estimate))
    body = (
        shade
        + charts.bar(verdict.wide, scale, 0, middle, "fine")
        + charts.bar(verdict.narrow, scale, 0, middle, "thick")
        + at
    )
    return charts.track(body, height, zero=scale.at(0), css=css)


# --- claims --------------------------------------------------------------------------------


def claims(board: Board) -> str:
    """Method minus baseline, both ours and paired, against the printed gain."""
    measured = [
        (entry, asked)
        for entry in board.entries
        for asked in entry.claims
        if asked.claim.delta is not None
    ]
    if not measured:
        return ""
    scale = charts.forest_scale(
        [asked.printed for _, asked in measured]
        + [pair.delta for _, asked in measured for pair in asked.claim.per_seed],
        [i for _, asked in measured if (i := asked.claim.item_interval) is not None],
    )
    rows = "".join(_claim(entry, asked, scale) for entry, asked in measured)
    axis = f'<div class="frow"><span></span>{charts.axis(scale)}<span></span><span></span></div>'
    text = (
        "Method minus baseline, both scored here under one protocol and paired by question: arms "
        "trained here, seed by seed, else the two released checkpoints. A ring is the gain the "
        "paper prints; thick is the interval over videos, the small marks are seeds."
    )
    body = card(f'<div class="effects">{rows}{axis}</div>')
    return titled("paper-claims", "The papers' claims", text, body)


def _claim(entry: Entry, asked: AskedClaim, scale: charts.Scale) -> str:
    claim = asked.claim
    assert claim.delta is not None and claim.item_interval is not None
    name = (
        f'<span class="l"><b>{escape(label(claim.method))} {MINUS} '
        f"{escape(label(claim.baseline))}</b><small>{escape(column(entry))} · "
        f"{claim.basis}</small></span>"
    )
    seeds = "".join(
        charts.marker(2, scale.at(pair.delta), 8, f"seed {pair.seed}: {signed(pair.delta)}")
        for pair in claim.per_seed
    )
    plot = charts.track(
        seeds
        + charts.bar(claim.item_interval, scale, 2, 22, "thick")
        + charts.ring(scale.at(asked.printed), 22, f"printed {signed(asked.printed)}"),
        32,
        zero=scale.at(0),
    )
    value = (
        f'<span class="r">{signed(claim.delta)} {ends(claim.item_interval)}'
        f"<small>printed {signed(asked.printed)}</small></span>"
    )
    return (
        f'<div class="frow" data-paper="{escape(entry.number.paper)}">{name}{plot}{value}'
        f"{word_badge(claim.word, claim.text)}</div>"
    )


def _breakable(name: str) -> str:
    """A heading that may break inside a name like LongVideoBench, and nowhere else."""
    return re.sub("(?<=[a-z])(?=[A-Z][a-z])", "<wbr>", name)


def _unbroken(text: str) -> str:
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _nothing(text: str) -> str:
    return f"{icon('not run')}<span>{text} Released checkpoints and trainings need GPUs.</span>"
