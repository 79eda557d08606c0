"""The leak gate: may a student read this patch, or does it give the answer away?

| stage       | refuses                                                                           |
|-------------|-----------------------------------------------------------------------------------|
| form        | frames, boxes and lengths out of range (the schema itself: patch.py)              |
| phrases     | verdicts and commands, option letters and numbers, codes, foreign or unseen letters|
| content     | the gold's text, the words that make it up, their synonyms                        |
| numbers     | a gold number, or any count where one is asked for; a gold interval               |
| lexicon     | any word of the gold's class: a colour, a shape, a direction, an order, yes or no |
| elimination | all options but one, or a denied option                                           |
| blind       | a text-only student gains more than `BOUND` on the gold by reading the patch      |

Stages (a) to (g) of ffr.md 6.5. Each is a pure function from a patch and its case to a reason or
None; reasons do not repeat the gold. Rules cannot know every paraphrase: what they let through on
phrasings they were not made for is measured in tests/repro/ffr/test_gate.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from repro.ffr import clues, quantities
from repro.ffr.case import Case
from repro.ffr.patch import (
    LONGEST_GUIDANCE,
    MOST_FRAMES,
    MOST_MARKERS,
    MOST_REGIONS,
    Patch,
    told,
)  # fmt: skip
from repro.ffr.readings import encoded, foreign, hidden, readings

Stage = Literal["form", "phrases", "content", "numbers", "lexicon", "elimination", "blind"]
#: p(gold) may rise by this much in the blind test (chosen, ffr.md 6.5).
BOUND = 0.15
#: Changes whenever a rule does.
VERSION = 3

#: p(gold) of a student that sees no video, with a patch's words or without (blind.py).
Blind = Callable[[Case, str | None], float]


@dataclass(frozen=True)
class Finding:
    """A stage that refuses a patch, and why."""

    stage: Stage
    reason: str


def form(patch: Patch, case: Case) -> str | None:
    """(a) Numbers that point at nothing, and more than a patch may hold."""
    frames = [*patch.key_frames, *(r.frame for r in patch.regions)]
    if any(not 0 <= frame < max(case.frames, 1) for frame in frames):
        return "a frame that the student is not shown"
    if any(not (0 <= r.x1 < r.x2 <= 1 and 0 <= r.y1 < r.y2 <= 1) for r in patch.regions):
        return "a region outside the frame"
    if len(patch.guidance) > LONGEST_GUIDANCE or not patch.guidance.strip():
        return "guidance of no or too much text"
    sizes = (len(patch.key_frames), len(patch.temporal_markers), len(patch.regions))
    if any(
        n > most for n, most in zip(sizes, (MOST_FRAMES, MOST_MARKERS, MOST_REGIONS), strict=True)
    ):
        return "too many frames, markers or regions"
    return None


def phrases(patch: Patch, case: Case) -> str | None:
    """(b) Words that only serve to answer, whatever the gold is."""
    text = patch.words
    if hidden(text):
        return "characters that cannot be seen"
    if foreign(text, f"{case.question} {' '.join(case.options.values())}"):
        return "letters of an alphabet that the question does not use"
    if encoded(text):
        return "something that looks like a code"
    ways = readings(text)
    for way in ways:
        if clues.verdict(way):
            return "a phrase that states or demands an answer"
        if clues.ordinal_option(way):
            return "an option by its place in the list"
    if clues.letter(ways[0], case.options, case.question) or any(
        clues.bare_letter(w, case) for w in ways[1:]
    ):
        return "an option letter"
    return None


def content(patch: Patch, case: Case) -> str | None:
    """(c) The gold option's text, its telling words, and their synonyms."""
    for way in readings(patch.words):
        if reason := clues.names(way, case):
            return reason
    return None


def numbers(patch: Patch, case: Case) -> str | None:
    """(d) Counts and values other than declared frames and times; a gold interval."""
    return quantities.counts(patch, case) or quantities.interval(patch, case)


def lexicon(patch: Patch, case: Case) -> str | None:
    """(e) Any word of the class that the gold belongs to; a box where a place is asked for."""
    for way in readings(patch.words):
        if found := clues.classes(way, case):
            return f"a word of the answer's class: {found}"
    return clues.placed(patch, case)


def elimination(patch: Patch, case: Case) -> str | None:
    """(f) Other options named until one is left, or one of them denied."""
    for way in readings(patch.words):
        if reason := clues.eliminated(way, case):
            return reason
    return None


Rule = Callable[[Patch, Case], str | None]
RULES: Mapping[Stage, Rule] = {
    "form": form,
    "phrases": phrases,
    "content": content,
    "numbers": numbers,
    "lexicon": lexicon,
    "elimination": elimination,
}


def _findings(patch: Patch, case: Case) -> Iterator[Finding]:
    for stage, rule in RULES.items():
        if reason := rule(patch, case):
            yield Finding(stage, reason)


@dataclass(frozen=True)
class Gate:
    """The rules, and a blind test where a text-only student is at hand.

    audit: report, refuse nothing. bound: of the blind test.
    """

    blind: Blind | None = None
    bound: float = BOUND
    audit: bool = False

    @property
    def id(self) -> str:
        """For records, and for what is only true under this gate. It names the blind test's
        student, if that has an id."""
        student = getattr(self.blind, "id", "")
        test = f"+blind{self.bound:g}{student and f'({student})'}" if self.blind else ""
        return f"gate@{VERSION}{test}{'+audit' if self.audit else ''}"

    def check(self, patch: Patch, case: Case) -> Finding | None:
        """The first rule that refuses the patch; the blind test is not among them."""
        return next(_findings(patch, case), None)

    def findings(self, patch: Patch, case: Case) -> list[Finding]:
        """What every rule has against it."""
        return list(_findings(patch, case))

    def test(self, patch: Patch, case: Case) -> Finding | None:
        """(g) The blind test; slow, since a model answers. None without one."""
        if self.blind is None:
            return None
        words = told(patch, seconds=case.seconds)  # numbers and times of frames can tell, too
        before, after = self.blind(case, None), self.blind(case, words)
        if after - before <= self.bound:
            return None
        return Finding("blind", f"p(gold) without the video rises from {before:.2f} to {after:.2f}")
