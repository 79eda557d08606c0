"""Where located questions were found: true and said intervals under the film's pictures.

tIoU(p, g) = max(0, min(pe, ge) - max(ps, gs)) / (max(pe, ge) - min(ps, gs))
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from results import charts
from results.arms import Arm
from results.charts import Scale
from results.ledger import Run
from results.schema import Row
from results.sections.parts import View, section, swatch

_SAID = re.compile(r"\[([-+0-9.e]+), ([-+0-9.e]+)\]$")
_HIGH = 22  # pixels of a lane
_NARROW = 0.8  # percent of the width that an interval of no length is drawn with
Interval = tuple[float, float]


def timeline(view: View) -> str:
    """A few located questions on the strip of their film; nothing where no run brought a film."""
    runs = [run for arm in (*view.arms, *view.reference) for run in arm.runs]
    films = next((run.strips for run in runs if run.strips), ())
    reels = "".join(reel for film in films if (reel := _reel(film, view)))
    if not reels:
        return ""
    text = (
        "Below the film what is true, then what each arm said: one bar a reply, over all seeds, so "
        "bars that agree look solid. Hollow: said the wrong way round. tIoU is the mean over "
        "replies; one without an interval counts 0."
    )
    return section(view, "timeline", "When it happened", text, f'<div class="reels">{reels}</div>')


def _reel(film: Mapping[str, Any], view: View) -> str:
    x = Scale(0, film["seconds"])
    truths = [(float(a), float(b)) for a, b in film["truths"]]
    lanes = "".join(_lane(arm, view, film, truths, x) for arm in view.arms)
    if not lanes:
        return ""
    pictures = "".join(
        f'<img src="data:image/webp;base64,{picture}" alt="">' for picture in film["pictures"]
    )
    strip = f'<div class="strip" aria-hidden="true">{pictures}</div>' if pictures else ""
    letter = f", option {escape(film['letter'])}" if film["letter"] else ""
    spoken = " or ".join(f"{a:g} to {b:g} s" for a, b in truths)
    return (
        f'<figure class="reel"><figcaption><b>{escape(film["question"])}</b> '
        f'<span class="soft">{spoken} of {film["seconds"]:g} s{letter}</span></figcaption>'
        f'<div class="lanes"><span></span>{strip or "<span></span>"}<span></span>'
        f'<span class="l">true</span>{_track(_bars(truths, x, "true"))}<span></span>'
        f"{lanes}<span></span>{_seconds(x)}<span></span></div></figure>"
    )


def _lane(
    arm: Arm, view: View, film: Mapping[str, Any], truths: Sequence[Interval], x: Scale
) -> str:
    """One arm's replies; "" if it was not asked this question."""
    rows = [row for run in arm.runs for row in _rows(run, film["id"])]
    if not rows:
        return ""
    said = [interval for row in rows if (interval := said_of(row)) is not None]
    mean = math.fsum(max(overlap(s, t) for t in truths) for s in said) / len(rows)
    words = [f"tIoU {charts.percent(mean)} %"]
    if film["letter"]:
        right = sum((row.prediction or "")[:1] == film["letter"] for row in rows)
        words.append(f"option right {right} of {len(rows)}")
    if len(said) < len(rows):
        words.append(f"{len(rows) - len(said)} of {len(rows)} say no interval")
    colour = view.colours[arm.name]
    shade = f"fill-opacity:{max(0.14, min(0.9, 1.6 / max(1, len(said)))):.2f}"
    back = _bars(truths, x, "behind")
    bars = f'{back}<g style="{shade}">{_bars(said, x, f"said a{colour}")}</g>'
    value = f"<b>{words[0]}</b>" + "".join(f"<small>{escape(word)}</small>" for word in words[1:])
    cells = (
        f'<span class="l">{swatch(colour)}{escape(arm.label)}</span>',
        _track(bars, f"{arm.label}: {words[0]}"),
        f'<span class="v">{value}</span>',
    )
    return f'<div class="lane" data-arm="{colour}">{"".join(cells)}</div>'


def _rows(run: Run, ident: str) -> list[Row]:
    return [row for row in run.rows if row.id == ident]


def said_of(row: Row) -> Interval | None:
    """The interval at the end of a row's prediction, in seconds; None where there is none."""
    match = _SAID.search(row.prediction or "")
    if match is None:
        return None
    try:
        start, end = float(match[1]), float(match[2])
    except ValueError:
        return None
    return (start, end) if math.isfinite(start) and math.isfinite(end) else None


def overlap(a: Interval, b: Interval) -> float:
    """Temporal IoU; 0 for an interval that is reversed or empty."""
    both = min(a[1], b[1]) - max(a[0], b[0])
    return both / (max(a[1], b[1]) - min(a[0], b[0])) if both > 0 else 0.0


def _bars(intervals: Sequence[Interval], x: Scale, css: str) -> str:
    """Rectangles; what lies beyond the film is cut at its ends, a reversed interval is hollow."""
    out = []
    for start, end in intervals:
        left, right = sorted((x.at(start), x.at(end)))
        left, width = min(left, 100 - _NARROW), max(right - left, _NARROW)
        more = " reversed" if end < start else ""
        top, high = (6, _HIGH - 12) if css.startswith("said") else (3, _HIGH - 6)
        tip = f"{start:g} to {end:g} s{', reversed' if more else ''}"
        out.append(
            f'<rect class="{css}{more}" x="{left:.2f}%" width="{width:.2f}%" '
            f'y="{top}" height="{high}" rx="3"><title>{tip}</title></rect>'
        )
    return "".join(out)


def _track(body: str, label: str = "") -> str:
    told = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    return f'<svg class="track" width="100%" height="{_HIGH}" {told}>{body}</svg>'


def _seconds(x: Scale) -> str:
    ticks = "".join(
        f'<line class="tick" x1="{x.at(t):.2f}%" x2="{x.at(t):.2f}%" y1="0" y2="4"/>'
        f'<text x="{x.at(t):.2f}%" y="16" text-anchor="middle">{t:g}</text>'
        for t in x.ticks(6)
    )
    return f'<svg class="axis" width="100%" height="20" aria-hidden="true">{ticks}</svg>'
