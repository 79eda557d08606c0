"""A recipe's cold start, trained to the end: `repro train --stage sft` and `repro tiny build`.

1. blind_steps on the questions without their clips: the format, and an option's words for its
   letter (without it the letter stays at chance);
2. max_steps on the whole, ended by stop_at: reading video is learned within some hundred steps, all
   at once, and a student that reads everything leaves RL nothing to do.

out/  provenance.json | metrics.jsonl | checkpoint-N/ | final/ | done.json
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from evals import benchmarks, microworld
from evals.benchmarks import file_hash
from evals.errors import BadInput
from repro import folder, training
from repro.arm import (
    Progress,
    check_same,
    finish,
    run,
    start_checkpoint,
    tidy,
    trainable,
    versions,
)
from repro.recipe import SFT, Recipe, papers

SCRATCH = "scratch"
NAME = "sft"


def train_sft(
    recipe: Recipe,
    seed: int,
    out: Path,
    *,
    resume: bool = False,
    steps: int | None = None,
    data: Path | None = None,
    videos: Path | None = None,
    model: Path | None = None,
    progress: Progress = lambda row: None,
) -> None:
    """Fine-tune the recipe's start model on its demonstrations into the folder `out`.

    steps: instead of max_steps, the blind ones not counted. data: own records; stop_at does not end
    training then. Others as in `repro.arm.train_arm`.
    Raises BadInput, Undecodable, Diverged; KeyboardInterrupt after saving the step under way.
    """
    import torch

    from repro.core import demonstrations, ranks

    if recipe.sft is None:
        raise BadInput(f"{recipe.file} has no section sft in profile {recipe.profile_name}")
    with ranks.alike():
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise BadInput("--stage sft runs in one process; start it without torchrun")
    settings = replace(recipe.sft, max_steps=steps or recipe.sft.max_steps)
    if data is not None:
        settings = replace(settings, stop_at=None)
    torch.set_num_threads(1)  # the fastest on a shared machine, and bit-exact on resume
    torch.use_deterministic_algorithms(True, warn_only=True)
    with folder.writing(out, resume=resume):
        path, media = _records(settings, data, videos)
        start = _start(recipe, settings, model)
        name = "jsonl" if data else settings.data.records
        provenance = _provenance(recipe, settings, seed, start, name, path)
        check_same(out / "provenance.json", provenance)
        if (out / "done.json").exists():
            tidy(out)
            return
        shown: Sequence[Any] = demonstrations.read(path, media, settings.separator)
        shown = taught(recipe, shown, seed)
        folder.write_json(out / "provenance.json", provenance)
        began = time.perf_counter()
        trainer = _phases(recipe, settings, seed, out, _load(recipe, settings, seed, start, shown),
                          shown, progress)  # fmt: skip
        taken = trainer.first + trainer.state.global_step
        finish(trainer, out, taken, time.perf_counter() - began)


def total_steps(recipe: Recipe, steps: int | None = None) -> int:
    """Steps of both phases, should stop_at not end the second."""
    return recipe.sft.blind_steps + (steps or recipe.sft.max_steps) if recipe.sft else 0


def taught(recipe: Recipe, read: Sequence[Any], seed: int) -> Sequence[Any]:
    """What a paper's cold start learns from these demonstrations: `shown` of its module
    demonstrations, else the demonstrations as they are."""
    own = demonstrations_of(recipe.paper)
    found: Sequence[Any] = read if own is None else own.shown(read, recipe, seed)
    return found


def demonstrations_of(paper: str) -> Any:
    """A paper's module `demonstrations`, None where it has none: `shown`, and if it has them
    `blind`, what of it the blind steps are shown, `TOKENS` that its start checkpoint lacks and
    `probed`, more for the manifest."""
    name = f"repro.{paper}.demonstrations"
    known = paper in papers() and importlib.util.find_spec(name) is not None
    return importlib.import_module(name) if known else None


def extended(vlm: Any, words: Sequence[str]) -> Any:
    """The model with a token of its own for each of `words`, which begins as the mean of the tokens
    that spelt it; words that it has stay as they are."""
    import torch
    from tokenizers import AddedToken

    tokens = vlm.processor.tokenizer
    new = [word for word in words if word not in tokens.get_vocab()]
    spelt = [tokens(word, add_special_tokens=False)["input_ids"] for word in new]
    tokens.add_tokens([AddedToken(word, normalized=False) for word in new])
    vlm.model.resize_token_embeddings(len(tokens), mean_resizing=False)
    weight = vlm.model.get_input_embeddings().weight
    with torch.no_grad():
        for word, ids in zip(new, spelt, strict=True):
            weight[tokens.convert_tokens_to_ids(word)] = weight[ids].mean(0)
    return vlm


def _records(settings: SFT, data: Path | None, videos: Path | None) -> tuple[Path, Path]:
    """The file of demonstrations and the folder of its media."""
    if data is not None:
        return data, videos or data.parent
    if settings.data.records != "microworld":
        return training.place(settings.data.records)
    made = microworld.make(settings.data.split, cache=videos)
    return made / "records.json", made


def _start(recipe: Recipe, settings: SFT, model: Path | None) -> Path | None:
    """The start checkpoint; None for the embedded student with random weights."""
    if model is None and settings.model.id == SCRATCH:
        return None
    return start_checkpoint(replace(recipe, model=settings.model), model)


def _load(
    recipe: Recipe, settings: SFT, seed: int, start: Path | None, shown: Sequence[Any]
) -> Any:
    if start is not None:
        vlm = trainable(start, settings.model.freeze_vision, settings.bf16)
        own = demonstrations_of(recipe.paper)
        return extended(vlm, own.TOKENS) if hasattr(own, "TOKENS") else vlm
    from evals.prompts import question_text
    from evals.vlm import VLM
    from repro.tiny import model as student

    prompt = recipe.training_protocol.prompt
    tokens = student.tokenizer(
        [f"{d.hint.on(question_text(d.sample, prompt))}\n{d.completion}" for d in shown]
    )
    return VLM(student.model(tokens, seed), student.processor(tokens))


def _phases(
    recipe: Recipe, settings: SFT, seed: int, out: Path, vlm: Any, shown: Sequence[Any],
    progress: Progress,
) -> Any:  # fmt: skip
    """Both phases in turn, those that an earlier run finished left out; the last one's trainer."""
    from repro.core.checkpoint import latest, step_of
    from repro.core.demonstrations import Examples
    from repro.core.sft import SFTTrainer

    own = demonstrations_of(recipe.paper)
    unseen = own.blind(shown) if hasattr(own, "blind") else shown
    begun = latest(out)
    done, first = step_of(begun) if begun else 0, 0
    phases = [(settings.blind_steps, True)] if settings.blind_steps else []
    for number, (steps, blind) in enumerate([*phases, (settings.max_steps, False)], start=1):
        if blind and done >= steps:
            first += steps
            continue
        trainer = SFTTrainer(
            vlm,
            Examples(
                vlm,
                recipe.training_protocol,
                unseen if blind else shown,
                settings.max_length,
                blind=blind,
            ),
            settings,
            out,
            steps=steps,
            first=first,
            seed=seed + number,
            on_step=progress,
            stop=(lambda step: False) if blind else _enough(recipe, settings, vlm),
        )
        run(trainer, out)
        first += steps
    return trainer


def _enough(recipe: Recipe, settings: SFT, vlm: Any) -> Callable[[int], bool]:
    from evals.models import Checkpoint
    from evals.run import evaluate, summary

    wanted = settings.stop_at
    if wanted is None:
        return lambda step: False
    benchmark = benchmarks.load(recipe.evaluation.benchmark, split=settings.stop_split)
    kinds = {settings.stop_kind} if settings.stop_kind else {s.kind for s in benchmark.samples}
    asked = tuple(s for s in benchmark.samples if s.kind in kinds)
    if not asked:
        raise BadInput(
            f"{benchmark.name} {benchmark.split} holds no question of the kind {settings.stop_kind}"
        )
    benchmark = replace(benchmark, samples=asked)
    protocol = recipe.protocol(recipe.decoding(greedy=True))

    def stop(step: int) -> bool:
        if step % settings.check_every:
            return False
        rows = evaluate(Checkpoint(vlm, "student"), benchmark, protocol)
        return float(summary(rows)["score"]) >= wanted

    return stop


def _provenance(
    recipe: Recipe, settings: SFT, seed: int, start: Path | None, data: str, records: Path
) -> dict[str, Any]:
    from repro.core.checkpoint import weights_sha256

    name = settings.model.id if start is None else str(start)
    return {
        "recipe": recipe.paper,
        "profile": recipe.profile_name,
        "fingerprint": recipe.sft_fingerprint,
        "arm": NAME,
        "seed": seed,
        "steps": settings.max_steps,
        "start": {"id": name, "sha256": weights_sha256(start) if start else None},
        "data": {"name": data, "sha256": file_hash(records)},
        "settings": asdict(settings),
        **versions(),
    }
