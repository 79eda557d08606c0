"""Questions asked otherwise, to see what a score rests on.

| probe          | what changes                                                                    |
|----------------|---------------------------------------------------------------------------------|
| no-video       | the text alone; "video gain" = score - this score                               |
| one-frame      | only the middle one of the frames                                               |
| shuffled       | the frames in another order, times unchanged; "order gain" = score - this score |
| reversed       | the frames backwards, times unchanged; the gold stays what it was               |
| other-video    | the clip of the next question about another cluster                             |
| rotate-options | each option's text moves one letter on, and the gold letter with it             |

A clip that cannot be read stays lost under every probe, so that runs pair question by question. The
first five are not asked of questions without a clip; those are asked as ever.

An `ordering` question about pictures alone shows a film with a gap, and a pool to fill it from:
there `shuffled` and `reversed` move the pictures around the gap and leave the pool. Backwards the
gap lies between the same two pictures, so where the answer was 3, 1 it is 1, 3 now; 3, 1 is still
counted as right, so what is left of the score did not look at the order.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from evals.errors import BadInput
from evals.extract import option_texts
from evals.seeds import derive
from evals.types import IMAGE, Protocol, Sample, VideoClip

NAMES = ("no-video", "one-frame", "shuffled", "reversed", "other-video", "rotate-options")
MOVES = ("shuffled", "reversed")
GAINS = {"no-video": "video gain", "shuffled": "order gain"}

Load = Callable[[Sample], VideoClip | None]


def under(protocol: Protocol, probe: str) -> Protocol:
    """The protocol of a probed run: never comparable with the plain one."""
    return replace(protocol, id=f"{protocol.id}+{probe}")


class Probe:
    """One probe over a benchmark's samples. Raises BadInput for an unknown name, and where there
    is no other video to show."""

    def __init__(self, name: str, samples: Sequence[Sample]):
        if name not in NAMES:
            raise BadInput(f"unknown probe {name!r}; known: {', '.join(NAMES)}")
        self.name = name
        self._donors = _donors(samples) if name == "other-video" else {}

    def donor(self, sample: Sample) -> Sample:
        """Whose clip is shown: the sample's own, or another's."""
        return self._donors.get(sample.id, sample)

    def clip(self, sample: Sample, load: Load) -> VideoClip | None:
        """The clip as shown; None under no-video and for questions without one."""
        own = load(sample)
        if own is None or self.name == "rotate-options":
            return own
        if self.name == "no-video":
            return None
        if self.name == "other-video":
            return load(self.donor(sample))
        if around := _around(sample) if self.name in MOVES else 0:
            order = _order(around, self.name, sample.cluster)
            moved = tuple(own.images[i] for i in order)
            return replace(own, images=moved + own.images[around:])
        if not len(own.frames):
            raise BadInput(f"{self.name}: question {sample.id!r} shows pictures only, no frames")
        if self.name == "one-frame":
            middle = len(own.frames) // 2
            return replace(
                own, frames=own.frames[middle : middle + 1], indices=(own.indices[middle],)
            )
        order = _order(len(own.frames), self.name, sample.media.name if sample.media else "")
        return replace(own, frames=own.frames[order])

    def sample(self, sample: Sample) -> Sample:
        """The question as asked and graded."""
        if self.name == "reversed" and _around(sample):
            return replace(sample, question=_gap_moved(sample.question))
        if self.name != "rotate-options" or len(sample.options) < 2:
            return sample
        texts = option_texts(sample.options)
        labels = list(texts)
        letter = sample.gold[:1]
        if letter not in texts:
            raise BadInput(f"question {sample.id!r}: its answer {sample.gold!r} names no option")
        after = labels[(labels.index(letter) + 1) % len(labels)]
        moved = [list(texts.values())[i - 1] for i in range(len(labels))]
        return replace(
            sample,
            options=tuple(f"{label}. {text}" for label, text in zip(labels, moved, strict=True)),
            gold=after + sample.gold[1:],
        )


def _around(sample: Sample) -> int:
    """How many of the pictures, the first ones, show what is around a gap; 0 where a film does."""
    if sample.kind != "ordering" or sample.media is not None:
        return 0
    return len(sample.images) - int(sample.facts.get("candidates", len(sample.images)))


def _gap_moved(question: str) -> str:
    """As many marks before the gap as stood after it, and the reverse."""
    runs = [m.span() for m in re.finditer(f"(?:{IMAGE})+", question)]
    if len(runs) < 2:
        return question
    (a, b), (c, d) = runs[:2]
    return question[:a] + question[c:d] + question[b:c] + question[a:b] + question[d:]


def _order(n: int, probe: str, film: str) -> list[int]:
    """All questions about a film see the same order; never the true one where there is another."""
    order = list(range(n))
    if probe == "reversed":
        return order[::-1]
    draw = random.Random(derive(film, "shuffled"))
    while n > 1 and order == sorted(order):
        draw.shuffle(order)
    return order


def _donors(samples: Sequence[Sample]) -> dict[str, Sample]:
    """Sample id -> the next sample, round the end, of the same modality and another cluster."""
    found = {}
    shown = [s for s in samples if s.modality != "text"]
    for place, sample in enumerate(shown):
        others = (*shown[place + 1 :], *shown[:place])
        donor = next(
            (o for o in others if o.modality == sample.modality and o.cluster != sample.cluster),
            None,
        )
        if donor is None:
            raise BadInput(f"other-video: there is no other {sample.modality} than {sample.media}")
        found[sample.id] = donor
    return found
