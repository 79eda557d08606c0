"""The plots of a selection: one HTML file that asks nothing of the network.

variance x mean of every signal, with the kept region · counts per source · what was spent
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import results
from evals.metrics import mean
from repro.selection.rules import Decision, Rules, by_source, variance
from results.charts import Scale, percent, stacked

#: Bins over mean and variance, so that half a million samples draw as fast as fifty (chosen).
ACROSS, DOWN = 40, 25
HIGH = 300  # pixels of a plot
STATES = ("dropped", "fits", "kept")
TITLES = {
    "accuracy": "Right or wrong: share of tries that were right",
    "tiou": "Grounding: tIoU of the tries",
}
_STATE_WORDS = {"kept": "kept", "fits": "fits, over quota", "dropped": "dropped"}
#: Words of a source's bar -> class of its colour.
PARTS = ("kept", "over quota", "dropped", "screened out", "lost")
STYLE = """
.cloud { display: block; width: 100%; overflow: visible; }
.cloud text { font-size: 12px; fill: var(--soft); }
.cloud .frame { fill: none; stroke: var(--line); } .cloud .rule { stroke: var(--grid); }
.cloud .limit { fill: none; stroke: var(--faint); stroke-dasharray: 4 4; vector-effect: non-scaling-stroke; }
.cloud .region { fill: var(--margin); }
.s-dropped { fill: var(--o-wrong); stroke: var(--card); } .s-kept { fill: var(--o-correct); stroke: var(--card); fill-opacity: .85; }
.s-fits { fill: none; stroke: var(--o-correct); stroke-width: 1.6; }
.o-kept { fill: var(--o-correct); } .o-over-quota { fill: var(--o-unparsed); } .o-dropped { fill: var(--o-wrong); }
.o-screened-out { fill: var(--faint); } .o-lost { fill: var(--o-undecodable); }
.keys { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; color: var(--soft); margin: 10px 0 0; }
.keys svg { width: 12px; height: 12px; vertical-align: -1px; margin-right: 6px; overflow: visible; }
table.counts td.bar { width: 45%; min-width: 160px; }
ul.reasons { margin: 10px 0 0; padding: 0; list-style: none; font-size: 13px; color: var(--soft); columns: 2; }
@media (max-width: 700px) { ul.reasons { columns: 1; } }
main { padding-bottom: 60px; }
"""  # noqa: E501


def build(decisions: Sequence[Decision], summary: Mapping[str, Any], law: Rules, title: str) -> str:
    """The page as text."""
    clouds = "".join(
        f'<div class="card"><h3>{TITLES[name]}</h3>{cloud(name, decisions, law)}</div>'
        for name in TITLES
        if any(name in d.tried.signals for d in decisions)
    )
    body = (
        f'<div class="wide"><div class="hero"><p class="kicker">Variance-aware selection</p>'
        f"<h1>{escape(title)}</h1><p class=lede>{_lede(summary)}</p></div></div><main>"
        f"{_section('Variance and mean of the tries', _REGION, clouds, 'grid two')}"
        f"{_section('Where they come from', _COUNTS, _sources(decisions, summary), 'card scroll')}"
        f"{_section('What was spent, and what it buys', '', _spent(summary), 'card')}</main>"
    )
    css = (Path(results.__file__).parent / "page.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{escape(title)} - selection</title><link rel=icon href="data:,">\n'
        f"<style>{css}{STYLE}</style></head><body>{body}</body></html>\n"
    )


_REGION = (
    "Every circle is the samples of one bin, its area their number. Shaded: what the rules keep. "
    "Dashed: no spread can be larger at this mean."
)
_COUNTS = (
    "A source gives its quota, shared among its kinds of questions, widest spread first. Screened "
    "out: all first tries earned the same."
)


def _section(title: str, text: str, body: str, css: str) -> str:
    head = f'<div class="head"><h2>{title}</h2><p>{text}</p></div>'
    return f'<section>{head}<div class="{css}">{body}</div></section>'


def _lede(found: Mapping[str, Any]) -> str:
    replies = found["replies"]
    return (
        f"{found['kept']:,} of {found['pool']:,} samples kept "
        f"({percent(found['kept'] / found['pool'])}&nbsp;%), {found['fits']:,} fit the rules. "
        f"{replies['spent']:,} replies were drawn instead of {replies['all_tries']:,}: "
        f"{percent(replies['saved'])}&nbsp;% saved."
    )


# --- variance and mean -------------------------------------------------------------------------


def cloud(name: str, decisions: Sequence[Decision], law: Rules) -> str:
    """Variance over mean of one signal, binned; the region that its rule keeps is shaded."""
    x, y = Scale(0, 1), Scale(0, 0.25)
    bins: dict[tuple[int, int, str], list[Decision]] = {}
    for d in decisions:
        if values := d.tried.signals.get(name):
            place = (round(mean(values) * ACROSS), round(variance(values) / 0.25 * DOWN))
            bins.setdefault((*place, _state(d)), []).append(d)
    most = max((len(own) for own in bins.values()), default=1)
    circles = "".join(
        _circle(place, own, most)
        for place, own in sorted(bins.items(), key=lambda b: (STATES.index(b[0][2]), b[0]))
    )
    low, high, least = _region(name, law)
    top, left = HIGH * (1 - y.at(0.25) / 100), x.at(low)
    shade = (
        f'<rect class="region" x="{left:.2f}%" width="{x.at(high) - left:.2f}%" y="{top:.1f}" '
        f'height="{HIGH * (1 - y.at(least) / 100):.1f}"/>'
    )
    return (
        f'<svg class="cloud" height="{HIGH + 56}" role="img" aria-label="Variance over mean">'
        f'<svg x="50" y="8" width="calc(100% - 66px)" height="{HIGH}" overflow="visible" '
        f'style="width:calc(100% - 66px)">{_grid(x, y)}{shade}{_limit()}{circles}</svg></svg>'
        f"{_keys(Counter(_state(d) for d in decisions if name in d.tried.signals))}"
    )


def _state(decision: Decision) -> str:
    return "kept" if decision.kept else "fits" if decision.fits else "dropped"


def _region(name: str, law: Rules) -> tuple[float, float, float]:
    """Lowest and highest mean and least variance that the signal's rule keeps."""
    if name == "accuracy":
        return 1 / law.tries, 1 - 1 / law.tries, 0.0
    return law.low, law.high, law.tau**2


def _circle(place: tuple[int, int, str], own: Sequence[Decision], most: int) -> str:
    across, down, state = place
    radius = 2.5 + 11 * math.sqrt(len(own) / most)
    some = ", ".join(d.tried.id for d in own[:3]) + (", ..." if len(own) > 3 else "")
    tip = (
        f"{len(own):,} {_STATE_WORDS[state]}: mean {across / ACROSS:.2f}, "
        f"variance {0.25 * down / DOWN:.3f} ({some})"
    )
    return (
        f'<circle class="s-{state}" cx="{100 * across / ACROSS:.2f}%" '
        f'cy="{HIGH * (1 - down / DOWN):.1f}" r="{radius:.1f}">'
        f"<title>{escape(tip)}</title></circle>"
    )


def _grid(x: Scale, y: Scale) -> str:
    out = ['<rect class="frame" width="100%" height="100%"/>']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        out.append(
            f'<line class="rule" x1="{x.at(tick)}%" x2="{x.at(tick)}%" y1="0" y2="{HIGH}"/>'
            f'<text x="{x.at(tick)}%" y="{HIGH + 26}" text-anchor="middle">{tick:g}</text>'
        )
    for tick in (0, 0.05, 0.1, 0.15, 0.2, 0.25):
        down = HIGH * (1 - y.at(tick) / 100)
        out.append(
            f'<line class="rule" x1="0" x2="100%" y1="{down:.1f}" y2="{down:.1f}"/>'
            f'<text x="-15" y="{down + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    out.append(f'<text x="100%" y="{HIGH + 42}" text-anchor="end">mean</text>')
    out.append('<text x="6" y="16">variance</text>')
    return "".join(out)


def _limit() -> str:
    """mean (1 - mean), the largest variance of values in [0, 1]."""
    points = [(m, 100 * (1 - 4 * m / 100 * (1 - m / 100))) for m in range(0, 101, 2)]
    path = "M" + "L".join(f"{m} {down:.1f}" for m, down in points)
    return (
        '<svg width="100%" height="100%" viewBox="0 0 100 100" preserveAspectRatio="none">'
        f'<path class="limit" d="{path}"/></svg>'
    )


def _keys(counts: Mapping[str, int]) -> str:
    return (
        '<p class="keys">'
        + "".join(
            f'<span><svg><circle class="s-{state}" cx="6" cy="6" r="5"/></svg>'
            f"{_STATE_WORDS[state]} {counts.get(state, 0):,}</span>"
            for state in reversed(STATES)
        )
        + "</p>"
    )


# --- counts ------------------------------------------------------------------------------------


def part(decision: Decision) -> str:
    """Which part of its source's bar a sample is in."""
    first = decision.reason.split(":")[0]
    if decision.kept:
        return "kept"
    for word in ("over quota", "screened out", "lost"):
        if first.startswith(word):
            return word
    return "dropped"


def _sources(decisions: Sequence[Decision], found: Mapping[str, Any]) -> str:
    rows = []
    for name, own in by_source(decisions).items():
        counts = Counter(part(d) for d in own)
        known = found["sources"][name]
        bar = stacked([(p.replace(" ", "-"), counts[p]) for p in PARTS], len(own))
        quota = "all" if known["quota"] is None else f"{known['quota']:,}"
        least = "<br>".join(
            f"<span title='{escape(kind)}'>{value:.3f}</span>"
            for kind, value in known["least_score"].items()
        )
        rows.append(
            f"<tr><th>{escape(name)}</th><td class=num>{len(own):,}</td>"
            f"<td class=num>{known['fits']:,}</td><td class=num>{quota}</td>"
            f"<td class=num>{known['kept']:,}</td><td class=num>{least}</td>"
            f'<td class="bar">{bar}</td></tr>'
        )
    heads = ("source", "samples", "fit", "quota", "kept", "least std kept", "")
    head = "".join(f"<th{' class=num' if 0 < i < 6 else ''}>{h}</th>" for i, h in enumerate(heads))
    reasons = Counter(d.reason if not d.tried.lost else "lost" for d in decisions)
    words = "".join(
        f"<li>{n:,} {escape(reason)}</li>"
        for reason, n in sorted(reasons.items(), key=lambda r: (-r[1], r[0]))
    )
    keys = "".join(
        f'<span><svg><rect class="o-{p.replace(" ", "-")}" width="11" height="11" rx="2"/></svg>'
        f"{p}</span>"
        for p in PARTS
    )
    return (
        f'<table class="counts"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
        f'<p class="keys">{keys}</p><ul class="reasons">{words}</ul>'
    )


def _spent(found: Mapping[str, Any]) -> str:
    law, replies, flat, audit = (found[k] for k in ("rules", "replies", "flat", "audit"))
    facts = [
        ("Tries", f"{law['first']} of every sample, {law['tries'] - law['first']} more of the "
                  f"{'undecided' if law['tries'] > law['first'] else 'none'}"),
        ("Replies", f"{replies['spent']:,} of {replies['all_tries']:,}, "
                    f"{percent(replies['saved'])} % saved; {replies['tokens']:,} tokens"),
        ("Groups without advantage", _flat(flat)),
        ("Lost to the screen", _audited(audit)),
        ("Rules", f"mean tIoU in {law['low']:g} .. {law['high']:g}, std at least {law['tau']:g}; "
                  f"seed {law['seed']}"),
    ]  # fmt: skip
    return "<dl>" + "".join(f"<dt>{k}</dt><dd>{escape(v)}</dd>" for k, v in facts) + "</dl>"


def _flat(flat: Mapping[str, Any]) -> str:
    pool, chosen = flat["pool"], flat["selected"]
    if pool["share"] is None:
        return "unknown"
    text = f"{percent(pool['share'])} % of the pool in {pool['group']} tries"
    if chosen["share"] is None:
        return text + "; of the selected ones unknown, as every try decided about them"
    return text + (
        f"; {percent(chosen['share'])} % of the selected ones in the {chosen['group']} tries "
        "that did not screen them (they did order them)"
    )


def _audited(audit: Mapping[str, Any]) -> str:
    if not audit["audited"]:
        return f"{audit['screened']:,} screened out; none audited"
    return (
        f"{audit['fit']:,} of {audit['audited']:,} audited fit, so about "
        f"{audit['lost_about']:,.0f} of {audit['screened']:,}; within the quota: {audit['kept']:,}"
    )
