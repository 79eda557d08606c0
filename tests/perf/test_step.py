"""How much faster a step is: ours, repaired TRL's and the released KTR's, side by side.

    make bench          writes results/perf/cpu.json, README.md and memory.md

Only ratios are kept: contestants take turns within a round, a ratio is taken round by round, and
the median of the rounds is reported. CPU time of one thread is compared, so that other work on the
machine counts for nobody. Each warms up while its work is counted.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from evals.vlm import VLM
from repro.core import trainer as core
from repro.core.vision import Vision
from tests.perf import table
from tests.perf.released import KTRRelease
from tests.perf.steps import Ours, Scene, Step, given, prompt_of, sized
from tests.perf.work import work_of

pytestmark = [
    pytest.mark.perf,
    pytest.mark.timeout(7200),
    pytest.mark.benchmark(timer=time.process_time),
]

G, C = 8, 48


@dataclass(frozen=True)
class Case:
    """A student (hidden x layers, tower hidden x layers), a film, who takes part, how often.

    targets: ratio -> the least it should be; `ktr_extra` is the most it should be.
    """

    name: str
    student: tuple[int, int, int, int]
    frames: int
    side: int
    arms: tuple[str, ...]
    rounds: int
    targets: dict[str, float]


ALL, GRPO = ("trl", "released", "grpo", "ktr"), ("trl", "grpo")
SHIPPED, TIMING = (128, 4, 64, 3), (192, 4, 96, 6)
TARGETS = {"grpo_vs_trl": 4.0, "ktr_vs_released": 6.0, "ktr_extra": 0.3}
CASES = (
    Case("timing model", TIMING, 16, 224, ALL, 3, TARGETS),
    Case("shipped student", SHIPPED, 16, 224, ALL, 3, {}),
    Case("KTR's own prompt", SHIPPED, 16, 308, ALL, 1, {}),
    Case("32 frames", SHIPPED, 32, 224, GRPO, 1, {}),
    Case("64 frames", SHIPPED, 64, 224, GRPO, 1, {}),
    Case("128 frames", SHIPPED, 128, 224, GRPO, 1, {}),
)


@pytest.fixture(scope="module")
def measured(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Case -> what was measured; written and shown when all cases are there, and only then."""
    rows: dict[str, Any] = {}
    yield rows
    if len(rows) == len(CASES):
        shown = table.write([rows[case.name] for case in CASES], TARGETS, (G, C))
        request.config.pluginmanager.getplugin("terminalreporter").write("\n\n" + shown)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_step(
    case: Case,
    benchmark: BenchmarkFixture,
    measured: dict[str, Any],
    save: Callable[..., Path],
    student: VLM,
    trl_peer: ModuleType,
    tmp_path: Path,
) -> None:
    checkpoint = save(sized(student, *case.student), student.processor)
    words = given(G, C, len(student.processor.tokenizer))
    scene = Scene.make(checkpoint, tmp_path, case.frames, case.side, words)
    steps = _steps(case, scene, trl_peer, tmp_path)
    work = {name: work_of(step, step.model, step.reference) for name, step in steps.items()}
    seconds = _race(benchmark, steps, case.rounds)
    ratios = _ratios(seconds)
    benchmark.extra_info.update(ratios)
    prompt = prompt_of(steps["grpo"])
    measured[case.name] = {
        "name": case.name,
        "student": "{}x{}, tower {}x{}".format(*case.student),
        "tower_share": _tower_share(steps["grpo"].model),
        "prompt": len(prompt.ids),
        "patches": len(prompt.pixels),
        "rounds": case.rounds,
        "ratios": ratios,
        "work": {name: _summary(asdict(found)) for name, found in work.items()},
        "profile": _profile(steps["ktr"]) if "ktr" in steps else None,
    }
    for name, target in case.targets.items():
        good = ratios[name] <= target if name == "ktr_extra" else ratios[name] >= target
        assert good, f"{name} is {ratios[name]:.2f}, the target {target}: {ratios}"


def _steps(case: Case, scene: Scene, trl_peer: ModuleType, out: Path) -> dict[str, Step]:
    make = {
        "grpo": lambda: Ours(scene, "grpo", out / "grpo"),
        "trl": lambda: trl_peer.TRL(scene, out / "trl"),
        "ktr": lambda: Ours(scene, "ktr_released", out / "ktr"),
        "released": lambda: KTRRelease(scene),
    }
    return {name: make[name]() for name in case.arms}


def _race(benchmark: BenchmarkFixture, steps: dict[str, Step], rounds: int) -> dict[str, Any]:
    """CPU seconds per round; the benchmark's own clock runs for the last of them."""
    seconds: dict[str, list[float]] = defaultdict(list)

    def run(name: str) -> None:
        began = time.process_time()
        steps[name]()
        seconds[name].append(time.process_time() - began)

    *others, last = steps

    def before() -> None:
        for name in others:
            run(name)

    benchmark.pedantic(run, args=(last,), setup=before, rounds=rounds)
    return seconds


def _ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    def ratio(slow: str, fast: str) -> float:
        pairs = zip(seconds[slow], seconds[fast], strict=True)
        return statistics.median(a / b for a, b in pairs)

    found = {"grpo_vs_trl": ratio("trl", "grpo")}
    if "ktr" in seconds:
        found["ktr_vs_released"] = ratio("released", "ktr")
        found["ktr_extra"] = ratio("ktr", "grpo") - 1
    return found


def _summary(work: dict[str, Any]) -> dict[str, int]:
    return {name: sum(v) if isinstance(v, list) else v for name, v in work.items()}


def _tower_share(model: Any) -> float:
    """Multiplications in the vision tower per video token, over the language model's."""
    visual, text = model.model.visual, model.model.language_model
    merger = sum(p.numel() for p in visual.merger.parameters())
    patch = sum(p.numel() for p in visual.parameters()) - merger
    layers = sum(p.numel() for p in text.layers.parameters())
    return (visual.spatial_merge_size**2 * patch + merger) / layers


def _profile(step: Ours) -> dict[str, float]:
    """Share of a step's CPU time by stage."""
    spent: dict[str, float] = defaultdict(float)

    def clock(owner: Any, attribute: str, name: str) -> Any:
        real = getattr(owner, attribute)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            out = real(*args, **kwargs)
            spent[name] += time.process_time() - began
            return out

        return mock.patch.object(owner, attribute, timed)

    with ExitStack() as stack:
        for owner, attribute, name in (
            (step.trainer.prompts.__class__, "build", "film and processor"),
            (step.vlm, "sample", "sampling"),
            (Vision, "__call__", "policy's vision tower"),
            (step.trainer, "_score", "policy forward"),
            (step.trainer, "_refer", "reference pass"),
            (core, "token_scores", "counterfactual passes"),
            (step.trainer.accelerator, "backward", "backward"),
        ):
            stack.enter_context(clock(owner, attribute, name))
        began = time.process_time()
        step()
        total = time.process_time() - began
    return {
        **{name: s / total for name, s in spent.items()},
        "the rest": 1 - sum(spent.values()) / total,
    }
