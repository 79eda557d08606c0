"""The blind test's student: how likely is the gold without the video, with a patch's words or not?

    options:  p = mean over `orders` rotations of the options of softmax(log p(letter))[gold]
    else:     p = exp(log p(gold text))

each after the words of the question (and of the patch) and an opened answer tag, no video. A patch
that lifts p by more than gate.BOUND can be answered blindly (ffr.md 1.4, 6.5 g).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from evals.prompts import Turn, question_text
from evals.types import Kind, Protocol, Sample
from evals.vlm import VLM, load
from repro.ffr.case import Case
from repro.ffr.patch import AFTER, BEFORE
from repro.ffr.switches import ORDERS

KEPT = 4096  # questions whose p without a patch is kept (chosen: one answer per failed rollout)


def student(start: Path, like: VLM, prompt: str) -> BlindStudent:
    """The start checkpoint, frozen, where the trained model `like` computes and as precisely."""
    low = like.compute == torch.bfloat16 or like.model.dtype == torch.bfloat16
    vlm = load(start, dtype="bfloat16" if low else "float32", device=str(like.device))
    vlm.model.requires_grad_(False)
    # SDPA: a compiled kernel must not be entered by two threads, and these rows are short.
    return BlindStudent(VLM(vlm.model, vlm.processor, kernel="sdpa"), prompt, name=start.name)


class BlindStudent:
    """See above; callable as gate.Blind. vlm: a model of its own, for example the frozen start
    checkpoint, since it is asked from another thread while training changes the student.

    prompt: id of evals.prompts under which the student is asked. name: of the checkpoint. Where the
    gold is an interval, or no option, p is 0 with and without a patch: rules alone guard those.
    """

    def __init__(self, vlm: VLM, prompt: str, orders: int = ORDERS, name: str = ""):
        self.vlm, self.prompt, self.orders = vlm, prompt, orders
        self.id = f"{name},{prompt},{orders}"
        self._lock = threading.Lock()
        self._without: dict[tuple[object, ...], float] = {}

    def __call__(self, case: Case, words: str | None) -> float:
        if not case.answer or (case.options and not case.letter):
            return 0.0
        if words is not None:
            return self._chance(case, words)
        key = (case.question, case.kind, *case.options.items(), case.letter, case.answer)
        if key not in self._without:
            if len(self._without) >= KEPT:
                self._without.clear()
            self._without[key] = self._chance(case, None)
        return self._without[key]

    def _chance(self, case: Case, words: str | None) -> float:
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
        """log p(candidate | words) of each, summed over its tokens; those of one token take one
        forward together."""
        encoded = self.vlm.encode(None, turn, Protocol("blind", prompt=self.prompt))
        tokenizer = self.vlm.processor.tokenizer
        own = [
            torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
            for text in candidates
        ]
        if all(len(ids) == 1 for ids in own):
            after = self._after(encoded.ids, encoded.positions, own[0][:0], 0)
            return [float(after[-1, ids[0]]) for ids in own]
        found = []
        for ids in own:
            after = self._after(encoded.ids, encoded.positions, ids, encoded.next_position)
            found.append(float(after[:-1].gather(-1, ids[:, None].to(after.device)).sum()))
        return found

    def _after(self, asked: Tensor, places: Tensor, ids: Tensor, first: int) -> Tensor:
        """(1 + len(ids), V) log-probabilities of what follows the words and each of `ids`."""
        where = first + torch.arange(len(ids))
        row = torch.cat([asked, ids]).to(self.vlm.device)
        positions = torch.cat([places, where.expand(3, -1)], -1).to(self.vlm.device)
        with self._lock, torch.no_grad():
            hidden = self.vlm.run(row[None], None, positions[:, None], None)[0]
            logits: Tensor = self.vlm.net.lm_head(hidden[len(asked) - 1 :])
            return logits.float().log_softmax(-1)
