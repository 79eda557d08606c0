"""Builds the embedded student's cold starts: format and reading by SFT, with room left for RL.

1. warm-up, no video: the same questions and completions as text, which teaches the format and to
   bind an option's words to its letter (without it the letter stays at chance);
2. video: completions `<think>I see ..., so X</think><answer>L</answer>`, stopped as soon as the
   greedy accuracy on validation reaches `enough`: reading video is learned within some hundred
   steps, all at once, and a student that reads everything leaves reinforcement nothing to do.

    repro tiny build --for ktr          about 15 minutes on one core
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evals import benchmarks, microworld
from evals.benchmarks.jsonl import rows as read_rows
from evals.errors import BadInput
from evals.prompts import question_text
from evals.types import Sample
from repro.core import checkpoint
from repro.tiny import model as student

HERE = Path(__file__).parent
Progress = Callable[[str, int, int, float], None]


@dataclass(frozen=True)
class Cold:
    """How one cold start is trained; every value chosen on the validation split."""

    seed: int = 0
    batch: int = 32
    warmup_steps: int = 1400
    warmup_rate: float = 6e-4
    video_steps: int = 1800
    video_rate: float = 6e-4
    enough: float = 0.55
    check_every: int = 25


VARIANTS = {"ktr": Cold()}


def build(
    paper: str, out: Path | None = None, progress: Progress = lambda *args: None
) -> dict[str, Any]:
    """Train, measure and write the cold start of `paper` into `out` (default: shipped place).

    Returns its manifest entry: sha256, seed, command, accuracies on validation.
    """
    import torch

    from evals.vlm import VLM
    from repro.core import sft

    if paper not in VARIANTS:
        raise BadInput(f"no cold start for {paper!r}; there are {', '.join(VARIANTS)}")
    torch.set_num_threads(1)
    cold, folder = VARIANTS[paper], out or HERE / paper
    samples, targets = _records("cold")
    texts = [question_text(s, student.PROTOCOL.prompt) for s in samples]
    tokens = student.tokenizer([f"{q}\n{t}" for q, t in zip(texts, targets, strict=True)])
    vlm = VLM(student.model(tokens, cold.seed), student.processor(tokens))
    ends = [(*tokens(t)["input_ids"], vlm.end) for t in targets]
    blind = [vlm.encode(None, q, student.PROTOCOL) for q in texts]
    seen = _encode(vlm, samples)
    stages = (
        ("warm-up", blind, cold.warmup_steps, cold.warmup_rate, lambda step: False),
        ("video", seen, cold.video_steps, cold.video_rate, _reads_enough(vlm, cold)),
    )
    for number, (name, prompts, steps, rate, stop) in enumerate(stages, start=1):
        sft.train(
            vlm,
            [sft.Example(p, e) for p, e in zip(prompts, ends, strict=True)],
            steps=steps,
            learning_rate=rate,
            batch=cold.batch,
            seed=cold.seed + number,
            progress=lambda step, loss, name=name, steps=steps: progress(name, step, steps, loss),
            stop=stop,
        )
    checkpoint.write_aside(folder, lambda scratch: _save(vlm, scratch))
    entry = {
        "command": f"repro tiny build --for {paper}",
        "seed": cold.seed,
        "sha256": checkpoint.weights_sha256(folder),
        "parameters": sum(p.numel() for p in vlm.model.parameters()),
        "validation": measure(folder),
    }
    _remember(paper, entry, folder.parent / "manifest.json")
    return entry


def _reads_enough(vlm: Any, cold: Cold) -> Callable[[int], bool]:
    from evals.models import Checkpoint
    from evals.run import evaluate

    benchmark = benchmarks.load("microworld", split="validation")
    model = Checkpoint(vlm, "student")
    decoding = replace(student.PROTOCOL.decoding, temperature=0.0, samples=1)
    protocol = replace(student.PROTOCOL, decoding=decoding)

    def stop(step: int) -> bool:
        if step % cold.check_every:
            return False
        rows = evaluate(model, benchmark, protocol)
        return _share([row.score for row in rows]) >= cold.enough

    return stop


def measure(folder: Path) -> dict[str, float]:
    """Validation split: greedy accuracy; at temperature 1 avg@8, pass@8 and format rate."""
    from evals.models import load
    from evals.run import evaluate
    from repro.core.rewards import format_reward

    benchmark, model = benchmarks.load("microworld", split="validation"), load(folder)
    sampled = evaluate(model, benchmark, student.PROTOCOL, save_replies=True)
    greedy = replace(student.PROTOCOL.decoding, temperature=0.0, samples=1)
    once = evaluate(model, benchmark, replace(student.PROTOCOL, decoding=greedy))
    solved = {row.id for row in sampled if row.score >= 1}
    return {
        "greedy": _share([row.score for row in once]),
        "avg@8": _share([row.score for row in sampled]),
        "pass@8": round(len(solved) / len(benchmark.samples), 4),
        "format": _share([format_reward(row.reply or "") for row in sampled]),
    }


def _share(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def _records(split: str) -> tuple[list[Sample], list[str]]:
    folder = microworld.make(split)
    samples = benchmarks.load("microworld", split=split).samples
    targets = [r["process"] + r["solution"] for r in read_rows(folder / "records.json")]
    return list(samples), targets


def _encode(vlm: Any, samples: Sequence[Sample]) -> list[Any]:
    """Prompts of all samples; questions about one film share its pixels."""
    from evals.video import Clips

    clips, pixels, prompts = Clips(student.PROTOCOL), {}, []
    for sample in samples:
        text = question_text(sample, student.PROTOCOL.prompt)
        prompt = vlm.encode(clips.load(sample), text, student.PROTOCOL)
        prompts.append(replace(prompt, pixels=pixels.setdefault(sample.media, prompt.pixels)))
    return prompts


def _save(vlm: Any, folder: Path) -> None:
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)


def _remember(paper: str, entry: dict[str, Any], manifest: Path) -> None:
    known = json.loads(manifest.read_text()) if manifest.exists() else {}
    manifest.write_text(json.dumps({**known, paper: entry}, indent=1) + "\n")
