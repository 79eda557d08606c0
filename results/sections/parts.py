"""What the sections share: what is shown, and the small pieces of HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from results import charts
from results.arms import START, Arm, label
from results.charts import MINUS
from results.verdict import Claim, Policy

_STROKE = 'fill="none" stroke="currentColor" stroke-width="2"'
_ICONS = {
    "holds": f'<path d="M3 8.5l3.2 3.2L13 4.8" {_STROKE}/>',
    "reversed": f'<path d="M8 2.5v10M3.8 8.6L8 12.8l4.2-4.2" {_STROKE}/>',
    "undecided": f'<path d="M2 6.2c2-2 4-2 6 0s4 2 6 0M2 11c2-2 4-2 6 0s4 2 6 0" {_STROKE}/>',
    "not run": f'<circle cx="8" cy="8" r="5.2" stroke-dasharray="2.6 2.2" {_STROKE}/>',
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
    def level(self) -> str:
        """Confidence level in words: "95 %"."""
        return f"{100 * self.policy.level:.0f} %"

    @property
    def metric(self) -> str:
        """How the headline number is made: "accuracy, avg@8 at T = 1"."""
        run = self.arms[0].runs[0]
        if run.record.samples == 1:
            return f"{run.record.metric}, {'greedy' if run.greedy else f'T = {run.temperature:g}'}"
        return f"{run.record.metric}, avg@{run.record.samples} at T = {run.temperature:g}"


def icon(name: str) -> str:
    """The sign of a word."""
    return f'<svg viewBox="0 0 16 16" aria-hidden="true">{_ICONS[name]}</svg>'


def badge(claim: Claim) -> str:
    """The word with its icon: colour is never alone."""
    css = claim.word.replace(" ", "-")
    return f'<span class="word w-{css}">{icon(claim.word)}{escape(claim.text)}</span>'


def swatch(colour: int) -> str:
    """The arm's shape in its colour."""
    return f'<span class="swatch"><svg>{charts.marker(colour, 50, 6)}</svg></span>'


def difference(claim: Claim) -> str:
    """KTR - GRPO, with a real minus."""
    return f"{escape(label(claim.method))} {MINUS} {escape(label(claim.baseline))}"


def card(body: str, css: str = "") -> str:
    """A white box."""
    return f'<div class="card {css}">{body}</div>'


def section(ident: str, title: str, text: str, body: str) -> str:
    """One anchored section; `text` is a sentence or two of HTML under the title."""
    lede = f"<p>{text}</p>" if text else ""
    head = f'<div class="head"><h2>{title}</h2>{lede}</div>'
    return f'<section id="{ident}">{head}{body}</section>\n'


def table(headings: Sequence[tuple[str, str]], rows: Iterable[str]) -> str:
    """headings: (HTML, class). rows: complete <tr> elements."""
    cells = "".join(f'<th scope="col" class="{css}">{text}</th>' for text, css in headings)
    body = f"<thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table>{body}</table></div>'


def row(cells: Iterable[str], css: str = "", arm: int | None = None) -> str:
    """A table row; with `arm` the legend can hide it."""
    of = "" if arm is None else f' data-arm="{arm}"'
    return f'<tr class="{css}"{of}>{"".join(cells)}</tr>'


def cell(text: str = "", css: str = "") -> str:
    """A table cell."""
    return f'<td class="{css}">{text}</td>'


def number(text: str = "", css: str = "") -> str:
    """A table cell set to the right."""
    return cell(text, f"num {css}".strip())


def clock(seconds: float) -> str:
    """Seconds in a readable unit."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + text[1:] + "."
