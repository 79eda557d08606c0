"""Scores by arm and seed, outcomes of all replies, scores by question family."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from results import charts
from results.arms import Arm, label, run_score, tag_scores
from results.charts import ends, percent, signed
from results.ledger import Run
from results.schema import OUTCOMES
from results.sections.parts import (
    View,
    card,
    cell,
    number,
    row,
    section,
    sentence,
    swatch,
    table,
)
from results.stats import Interval
from results.verdict import count


def scores(view: View) -> str:
    """Arms by seeds: sampled score with interval, greedy, gain over the start, unanswered."""
    text = (
        f"{escape(sentence(view.metric))} Intervals are over videos, {view.level}; an arm's row "
        "is the mean over its seeds. Unanswered replies are unparsed or truncated."
    )
    body = card(_score_table(view.arms, view))
    if view.reference:
        inside = card(_score_table(view.reference, view))
        body += f"<details><summary>The table of the reference runs</summary>{inside}</details>"
    return section(view, "scores", "Scores", text, body)


def _score_table(arms: Sequence[Arm], view: View) -> str:
    measured = {id(run): run_score(run, view.policy) for arm in arms for run in arm.runs}
    every = [*measured.values(), *(arm.score for arm in arms)]
    scale = charts.scale_over([v for i in every for v in (i.estimate, i.low, i.high)])
    rows = []
    for arm in arms:
        rows.append(_arm_row(arm, scale, view))
        if len(arm.runs) > 1:
            rows += [_seed_row(run, arm, measured[id(run)], scale, view) for run in arm.runs]
    rows.append(row([cell()] * 3 + [cell(charts.axis(scale, "percent"), "plot")], "axisrow"))
    samples = arms[0].runs[0].record.samples
    headings = (
        ("Arm", ""),
        (f"avg@{samples}" if samples > 1 else "Score", "num"),
        ("Interval", "num"),
        ("", ""),
        ("Greedy", "num"),
        ("Gain over the start", "num"),
        ("Unanswered", "num"),
        ("Tokens per reply", "num"),
    )
    return table(headings, rows)


def _arm_row(arm: Arm, scale: charts.Scale, view: View) -> str:
    colour, greedy, gain = view.colours[arm.name], arm.greedy_score, ""
    if arm.gain is not None and arm.gain.delta is not None and arm.gain.item_interval is not None:
        interval = f'<span class="interval">{ends(arm.gain.item_interval)}</span>'
        gain = f"<b>{signed(arm.gain.delta)}</b> {interval}"
    seeds = count(len(arm.runs), "seed") if len(arm.runs) > 1 else ""
    cells = [
        cell(f'{swatch(colour)}{escape(arm.label)} <small class="faint">{seeds}</small>'),
        number(f"<b>{percent(arm.score.estimate)}</b>"),
        number(ends(arm.score, sign=False), "interval"),
        cell(_score_plot(arm.score, scale, colour), "plot"),
        number("" if greedy is None else percent(greedy)),
        number(gain),
        *_reply_cells(arm.runs),
    ]
    return row(cells, "arm", colour)


def _seed_row(run: Run, arm: Arm, score: Interval, scale: charts.Scale, view: View) -> str:
    seed, colour = run.record.seed, view.colours[arm.name]
    twin = arm.twin(seed)
    gains = {pair.seed: pair.delta for pair in (arm.gain.per_seed if arm.gain else ())}
    cells = [
        cell(f"seed {seed}"),
        number(percent(score.estimate)),
        number(ends(score, sign=False), "interval"),
        cell(_score_plot(score, scale, colour, "thin"), "plot"),
        number("" if twin is None else percent(twin.record.score)),
        number(signed(gains[seed]) if seed in gains else ""),
        *_reply_cells([run]),
    ]
    return row(cells, "sub", colour)


def _score_plot(score: Interval, scale: charts.Scale, colour: int, css: str = "") -> str:
    mark = charts.marker(colour, scale.at(score.estimate), 9, percent(score.estimate))
    return charts.track(charts.bar(score, scale, colour, 9, css) + mark, 18)


def _reply_cells(runs: Sequence[Run]) -> list[str]:
    replies = [reply for run in runs for reply in run.rows]
    unanswered = sum(reply.outcome in ("unparsed", "truncated") for reply in replies)
    length = math.fsum(reply.tokens for reply in replies) / len(replies)
    return [number(f"{percent(unanswered / len(replies))} %"), number(f"{length:.1f}")]


def outcomes(view: View) -> str:
    """What became of every reply, as a bar and as counts."""
    rows = []
    for arm in view.arms:
        counts = Counter(reply.outcome for run in arm.runs for reply in run.rows)
        parts = [(name, counts[name]) for name in OUTCOMES]
        colour = view.colours[arm.name]
        cells = [
            cell(f"{swatch(colour)}{escape(arm.label)}"),
            cell(charts.stacked(parts, sum(counts.values())), "plot"),
            *(number(f"{size:,}", "" if size else "faint") for _, size in parts),
        ]
        rows.append(row(cells, "arm", colour))
    headings = [("Arm", ""), ("", "")]
    headings += [(f'<i class="box o-{name}"></i>{name}', "num") for name in OUTCOMES]
    text = (
        "Every reply has one outcome and none is dropped; whatever gave no answer counts as wrong. "
        "Counts are over all seeds of an arm."
    )
    return section(view, "outcomes", "Outcomes", text, card(table(headings, rows)))


def families(view: View) -> str:
    """Score by question family, every arm in its own lane; nothing where questions have no tags."""
    tag = _family_tag(view)
    if tag is None:
        return ""
    found = {arm.name: tag_scores(arm, tag, view.policy) for arm in view.arms}
    every = [interval for scores in found.values() for interval in scores.values()]
    scale = charts.scale_over([v for i in every for v in (i.estimate, i.low, i.high)])
    sizes = Counter(tags[tag] for tags in view.arms[0].runs[0].items.tags if tag in tags)
    cards = []
    for value in sorted(sizes):
        own = {arm: scores[value] for arm, scores in found.items() if value in scores}
        cards.append(_family(value, sizes[value], own, scale, view))
    text = f"{escape(sentence(view.metric))} Mean over seeds, intervals over videos; one axis."
    body = f'<div class="grid three">{"".join(cards)}</div>'
    return section(view, "families", f"By {escape(tag)}", text, body)


def _family(
    value: str, size: int, own: Mapping[str, Interval], scale: charts.Scale, view: View
) -> str:
    lanes = []
    for name, score in own.items():
        colour = view.colours[name]
        lanes.append(
            f'<span class="l" data-arm="{colour}">{escape(label(name))}</span>'
            f'<span data-arm="{colour}">{_score_plot(score, scale, colour)}</span>'
            f'<span class="r" data-arm="{colour}">{percent(score.estimate)}</span>'
        )
    axis = f"<span></span>{charts.axis(scale, 'percent', 6)}<span></span>"
    return (
        f'<article class="card family"><h3>{escape(value)}<small>{count(size, "question")}</small>'
        f'</h3><div class="lanes">{"".join(lanes)}{axis}</div></article>'
    )


def _family_tag(view: View) -> str | None:
    """The tag `family`, or the first one with a readable number of values."""
    values: dict[str, set[str]] = {}
    for tags in view.arms[0].runs[0].items.tags:
        for tag, value in tags.items():
            values.setdefault(tag, set()).add(value)
    readable = [tag for tag in sorted(values) if 1 < len(values[tag]) <= 18]
    return "family" if "family" in readable else next(iter(readable), None)
