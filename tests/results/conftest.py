"""Synthetic runs with the shape of real ones: arms, seeds, replies, curves and token views."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from results import filing, ledger, publish
from results.scoreboard import Board

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


# --- runs of a paper profile ---------------------------------------------------------------

RELEASED = "Video-KTR/Video-KTR-7B"


def paper_protocol(**more: Any) -> dict[str, Any]:
    """As assumed for Video-KTR on the benchmarks of Video-R1-eval."""
    return {
        "id": "video-r1", "prompt": "video-r1", "grader": "video-r1", "max_frames": 64,
        "max_pixels": 100352, "subset": "video-r1-eval", "subtitles": "none",
        "decoding": {"temperature": 0.1, "top_p": 0.001, "samples": 1, "seed": 0}, **more,
    }  # fmt: skip


def paper_run(
    folder: Path,
    benchmark: str,
    seed: int,
    *,
    n: int,
    score: float,
    flips: float = 0.02,
    arm: str = "released",
    trained: bool = False,
    lost: int = 0,
    commit: str = "c0ffee" * 6 + "beef",
    started: str = "2026-12-01T08:00:00+00:00",
    **protocol: Any,
) -> ledger.Run:
    """n questions, the same ones right in every seed but for a share of `flips`."""
    shared = np.random.default_rng(sum(benchmark.encode()))
    order = shared.permutation(n)
    rng = np.random.default_rng([seed, sum(arm.encode()), n])
    right = np.zeros(n, dtype=bool)
    right[order[: round(score * n)]] = True
    swapped = rng.integers(0, n, round(flips * n / 4))
    right[rng.choice(np.flatnonzero(right), len(swapped), replace=False)] = False
    right[rng.choice(np.flatnonzero(~right), len(swapped), replace=False)] = True
    kinds = ("art", "medicine", "engineering", "science")
    found = []
    for i in range(n):
        gone = i >= n - lost
        outcome = "undecodable" if gone else "correct" if right[i] else "wrong"
        found.append(
            {
                "id": f"{benchmark}-{i:05}", "k": 0, "cluster": f"video{i // 3:04}",
                "kind": "multiple choice", "gold": "C",
                "prediction": None if gone else "C" if right[i] else "ABD"[i % 3],
                "outcome": outcome, "score": float(right[i] and not gone), "tokens": 180 + i % 90,
                "tags": {"field": kinds[i % 4]},
                "reply": f"<think>It is {kinds[i % 4]}, so</think><answer>C</answer>",
            }
        )  # fmt: skip
    used = paper_protocol(**protocol)
    name = "-".join(str(used[key]) for key in ("prompt", "max_frames", "max_pixels"))
    digest = hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()
    weights = {"id": RELEASED, "revision": "ab" * 20, "sha256": None}
    if trained:
        sha = hashlib.sha256(f"{arm}{seed}".encode()).hexdigest()
        weights = {"id": f"{arm}-s{seed}", "revision": None, "sha256": sha}
    target = folder / "ktr" / benchmark / f"{arm}-s{seed}-{name}"
    target.mkdir(parents=True, exist_ok=True)
    curve = target / "c.jsonl"
    if trained:
        curve.write_text(curves(arm, seed, 40), encoding="utf-8")
    made = ledger.write(
        record(
            arm, seed, 1, profile="paper", benchmark=benchmark, model=weights, protocol=used,
            protocol_hash=digest[:8], batch=16 << (seed % 3), image=f"sha256:{SHA}",
            machine={"cpu": "64 cores", "gpu": "1 x NVIDIA H100", "driver": "580.82"},
            gpu_hours=0.7 + 0.1 * seed, started=started, finished=None,
            git={"commit": commit, "dirty": False},
        ),
        found,
        target,
        curves=curve if trained else None,
    )  # fmt: skip
    curve.unlink(missing_ok=True)
    return made


def make_paper_suite(folder: Path, *, seeds: int = 3) -> list[ledger.Run]:
    """Cells with every word: reproduced, below, above, within noise, not comparable, failed."""
    made = []
    for seed in range(seeds):
        for pixels in (100352, 200704):
            both = {"seed": seed, "max_pixels": pixels, "folder": folder}
            made += [
                paper_run(benchmark="videommmu", n=900, score=0.533, **both),
                paper_run(benchmark="mmvu", n=625, score=0.67, flips=0.2, subset="mc", **both),
                paper_run(benchmark="videommmu", n=900, score=0.483, max_frames=16, **both),
                paper_run(benchmark="mmvu", n=625, score=0.691, flips=0.03, subset="mc",
                          max_frames=16, **both),
                paper_run(benchmark="mmvu", n=625, score=0.66, subset="mc", max_frames=32,
                          prompt="think", **both),
            ]  # fmt: skip
            for arm, score in (("ktr", 0.524), ("grpo", 0.497)):
                own = score + 0.006 * (seed - 1)
                made.append(
                    paper_run(benchmark="videommmu", n=900, score=own, max_frames=32, arm=arm,
                              trained=True, **both)
                )  # fmt: skip
    filing.note_failure(
        filing.Failure("ktr", "tempcompass", "released", RELEASED, 64, 0, "CUDA out of memory"),
        folder / "ktr" / "tempcompass" / "released-s0",
    )
    return made


@pytest.fixture(scope="session")
def paper_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with runs of the paper profile beside two micro arms."""
    folder = tmp_path_factory.mktemp("ledger")
    make_paper_suite(folder)
    make_suite(folder / "ktr" / "microworld", World(), {"grpo": 0.08, "ktr": 0.1}, (0, 1, 2))
    return folder


@pytest.fixture(scope="session")
def board(paper_suite: Path) -> Board:
    """Every printed number of this repository, judged by the runs of `paper_suite`."""
    return publish.load_board(Path(ledger.__file__).parents[1], paper_suite)[0]


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


hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")
