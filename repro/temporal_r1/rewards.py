"""Rewards of Temporal-R1 as pure functions: option in JSON, interval in JSON, or both.

    tIoU(p, g) = max(0, min(pe, ge) - max(ps, gs)) / (max(pe, ge) - min(ps, gs))

| kind of question   | `released`                       | `paper`          | source               |
|--------------------|----------------------------------|------------------|----------------------|
| temporal grounding | 0.5 tIoU + 0.5 F                 | tIoU + F         | temporal_r1.md 1.2   |
| multiple choice    | 0.5 right + 0.5 F                | right + F        | inferred, ibid.      |
| grounded qa        | 0.25 right + 0.25 tIoU + 0.5 F   | right + tIoU + F | chosen; inferred     |

F is 1 where the whole completion is one think block and one answer block with this JSON, every
value quoted. The presets differ in how they read:

| completion                       | `released`, quirks included (1.3) | `paper` (7, A2 and T1)   |
|----------------------------------|-----------------------------------|--------------------------|
| several answer blocks            | the first, also in the thinking   | the last outside it      |
| code fence, "2.7s", bare 2.7-15  | no interval                       | read (evals.extract)     |
| a negative time                  | as it is                          | no interval              |
| end before start, or both equal  | tIoU 0, F may be 1                | tIoU 0, F 0              |
| "..." or "1.2.3" as a time       | tIoU 0, F may be 1                | tIoU 0, F 0              |
| end beyond the film              | as it is                          | tIoU as it is, F 0       |
| nan, inf, text, null             | tIoU 0 (nan: chosen)              | tIoU 0, F 0              |
| several intervals                | no interval                       | no interval              |

Where several true intervals are given, the best one counts (A3).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

from evals.errors import BadInput
from evals.extract import Answer, first_block, option_texts, outside_think, read
from evals.extract.answers import blocks
from evals.extract.released import QUOTED_OPTION
from evals.grade import windows
from evals.metrics import Interval, best, tiou

Preset = Literal["released", "paper"]
KINDS = ("multiple choice", "temporal grounding", "grounded qa")


@dataclass(frozen=True)
class Weights:
    """Weight of what the question asks for and of the format term."""

    content: float
    format: float


#: released: tvg.py:47 and r1v.py:40 at f364f6c. paper: its earlier figure (temporal_r1.md 1.2).
WEIGHTS = {"released": Weights(0.5, 0.5), "paper": Weights(1.0, 1.0)}


@dataclass(frozen=True)
class Reward:
    """Terms of one completion, each in [0, 1]; None where the kind of question has no such term."""

    accuracy: float | None
    tiou: float | None
    format: float
    weights: Weights
    share: float = 1.0  # of the content weight, for each content term

    @property
    def parts(self) -> dict[str, float]:
        """Weighted terms by name; their sum is the reward."""
        content = {"accuracy": self.accuracy, "tiou": self.tiou}
        weight = self.weights.content * self.share
        weighted = {name: weight * term for name, term in content.items() if term is not None}
        return {**weighted, "format": self.weights.format * self.format}

    @property
    def total(self) -> float:
        """The reward."""
        return math.fsum(self.parts.values())


# --- the three rewards -------------------------------------------------------------------------


def grounding_reward(
    completion: str,
    truth: Interval | Sequence[Interval],
    length: float,
    preset: Preset = "released",
) -> tuple[float, float, float]:
    """(tIoU, format, total) of one completion that has to say when something happens.

    truth: one or several intervals, in seconds. length: of the film, in seconds; prediction and
    truth are both divided by it, as in the release. Raises BadInput for a truth that is no
    interval, a length that is not above 0 and an unknown preset.
    """
    reward = score(completion, "temporal grounding", "", _several(truth), length, preset)
    assert reward.tiou is not None, "grounding has this term"
    return reward.tiou, reward.format, reward.total


def choice_reward(
    completion: str, letter: str, preset: Preset = "released", options: Sequence[str] = ()
) -> tuple[float, float, float]:
    """(accuracy, format, total) of one completion that has to choose an option.

    options: the printed lines, with which `paper` also reads an option's text and refuses other
    letters. Raises BadInput for a gold that is no capital letter and an unknown preset.
    """
    reward = score(completion, "multiple choice", letter, (), 1.0, preset, options)
    assert reward.accuracy is not None, "a choice has this term"
    return reward.accuracy, reward.format, reward.total


def grounded_choice_reward(
    completion: str,
    letter: str,
    truth: Interval | Sequence[Interval],
    length: float,
    preset: Preset = "released",
    options: Sequence[str] = (),
) -> tuple[float, float, float, float]:
    """(accuracy, tIoU, format, total) of one completion that has to do both; the two content
    terms do not depend on each other. Arguments and errors as above.
    """
    several = _several(truth)
    reward = score(completion, "grounded qa", letter, several, length, preset, options)
    assert reward.accuracy is not None and reward.tiou is not None, "both terms"
    return reward.accuracy, reward.tiou, reward.format, reward.total


def of_record(
    completion: str,
    kind: str,
    gold: str,
    length: float,
    preset: Preset = "released",
    options: Sequence[str] = (),
    weights: Weights | None = None,
) -> Reward:
    """The reward of a completion by the kind and gold text of its record, as "B [2, 5]".

    Raises BadInput for another kind of question, a gold that cannot be read, and as above.
    """
    if kind not in KINDS:
        raise BadInput(f"Temporal-R1 has no reward for {kind} questions; it has {', '.join(KINDS)}")
    grounded = kind != "multiple choice"
    truths = windows(gold, kind, options) if grounded else ()
    letter = "" if kind == "temporal grounding" else gold.strip()[:1]
    return score(completion, kind, letter, truths, length, preset, options, weights)


def score(
    completion: str,
    kind: str,
    letter: str,
    truths: Sequence[Interval],
    length: float,
    preset: Preset,
    options: Sequence[str] = (),
    weights: Weights | None = None,
) -> Reward:
    """Every term of a completion. weights: in place of the preset's. Raises BadInput as above."""
    if preset not in get_args(Preset):
        raise BadInput(f"unknown preset {preset!r}; known: {', '.join(get_args(Preset))}")
    accuracy = overlap = None
    if kind != "temporal grounding":
        if re.fullmatch("[A-Z]", letter) is None:
            raise BadInput(f"gold {letter!r} of a {kind} question is no option letter")
        accuracy = float(_LETTER[preset](completion, options) == letter)
    if kind != "multiple choice":
        _check(truths, length)
        said = _INTERVAL[preset](completion)
        overlap = 0.0 if said is None else _overlap(said, truths, length)
    form = _FORMAT[kind].fullmatch(completion)
    if form is not None and preset == "paper" and not _sound(form, truths, length, options):
        form = None
    both = accuracy is not None and overlap is not None and preset == "released"
    return Reward(
        accuracy, overlap, float(form is not None), weights or WEIGHTS[preset], 0.5 if both else 1.0
    )


def _several(truth: Interval | Sequence[Interval]) -> Sequence[Interval]:
    """One interval or several, as several."""
    if truth and isinstance(truth[0], int | float):
        return [cast(Interval, truth)]
    return cast(Sequence[Interval], truth)


def _check(truths: Sequence[Interval], length: float) -> None:
    if not (math.isfinite(length) and length > 0):
        raise BadInput(f"the length of the film must be above 0 seconds, not {length}")
    if not truths:
        raise BadInput("a grounded question needs a true interval")
    for start, end in truths:
        if not (math.isfinite(start) and math.isfinite(end) and start <= end):
            raise BadInput(f"[{start}, {end}] is no true interval")


def _overlap(said: Interval, truths: Sequence[Interval], length: float) -> float:
    """Best tIoU, both sides as fractions of the film; 0 where the prediction is no interval."""
    fractions = [(start / length, end / length) for start, end in truths]
    return best(tiou, (said[0] / length, said[1] / length), fractions)


# --- the form ----------------------------------------------------------------------------------


def _form(*pairs: str) -> re.Pattern[str]:
    """Nothing before the think block, nothing after the answer block, not even a newline."""
    inside = r"\s*,\s*".join(pairs)
    return re.compile(
        rf"<think>.*?</think>\s*<answer>\s*\{{\s*{inside}\s*\}}\s*</answer>", re.DOTALL
    )


_TIMES = (
    r"\"start_time\"\s*:\s*\"(?P<start>[0-9.]+)\"",
    r"\"end_time\"\s*:\s*\"(?P<end>[0-9.]+)\"",
)
_OPTION = r"\"option\"\s*:\s*\"\(?(?P<option>[A-Z])\)?\""
_FORMAT = {
    "temporal grounding": _form(*_TIMES),
    "multiple choice": _form(_OPTION),
    "grounded qa": _form(_OPTION, *_TIMES),
}
_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+")


def _sound(
    form: re.Match[str], truths: Sequence[Interval], length: float, options: Sequence[str]
) -> bool:
    """Whether the values in the right form are an option and 0 <= start < end <= length.

    A true end beyond the length (lengths are rounded) moves the limit to itself.
    """
    given = form.groupdict()
    if options and given.get("option", "") not in ("", *option_texts(options)):
        return False
    if "start" not in given:
        return True
    if any(_DECIMAL.fullmatch(given[name]) is None for name in ("start", "end")):
        return False
    last = max(length, *(end for _, end in truths))
    return float(given["start"]) < float(given["end"]) <= last


# --- reading as the release does ---------------------------------------------------------------


def _released_interval(completion: str) -> Interval | None:
    """JSON of the first answer block, wherever it stands; numbers as Python reads them."""
    try:
        given = json.loads(first_block(completion) or "")
        return float(given["start_time"]), float(given["end_time"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None  # the release catches every exception and scores 0


def _released_letter(completion: str, options: Sequence[str]) -> str | None:
    """A quoted capital in the first block, as its evaluation reads it (4.3); else none (chosen:
    the evaluation would look at the thinking, too).
    """
    match = QUOTED_OPTION.search(first_block(completion) or "")
    return (match[1] or match[2]) if match else None


# --- reading robustly --------------------------------------------------------------------------


def _read(completion: str, kind: str, options: Sequence[str] = ()) -> Answer | None:
    """The last answer block outside the thinking, as evals.extract reads it."""
    found = blocks(outside_think(completion))
    answer = read(found[-1], kind, options) if found else None
    return answer if isinstance(answer, Answer) else None


def _robust_interval(completion: str) -> Interval | None:
    answer = _read(completion, "temporal grounding")
    return answer.interval if answer else None


def _robust_letter(completion: str, options: Sequence[str]) -> str | None:
    answer = _read(completion, "multiple choice", options)
    return answer.letter if answer else None


_INTERVAL = {"released": _released_interval, "paper": _robust_interval}
_LETTER = {"released": _released_letter, "paper": _robust_letter}
