"""Plots as inline SVG that keep their text size at every width.

Horizontal plots place everything at percentages of the width; curves live in a stretched box
whose strokes do not scale. Colours are classes (`a0`, `a1` ... the arms), so that one style
sheet serves light, dark and print.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from results.stats import Interval

MINUS = "\N{MINUS SIGN}"
WIDE, HIGH = 1000, 400  # units of a curve's box

# One shape per arm, so that arms can be told apart without colour.
_SHAPES = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0",  # circle
    "M-4.2 -4.2h8.4v8.4h-8.4z",  # square
    "M0 -5.8L5.8 0L0 5.8L-5.8 0z",  # diamond
    "M0 -5.2L5.2 4.2H-5.2z",  # triangle
    "M0 5.2L5.2 -4.2H-5.2z",  # triangle, point down
    "M-1.7 -5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",  # cross
)


def signed(value: float, digits: int = 1) -> str:
    """A difference in percentage points: +1.6, with a real minus."""
    if math.isinf(value):
        return ("+" if value > 0 else MINUS) + "\N{INFINITY}"
    text = f"{100 * value:+.{digits}f}"
    return text.replace("-", MINUS)


def ends(interval: Interval, *, sign: bool = True) -> str:
    """[low, high] in percent or percentage points."""
    show = signed if sign else percent
    return f"[{show(interval.low)}, {show(interval.high)}]"


def percent(value: float) -> str:
    """A score in percent, one decimal."""
    return f"{100 * value:.1f}" if math.isfinite(value) else signed(value)


@dataclass(frozen=True)
class Scale:
    """A linear axis; `at` gives the position in percent of the width, clipped to the plot."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Percent from the left, 0..100."""
        return 100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def holds(self, value: float) -> bool:
        """Whether the value lies on the axis."""
        return self.low <= value <= self.high

    def ticks(self, about: int = 5) -> list[float]:
        """Round values on the axis."""
        raw = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(i * step, 10) for i in range(first, last + 1)]


def scale_over(values: Iterable[float], *, pad: float = 0.06) -> Scale:
    """A scale around the finite values, with a little room."""
    known = [value for value in values if math.isfinite(value)]
    low, high = min(known), max(known)
    room = pad * (high - low) or max(abs(high), 1e-3) * 0.1
    return Scale(low - room, high + room)


def forest_scale(points: Sequence[float], sure: Sequence[Interval]) -> Scale:
    """An axis for differences: shows 0, every point, and each interval that is not so wide that
    it would crowd the points (more than three times their reach; it is drawn with an arrow)."""
    reach = max(map(abs, (0.0, *points, *(i.estimate for i in sure)))) or 0.01
    edges = [end for i in sure for end in (i.low, i.high) if abs(end) <= 3 * reach]
    return scale_over([*points, *edges, -0.35 * reach, 0.35 * reach], pad=0.08)


def marker(arm: int, x: float, y: float, tip: str = "") -> str:
    """The arm's shape at x percent and y pixels."""
    title = f"<title>{escape(tip)}</title>" if tip else ""
    shape = _SHAPES[arm % len(_SHAPES)]
    return (
        f'<svg x="{x:.2f}%" y="{y:g}" class="mark a{arm}" overflow="visible">'
        f'<path d="{shape}"/>{title}</svg>'
    )


def region(low: float, high: float, scale: Scale, height: int, css: str = "margin") -> str:
    """A shaded stretch of the axis, such as a margin."""
    left, right = scale.at(low), scale.at(high)
    width = right - left
    return f'<rect class="{css}" x="{left:.2f}%" width="{width:.2f}%" height="{height}" rx="3"/>'


def ring(x: float, y: float, tip: str = "") -> str:
    """A hollow circle: a printed value beside measured ones."""
    title = f"<title>{escape(tip)}</title>" if tip else ""
    return (
        f'<svg x="{x:.2f}%" y="{y:g}" class="ring" overflow="visible">'
        f'<circle r="4.2"/>{title}</svg>'
    )


def track(body: str, height: int, *, zero: float | None = None, css: str = "") -> str:
    """One row of a horizontal plot."""
    line = (
        ""
        if zero is None
        else f'<line class="zero" x1="{zero:.2f}%" x2="{zero:.2f}%" y1="0" y2="{height}"/>'
    )
    return (
        f'<svg class="track {css}" width="100%" height="{height}" aria-hidden="true">'
        f"{line}{body}</svg>"
    )


def bar(interval: Interval, scale: Scale, arm: int, y: float, css: str = "") -> str:
    """An interval as a line with caps; an end outside the axis becomes an arrow."""
    left, right = scale.at(interval.low), scale.at(interval.high)
    out = [
        f'<line class="bar a{arm} {css}" x1="{left:.2f}%" x2="{right:.2f}%" y1="{y:g}" y2="{y:g}"/>'
    ]
    for value, x, tip in ((interval.low, left, -1), (interval.high, right, 1)):
        shape = "M0 -4V4" if scale.holds(value) else f"M{-5 * tip} -5L0 0L{-5 * tip} 5"
        out.append(
            f'<svg x="{x:.2f}%" y="{y:g}" overflow="visible">'
            f'<path class="cap a{arm} {css}" d="{shape}"/></svg>'
        )
    return "".join(out)


def axis(scale: Scale, show: str = "signed", about: int = 5) -> str:
    """Tick labels under a horizontal plot."""
    label = signed if show == "signed" else percent
    ticks = scale.ticks(about)
    texts = ["0" if tick == 0 else label(tick) for tick in ticks]
    if all(text.endswith(".0") or text == "0" for text in texts):
        texts = [text.removesuffix(".0") for text in texts]
    out = [
        f'<line class="tick" x1="{scale.at(tick):.2f}%" x2="{scale.at(tick):.2f}%" y1="0" y2="4"/>'
        f'<text x="{scale.at(tick):.2f}%" y="16" text-anchor="middle">{text}</text>'
        for tick, text in zip(ticks, texts, strict=True)
    ]
    return f'<svg class="axis" width="100%" height="20" aria-hidden="true">{"".join(out)}</svg>'


def stacked(parts: Sequence[tuple[str, int]], total: int) -> str:
    """A bar of named counts; each part carries its name as class and tooltip."""
    out, done = [], 0
    for name, number in parts:
        left, width = 100 * done / total, 100 * number / total
        done += number
        if number:
            tip = escape(f"{name}: {number:,} of {total:,} ({100 * number / total:.1f} %)")
            out.append(
                f'<rect class="o-{escape(name)}" x="{left:.3f}%" width="{width:.3f}%" height="20">'
                f"<title>{tip}</title></rect>"
            )
    return f'<svg class="stack" width="100%" height="20" aria-hidden="true">{"".join(out)}</svg>'


def line_path(steps: Sequence[float], values: Sequence[float | None], x: Scale, y: Scale) -> str:
    """Path data of a curve in the stretched box; None leaves a gap."""
    out, pen = [], "M"
    for step, value in zip(steps, values, strict=True):
        if value is None:
            pen = "M"
            continue
        across = WIDE * (step - x.low) / (x.high - x.low)
        down = HIGH * (1 - (value - y.low) / (y.high - y.low))
        out.append(f"{pen}{across:.0f} {down:.0f}")
        pen = "L"
    return "".join(out)


def area_path(
    steps: Sequence[float],
    low: Sequence[float | None],
    high: Sequence[float | None],
    x: Scale,
    y: Scale,
) -> str:
    """Path data of a band in the stretched box; it is cut where an edge is unknown or endless."""
    out: list[str] = []
    run: list[tuple[float, float, float]] = []
    for step, a, b in [*zip(steps, low, high, strict=True), (math.nan, None, None)]:
        if a is not None and b is not None and math.isfinite(a) and math.isfinite(b):
            run.append((step, a, b))
            continue
        if len(run) > 1:
            there = line_path([s for s, _, _ in run], [v for _, _, v in run], x, y)
            back = line_path([s for s, _, _ in run[::-1]], [v for _, v, _ in run[::-1]], x, y)
            out.append(f"{there}L{back[1:]}Z")
        run = []
    return "".join(out)


def smoothed(values: Sequence[float | None], window: int) -> list[float | None]:
    """Centred moving average over `window` (odd) values; shorter at the ends, gaps left out."""
    half = window // 2
    out: list[float | None] = []
    for i in range(len(values)):
        near = [v for v in values[max(0, i - half) : i + half + 1] if v is not None]
        out.append(math.fsum(near) / len(near) if near and values[i] is not None else None)
    return out
