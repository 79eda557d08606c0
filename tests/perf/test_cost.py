"""The plan's tokens and patches are those that the counters of a real step count."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro.core import cost
from repro.core.cost import Asked, Clip
from repro.core.memory import Sizes
from tests.perf.steps import Ours, Scene, prompt_of
from tests.perf.work import work_of

SIZES = Sizes(128, 64, 384, 4, 400, True, 64, 192, 3)


@pytest.mark.parametrize("arm", ["grpo", "ktr", "entropy_only"])
def test_a_step_costs_what_the_plan_says(arm: str, scene: Scene, tmp_path: Path) -> None:
    step = Ours(scene, arm, tmp_path)
    work = work_of(step, step.model, step.reference)
    prompt = prompt_of(step)
    assert prompt.grid is not None
    rows, h, w = prompt.grid[0].tolist()
    seen = Clip(rows, h * w)
    asked = Asked(seen, len(prompt.ids) - seen.tokens, step.g, step.c, step.c)
    passes = cost.prompt_work(
        SIZES, asked, kl=True, visual=arm == "ktr", temporal=arm == "ktr", auxiliary=False,
        checkpointing=False,
    )  # fmt: skip
    planned = cost.summed(passes.values())
    assert sum(work.patches) == planned.patches
    assert sum(work.tokens) == planned.tokens
