"""FFR's own switches: where the paper and its released code differ, and what neither says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from repro import recipe

#: Orders of the options in which the blind test asks (chosen).
ORDERS = 4


@dataclass(frozen=True, kw_only=True)
class Switches(recipe.Switches):
    """teacher: of repro.ffr.teacher; parallel: its calls at a time. deadline: seconds that a round
    waits for its patches once it is sampled. leak_gate: `audit` counts leaks and lets them pass.
    blind_gain: how much a patch's words may raise p(gold) of the start checkpoint without the video
    (repro.ffr.blind), None for no such test.

    teacher_gold, teacher_options: whether a teacher that is a model is told the gold answer and the
    options. teacher_tools: which tools of the paper it may use; none for none. The gate knows the
    gold in any case.

    right_from: accuracy reward from which a rollout counts as right and is not repaired.
    chosen: the original of each index if right, else the repaired one (`per_index`), or of these
    only the best of the group, an unassisted one among equals (`best_of_group`, App. E.2).
    kappa: the patch tax; kappa_scale: charged whole, or times the share of right first answers.
    tax_on_failure: a failure for which the teacher gave nothing pays it too.
    context: under what a repaired answer enters the loss: the prompt with the patch, the one
    without, or not at all (`token_swap`: the first answer's tokens earn the repaired reward).
    second_length: tokens of a second answer, None for as many as the first may have.
    patch_fields, patch_words: what of a patch is said, and how (repro.ffr.words); `no_visual` is
    without key frames and regions. patch_images: so many of its key frames are shown again as
    pictures, 0 for text only; patch_zoom: of them its first region alone, of the region's own frame
    where every frame is a key frame.
    """

    teacher: str
    parallel: int
    deadline: float
    teacher_gold: bool
    teacher_options: bool
    teacher_tools: tuple[Literal["get_frame", "zoom_region", "get_temporal_segment"], ...]
    leak_gate: Literal["on", "audit", "off"]
    blind_gain: float | None
    right_from: float
    chosen: Literal["per_index", "best_of_group"]
    kappa: float
    kappa_scale: Literal["fixed", "group_success"]
    tax_on_failure: bool
    context: Literal["patched", "original", "token_swap"]
    second_length: int | None
    patch_fields: Literal["all", "content", "no_visual"]
    patch_words: Literal["paper", "short", "frames"]
    patch_images: int
    patch_zoom: bool

    methods: ClassVar[tuple[str, ...]] = (*recipe.Switches.methods, "ffr")

    def repairs(self, method: str) -> Literal["no", "alone", "asking"]:
        """A teacher named KIND:... is a model."""
        if method != "ffr" or self.teacher == "null":
            return "no"
        return "asking" if ":" in self.teacher else "alone"

    def blind_passes(self, method: str) -> int:
        """Of the blind test, which is part of the gate; a second try has no patch to test."""
        gated = self.blind_gain is not None and self.leak_gate != "off"
        patched = self.repairs(method) != "no" and self.teacher != "retry"
        return ORDERS if gated and patched else 0

    def __post_init__(self) -> None:
        """Raises ValueError for what no run could obey."""
        if self.kappa < 0:
            raise ValueError(f"kappa must be at least 0, not {self.kappa}")
        if not 0 < self.right_from <= 1:
            raise ValueError(f"right_from must lie in (0, 1], not {self.right_from}")
        if self.deadline <= 0:
            raise ValueError(f"deadline must be above 0 seconds, not {self.deadline}")
        if self.blind_gain is not None and not 0 <= self.blind_gain < 1:
            raise ValueError(f"blind_gain must be null or lie in [0, 1), not {self.blind_gain}")
        if self.patch_fields == "no_visual" and self.patch_images:
            raise ValueError("patch_fields no_visual shows no pictures: patch_images must be 0")
        if self.patch_images < 0:
            raise ValueError(f"patch_images must be at least 0, not {self.patch_images}")
