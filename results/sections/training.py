"""Curves of the training runs, their alarms, and what they cost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from results import charts
from results.arms import Arm, label
from results.charts import MINUS
from results.envelope import METRICS, WINDOW, check
from results.envelope import alarms as alarms_of
from results.ledger import Run
from results.policy import Policy
from results.sections.parts import (
    View,
    card,
    cell,
    clock,
    icon,
    number,
    row,
    section,
    sentence,
    swatch,
    table,
    word_badge,
)
from results.stats import prediction_interval
from results.verdict import count

_POINTS = 300  # per drawn curve; longer runs are averaged into that many steps

# key in metrics.jsonl, title, unit, decimals (or percent)
_PANELS = (
    ("reward", "Reward", "mean per reply", "2"),
    ("accuracy", "Accuracy in training", "sampled replies", "percent"),
    ("length", "Reply length", "tokens", "1"),
    ("kl", "KL to the start", "nats per token", "3"),
    ("kept", "Kept tokens", "share that enters the loss", "percent"),
    ("zero_std", "Equal rewards", "groups that teach nothing", "percent"),
)
_ALARMS = {  # of the trainer's health check, in words
    "short": "replies are almost empty",
    "format": "most replies lost the format",
    "flat": "nearly every group has equal rewards",
    "drift": "far from the model it started from",
    "truncated": "most replies hit the token limit",
    "mismatch": "sampler and trainer disagree about probabilities",
}


@dataclass(frozen=True)
class Curve:
    """One metric of one arm: every seed, and the mean over seeds as drawn; None is a gap."""

    steps: tuple[float, ...]
    seeds: tuple[tuple[float | None, ...], ...]
    mean: tuple[float | None, ...]


@dataclass(frozen=True)
class Band:
    """Where a further run would be at each step; None where a seed has a gap."""

    steps: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


def curve(arm: Arm, key: str, window: int) -> Curve | None:
    """The curve of `key`, or None when no run of the arm has it.

    window: steps (odd) of the moving average over the mean of the seeds.
    """
    by_seed = [{line["step"]: line.get(key) for line in run.curves} for run in _trained(arm)]
    steps = sorted({step for seed in by_seed for step in seed})
    stride = max(1, math.ceil(len(steps) / _POINTS))
    bins = [steps[i : i + stride] for i in range(0, len(steps), stride)]
    seeds = tuple(tuple(_average(seed.get(s) for s in part) for part in bins) for seed in by_seed)
    if all(value is None for seed in seeds for value in seed):
        return None
    mean = [_average(seed[i] for seed in seeds) for i in range(len(bins))]
    centres = tuple(sum(part) / len(part) for part in bins)
    return Curve(centres, seeds, tuple(charts.smoothed(mean, window)))


def band(drawn: Curve, window: int, policy: Policy) -> Band | None:
    """The envelope of a curve's seeds, each smoothed as the mean is; None with too few seeds."""
    if len(drawn.seeds) < policy.minimum_seeds:
        return None
    smooth = [charts.smoothed(seed, window) for seed in drawn.seeds]
    places = range(len(drawn.steps))
    columns = [[v for seed in smooth if (v := seed[i]) is not None] for i in places]
    found = [
        prediction_interval(column, policy.level) if len(column) == len(smooth) else None
        for column in columns
    ]
    return Band(
        drawn.steps,
        tuple(interval.low if interval else None for interval in found),
        tuple(interval.high if interval else None for interval in found),
    )


def curves(view: View) -> str:
    """Reward, accuracy, length, KL and kept share of all arms, with one cursor over all panels."""
    longest = max(len(run.curves) for arm in view.arms for run in arm.runs)
    window = 1 + 2 * (min(longest, _POINTS) // 32)
    found = {
        key: {view.colours[arm.name]: c for arm in view.arms if (c := curve(arm, key, window))}
        for key, *_ in _PANELS
    }
    found = {key: drawn for key, drawn in found.items() if drawn}
    if not found:
        return ""
    steps = [s for drawn in found.values() for c in drawn.values() for s in c.steps]
    x = charts.Scale(min(steps), max(max(steps), min(steps) + 1))
    found = {key: {arm: _smooth(c, window) for arm, c in own.items()} for key, own in found.items()}
    shades = {key: _bands(key, window, view) for key in found}
    y = {key: charts.scale_over(_values(own, shades[key])) for key, own in found.items()}
    panels = "".join(
        _panel(key, title, unit, style, found[key], shades[key], x, y[key], view)
        for key, title, unit, style in _PANELS
        if key in found
    )
    stride = max(1, math.ceil(longest / _POINTS))
    moving = f", both as moving averages over {window * stride} steps" if window > 1 else ""
    text = (
        f"Thin lines are seeds, the bold line is their mean{moving}; the numbers are its end. "
        f"Point at a panel to read all of them at that step.{_shading(view)}"
    )
    body = f'<div class="grid three">{panels}</div>{_data(found, x, y, view)}'
    return section(view, "curves", "Training", text, body)


def _bands(key: str, window: int, view: View) -> dict[int, Band]:
    """Envelopes of the reference runs where they are shown, else of these runs."""
    if key not in METRICS:
        return {}
    found = {}
    for arm in view.reference or view.arms:
        drawn = curve(arm, key, window)
        wide = max(window, 1 + 2 * round(WINDOW * len(drawn.steps) / 2)) if drawn else 1
        if drawn and (shade := band(drawn, wide, view.policy)):
            found[view.colours[arm.name]] = shade
    return found


def _shading(view: View) -> str:
    arms = view.reference or view.arms
    seeds = max(len(_trained(arm)) for arm in arms)
    if seeds < view.policy.minimum_seeds:
        return ""
    whose = "reference seeds" if view.reference else "seeds"
    return f" Shaded: where a further run would be, {view.level}, from {seeds} {whose}."


def envelope(view: View) -> str:
    """Each fresh run against the band of the reference seeds; nothing without references."""
    references = {arm.name: _trained(arm) for arm in view.reference}
    rows = []
    for arm in view.arms:
        for run in _trained(arm):
            known = references.get(arm.name, [])
            others = [r for r in known if r.record.seed != run.record.seed]  # not against itself
            known = others if len(others) >= view.policy.minimum_seeds else known
            if not known:
                continue
            steps = int(run.curves[-1]["step"])
            found = check(run.curves, [r.curves for r in known], steps, view.policy)
            colour = view.colours[arm.name]
            cells = [
                cell(f"{swatch(colour)}{escape(arm.label)}, seed {run.record.seed}", "nowrap"),
                cell(word_badge(found.word)),
                cell(escape(sentence(found.reason)), "soft"),
                number(f"{len(found.checks)}"),
            ]
            rows.append(row(cells, arm=colour))
    if not rows:
        return ""
    text = (
        "Reward, accuracy, length and KL at 10, 25 and 50 % of the steps against the band of the "
        "reference seeds, corrected for looking that often."
    )
    headings = (("Run", ""), ("", ""), ("", ""), ("Checks", "num"))
    return section(view, "envelope", "As the references learned", text, card(table(headings, rows)))


def _data(
    found: Mapping[str, Mapping[int, Curve]],
    x: charts.Scale,
    y: Mapping[str, charts.Scale],
    view: View,
) -> str:
    """What the cursor reads, as JSON that cannot close its own element."""
    styles = {key: style for key, _, _, style in _PANELS}
    arms: dict[str, Any] = {}
    panels: dict[str, Any] = {}
    for key, drawn in found.items():
        means = {str(arm): [_short(v) for v in c.mean] for arm, c in drawn.items()}
        ends = {"low": y[key].low, "high": y[key].high}
        panels[key] = {"style": styles[key], **ends, "arms": means}
        for name, arm in view.colours.items():
            if arm in drawn:
                arms[str(arm)] = {"label": label(name), "steps": drawn[arm].steps}
    data = {"low": x.low, "high": x.high, "arms": arms, "panels": panels}
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" class="curve-data">{text}</script>'


def _panel(
    key: str,
    title: str,
    unit: str,
    style: str,
    drawn: Mapping[int, Curve],
    bands: Mapping[int, Band],
    x: charts.Scale,
    y: charts.Scale,
    view: View,
) -> str:
    lines = "".join(
        f'<line class="gridline" x2="{charts.WIDE}" y1="{h:.1f}" y2="{h:.1f}"/>'
        for h in (charts.HIGH * (1 - y.at(tick) / 100) for tick in y.ticks(4))
    )
    lines += "".join(
        f'<path class="shade a{arm}" data-arm="{arm}" '
        f'd="{charts.area_path(b.steps, b.low, b.high, x, y)}"/>'
        for arm, b in bands.items()
    )
    lines += "".join(
        f'<path class="seed a{arm}" data-arm="{arm}" d="{charts.line_path(c.steps, seed, x, y)}"/>'
        for arm, c in drawn.items()
        for seed in c.seeds
    )
    lines += "".join(
        f'<path class="mean a{arm} dash{arm}" data-arm="{arm}" '
        f'd="{charts.line_path(c.steps, c.mean, x, y)}"/>'
        for arm, c in drawn.items()
    )
    labels = "".join(
        f'<span class="y" style="bottom:{y.at(t):.1f}%">{_value(t, style, tick=True)}</span>'
        for t in y.ticks(4)
    )
    labels += "".join(
        f'<span class="x" style="left:{x.at(t):.1f}%">{t:,.0f}</span>' for t in _step_ticks(x)
    )
    last = "".join(
        f'<span class="a{arm}" data-arm="{arm}">{escape(label(name))} '
        f"<b>{_value(_last(drawn[arm].mean), style)}</b></span>"
        for name, arm in view.colours.items()
        if arm in drawn
    )
    return (
        f'<article class="card panel"><h3>{title}<small>{unit}</small></h3>'
        f'<div class="readout">{last}</div><div class="plotbox" data-panel="{key}">'
        f'<svg viewBox="0 0 {charts.WIDE} {charts.HIGH}" preserveAspectRatio="none" role="img" '
        f'aria-label="{title} by step">{lines}</svg>{labels}</div></article>'
    )


def alarms(view: View) -> str:
    """Collapse alarms of the training runs, or the statement that there were none."""
    trained = [(arm, run) for arm in view.arms for run in _trained(arm)]
    if not trained:
        return ""
    steps = sum(len(run.curves) for _, run in trained)
    watched = f"{count(steps, 'step')} of {count(len(trained), 'training run')} were watched"
    rows = []
    for arm, run in trained:
        colour = view.colours[arm.name]
        for name, at in alarms_of(run.curves, view.policy).items():
            cells = [
                cell(f"{swatch(colour)}{escape(arm.label)}, seed {run.record.seed}", "nowrap"),
                cell(f'<b>{escape(name)}</b> <span class="soft">{_ALARMS.get(name, "")}</span>'),
                number(f"{len(at):,}"),
                cell(spans(at)),
            ]
            rows.append(row(cells, arm=colour))
    if not rows:
        body = card(f"{icon('holds')}<span>No alarm: {watched}.</span>", "ok")
        return section(view, "alarms", "Alarms", "", body)
    headings = (("Run", ""), ("Alarm", ""), ("Steps", "num"), ("At step", ""))
    return section(view, "alarms", "Alarms", f"{watched}.", card(table(headings, rows)))


def spans(steps: Sequence[int]) -> str:
    """3, 7-9 for 3, 7, 8, 9; at most eight spans are named."""
    found: list[list[int]] = []
    for step in steps:
        if found and step == found[-1][1] + 1:
            found[-1][1] = step
        else:
            found.append([step, step])
    texts = [f"{a}" if a == b else f"{a}\N{EN DASH}{b}" for a, b in found]
    return ", ".join(texts[:8]) + (f" and {len(texts) - 8} more" if len(texts) > 8 else "")


def cost(view: View) -> str:
    """Seconds and tokens of training and of evaluation, per run, beside the headline baseline."""
    figures = {arm.name: _arm_cost(arm) for arm in view.arms}
    baseline = view.claims[0].baseline if view.claims else ""
    base = figures[baseline]["step"] if baseline in figures else 0
    longest = max(f["seconds"] for f in figures.values())
    rows = []
    for arm in view.arms:
        f, colour = figures[arm.name], view.colours[arm.name]
        cells = [cell(f"{swatch(colour)}{escape(arm.label)}"), number(f"{len(arm.runs)}")]
        if f["steps"]:
            against = f"{f['step'] / base:.2f}\N{MULTIPLICATION SIGN}" if base else ""
            length = 100 * f["seconds"] / longest if longest else 0
            bar = f'<rect class="fill a{colour}" width="{length:.1f}%" y="3" height="10" rx="3"/>'
            cells += [
                number(clock(f["seconds"])),
                cell(charts.track(bar, 16), "plot"),
                number(f"{f['step']:.2f} s"),
                number(against),
                number(_big(f["tokens"])),
            ]
        else:
            cells += [number("not trained", "faint"), *[cell()] * 4]
        rows.append(row([*cells, number(clock(f["evaluation"]))], "arm", colour))
    headings = (
        ("Arm", ""),
        ("Runs", "num"),
        ("Training", "num"),
        ("", ""),
        ("Per step", "num"),
        (f"Against {escape(label(baseline))}" if baseline else "", "num"),
        ("Tokens forwarded", "num"),
        ("Evaluation", "num"),
    )
    text = (
        "Means per run, on the machine named below. Tokens are those the language model forwarded; "
        "evaluation includes the greedy replies."
    )
    return section(view, "cost", "Cost", text, card(table(headings, rows)))


def _arm_cost(arm: Arm) -> dict[str, float]:
    lines = [line for run in _trained(arm) for line in run.curves]
    runs = max(1, len(_trained(arm)))
    seconds = math.fsum(line.get("seconds") or 0 for line in lines)
    evaluation = math.fsum(run.record.seconds for run in (*arm.runs, *arm.greedy))
    return {
        "steps": len(lines),
        "seconds": seconds / runs,
        "step": seconds / max(1, len(lines)),
        "tokens": math.fsum(line.get("tokens") or 0 for line in lines) / runs,
        "evaluation": evaluation / len(arm.runs),
    }


def _trained(arm: Arm) -> list[Run]:
    return [run for run in arm.runs if run.curves]


def _smooth(drawn: Curve, window: int) -> Curve:
    """With the seeds smoothed as the mean is: single steps are mostly the luck of their prompts."""
    return replace(drawn, seeds=tuple(tuple(charts.smoothed(s, window)) for s in drawn.seeds))


def _values(drawn: Mapping[int, Curve], bands: Mapping[int, Band]) -> list[float]:
    """Everything a panel shows; of a band no more than half its width beyond the seeds."""
    own = [v for c in drawn.values() for seed in c.seeds for v in seed if v is not None]
    room = 0.5 * (max(own) - min(own))
    low, high = min(own) - room, max(own) + room
    shade = [v for b in bands.values() for v in (*b.low, *b.high) if v is not None]
    return own + [min(high, max(low, v)) for v in shade if math.isfinite(v)]


def _step_ticks(x: charts.Scale) -> list[float]:
    inner = [tick for tick in x.ticks(3) if 10 < x.at(tick) < 88]
    return [x.low, *inner, x.high]


def _average(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _last(values: Sequence[float | None]) -> float:
    return next(value for value in reversed(values) if value is not None)


def _value(value: float, style: str, *, tick: bool = False) -> str:
    if style == "percent":
        return f"{100 * value:.0f} %" if tick else f"{100 * value:.1f} %"
    return (f"{value:.6g}" if tick else f"{value:.{style}f}").replace("-", MINUS)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _big(size: float) -> str:
    return f"{size / 1e6:.1f} M" if size >= 1e6 else f"{size / 1e3:.0f} k"
