"""Synthetic runs with the shape of real ones: arms, seeds, replies, curves and token views."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from results import ledger

FAMILIES = {"attribute": 0.2, "order": -0.15, "count": -0.05, "cause": 0.0, "locate": 0.05}
SHA = "0123456789abcdef" * 4


@dataclasses.dataclass(frozen=True)
class World:
    """A test set: 4 questions per video, each with its own difficulty."""

    videos: int = 60
    samples: int = 4
    steps: int = 30

    @property
    def items(self) -> int:
        return 4 * self.videos


def protocol(samples: int) -> dict[str, Any]:
    decoding = {"temperature": 1.0 if samples > 1 else 0.0, "samples": samples}
    return {"id": "microworld", "prompt": "video-r1", "max_frames": 8, "decoding": decoding}


def record(arm: str, seed: int, samples: int, **more: Any) -> dict[str, Any]:
    """The identity fields of a record; the rest is computed from its rows."""
    return {
        "paper": "ktr",
        "profile": "micro",
        "arm": arm,
        "benchmark": "microworld",
        "split": "test",
        "metric": "accuracy",
        "model": {"id": f"runs/{arm}-s{seed}/final", "revision": None, "sha256": SHA},
        "protocol": protocol(samples),
        "protocol_hash": "5a5a0008" if samples > 1 else "5a5a0001",
        "dataset": {"revision": "v1", "sha256": SHA[::-1]},
        "seed": seed,
        "engine": {"name": "hf", "version": "transformers 5.17.0"},
        "git": {"commit": "c0ffee" * 6 + "beef", "dirty": False},
        "machine": {"cpu": "2 cores", "gpu": None},
        "seconds": 61.5 + seed,
        "started": "2026-01-02T03:04:05+00:00",
        "partial": False,
        "who": "tests",
        **more,
    }


def rows(world: World, arm: str, seed: int, gain: float, samples: int) -> list[dict[str, Any]]:
    """Replies of a model `gain` better than the cold start, answers of a video correlated."""
    shared = np.random.default_rng(1)
    difficulty = shared.normal(0, 0.22, world.items) + np.repeat(
        shared.normal(0, 0.1, world.videos), 4
    )
    rng = np.random.default_rng([sum(arm.encode()), seed, samples])
    names = list(FAMILIES)
    out = []
    for i in range(world.items):
        family = names[i % len(names)]
        p = 0.5 + FAMILIES[family] + difficulty[i] + gain * (2.2 if family == "order" else 0.8)
        for k in range(samples):
            draw = rng.random()
            correct = draw < min(0.97, max(0.05, p))
            outcome = "correct" if correct else ("unparsed" if draw > 0.985 else "wrong")
            if not correct and draw > 0.994:
                outcome = "truncated"
            read = outcome in ("correct", "wrong")
            out.append(
                {
                    "id": f"q{i:05}",
                    "k": k,
                    "cluster": f"film{i // 4:04}",
                    "kind": "multiple choice",
                    "gold": "B",
                    "prediction": ("B" if correct else "C") if read else None,
                    "outcome": outcome,
                    "score": float(correct),
                    "tokens": int(rng.integers(18, 42)),
                    "tags": {"family": family, "modality": "video" if i % 3 else "image"},
                }
            )
    return out


def curves(arm: str, seed: int, steps: int) -> str:
    """metrics.jsonl of a run that learns; a collapse alarm now and then."""
    rng = np.random.default_rng([7, sum(arm.encode()), seed])
    top = {"grpo": 0.69, "ktr": 0.72, "random": 0.67}.get(arm, 0.66)
    lines = []
    for step in range(1, steps + 1):
        x = step / steps
        accuracy = 0.5 + (top - 0.5) * (1 - np.exp(-3 * x)) + rng.normal(0, 0.035)
        lines.append(
            {
                "step": step,
                "reward": accuracy + 0.97 + rng.normal(0, 0.01),
                "accuracy": accuracy,
                "format": 0.98,
                "kl": 0.09 * x**1.3 * (1.25 if arm == "ktr" else 1) + abs(rng.normal(0, 0.004)),
                "length": 31 - 5 * x + rng.normal(0, 0.6),
                "loss": float(rng.normal(0, 0.01)),
                "entropy": 0.3 - 0.1 * x,
                "grad_norm": 0.4,
                "zero_std": 0.2 + 0.2 * x + rng.normal(0, 0.03),
                "kept": 1.0 if arm == "grpo" else 0.42 + rng.normal(0, 0.012),
                "seconds": 1.1 if arm == "grpo" else 1.55,
                "tokens": 5200 if arm == "grpo" else 11800,
                "alarms": ["short"] if arm == "random" and seed == 1 and step == 20 else [],
            }
        )
    return "".join(json.dumps(line) + "\n" for line in lines)


REPLY = (
    "<think>|\n|first| the| red| circle| ap|pe|ars| at| the| left|,| then| the| blue| square|"
    " moves| and| hits| it|,| so| the| red| circle| came| first|.|\n|</think>|\n|<answer>|B|"
    "</answer>|<|im_end|>"
)


def token_view(arm: str, seed: int) -> str:
    """tokens.json: three completions, each token with its scores and the signals that chose it."""
    rng = np.random.default_rng([11, sum(arm.encode()), seed])
    texts = REPLY.replace("<|im_end|>", "\0").split("|")
    texts = [text.replace("\0", "<|im_end|>") for text in texts]
    out = []
    for number in range(3):
        tokens = []
        for text in texts:
            scores = {
                "entropy": float(rng.gamma(0.5, 0.25)),
                "visual": float(rng.normal(0, 0.6)),
                "temporal": float(rng.normal(0, 0.4)) if number else None,
            }
            cuts = {"entropy": 0.3, "visual": 0.5, "temporal": 0.35}
            chosen = [s for s, cut in cuts.items() if scores[s] is not None and scores[s] > cut]
            kept = bool(chosen)
            if arm in ("grpo", "random"):
                chosen, kept = [], arm == "grpo" or rng.random() < 0.4
            tokens.append({"text": text, **scores, "signals": chosen, "kept": kept})
        out.append(
            {
                "question": "Which shape appeared first?\nA. blue square\nB. red circle",
                "gold": "B",
                "reward": 2.0 - number % 2,
                "advantage": round(0.9 - 1.3 * (number % 2), 3),
                "tokens": tokens,
            }
        )
    return json.dumps(out)


def make_run(
    folder: Path,
    world: World,
    arm: str,
    seed: int,
    gain: float,
    *,
    greedy: bool = False,
    **more: Any,
) -> ledger.Run:
    """Write one run the way the command line does, and return it as read back."""
    samples = 1 if greedy else world.samples
    name = f"{arm}-s{seed}" + ("-greedy" if greedy else "")
    trained = arm != "cold" and not greedy
    folder.mkdir(parents=True, exist_ok=True)
    curve = token = None
    if trained:
        curve, token = folder / "c.jsonl", folder / "t.json"
        curve.write_text(curves(arm, seed, world.steps), encoding="utf-8")
        token.write_text(token_view(arm, seed), encoding="utf-8")
    return ledger.write(
        record(arm, seed, samples, **more),
        rows(world, arm, seed, gain, samples),
        folder / name,
        curves=curve,
        tokens=token,
    )


def make_suite(
    folder: Path, world: World, gains: Mapping[str, float], seeds: Sequence[int]
) -> list[ledger.Run]:
    """The cold start and every arm at every seed, sampled and greedy."""
    spread = {0: 0.000, 1: 0.012, 2: -0.010, 3: 0.006, 4: -0.004}
    plan = [("cold", 0, 0.0)]
    plan += [(arm, seed, gain + spread[seed]) for arm, gain in gains.items() for seed in seeds]
    return [
        make_run(folder, world, arm, seed, gain, greedy=greedy)
        for arm, seed, gain in plan
        for greedy in (False, True)
    ]


Maker = Callable[..., ledger.Run]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def maker(tmp_path: Path, world: World) -> Maker:
    """make(arm, seed, gain, greedy=False, **record fields) -> Run"""

    def make(arm: str, seed: int, gain: float = 0.0, **more: Any) -> ledger.Run:
        return make_run(tmp_path / "made", world, arm, seed, gain, **more)

    return make


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> list[ledger.Run]:
    """Three arms, two seeds, small."""
    folder = tmp_path_factory.mktemp("suite")
    return make_suite(folder, World(), {"grpo": 0.08, "ktr": 0.1, "random": 0.06}, (0, 1))
