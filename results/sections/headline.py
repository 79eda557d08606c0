"""The question, the word, the forest plots behind it, and every other comparison."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from results import charts
from results.arms import Arm, label
from results.charts import ends, percent, signed
from results.sections.parts import (
    View,
    badge,
    card,
    cell,
    difference,
    number,
    row,
    section,
    sentence,
    swatch,
    table,
)
from results.verdict import START, Claim, count


def hero(view: View, title: str, level: int = 1) -> str:
    """The question, the word, and the forest plots behind it; level: of the heading."""
    record = view.arms[0].runs[0].record
    lede = (
        "Both arms start from one checkpoint and are trained on the same data; each seed trains "
        f"one pair. Scores are {escape(view.metric)}, on {record.n:,} held-out questions."
    )
    question, cards = escape(title), ""
    if view.claims:
        first = view.claims[0]
        about = escape(f" on {', '.join(first.families)}" if first.families else "")
        question = (
            f"Does {escape(label(first.method))} beat {escape(label(first.baseline))}{about}?"
        )
        twin = _same(first, view.reference_claims)
        scale = _scale([claim for claim in (first, twin) if claim is not None])
        cards = claim_card(first, view.source, view.arms, scale, view)
        if twin is not None:
            cards += claim_card(twin, "Committed reference runs", view.reference, scale, view)
    return (
        f'<div class="hero"><p class="kicker">{escape(title)}</p><h{level}>{question}</h{level}>'
        f'<p class="lede">{lede}</p><div class="grid two verdicts">{cards}</div></div>'
    )


def claim_card(
    claim: Claim, source: str, shown: Sequence[Arm], scale: charts.Scale, view: View
) -> str:
    """One claim: the word, the difference, the reason, the scores, and its forest plot."""
    seeds = f" \N{MIDDLE DOT} {count(claim.seeds, 'seed')}" if claim.seeds else ""
    top = f'<header><span class="eyebrow">{source}{seeds}</span>{badge(claim)}</header>'
    delta = ""
    if claim.delta is not None:
        unit = f"<span>percentage points, {difference(claim)}</span>"
        delta = f'<p class="delta">{signed(claim.delta)}{unit}</p>'
    reason = f'<p class="reason">{escape(sentence(claim.reason))}</p>'
    left_out = "".join(f"<li>{escape(text)}</li>" for text in claim.excluded)
    notice = f'<div class="notice">Left out:<ul>{left_out}</ul></div>' if left_out else ""
    body = f"{top}{delta}{reason}{_ladder(claim, shown, view)}{forest(claim, scale, view)}{notice}"
    return f'<article class="card claim">{body}</article>'


def _ladder(claim: Claim, shown: Sequence[Arm], view: View) -> str:
    """Start, baseline and method with their scores; none beside a part of the questions."""
    if claim.families:
        return ""
    by_name = {arm.name: arm for arm in shown}
    steps = "".join(
        f"<li>{swatch(view.colours[name])}{escape(by_name[name].label)} "
        f"<b>{percent(by_name[name].score.estimate)}</b></li>"
        for name in (START, claim.baseline, claim.method)
        if name in by_name
    )
    return f'<ul class="ladder">{steps}</ul>'


def forest(claim: Claim, scale: charts.Scale, view: View) -> str:
    """A row per seed, then the interval over seeds and the interval over videos."""
    if claim.delta is None or claim.seed_interval is None or claim.item_interval is None:
        return ""
    colour, zero = view.colours[claim.method], scale.at(0)
    rows = []
    for pair in claim.per_seed:
        tip = f"seed {pair.seed}: {percent(pair.baseline)} to {percent(pair.method)}"
        mark = charts.marker(colour, scale.at(pair.delta), 11, tip)
        rows.append(_forest_row(f"seed {pair.seed}", mark, 22, zero, signed(pair.delta), ""))
    rows.append('<div class="rule"></div>')
    for name, interval in (("seeds", claim.seed_interval), ("videos", claim.item_interval)):
        mark = charts.marker(colour, scale.at(interval.estimate), 12, f"{view.level} over {name}")
        plot = charts.bar(interval, scale, colour, 12) + mark
        rows.append(_forest_row(f"over {name}", plot, 24, zero, ends(interval), "strong"))
    better = (
        f'<div class="ends"><span>\N{LEFTWARDS ARROW} {escape(label(claim.baseline))} better</span>'
        f"<span>{escape(label(claim.method))} better \N{RIGHTWARDS ARROW}</span></div>"
    )
    said = (
        f"{difference(claim)}: {signed(claim.delta)}, over seeds {ends(claim.seed_interval)}, "
        f"over videos {ends(claim.item_interval)}"
    )
    return (
        f'<div class="forest" role="img" aria-label="{said}">{"".join(rows)}'
        f"<span></span>{charts.axis(scale)}<span></span>{better}</div>"
    )


def _forest_row(name: str, plot: str, height: int, zero: float, value: str, css: str) -> str:
    return (
        f'<span class="l {css}">{name}</span>{charts.track(plot, height, zero=zero)}'
        f'<span class="r {css}">{value}</span>'
    )


def comparisons(view: View) -> str:
    """Every registered claim and what training added to each arm, with the reference below."""
    own = [*view.claims, *(arm.gain for arm in view.arms if arm.gain is not None)]
    reference = [*view.reference_claims, *(a.gain for a in view.reference if a.gain is not None)]
    pairs = {_pair(claim) for claim in own}
    only = [claim for claim in reference if _pair(claim) not in pairs]
    scale = _scale([*own, *reference], seeds=False)
    rows = []
    for claim in (*own, *only):
        source = "reference, " if claim in only else ""
        rows.append(_comparison(claim, difference(claim), source, "arm", scale, view))
        twin = _same(claim, reference)
        if twin is not None and claim not in only:
            rows.append(_comparison(twin, "", "reference, ", "sub", scale, view))
    rows.append(row([cell()] * 3 + [cell(charts.axis(scale), "plot")], "axisrow"))
    text = (
        f"<b>holds</b> needs at least {view.policy.minimum_seeds} seeds and both {view.level} "
        "intervals above 0; <b>reversed</b> both below; anything else measured is "
        "<b>undecided</b>. The rule and the comparisons of two methods were registered before "
        "the runs."
    )
    headings = (
        ("Comparison", ""),
        ("\N{GREEK CAPITAL LETTER DELTA}, pp", "num"),
        ("Word", ""),
        ("Interval over videos, a point per seed", ""),
        ("Over videos", "num"),
        ("Over seeds", "num"),
    )
    return section(view, "claims", "What is claimed", text, card(table(headings, rows)))


def _comparison(
    claim: Claim, name: str, source: str, css: str, scale: charts.Scale, view: View
) -> str:
    colour = view.colours.get(claim.method, 0)
    seeds = f"{source}{count(claim.seeds, 'seed')}" if claim.seeds else source.removesuffix(", ")
    start = [cell(f'{name} <small class="faint">{seeds}</small>', "nowrap")]
    if claim.delta is None or claim.seed_interval is None or claim.item_interval is None:
        return row([*start, cell(), cell(badge(claim)), cell(), cell(), cell()], css, colour)
    plot = charts.bar(claim.item_interval, scale, colour, 18) + "".join(
        charts.marker(colour, scale.at(p.delta), 6, f"seed {p.seed}: {signed(p.delta)}")
        for p in claim.per_seed
    )
    rest = [
        number(f"<b>{signed(claim.delta)}</b>"),
        cell(badge(claim)),
        cell(charts.track(plot, 26, zero=scale.at(0)), "plot"),
        number(ends(claim.item_interval), "interval"),
        number(ends(claim.seed_interval), "interval"),
    ]
    return row([*start, *rest], css, colour)


def _scale(claims: Sequence[Claim], *, seeds: bool = True) -> charts.Scale:
    """One axis for several claims; `seeds`: it should hold the intervals over seeds too."""
    points = [pair.delta for claim in claims for pair in claim.per_seed]
    drawn = [c.item_interval for c in claims] + [c.seed_interval for c in claims if seeds]
    return charts.forest_scale(points, [interval for interval in drawn if interval is not None])


def _same(claim: Claim, others: Sequence[Claim]) -> Claim | None:
    """The measured claim about the same two arms and the same questions."""
    pair = _pair(claim)
    return next((c for c in others if _pair(c) == pair and c.delta is not None), None)


def _pair(claim: Claim) -> tuple[object, ...]:
    return claim.method, claim.baseline, claim.families
