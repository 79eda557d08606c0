"""Times GRPO, KTR and KTR's released schedule on this machine's GPU and writes one JSON.

    python -m tests.gpu.check                     3B and 7B, 16 and 64 frames
    python -m tests.gpu.check --size tiny --device cpu --out FILE      the harness itself

Step time, tokens per second, MFU and peak memory of whole optimizer steps in bf16 with gradient
checkpointing, and how far the packed pass is from the plain one. Running out of memory is a result
with a name. Needs torch and transformers, neither TRL nor a decoder.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from repro.core.packing import pack, plain, tree
from repro.core.scoring import score_trees
from tests.gpu.scenes import GPUScene, scene
from tests.perf.released import KTRRelease
from tests.perf.steps import Ours, Step, prompt_of

FOLDER = Path(__file__).resolve().parents[2] / "results" / "perf"
#: Dense bf16 TFLOP/s of the makers' data sheets.
PEAK = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0, "B200": 2250.0}
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", action="append", choices=["tiny", "3B", "7B"])
    parser.add_argument("--frames", action="append", type=int)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--completion", type=int, default=256, help="tokens (chosen)")
    parser.add_argument("--generations", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    if a.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: no CUDA device; on a CPU: --size tiny --device cpu --out FILE")
    name = torch.cuda.get_device_name() if a.device == "cuda" else "CPU"
    out = a.out or FOLDER / f"gpu-{name.lower().replace(' ', '-')}.json"
    found = {
        "schema": 1, "command": "make gpu-check", "date": datetime.date.today().isoformat(),
        "device": name, "versions": _versions(), "generations": a.generations,
        "completion": a.completion, "cases": [],
    }  # fmt: skip
    for size in a.size or ["3B", "7B"]:
        for frames in a.frames or [16, 64]:
            sides = (56, 56) if size == "tiny" else (224, 420)
            made = scene(size, a.device, frames, *sides, a.generations, a.completion)
            found["cases"].append(case(made, size, frames, a.rounds))
            out.write_text(json.dumps(found, indent=1) + "\n")  # what is measured stays
            print(json.dumps(found["cases"][-1]), flush=True)


def case(made: GPUScene, size: str, frames: int, rounds: int) -> dict[str, Any]:
    """One model and one clip: every contestant alone, so that its memory is its own."""
    arms: dict[str, Callable[[Path], Step]] = {
        "grpo": lambda out: Ours(made, "grpo", out),
        "ktr": lambda out: Ours(made, "ktr_released", out),
        "released": lambda out: KTRRelease(made),
    }
    row: dict[str, Any] = {"model": size, "frames": frames, "arms": {}}
    for arm, make in arms.items():
        with tempfile.TemporaryDirectory() as scratch:
            row["arms"][arm] = timed(make, Path(scratch), made.device, rounds)
        gc.collect()
        if made.device == "cuda":
            torch.cuda.empty_cache()
    row["equality"] = equality(made)
    return row


def timed(make: Callable[[Path], Step], out: Path, device: str, rounds: int) -> dict[str, Any]:
    """Median seconds of a step after one to warm up, and what it used."""
    step: Step | None = None
    try:
        step = make(out)
        step.model.train()
        if step.scene.checkpointing and isinstance(step, KTRRelease):
            step.model.gradient_checkpointing_enable({"use_reentrant": False})
        step()
        seconds = []
        for _ in range(rounds):
            if device == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        middle = statistics.median(seconds)
        measured = {"outcome": "ok", "seconds": middle, **_rates(step, middle, device)}
        if isinstance(step, Ours):
            measured["prompt"] = len(prompt_of(step).ids)
        return measured
    except torch.OutOfMemoryError as error:
        return {"outcome": "out of memory", "detail": str(error).split(". ")[0]}


def _rates(step: Step, seconds: float, device: str) -> dict[str, Any]:
    rates: dict[str, Any] = {"completions_per_second": step.g / seconds}
    if device == "cuda":
        rates["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    if isinstance(step, Ours):
        tokens, patches = step.trainer.metrics["tokens"], step.trainer.metrics["patches"]
        rates["tokens_per_second"] = tokens / seconds
        flops = _flops(step, tokens, patches)
        rates["tflop_per_second"] = flops / seconds / 1e12
        peak = next((p for n, p in PEAK.items() if device == "cuda" and
                     n in torch.cuda.get_device_name()), None)  # fmt: skip
        rates["mfu"] = None if peak is None else flops / seconds / 1e12 / peak
    return rates


def _flops(step: Ours, tokens: float, patches: float) -> float:
    """Two per weight and token forwarded; the policy pass costs two more forwards in backward. The
    recomputation of checkpointing and attention's own products are left out."""
    text = sum(p.numel() for p in step.model.model.language_model.layers.parameters())
    tower = sum(p.numel() for p in step.model.model.visual.parameters())
    prompt = prompt_of(step)
    assert prompt.pixels is not None
    policy = len(prompt.ids) + step.g * (step.c - 1)
    return 2 * text * (tokens + 2 * policy) + 2 * tower * (patches + 2 * len(prompt.pixels))


def equality(made: GPUScene) -> dict[str, float]:
    """Packed against plain: largest difference of a log-probability, relative error of all."""
    vlm = made.model()
    prompt = vlm.encode(made.clip(), made.text, made.protocol)
    trees = [tree(prompt, made.given[:2].tolist())]
    with torch.no_grad():
        packed, _ = score_trees(vlm, trees, pack)
        wanted, _ = score_trees(vlm, trees, plain)
    gap = packed - wanted
    return {"largest": float(gap.abs().max()), "relative": float(gap.norm() / wanted.norm())}


def _versions() -> dict[str, str]:
    import transformers

    return {"torch": torch.__version__, "transformers": transformers.__version__}


if __name__ == "__main__":
    main()
