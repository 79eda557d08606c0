"""The blind test's student: how likely is the gold without the video, with a patch's words or not?

    options:  p = mean over `orders` rotations of the options of softmax(log p(letter))[gold]
    else:     p = exp(log p(gold text))

each after the words of the question (and of the patch) and an opened answer tag, no video. A patch
that lifts p by more than gate.BOUND can be answered blindly (ffr.md 1.4, 6.5 g).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import cast

import torch

from evals.prompts import Turn, question_text
from evals.types import Kind, Protocol, Sample
from evals.vlm import VLM
from repro.ffr.case import Case
from repro.ffr.patch import AFTER, BEFORE

ORDERS = 4  # rotations of the options (chosen)


class BlindStudent:
    """See above; callable as gate.Blind. vlm: a model of its own, for example the frozen start
    checkpoint, since it is asked from another thread while training changes the student.

    prompt: id of evals.prompts under which the student is asked. Where the gold is an interval p is
    0 with and without a patch: rules alone guard those.
    """

    def __init__(self, vlm: VLM, prompt: str, orders: int = ORDERS):
        self.vlm, self.prompt, self.orders = vlm, prompt, orders
        self._lock = threading.Lock()

    def __call__(self, case: Case, words: str | None) -> float:
        if not case.answer:
            return 0.0
        if not case.options:
            (logp,) = self._logp(self._turn(case, (), words), [case.answer])
            return float(torch.tensor(logp).exp())
        letters, texts = list(case.options), list(case.options.values())
        right = texts[letters.index(case.letter)]
        chances = []
        for shift in range(min(self.orders, len(texts))):
            turned = texts[shift:] + texts[:shift]
            options = tuple(f"{k}. {t}" for k, t in zip(letters, turned, strict=True))
            logps = self._logp(self._turn(case, options, words), letters)
            chances.append(float(torch.tensor(logps).softmax(-1)[turned.index(right)]))
        return sum(chances) / len(chances)

    def _turn(self, case: Case, options: tuple[str, ...], words: str | None) -> Turn:
        kind = cast(Kind, "multiple choice" if options else case.kind)
        sample = Sample("blind", case.question, kind, "", "text", None, options)
        text = question_text(sample, self.prompt)
        return Turn(
            None, "", text if words is None else f"{text}{BEFORE}{words}{AFTER}", "<answer>"
        )

    def _logp(self, turn: Turn, candidates: Sequence[str]) -> list[float]:
        """log p(candidate | words) of each, summed over its tokens."""
        encoded = self.vlm.encode(None, turn, Protocol("blind", prompt=self.prompt))
        tokenizer, found = self.vlm.processor.tokenizer, []
        for text in candidates:
            own = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
            where = encoded.next_position + torch.arange(len(own))
            ids = torch.cat([encoded.ids, own]).to(self.vlm.device)
            places = torch.cat([encoded.positions, where.expand(3, -1)], -1).to(self.vlm.device)
            with self._lock, torch.no_grad():
                hidden = self.vlm.run(ids[None], None, places[:, None], None)[0]
                logits = self.vlm.net.lm_head(hidden[len(encoded.ids) - 1 : -1]).float()
            logp = logits.log_softmax(-1).gather(-1, ids[len(encoded.ids) :, None])
            found.append(float(logp.sum()))
        return found
