"""The sections of the report, each a pure function from runs to HTML text.

Everything that comes from a run passes through `html.escape`; nothing here reads a clock.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from results import charts
from results.arms import START, Arm, label, run_score, tag_scores
from results.charts import MINUS, ends, percent, signed
from results.ledger import Run
from results.schema import OUTCOMES
from results.stats import Interval
from results.verdict import Claim, Policy, count

_ICONS = {
    "holds": '<path d="M3 8.5l3.2 3.2L13 4.8" fill="none" stroke="currentColor" stroke-width="2.2"/>',
    "reversed": '<path d="M8 2.5v10M3.8 8.6L8 12.8l4.2-4.2" fill="none" stroke="currentColor" '
    'stroke-width="2.2"/>',
    "undecided": '<path d="M2 6.2c2-2 4-2 6 0s4 2 6 0M2 11c2-2 4-2 6 0s4 2 6 0" fill="none" '
    'stroke="currentColor" stroke-width="1.9"/>',
    "not run": '<circle cx="8" cy="8" r="5.2" fill="none" stroke="currentColor" '
    'stroke-width="1.9" stroke-dasharray="2.6 2.2"/>',
}

# Curves: key in metrics.jsonl, title, unit, decimals (or percent).
_PANELS = (
    ("reward", "Reward", "mean per reply", "2"),
    ("accuracy", "Accuracy in training", "sampled replies", "percent"),
    ("length", "Reply length", "tokens", "1"),
    ("kl", "KL to the start", "nats per token", "3"),
    ("kept", "Kept tokens", "share that enters the loss", "percent"),
    ("zero_std", "Groups without signal", "all rewards equal", "percent"),
)
_POINTS = 300  # per drawn curve; longer runs are averaged into that many steps
_SIGNALS = {
    "entropy": "entropy: the model was unsure here",
    "visual": "visual: depends on seeing the film",
    "temporal": "temporal: depends on the order of frames",
    "several": "several of these",
    "drawn": "kept without a signal",
    "none": "dropped from the loss",
}


@dataclass(frozen=True)
class View:
    """What the sections show. `colours` gives every arm its class and shape, 0 is the start."""

    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...]
    reference: tuple[Arm, ...]
    reference_claims: tuple[Claim, ...]
    policy: Policy

    @property
    def colours(self) -> Mapping[str, int]:
        """Class number of every arm."""
        names = dict.fromkeys(arm.name for arm in (*self.arms, *self.reference))
        others = [name for name in names if name != START]
        return {START: 0, **{name: 1 + place % 7 for place, name in enumerate(others)}}

    @property
    def metric(self) -> str:
        """How the headline number is made: "accuracy, avg@8 at T = 1"."""
        run = self.arms[0].runs[0]
        if run.record.samples == 1:
            return f"{run.record.metric}, {'greedy' if run.greedy else f'T = {run.temperature:g}'}"
        return f"{run.record.metric}, avg@{run.record.samples} at T = {run.temperature:g}"


# --- small parts ---------------------------------------------------------------------------


def badge(claim: Claim) -> str:
    """The word with its icon: colour is never alone."""
    css = claim.word.replace(" ", "-")
    icon = f'<svg viewBox="0 0 16 16" aria-hidden="true">{_ICONS[claim.word]}</svg>'
    return f'<span class="word w-{css}">{icon}{escape(claim.text)}</span>'


def swatch(colour: int) -> str:
    """The arm's shape in its colour."""
    return f'<span class="swatch"><svg>{charts.marker(colour, 50, 6)}</svg></span>'


def head(title: str, text: str = "") -> str:
    """A section's title with one or two sentences (HTML)."""
    return f'<div class="head"><h2>{title}</h2>{f"<p>{text}</p>" if text else ""}</div>'


def section(ident: str, title: str, text: str, body: str) -> str:
    """One anchored section."""
    return f'<section id="{ident}">{head(title, text)}{body}</section>\n'


def table(headings: Sequence[tuple[str, str]], rows: Iterable[str]) -> str:
    """headings: (text, class). rows: complete <tr> elements."""
    cells = "".join(f'<th scope="col" class="{css}">{text}</th>' for text, css in headings)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def difference(claim: Claim) -> str:
    """KTR - GRPO, with a real minus."""
    return f"{escape(label(claim.method))} {MINUS} {escape(label(claim.baseline))}"


# --- headline ------------------------------------------------------------------------------


def hero(view: View, title: str) -> str:
    """The question, the word, and the forest plots behind it."""
    first = view.claims[0] if view.claims else None
    question = (
        f"Does {escape(label(first.method))} beat {escape(label(first.baseline))}?"
        if first
        else escape(title)
    )
    cards = []
    if first:
        same = _same(first, view.reference_claims)
        scale = _claim_scale([c for c in (first, same) if c is not None and c.delta is not None])
        cards.append(claim_card(first, "This run", scale, view))
        if same is not None:
            cards.append(claim_card(same, "Committed reference runs", scale, view))
    record = view.arms[0].runs[0].record
    lede = (
        f"Both arms start from one checkpoint and are trained on the same data; each seed trains "
        f"one pair. Scores are {escape(view.metric)}, on {record.n:,} held-out questions."
    )
    return (
        f'<div class="hero"><p class="kicker">{escape(title)}</p><h1>{question}</h1>'
        f'<p class="lede">{lede}</p><div class="grid two verdicts">{"".join(cards)}</div></div>'
    )


def claim_card(claim: Claim, source: str, scale: charts.Scale, view: View) -> str:
    """One claim: the word, the difference, the reason, and its forest plot."""
    seeds = f" \N{MIDDLE DOT} {count(claim.seeds, 'seed')}" if claim.seeds else ""
    top = f'<header><span class="eyebrow">{source}{seeds}</span>{badge(claim)}</header>'
    if claim.delta is None:
        body = f'<p class="reason">{escape(_sentence(claim.reason))}</p>'
    else:
        body = (
            f'<p class="delta">{signed(claim.delta)}<span>percentage points, {difference(claim)}'
            f'</span></p><p class="reason">{escape(_sentence(claim.reason))}</p>'
            f"{forest(claim, scale, view)}"
        )
    left_out = "".join(f"<li>{escape(text)}</li>" for text in claim.excluded)
    notice = f'<div class="notice">Left out:<ul>{left_out}</ul></div>' if left_out else ""
    return f'<article class="card claim">{top}{body}{notice}</article>'


def forest(claim: Claim, scale: charts.Scale, view: View) -> str:
    """A row per seed, then the interval over seeds and the interval over videos."""
    assert claim.seed_interval is not None and claim.item_interval is not None
    colour, zero = view.colours[claim.method], scale.at(0)
    level = f"{100 * view.policy.level:.0f} %"
    rows = []
    for pair in claim.per_seed:
        tip = f"seed {pair.seed}: {percent(pair.baseline)} to {percent(pair.method)}"
        mark = charts.marker(colour, scale.at(pair.delta), 11, tip)
        rows.append(_forest_row(f"seed {pair.seed}", mark, 22, zero, signed(pair.delta), ""))
    rows.append('<div class="rule"></div>')
    for name, interval in (("seeds", claim.seed_interval), ("videos", claim.item_interval)):
        plot = charts.bar(interval, scale, colour, 12) + charts.marker(
            colour, scale.at(interval.estimate), 12, f"{level} interval over {name}"
        )
        rows.append(_forest_row(f"over {name}", plot, 24, zero, ends(interval), "strong"))
    better = (
        f'<div class="ends"><span>\N{LEFTWARDS ARROW} {escape(label(claim.baseline))} better</span>'
        f"<span>{escape(label(claim.method))} better \N{RIGHTWARDS ARROW}</span></div>"
    )
    said = f"{difference(claim)}: {signed(claim.delta or 0)}, seeds {ends(claim.seed_interval)}, videos {ends(claim.item_interval)}"
    return (
        f'<div class="forest" role="img" aria-label="{said}">{"".join(rows)}'
        f"<span></span>{charts.axis(scale)}<span></span>{better}</div>"
    )


def _forest_row(name: str, plot: str, height: int, zero: float, value: str, css: str) -> str:
    return (
        f'<span class="l {css}">{name}</span>{charts.track(plot, height, zero=zero)}'
        f'<span class="r {css}">{value}</span>'
    )


def _claim_scale(claims: Sequence[Claim]) -> charts.Scale:
    points = [pair.delta for claim in claims for pair in claim.per_seed]
    sure = [claim.item_interval for claim in claims if claim.item_interval is not None]
    return charts.forest_scale(points, sure)


def _same(claim: Claim, others: Sequence[Claim]) -> Claim | None:
    pair = (claim.method, claim.baseline)
    return next((c for c in others if (c.method, c.baseline) == pair and c.delta is not None), None)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


# --- comparisons ---------------------------------------------------------------------------


def comparisons(view: View) -> str:
    """Every registered claim and what training added to each arm, this run above the reference."""
    gains = [arm.gain for arm in view.arms if arm.gain is not None]
    reference = [*view.reference_claims, *(a.gain for a in view.reference if a.gain is not None)]
    shown = [*view.claims, *gains]
    shown += [c for c in reference if (c.method, c.baseline) not in {_pair(s) for s in shown}]
    scale = _claim_scale([c for c in (*shown, *reference) if c.delta is not None])
    rows = []
    for claim in shown:
        own = claim in view.claims or claim in gains
        rows.append(_comparison(claim, scale, view, "arm", "this run" if own else "reference"))
        twin = _same(claim, reference)
        if own and twin is not None:
            rows.append(_comparison(twin, scale, view, "sub", "reference"))
    rows.append(
        f'<tr class="axisrow"><td></td><td></td><td></td><td class="plot">{charts.axis(scale)}</td></tr>'
    )
    level = f"{100 * view.policy.level:.0f} %"
    text = (
        f"<b>holds</b> needs at least {view.policy.minimum_seeds} seeds and both {level} intervals "
        "above 0; <b>reversed</b> both below; anything else measured is <b>undecided</b>. "
        "Registered before the runs."
    )
    headings = (
        ("Comparison", ""),
        ("Runs", ""),
        ("\N{GREEK CAPITAL LETTER DELTA}, pp", "num"),
        ("Interval over videos, point per seed", ""),
        ("Over seeds", "num"),
        ("Over videos", "num"),
        ("Word", ""),
    )
    return section("claims", "What is claimed", text, f'<div class="card">{table(headings, rows)}</div>')


def _comparison(claim: Claim, scale: charts.Scale, view: View, css: str, source: str) -> str:
    colour = view.colours.get(claim.method, 0)
    name = difference(claim) if css == "arm" else ""
    seeds = f"{source}, {count(claim.seeds, 'seed')}" if claim.seeds else source
    start = f'<tr class="{css}" data-arm="{colour}"><td>{name}</td><td class="soft nowrap">{seeds}</td>'
    if claim.delta is None or claim.seed_interval is None or claim.item_interval is None:
        return f'{start}<td></td><td class="plot"></td><td></td><td></td><td>{badge(claim)}</td></tr>'
    points = "".join(
        charts.marker(colour, scale.at(p.delta), 6, f"seed {p.seed}: {signed(p.delta)}")
        for p in claim.per_seed
    )
    plot = charts.track(
        charts.bar(claim.item_interval, scale, colour, 18) + points, 26, zero=scale.at(0)
    )
    return (
        f'{start}<td class="num"><b>{signed(claim.delta)}</b></td><td class="plot">{plot}</td>'
        f'<td class="num interval">{ends(claim.seed_interval)}</td>'
        f'<td class="num interval">{ends(claim.item_interval)}</td><td>{badge(claim)}</td></tr>'
    )


def _pair(claim: Claim) -> tuple[str, str]:
    return claim.method, claim.baseline


# --- scores --------------------------------------------------------------------------------


def scores(view: View) -> str:
    """Arms by seeds: sampled score with interval, greedy, gain over the start, unanswered."""
    text = (
        f"{escape(_sentence(view.metric))} Intervals are over videos, {100 * view.policy.level:.0f} %; "
        "an arm's row is the mean over its seeds. Unanswered replies are unparsed or truncated."
    )
    body = f'<div class="card">{_score_table(view.arms, view)}</div>'
    if view.reference:
        inside = f'<div class="card">{_score_table(view.reference, view)}</div>'
        body += f"<details><summary>The same table for the reference runs</summary>{inside}</details>"
    return section("scores", "Scores", text, body)


def _score_table(arms: Sequence[Arm], view: View) -> str:
    measured = {id(run): run_score(run, view.policy) for arm in arms for run in arm.runs}
    every = [*measured.values(), *(arm.score for arm in arms)]
    scale = charts.scale_over([end for i in every for end in (i.low, i.high)])
    rows = []
    for arm in arms:
        rows.append(_arm_row(arm, scale, view))
        if len(arm.runs) > 1:
            rows += [_seed_row(run, arm, measured[id(run)], scale, view) for run in arm.runs]
    rows.append(
        '<tr class="axisrow"><td></td><td></td><td></td>'
        f'<td class="plot">{charts.axis(scale, "percent")}</td></tr>'
    )
    samples = arms[0].runs[0].record.samples
    headings = (
        ("Arm", ""),
        (f"avg@{samples}" if samples > 1 else "score", "num"),
        ("Interval", "num"),
        ("", ""),
        ("Greedy", "num"),
        ("Gain over the start", "num"),
        ("Unanswered", "num"),
        ("Tokens per reply", "num"),
    )
    return table(headings, rows)


def _arm_row(arm: Arm, scale: charts.Scale, view: View) -> str:
    colour = view.colours[arm.name]
    gain = ""
    if arm.gain is not None and arm.gain.delta is not None and arm.gain.item_interval is not None:
        gain = f"<b>{signed(arm.gain.delta)}</b> {_quiet(arm.gain.item_interval)}"
    greedy = arm.greedy_score
    seeds = f' <small class="faint">{count(len(arm.runs), "seed")}</small>' if len(arm.runs) > 1 else ""
    return (
        f'<tr class="arm" data-arm="{colour}"><td>{swatch(colour)}{escape(arm.label)}{seeds}</td>'
        f'<td class="num"><b>{percent(arm.score.estimate)}</b></td>'
        f'<td class="num interval">{ends(arm.score, sign=False)}</td>'
        f'<td class="plot">{_score_plot(arm.score, scale, colour, "")}</td>'
        f'<td class="num">{"" if greedy is None else percent(greedy)}</td>'
        f'<td class="num">{gain}</td>{_reply_cells(arm.runs)}</tr>'
    )


def _seed_row(run: Run, arm: Arm, score: Interval, scale: charts.Scale, view: View) -> str:
    colour, twin = view.colours[arm.name], arm.twin(run.record.seed)
    delta = next(
        (p.delta for p in (arm.gain.per_seed if arm.gain else ()) if p.seed == run.record.seed), None
    )
    return (
        f'<tr class="sub" data-arm="{colour}"><td>seed {run.record.seed}</td>'
        f'<td class="num">{percent(score.estimate)}</td>'
        f'<td class="num interval">{ends(score, sign=False)}</td>'
        f'<td class="plot">{_score_plot(score, scale, colour, "thin")}</td>'
        f'<td class="num">{"" if twin is None else percent(twin.record.score)}</td>'
        f'<td class="num">{"" if delta is None else signed(delta)}</td>{_reply_cells([run])}</tr>'
    )


def _score_plot(score: Interval, scale: charts.Scale, colour: int, css: str) -> str:
    mark = charts.marker(colour, scale.at(score.estimate), 9, percent(score.estimate))
    return charts.track(charts.bar(score, scale, colour, 9, css) + mark, 18)


def _reply_cells(runs: Sequence[Run]) -> str:
    rows = [row for run in runs for row in run.rows]
    unanswered = sum(row.outcome in ("unparsed", "truncated") for row in rows) / len(rows)
    length = math.fsum(row.tokens for row in rows) / len(rows)
    return f'<td class="num">{percent(unanswered)} %</td><td class="num">{length:.1f}</td>'


def _quiet(interval: Interval) -> str:
    return f'<span class="interval">{ends(interval)}</span>'


# --- curves --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """One metric of one arm: every seed, and the mean over seeds as drawn."""

    steps: tuple[float, ...]
    seeds: tuple[tuple[float | None, ...], ...]
    mean: tuple[float | None, ...]


def curve(arm: Arm, key: str, window: int) -> Curve | None:
    """The curve of `key`, or None when no run of the arm has it."""
    by_seed = [{c["step"]: c.get(key) for c in run.curves} for run in arm.runs if run.curves]
    steps = sorted({step for seed in by_seed for step in seed})
    stride = max(1, math.ceil(len(steps) / _POINTS))
    bins = [steps[i : i + stride] for i in range(0, len(steps), stride)]
    seeds = tuple(tuple(_average(seed.get(s) for s in part) for part in bins) for seed in by_seed)
    if all(value is None for seed in seeds for value in seed):
        return None
    mean = [_average(seed[i] for seed in seeds) for i in range(len(bins))]
    centres = tuple(sum(part) / len(part) for part in bins)
    return Curve(centres, seeds, tuple(charts.smoothed(mean, window)))


def curves(view: View) -> str:
    """Reward, accuracy, length, KL and kept share of all arms, with one cursor over all panels."""
    trained = [arm for arm in view.arms if any(run.curves for run in arm.runs)]
    longest = max((len(run.curves) for arm in trained for run in arm.runs), default=0)
    window = 1 + 2 * (min(longest, _POINTS) // 32)
    panels, data = [], {}
    for key, title, unit, style in _PANELS:
        found = {view.colours[arm.name]: c for arm in trained if (c := curve(arm, key, window))}
        if found:
            x, y = _axes(found)
            panels.append(_panel(key, title, unit, style, found, trained, x, y, view))
            arms = {str(n): [_short(v) for v in c.mean] for n, c in found.items()}
            data[key] = {"style": style, "low": y.low, "high": y.high, "arms": arms}
    if not panels:
        return section("curves", "Training", "No run here was trained.", _json_block({}, x_range=(0, 1), arms={}))
    steps = {
        str(view.colours[arm.name]): {"label": arm.label, "steps": list(c.steps)}
        for arm in trained
        if (c := next((f for k, *_ in _PANELS if (f := curve(arm, k, window))), None))
    }
    stride = math.ceil(longest / _POINTS)
    text = (
        "Thin lines are seeds, the bold line is their mean"
        + (f", a moving average over {window * stride} steps" if window > 1 else "")
        + ". Point at a panel to read all of them at that step."
    )
    body = f'<div class="grid three">{"".join(panels)}</div>' + _json_block(data, (x.low, x.high), steps)
    return section("curves", "Training", text, body)


def _json_block(panels: Any, x_range: tuple[float, float], arms: Any) -> str:
    data = {"low": x_range[0], "high": x_range[1], "arms": arms, "panels": panels}
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="curves">{text}</script>'


def _axes(found: Mapping[int, Curve]) -> tuple[charts.Scale, charts.Scale]:
    steps = [step for c in found.values() for step in c.steps]
    values = [v for c in found.values() for seed in c.seeds for v in seed if v is not None]
    x = charts.Scale(min(steps), max(steps)) if len(set(steps)) > 1 else charts.scale_over(steps)
    return x, charts.scale_over(values)


def _panel(
    key: str,
    title: str,
    unit: str,
    style: str,
    found: Mapping[int, Curve],
    trained: Sequence[Arm],
    x: charts.Scale,
    y: charts.Scale,
    view: View,
) -> str:
    grid = "".join(
        f'<line class="gridline" x1="0" x2="{charts.WIDE}" y1="{h:.1f}" y2="{h:.1f}"/>'
        for h in (charts.HIGH * (1 - y.at(tick) / 100) for tick in y.ticks(4))
    )
    thin, bold = [], []
    for number, c in found.items():
        for seed in c.seeds:
            path = charts.line_path(c.steps, seed, x, y)
            thin.append(f'<path class="seed a{number}" data-arm="{number}" d="{path}"/>')
        path = charts.line_path(c.steps, c.mean, x, y)
        bold.append(f'<path class="mean a{number} dash{number}" data-arm="{number}" d="{path}"/>')
    labels = "".join(
        f'<span class="y" style="bottom:{y.at(t):.1f}%">{_value(t, style, tick=True)}</span>'
        for t in y.ticks(4)
    )
    labels += "".join(
        f'<span class="x" style="left:{x.at(t):.1f}%">{t:,.0f}</span>' for t in _step_ticks(x)
    )
    last = "".join(
        f'<span class="a{number}" data-arm="{number}">{escape(arm.label)} '
        f"<b>{_value(_last(found[number].mean), style)}</b></span>"
        for arm in trained
        if (number := view.colours[arm.name]) in found
    )
    return (
        f'<article class="card panel"><h3>{title}<small>{unit}</small></h3>'
        f'<div class="readout">{last}</div><div class="plotbox" data-panel="{key}">'
        f'<svg viewBox="0 0 {charts.WIDE} {charts.HIGH}" preserveAspectRatio="none" role="img" '
        f'aria-label="{title} by step">{grid}{"".join(thin)}{"".join(bold)}</svg>{labels}</div></article>'
    )


def _step_ticks(x: charts.Scale) -> list[float]:
    inner = [t for t in x.ticks(3) if x.low < t < x.high - 0.12 * (x.high - x.low)]
    return [x.low, *[t for t in inner if x.at(t) > 10], x.high]


def _average(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _last(values: Sequence[float | None]) -> float:
    return next(value for value in reversed(values) if value is not None)


def _value(value: float, style: str, *, tick: bool = False) -> str:
    if style == "percent":
        return f"{100 * value:.0f} %" if tick else f"{100 * value:.1f} %"
    if tick:
        return f"{value:.6g}".replace("-", MINUS)
    return f"{value:.{style}f}".replace("-", MINUS)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


# --- tokens --------------------------------------------------------------------------------


def chosen_by(token: Mapping[str, Any]) -> str:
    """Which class colours a token: one signal, several, kept without one (drawn), or none."""
    signals = token["signals"]
    if len(signals) > 1:
        return "several"
    if signals:
        return str(signals[0]) if signals[0] in ("entropy", "visual", "temporal") else "drawn"
    return "drawn" if token.get("kept") else "none"


def tokens(view: View) -> str:
    """Completions of the last step, each token coloured by the signal that chose it."""
    views, tabs, plain = [], [], []
    for arm in view.arms:
        run = next((run for run in arm.runs if run.tokens), None)
        if run is None:
            continue
        kinds = Counter(chosen_by(t) for item in run.tokens for t in item["tokens"])
        if set(kinds) <= {"drawn"}:
            plain.append(escape(arm.label))
            continue
        ident = f"tokens-{view.colours[arm.name]}"
        name = f"{escape(arm.label)}, seed {run.record.seed}"
        tabs.append((arm, f'<button role="tab" aria-selected="true" value="{ident}">{name}</button>'))
        views.append((arm, _token_view(ident, run, kinds)))
    if not views:
        return ""
    first = next((i for i, (arm, _) in enumerate(tabs) if arm.name == _method(view)), 0)
    order = [first, *(i for i in range(len(tabs)) if i != first)]
    note = (
        f" {' and '.join(plain)}: every token enters the loss, so there is nothing to colour."
        if plain
        else ""
    )
    text = (
        "Completions of the last training step. A coloured token enters the loss, a grey one does "
        f"not; point at a token for its scores.{note}"
    )
    bar = f'<div class="tabs" role="tablist">{"".join(tabs[i][1] for i in order)}</div>' if len(tabs) > 1 else ""
    body = bar + "".join(views[i][1] for i in order)
    return section("tokens", "Which tokens were chosen", text, body)


def _method(view: View) -> str:
    return view.claims[0].method if view.claims else ""


def _token_view(ident: str, run: Run, kinds: Counter[str]) -> str:
    total = sum(kinds.values())
    present = [name for name in _SIGNALS if kinds[name]]
    legend = "".join(
        f'<span><b class="key t s-{name}">{name if name != "none" else "grey"}</b>'
        f"{_SIGNALS[name].partition(': ')[2] or _SIGNALS[name]} "
        f'<span class="faint">{100 * kinds[name] / total:.0f} %</span></span>'
        for name in present
    )
    completions = "".join(_completion(item) for item in run.tokens)
    return f'<div class="card" id="{ident}"><div class="signals">{legend}</div>{completions}</div>'


def _completion(item: Mapping[str, Any]) -> str:
    advantage = item["advantage"]
    pushed = ""
    if advantage:
        pushed = ", made likelier" if advantage > 0 else ", made less likely"
    facts = (
        f"gold <b>{escape(item['gold'])}</b> \N{MIDDLE DOT} reward <b>{_plain(item['reward'])}</b><br>"
        f"advantage <b>{_plain(advantage, sign=True)}</b>{pushed}"
    )
    text = "".join(_token(token) for token in item["tokens"])
    return (
        f'<div class="completion"><div><div class="q">{escape(item["question"])}</div>'
        f'<div class="facts">{facts}</div></div><div class="text">{text}</div></div>'
    )


def _token(token: Mapping[str, Any]) -> str:
    kind = chosen_by(token)
    lines = [f"{' + '.join(token['signals']) or _SIGNALS[kind]}"]
    lines += [f"{name} {_plain(token[name])}" for name in ("entropy", "visual", "temporal")]
    text = escape(token["text"].replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n"))
    return f'<span class="t s-{kind}" title="{escape(chr(10).join(lines))}">{text}</span>'


def _plain(value: float | None, *, sign: bool = False) -> str:
    if value is None:
        return "not computed"
    return f"{value:{'+' if sign else ''}.3g}".replace("-", MINUS)


# --- outcomes and families -----------------------------------------------------------------


def outcomes(view: View) -> str:
    """What became of every reply, as a bar and as counts."""
    rows = []
    for arm in view.arms:
        counts = Counter(row.outcome for run in arm.runs for row in run.rows)
        total = sum(counts.values())
        bar = charts.stacked([(name, counts[name]) for name in OUTCOMES], total)
        cells = "".join(
            f'<td class="num{"" if counts[name] else " zerocount"}">{counts[name]:,}</td>'
            for name in OUTCOMES
        )
        colour = view.colours[arm.name]
        rows.append(
            f'<tr class="arm" data-arm="{colour}"><td>{swatch(colour)}{escape(arm.label)}</td>'
            f'<td class="plot">{bar}</td>{cells}</tr>'
        )
    headings = [("Arm", ""), ("", "")]
    headings += [(f'<i class="box o-{name}"></i>{name}', "num") for name in OUTCOMES]
    text = (
        "Every reply has one outcome and none is dropped; whatever gave no answer counts as wrong. "
        "Counts are over all seeds of an arm."
    )
    return section("outcomes", "Outcomes", text, f'<div class="card">{table(headings, rows)}</div>')


def families(view: View) -> str:
    """Score by question family, every arm in its own lane."""
    tag = _family_tag(view)
    if tag is None:
        return ""
    found = {arm.name: tag_scores(arm, tag, view.policy) for arm in view.arms}
    every = [interval for cells in found.values() for interval in cells.values()]
    scale = charts.scale_over([end for i in every for end in (i.low, i.high)])
    sizes = Counter(tags[tag] for tags in view.arms[0].runs[0].items.tags if tag in tags)
    cards = [
        _family(value, sizes[value], {arm: cells[value] for arm, cells in found.items() if value in cells}, scale, view)
        for value in sorted(sizes)
    ]
    text = f"{escape(_sentence(view.metric))} Mean over seeds, intervals over videos; one axis for all."
    return section("families", f"By {escape(tag)}", text, f'<div class="grid three">{"".join(cards)}</div>')


def _family(
    value: str, size: int, cells: Mapping[str, Interval], scale: charts.Scale, view: View
) -> str:
    lanes = []
    for name, score in cells.items():
        number = view.colours[name]
        lanes.append(
            f'<span class="l" data-arm="{number}">{escape(label(name))}</span>'
            f'<span data-arm="{number}">{_score_plot(score, scale, number, "")}</span>'
            f'<span class="r" data-arm="{number}">{percent(score.estimate)}</span>'
        )
    return (
        f'<article class="card family"><h3>{escape(value)}<small>{count(size, "question")}</small></h3>'
        f'<div class="lanes">{"".join(lanes)}<span></span>{charts.axis(scale, "percent", 4)}<span></span></div></article>'
    )


def _family_tag(view: View) -> str | None:
    values: dict[str, set[str]] = {}
    for tags in view.arms[0].runs[0].items.tags:
        for tag, value in tags.items():
            values.setdefault(tag, set()).add(value)
    several = [tag for tag in sorted(values) if 1 < len(values[tag]) <= 18]
    return "family" if "family" in several else (several[0] if several else None)


# --- alarms, cost, provenance --------------------------------------------------------------


def alarms(view: View) -> str:
    """Collapse alarms of the training runs, or the statement that there were none."""
    trained = [(arm, run) for arm in view.arms for run in arm.runs if run.curves]
    raised = [
        (arm, run.record.seed, name, steps)
        for arm, run in trained
        for name, steps in sorted(_alarm_steps(run).items())
    ]
    steps = sum(len(run.curves) for _, run in trained)
    watched = f"{count(steps, 'step')} of {count(len(trained), 'training run')} were watched"
    if not raised:
        icon = f'<svg viewBox="0 0 16 16" aria-hidden="true">{_ICONS["holds"]}</svg>'
        body = f'<div class="card ok">{icon}<span>No alarm: {watched}.</span></div>'
        return section("alarms", "Alarms", "", body)
    rows = [
        f'<tr data-arm="{view.colours[arm.name]}"><td>{swatch(view.colours[arm.name])}{escape(arm.label)}, '
        f'seed {seed}</td><td><b>{escape(name)}</b></td><td class="num">{len(at)}</td>'
        f"<td>{_spans(at)}</td></tr>"
        for arm, seed, name, at in raised
    ]
    headings = (("Run", ""), ("Alarm", ""), ("Steps", "num"), ("At step", ""))
    return section("alarms", "Alarms", f"{watched}.", f'<div class="card">{table(headings, rows)}</div>')


def _alarm_steps(run: Run) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for line in run.curves:
        for name in line.get("alarms") or ():
            found.setdefault(str(name), []).append(line["step"])
    return found


def _spans(steps: Sequence[int]) -> str:
    """"3, 7-9" for 3, 7, 8, 9; at most eight spans are named."""
    spans: list[list[int]] = []
    for step in steps:
        if spans and step == spans[-1][1] + 1:
            spans[-1][1] = step
        else:
            spans.append([step, step])
    texts = [f"{a}" if a == b else f"{a}\N{EN DASH}{b}" for a, b in spans]
    return ", ".join(texts[:8]) + (f" and {len(texts) - 8} more" if len(texts) > 8 else "")


def cost(view: View) -> str:
    """Seconds and tokens of training and of evaluation, per run, beside the headline baseline."""
    figures = {arm.name: _arm_cost(arm) for arm in view.arms}
    base = figures.get(view.claims[0].baseline) if view.claims else None
    longest = max((f["seconds"] for f in figures.values()), default=0) or 1
    rows = []
    for arm in view.arms:
        f, number = figures[arm.name], view.colours[arm.name]
        cells = '<td class="num faint">not trained</td>' + "<td></td>" * 4
        if f["steps"]:
            against = f"{f['step']  / base['step']:.2f}\N{MULTIPLICATION SIGN}" if base and base["step"] else ""
            width = 100 * f["seconds"] / longest
            bar = (
                f'<svg class="track" width="100%" height="16" aria-hidden="true"><rect class="a{number}" '
                f'style="fill:var(--c)" width="{width:.1f}%" y="3" height="10" rx="3"/></svg>'
            )
            cells = (
                f'<td class="num">{_clock(f["seconds"])}</td><td class="plot">{bar}</td>'
                f'<td class="num">{f["step"]:.2f} s</td><td class="num">{against}</td>'
                f'<td class="num">{_big(f["tokens"])}</td>'
            )
        rows.append(
            f'<tr class="arm" data-arm="{number}"><td>{swatch(number)}{escape(arm.label)}</td>'
            f'<td class="num">{len(arm.runs)}</td>{cells}<td class="num">{_clock(f["evaluation"])}</td></tr>'
        )
    headings = (
        ("Arm", ""),
        ("Runs", "num"),
        ("Training", "num"),
        ("", ""),
        ("Per step", "num"),
        (f"Against {escape(label(view.claims[0].baseline))}" if view.claims else "", "num"),
        ("Tokens forwarded", "num"),
        ("Evaluation", "num"),
    )
    text = "Means per run, on the machine named below. Tokens are those the language model forwarded."
    return section("cost", "Cost", text, f'<div class="card">{table(headings, rows)}</div>')


def _arm_cost(arm: Arm) -> dict[str, float]:
    trained = [run for run in arm.runs if run.curves]
    steps = sum(len(run.curves) for run in trained)
    seconds = math.fsum(c.get("seconds") or 0 for run in trained for c in run.curves)
    forwarded = math.fsum(c.get("tokens") or 0 for run in trained for c in run.curves)
    runs = max(1, len(trained))
    evaluation = math.fsum(run.record.seconds for run in (*arm.runs, *arm.greedy)) / len(arm.runs)
    return {
        "steps": steps,
        "seconds": seconds / runs,
        "step": seconds / steps if steps else 0,
        "tokens": forwarded / runs,
        "evaluation": evaluation,
    }


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _big(number: float) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number / 1e3:.0f} k"


def provenance(view: View, command: str, more: Mapping[str, str]) -> str:
    """What was run, on what, and how to run it again."""
    runs = [run for arm in view.arms for run in (*arm.runs, *arm.greedy)]
    first = view.arms[0].runs[0].record
    facts: dict[str, Iterable[str]] = {
        "benchmark": [f"{first.benchmark}, split {first.split}, {first.n:,} questions"],
        "data set": {_revision(run.record.dataset) for run in runs},
        "protocol": {run.record.protocol_hash for run in runs},
        "code": {_commit(run.record.git) for run in runs},
        "engine": {f"{r.record.engine['name']}, {r.record.engine['version']}" for r in runs},
        "machine": {", ".join(str(v) for v in r.record.machine.values() if v) for r in runs},
        "run by": {run.record.who for run in runs},
        **{name: [text] for name, text in more.items()},
    }
    items = "".join(
        f"<dt>{escape(name)}</dt><dd>{'<br>'.join(escape(v) for v in sorted(values) if v)}</dd>"
        for name, values in facts.items()
    )
    copy = (
        f'<div class="command"><code>{escape(command)}</code><button class="copy">copy</button></div>'
        if command
        else ""
    )
    body = f'<div class="card">{copy}<dl>{items}</dl>{_run_list(runs)}{_rules(view, runs)}</div>'
    return section("provenance", "Provenance", "", body)


def _run_list(runs: Sequence[Run]) -> str:
    rows = [
        f"<tr><td>{escape(label(r.arm))}</td><td class='num'>{r.seed}</td><td>{'greedy' if run.greedy else f'avg@{r.samples}'}</td>"
        f"<td class='num'>{percent(r.score)}</td><td class='mono'>{escape((r.model['sha256'] or 'unknown')[:12])}</td>"
        f"<td class='mono'>{escape(r.rows['sha256'][:12])}</td><td class='num'>{_clock(r.seconds)}</td>"
        f"<td class='nowrap'>{escape(r.started[:16].replace('T', ' '))}</td></tr>"
        for run in runs
        for r in (run.record,)
    ]
    headings = (
        ("Arm", ""), ("Seed", "num"), ("Decoding", ""), ("Score", "num"), ("Weights sha256", ""),
        ("Rows sha256", ""), ("Evaluation", "num"), ("Started", ""),
    )  # fmt: skip
    return f"<details><summary>Every run, with the hashes of its weights and rows</summary>{table(headings, rows)}</details>"


def _rules(view: View, runs: Sequence[Run]) -> str:
    by_hash = {run.record.protocol_hash: run.record.protocol for run in runs}
    text = "\n\n".join(
        f"{name}\n{json.dumps(by_hash[name], indent=2, ensure_ascii=False)}" for name in sorted(by_hash)
    )
    rules = "".join(
        f"<dt>{escape(name)}</dt><dd>{getattr(view.policy, name):,} <span class='faint'>{escape(source)}</span></dd>"
        for name, source in view.policy.sources.items()
    )
    return (
        f"<details><summary>The rules of the verdicts</summary><dl>{rules}</dl></details>"
        f"<details><summary>The protocols</summary><pre>{escape(text)}</pre></details>"
    )


def _revision(dataset: Mapping[str, str | None]) -> str:
    sha = dataset["sha256"]
    return " ".join(part for part in (dataset["revision"], f"sha256 {sha[:16]}" if sha else None) if part)


def _commit(git: Mapping[str, Any]) -> str:
    if git["commit"] is None:
        return "no git checkout"
    return f"commit {git['commit'][:12]}" + (" with local changes" if git["dirty"] else "")
