"""results/perf: what `make bench` measured, as JSON, and the tables made from it."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from repro.core import memory
from repro.machine import cpu

FOLDER = Path(__file__).resolve().parents[2] / "results" / "perf"
COMMAND = "make bench"
NAMES = {"grpo": "our GRPO", "trl": "TRL, repaired", "ktr": "our KTR", "released": "KTR's release"}


def write(
    rows: Sequence[dict[str, Any]], targets: dict[str, float], completions: tuple[int, int]
) -> str:
    """cpu.json from what was measured, README.md from cpu.json, memory.md from the formulas;
    returns the README. completions: their number and length."""
    measured = {
        "generations": completions[0], "completion": completions[1], "targets": targets,
        "cases": rows,
    }  # fmt: skip
    data = filed("cpu.json", ("torch", "transformers", "trl"), measured)
    (FOLDER / "README.md").write_text(readme(data))
    (FOLDER / "memory.md").write_text(memory_table())
    return readme(data)


def filed(name: str, packages: Sequence[str], measured: dict[str, Any]) -> dict[str, Any]:
    """Write what was measured, where and by which versions, to results/perf; returns it."""
    data = {
        "schema": 1,
        "command": COMMAND,
        "date": datetime.date.today().isoformat(),
        "cpu": cpu(),
        "threads": 1,
        "versions": {
            "python": platform.python_version(),
            **{p: importlib.metadata.version(p) for p in packages},
        },
        **measured,
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / name).write_text(json.dumps(data, indent=1) + "\n")
    return data


def readme(data: dict[str, Any]) -> str:
    """The tables of cpu.json, in Markdown."""
    cases = {case["name"]: case for case in data["cases"]}
    full = [case for case in cases.values() if case["profile"]]
    first, g, c = full[0], data["generations"], data["completion"]
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    return f"""# Speed of a training step

`{data["command"]}` made these tables from [cpu.json](cpu.json), {data["date"]}, on one thread of
{data["cpu"]} ({versions}).

Whole optimizer steps: the film decoded, the processor run, {g} completions of {c} tokens
sampled, scored and learnt from, AdamW. All start from the same random weights and score the same
tokens; `tests/perf/test_peers.py` shows that their losses and gradients agree to 1e-5. They take
turns; a ratio is the median over rounds of CPU time. No gradient checkpointing, which would cost
the peers more than us.

- **TRL, repaired**: `trl.GRPOTrainer` with four overrides that show its loss the video. Stock TRL
  scores the text alone, so its time means nothing.
- **KTR's release**: its schedule on plain transformers: sample, policy, masked, shuffled and
  reference pass on {g} copies of prompt and clip each.

P is the length of the prompt. The tower's work is what it spends on a video token, over what the
language model spends: 0.4 in Qwen2.5-VL-7B, 1.0 in 3B. The larger it is, the more there is to save.

## Ratios

{_ratios(cases.values(), data["targets"])}

The targets are for P of about 540 and were set on the first row's sizes.

## Work of a step, {first["name"]}, P = {first["prompt"]}

{_work(first)}

## Where our KTR step's time goes

{_profiles(full)}

## On a GPU

{gpu(sorted(FOLDER.glob("gpu-*.json")))}
"""


def gpu(files: Sequence[Path]) -> str:
    """Step times on the devices that `make gpu-check` has been run on; says so where there are
    none."""
    if not files:
        return "Nobody has run `make gpu-check` yet: nothing here was measured on a GPU."
    header = ["device", "model", "frames", "step", "seconds", "tokens/s", "MFU", "peak, GiB"]
    rows = []
    for file in files:
        data = json.loads(file.read_text())
        for case in data["cases"]:
            for arm, found in case["arms"].items():
                shown = (found.get(k) for k in ("tokens_per_second", "mfu", "peak_gib"))
                cells = ["-" if v is None else f"{v:.3g}" for v in shown]
                seconds = f"{found['seconds']:.3g}" if "seconds" in found else found["outcome"]
                name = NAMES[arm]
                rows.append([data["device"], case["model"], case["frames"], name, seconds, *cells])
    return markdown(header, rows)


def _ratios(cases: Iterable[dict[str, Any]], targets: dict[str, float]) -> str:
    rows = [
        [
            case["name"], case["student"], f"{case['tower_share']:.1f}", case["prompt"],
            _times(case, "grpo_vs_trl"), _times(case, "ktr_vs_released"), _percent(case),
        ]
        for case in cases
    ]  # fmt: skip
    goal = [
        "**target**", "", "", "", f"at least {targets['grpo_vs_trl']:g}x",
        f"at least {targets['ktr_vs_released']:g}x", f"at most {targets['ktr_extra']:.0%}",
    ]  # fmt: skip
    header = [
        "case", "student", "tower's work", "P", "our GRPO vs TRL", "our KTR vs release",
        "KTR's extra over our GRPO",
    ]  # fmt: skip
    return markdown(header, [*rows, goal])


def _times(case: dict[str, Any], name: str) -> str:
    return f"{case['ratios'][name]:.2f}x" if name in case["ratios"] else "-"


def _percent(case: dict[str, Any]) -> str:
    extra = case["ratios"].get("ktr_extra")
    return "-" if extra is None else f"{extra:+.0%}"


def _work(case: dict[str, Any]) -> str:
    header = ["", "films read", "patches encoded", "tokens forwarded", "largest logits, MB"]
    rows = [
        [NAMES[name], w["decodes"], w["patches"], w["tokens"], f"{w['logits'] / 1e6:.2f}"]
        for name, w in case["work"].items()
    ]
    return markdown(header, rows)


def _profiles(cases: Sequence[dict[str, Any]]) -> str:
    stages = list(cases[0]["profile"])
    rows = [[stage, *(f"{c['profile'].get(stage, 0):.0%}" for c in cases)] for stage in stages]
    return markdown(["stage", *(f"{c['name']}, P = {c['prompt']}" for c in cases)], rows)


def memory_table() -> str:
    """Peak memory of KTR on Qwen2.5-VL-7B, stage by stage, computed."""
    sizes, load = memory.QWEN_7B, memory.KTR_7B
    columns = {
        f"{who}{how}": memory.stages(sizes, load, path, ranks=8, checkpointing=not how)
        for how in ("", ", no checkpointing")
        for who, path in (("release", "plain"), ("ours", "packed"))
    }
    stages = [
        [stage, *(_gib(sum(found[stage].values())) for found in columns.values())]
        for stage in columns["ours"]
    ]
    backward = {name: found["backward"] for name, found in columns.items()}
    names = dict.fromkeys(part for found in backward.values() for part in found)
    parts = [[n, *(_gib(found.get(n, 0)) for found in backward.values())] for n in names]
    whole = memory.static(sizes) | {"gradients": memory.static(sizes)["weights"]}
    return f"""# Memory of a KTR step on Qwen2.5-VL-7B

Computed by `repro.core.memory`, not measured; `{COMMAND}` writes this file. GiB per device, one
prompt each: 16 frames of 224 x 420 pixels, {load.prompt} prompt tokens, {load.patches} patches,
G = {load.generations}, completions of {load.completion} tokens, bf16, everything trained. Weights,
reference, gradients and Adam are shared by 8 devices (ZeRO-3); whole they are
{", ".join(f"{name} {_gib(size)}" for name, size in whole.items())}.

{markdown(["stage", *columns], stages)}

What holds the memory of backward:

{markdown(["", *columns], parts)}
"""


def _gib(size: float) -> str:
    return f"{size / memory.GIB:.1f}"


def markdown(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write_evaluation(measured: dict[str, Any]) -> str:
    """evaluation.json from what was measured and evaluation.md from it; returns the latter."""
    text = _evaluation(
        filed("evaluation.json", ("torch", "transformers", "av", "decord"), measured)
    )
    (FOLDER / "evaluation.md").write_text(text)
    return text


def _evaluation(data: dict[str, Any]) -> str:
    q, oracle = data["questions"], data["oracle"]
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    lines = "".join(
        f"| {gop} | {r['ours']:.0f} | {r['one pass']:.0f} | {r['decord']:.0f} "
        f"| {r['per index']:.0f} | {case['ratio']:.1f} |\n"
        for gop, case in data["decoding"].items()
        for r in (case["per_second"],)
    )
    return f"""# Speed of an evaluation

`{data["command"]}` made this from [evaluation.json](evaluation.json), {data["date"]}, CPU time of
one thread of {data["cpu"]} ({versions}).

{q["questions"]} questions on {q["films"]} microworld films, the shape of Video-Holmes (about 7 a
film), greedy, the shipped student. The plain path asks one question at a time and shares nothing;
all answers are the same.

| | questions/s |
|---|---|
| ours | {q["per_second"]["ours"]:.1f} |
| plain path | {q["per_second"]["plain"]:.1f} |
| ratio | {q["ratio"]:.1f} |

The oracle over {oracle["questions"]} questions, rows durable batch by batch, takes
{oracle["ratio"]:.2f} times as long as a loop that appends rows known beforehand.

Frames/s of 16 frames out of 900 (640 x 360 H.264), bit-identical:

| frames between key frames | ours (PyAV) | PyAV, one pass | decord | each by itself | ours / each |
|---|---|---|---|---|---|
{lines}"""


def write_synthesis(measured: dict[str, Any]) -> str:
    """synthesis.json from what was measured and synthesis.md from it; returns the latter."""
    text = _synthesis(filed("synthesis.json", ("av", "numpy", "pillow"), measured))
    (FOLDER / "synthesis.md").write_text(text)
    return text


def _synthesis(data: dict[str, Any]) -> str:
    one, two, memory_ = data["one core"], data["two workers"], data["memory"]
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items())
    total = sum(one["spent"].values())
    rows = [[what, f"{seconds / total:.0%}"] for what, seconds in one["spent"].items()]
    clock = (
        "the clock was not asked, since other work ran beside it" if two["clock"] is None
        else f"the clock says {two['clock']:.2f}"
    )  # fmt: skip
    return f"""# Speed of synthesis

`{data["command"]}` made this from [synthesis.json](synthesis.json), {data["date"]}, processor time
of one thread of {data["cpu"]} ({versions}).

A made H.264 film of {one["seconds"]} s (640 x 360, 25 frames/s, a key frame every 250 frames), one
picture a second, the built-in embedder: **{one["times_real"]:.0f} x real time per core**,
{one["ratio"]:.1f} times as fast as the same with one seek per picture; the pictures are identical.

{markdown(["pass 1", "share"], rows)}

{two["films"]} such films: {two["times_real"]:.0f} x real time per core with everything that a run
does besides, of which writing the records is {two["records_share"]:.0%}. From one worker to two the
processor times allow {two["allowed"]:.2f} times the speed; {clock}.

Peak memory of a worker: {memory_["1"]:.0f} MiB on a film of a minute, {memory_["30"]:.0f} MiB on
one of 30 minutes.
"""
