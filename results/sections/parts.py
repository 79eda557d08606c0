"""What the sections share: what is shown, and the small pieces of HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from results import arms, charts
from results.arms import Arm
from results.verdict import START, Claim, Policy

_STROKE = 'fill="none" stroke="currentColor" stroke-width="2"'
_SHAPES = {
    "check": "M3 8.5l3.2 3.2L13 4.8",
    "down": "M8 2.5v10M3.8 8.6L8 12.8l4.2-4.2",
    "up": "M8 13.5v-10M3.8 7.4L8 3.2l4.2 4.2",
    "waves": "M2 6.2c2-2 4-2 6 0s4 2 6 0M2 11c2-2 4-2 6 0s4 2 6 0",
    "unequal": "M2.8 6h10.4M2.8 10h10.4M10.6 2.8L5.4 13.2",
    "warning": "M8 2.6L14 13.2H2zM8 6.6v3M8 11.2v.6",
}
_MARKS = {
    "reproduced": "check", "holds": "check", "inside": "check",
    "below": "down", "reversed": "down", "outside": "down",
    "above": "up",
    "within noise": "waves", "undecided": "waves", "open": "waves",
    "not comparable": "unequal",
    "failed": "warning",
}  # fmt: skip


@dataclass(frozen=True)
class View:
    """What the sections show. `colours` gives every arm its class and shape, 0 is the start.

    key: begins the anchors of this view, where one page shows several. source: whose runs.
    """

    arms: tuple[Arm, ...]
    claims: tuple[Claim, ...]
    reference: tuple[Arm, ...]
    reference_claims: tuple[Claim, ...]
    policy: Policy
    key: str = ""
    source: str = "These runs"

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
    """The sign of a word; a dashed circle for whatever was not run."""
    shape = f'<circle cx="8" cy="8" r="5.2" stroke-dasharray="2.6 2.2" {_STROKE}/>'
    if name in _MARKS:
        shape = f'<path d="{_SHAPES[_MARKS[name]]}" {_STROKE}/>'
    return f'<svg viewBox="0 0 16 16" aria-hidden="true">{shape}</svg>'


def word_badge(word: str, text: str = "") -> str:
    """A word with its icon: colour is never alone. text: the word with what qualifies it."""
    css = word.replace(" ", "-")
    return f'<span class="word w-{css}">{icon(word)}{escape(text or word)}</span>'


def badge(claim: Claim) -> str:
    """The word of a claim."""
    return word_badge(claim.word, claim.text)


def swatch(colour: int) -> str:
    """The arm's shape in its colour."""
    return f'<span class="swatch"><svg>{charts.marker(colour, 50, 6)}</svg></span>'


def difference(claim: Claim) -> str:
    """As results.arms.difference, in HTML."""
    return escape(arms.difference(claim))


def card(body: str, css: str = "") -> str:
    """A white box."""
    return f'<div class="card {css}">{body}</div>'


def section(view: View, ident: str, title: str, text: str, body: str) -> str:
    """One anchored section; `text` is a sentence or two of HTML under the title."""
    return titled(f"{view.key}{ident}", title, text, body)


def titled(ident: str, title: str, text: str, body: str) -> str:
    """A section outside any view."""
    lede = f"<p>{text}</p>" if text else ""
    head = f'<div class="head"><h2>{title}</h2>{lede}</div>'
    return f'<section id="{ident}">{head}{body}</section>\n'


def more(title: str, body: str) -> str:
    """Something that unfolds."""
    return f"<details><summary>{title}</summary>{body}</details>"


def copyable(command: str) -> str:
    """A command with a copy button."""
    button = '<button class="copy">copy</button>'
    return f'<div class="command"><code>{escape(command)}</code>{button}</div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and HTML; empty values are left out."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{text}</dd>" for name, text in pairs if text)
    return f"<dl>{items}</dl>"


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
