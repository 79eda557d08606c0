"""What a run would take, before it starts: steps, time, memory, downloads, and what is unknown.

Measured recipes:  wall time = ceil(chains / jobs) * (steps * step_seconds + evaluations)
Others, where the model's architecture is known: the formulas of repro.core.cost and .memory, stage
by stage (`bill`); GPU-hours are of cards that wait for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from evals.errors import BadInput, EnvironmentFault
from evals.frames import frame_pixels
from evals.types import Protocol
from repro import needs
from repro.arm import SUPERVISED, supervised
from repro.core import cost, memory
from repro.core.cost import GPU, Asked, Speed, Work
from repro.core.memory import GIB, Sizes
from repro.grid import Asking, grid
from repro.recipe import SFT, UNRESOLVED, Arm, Recipe

ROOM = 0.9  # of a card's memory: the rest is for what the formulas leave out (chosen)
CHECKPOINTS = 2  # of a training run on disk at once: the one being written and the last
LEFT_OUT = (
    "gathering sharded weights and waiting for other cards",
    "decoding films (CPU work, overlapped with answering)",
    "starting processes, loading weights, writing checkpoints",
    "memory: attention workspaces, fragmentation, what ZeRO-3 gathers layer by layer",
)


@dataclass(frozen=True)
class StageBill:
    """One stage. gpu_hours: over all its runs. hours: of wall time on all cards. peak: the moment
    that needs most memory; fits: whether it does on one of the cards."""

    stage: str
    what: str
    tokens: float
    patches: float
    exaflop: float
    memory_gib: float
    peak: str
    fits: bool
    gpu_hours: float
    hours: float


@dataclass(frozen=True)
class CellBill:
    """What one benchmark at one number of frames costs: every protocol and re-score of it."""

    stage: str
    what: str
    benchmark: str
    frames: int
    runs: int
    work: Work
    gpu_hours: float


@dataclass(frozen=True)
class Download:
    """Something to fetch; bytes None where unknown."""

    what: str
    key: str
    revision: str
    bytes: int | None


@dataclass(frozen=True)
class Bill:
    """A plan for `gpus` cards of one kind. moments: of a training step of the first arm, GiB on one
    card by what holds it. price: of all GPU-hours at `rate` a GPU-hour."""

    gpu: str
    gpus: int
    efficiency: float
    stages: tuple[StageBill, ...]
    cells: tuple[CellBill, ...]
    moments: Mapping[str, Mapping[str, float]]
    gpu_hours: float
    hours: float
    rate: float | None
    price: float | None
    downloads: tuple[Download, ...]
    disk_gib: float
    left_out: tuple[str, ...]

    @property
    def misfits(self) -> tuple[StageBill, ...]:
        """Stages that one of the cards cannot hold."""
        return tuple(stage for stage in self.stages if not stage.fits)


@dataclass(frozen=True)
class Forecast:
    """rollouts: completions over all arms and seeds. minutes: wall time, None if unknown. bill:
    where the model's architecture is known."""

    paper: str
    profile: str
    fingerprint: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int
    rollouts: int
    jobs: int
    minutes: float | None
    hardware: str
    memory_gib: float | None
    download_gib: float | None
    unknown: tuple[str, ...]
    bill: Bill | None = None
    teacher: TeacherBill | None = None
    synthesis: SynthesisBill | None = None


@dataclass(frozen=True)
class TeacherBill:
    """Calls to a teacher's model over all arms and seeds, none of them repeated, and their tokens;
    None where nobody knows what a call takes."""

    arms: tuple[str, ...]
    calls: int
    tokens: int | None


@dataclass(frozen=True)
class SynthesisBill:
    """Making records from films: hours of film, core-hours of decoding and writing, pictures at one
    a second, and GPU-hours of embedding them by CLIP; with the built-in embedder there are none."""

    hours: float
    core_hours: float
    pictures: int
    gpu_hours: float


@dataclass(frozen=True)
class Hardware:
    """Cards and what a run is assumed to reach on them. rate: price of a GPU-hour."""

    gpu: str = "h100"
    gpus: int = 8
    efficiency: float = Speed.efficiency
    rate: float | None = None


def forecast(
    recipe: Recipe, arms: tuple[str, ...], seeds: tuple[int, ...], jobs: int,
    hardware: Hardware | None = None,
) -> Forecast:  # fmt: skip
    """The cost of training and evaluating `arms` x `seeds`. Raises BadInput for an unknown card."""
    trainers = [recipe.arm(name).trainer for name in arms]
    sampling = [recipe.arm(name).trainer for name in arms if recipe.arm(name).method != SUPERVISED]
    each = [t.max_steps * t.prompts_per_step * t.num_generations for t in sampling]
    known = bill(recipe, arms, seeds, hardware or Hardware()) if _computable(recipe) else None
    return Forecast(
        paper=recipe.paper,
        profile=recipe.profile_name,
        fingerprint=recipe.fingerprint[:12],
        arms=arms,
        seeds=seeds,
        steps=max(t.max_steps for t in trainers),
        rollouts=sum(each) * len(seeds),
        jobs=jobs,
        minutes=_minutes(recipe, arms, seeds, jobs),
        hardware=recipe.cost.hardware,
        memory_gib=recipe.cost.memory_gib,
        download_gib=recipe.cost.download_gib,
        unknown=tuple(_unknown(recipe, arms)),
        bill=known,
        teacher=_teacher(recipe, arms, len(seeds)),
        synthesis=_synthesis(recipe, hardware or Hardware()),
    )


def _synthesis(recipe: Recipe, hardware: Hardware) -> SynthesisBill | None:
    hours, speed = recipe.cost.film_hours, recipe.cost.film_speed
    if hours is None or speed is None:
        return None
    pictures = round(3600 * hours)
    reached = cost.gpu(hardware.gpu).tflops * 1e12 * hardware.efficiency
    gpu_hours = pictures * cost.CLIP_PICTURE / reached / 3600
    return SynthesisBill(hours, hours / speed, pictures, gpu_hours)


def _teacher(recipe: Recipe, arms: Sequence[str], seeds: int) -> TeacherBill | None:
    """One call for every rollout that fails."""
    asking = [a for a in map(recipe.arm, arms) if a.switches.repairs(a.method) == "asking"]
    failed, each = recipe.cost.failed_share, recipe.cost.teacher_tokens
    if not asking or failed is None:
        return None
    trainers = [a.trainer for a in asking]
    rollouts = sum(t.max_steps * t.prompts_per_step * t.num_generations for t in trainers)
    calls = round(rollouts * seeds * failed)
    return TeacherBill(tuple(a.name for a in asking), calls, None if each is None else calls * each)


def _minutes(
    recipe: Recipe, arms: tuple[str, ...], seeds: tuple[int, ...], jobs: int
) -> float | None:
    cost, passes = recipe.cost, 1 + recipe.evaluation.greedy
    if cost.step_seconds is None or cost.evaluation_seconds is None:
        return None
    steps = max(recipe.arm(name).trainer.max_steps for name in arms)
    one = steps * cost.step_seconds + passes * cost.evaluation_seconds
    cold = passes * cost.evaluation_seconds if recipe.evaluation.cold else 0.0
    return (math.ceil(len(arms) * len(seeds) / jobs) * one + cold) / 60


def _unknown(recipe: Recipe, arms: Sequence[str]) -> list[str]:
    """Dotted keys whose value is unresolved, a cost that nobody has measured, a file nobody saw."""
    measured = ("step_seconds", "evaluation_seconds", "memory_gib", "download_gib")
    found = [f"cost.{key}" for key in measured if getattr(recipe.cost, key) is None]
    for name, section in (("model", recipe.model), ("data", recipe.data)):
        found += [f"{name}.{key}" for key, v in asdict(section).items() if v == UNRESOLVED]
    found += [f"size of {n.key}" for n in needs.needs(recipe, arms) if n.bytes is None]
    uncounted = dict.fromkeys(
        f"Video-R1's file of {a.benchmark}" if a.protocol.subset else a.benchmark
        for a in grid(recipe)
        if a.questions is None
    )
    return [*found, *(f"questions of {name}" for name in uncounted)]


# --- the bill ------------------------------------------------------------------------------


def _computable(recipe: Recipe) -> bool:
    return recipe.model.architecture is not None and recipe.cost.text_tokens is not None


def sizes_of(recipe: Recipe) -> Sizes:
    """Raises BadInput for an architecture whose sizes nobody has written down."""
    name = recipe.model.architecture or ""
    if name not in memory.KNOWN:
        raise BadInput(f"{recipe.file}: no sizes of {name!r}; known: {', '.join(memory.KNOWN)}")
    return memory.KNOWN[name]


def bill(recipe: Recipe, arms: Sequence[str], seeds: Sequence[int], hardware: Hardware) -> Bill:
    """Stage by stage and cell by cell. Raises BadInput for an unknown card or architecture."""
    card = cost.gpu(hardware.gpu)
    case = _Case(recipe, sizes_of(recipe), card, hardware)
    cells = case.cells(arms, seeds)
    stages = [
        *([case.answered("score-released", cells)] if recipe.scoring else []),
        *([case.sft()] if recipe.sft else []),
        *(case.train(recipe.arm(name), len(seeds)) for name in arms),
        *([case.answered("eval", cells)] if recipe.scoring else []),
    ]
    wanted = [s for s in stages if s.stage != "sft"]  # a cold start is on request
    gpu_hours = sum(s.gpu_hours for s in wanted)
    taken = needs.needs(recipe, arms)
    downloads = tuple(Download(n.what, n.key, n.revision, n.bytes) for n in taken)
    return Bill(
        gpu=card.name,
        gpus=hardware.gpus,
        efficiency=hardware.efficiency,
        stages=tuple(stages),
        cells=tuple(cells),
        moments={
            moment: {part: held / GIB for part, held in parts.items()}
            for moment, parts in train_memory(
                recipe, recipe.arm(arms[0]), case.sizes, hardware.gpus
            ).items()
        },
        gpu_hours=gpu_hours,
        hours=sum(s.hours for s in wanted),
        rate=hardware.rate,
        price=None if hardware.rate is None else gpu_hours * hardware.rate,
        downloads=downloads,
        disk_gib=case.disk(len(arms) * len(seeds), downloads),
        left_out=LEFT_OUT,
    )


def require_fits(recipe: Recipe, arms: Sequence[str], gib: float, gpus: int) -> None:
    """Raises EnvironmentFault naming the stage that a card of `gib` GiB cannot hold."""
    if not _computable(recipe):
        return
    sizes = sizes_of(recipe)
    for name in arms:
        if recipe.arm(name).method == SUPERVISED:  # one process: the plan says what it needs
            continue
        peak, needed = train_peak(recipe, recipe.arm(name), sizes, gpus)
        if needed > ROOM * gib * GIB:
            raise EnvironmentFault(
                f"{recipe.model.id} does not fit: arm {name} needs {needed / GIB:.0f} GiB on each "
                f"of {gpus} GPUs ({peak}), and one has {gib:.0f}; more GPUs under deepspeed: 3, "
                "more gradient_accumulation_steps, or use_peft in the recipe "
                f"(repro plan {recipe.paper} --profile {recipe.profile_name} --gpus N)"
            )


def train_peak(recipe: Recipe, arm: Arm, sizes: Sizes, gpus: int) -> tuple[str, float]:
    """The moment of a training step that needs most memory on one card, and its bytes."""
    return memory.peak(train_memory(recipe, arm, sizes, gpus))


def train_memory(recipe: Recipe, arm: Arm, sizes: Sizes, gpus: int) -> dict[str, memory.Parts]:
    """Bytes on one card at each moment of a training step, by what holds them."""
    t = arm.trainer
    trained = memory.adapters(sizes, t.lora_r) if t.use_peft else None
    asked = _largest(recipe, recipe.cost.completion_tokens or t.max_completion_length)
    share = max(1, t.prompts_per_step // (gpus * t.gradient_accumulation_steps))
    load = memory.Load(
        asked.prompt, asked.seen.patches, t.max_completion_length, t.num_generations, share
    )
    half = t.bf16 and t.deepspeed > 0  # otherwise the weights stay fp32 (repro.arm.trainable)
    found = memory.stages(
        sizes, load, "packed", dtype=2 if half else 4, ranks=gpus, zero=t.deepspeed,
        checkpointing=t.gradient_checkpointing, trained=trained,
    )  # fmt: skip
    if not arm.switches.blind_passes(arm.method):
        return found
    copy = {"blind student": (2.0 if t.bf16 else 4.0) * sizes.parameters}  # whole on every card
    return {moment: {**parts, **copy} for moment, parts in found.items()}


def _asked(recipe: Recipe, mean: float, seen: cost.Clip | None = None) -> Asked:
    """A prompt that shows `seen`, by default the longest clip."""
    view, t = recipe.view, recipe.trainer
    seen = seen or _seen(recipe.training_protocol, view.max_frames)
    longest = float(t.max_completion_length)
    return Asked(seen, recipe.cost.text_tokens or 0, t.num_generations, mean, longest)


def _album(recipe: Recipe) -> cost.Clip:
    """The pictures of a prompt that shows several."""
    view = recipe.view
    return cost.album(recipe.cost.pictures or 0, view.min_pixels, view.max_pixels)


def _largest(recipe: Recipe, mean: float) -> Asked:
    """The prompt with most tokens: of a clip or of pictures."""
    asked = (_asked(recipe, mean), _asked(recipe, mean, _album(recipe)))
    return max(asked, key=lambda one: one.prompt)


def _seen(shown: Protocol, frames: int) -> cost.Clip:
    """A clip of at most that many frames, each as large as the protocol lets it be: of those that
    share `total_pixels`, one whose frames are cut to whole tiles with the least loss."""
    counts = [frames]
    while shown.total_pixels and counts[-1] // 2 >= shown.min_frames:
        counts.append(counts[-1] // 2)
    clips = [cost.clip(n, shown.min_pixels, frame_pixels(shown, n)) for n in counts]
    return max(clips, key=lambda clip: clip.tokens)


@dataclass(frozen=True)
class _Case:
    recipe: Recipe
    sizes: Sizes
    card: GPU
    hardware: Hardware

    def _speed(self, vllm: bool) -> Speed:
        base = cost.SAMPLERS["vllm" if vllm else "transformers"]
        return Speed(self.hardware.efficiency, base.overhead, base.reach)

    def _stage(
        self, stage: str, what: str, work: Work, seconds: float, peak: tuple[str, float],
        parallel: int,
    ) -> StageBill:  # fmt: skip
        needed = peak[1] / GIB
        return StageBill(
            stage, what, work.tokens, work.patches, work.flop / 1e18, needed, peak[0],
            needed <= ROOM * self.card.gib, seconds / 3600, seconds / 3600 / parallel,
        )  # fmt: skip

    # --- training

    def train(self, arm: Arm, seeds: int) -> StageBill:
        """All seeds of an arm, one after another on all cards; a supervised one takes one card."""
        t, gpus = arm.trainer, self.hardware.gpus
        if arm.method == SUPERVISED:
            what = f"{arm.name}: {t.max_steps} steps x {seeds} seeds, supervised"
            return self._tuned("train", what, supervised(self.recipe, t), seeds)
        work = self.step(arm)
        seconds = t.max_steps * seeds * self._step_seconds(arm)
        peak = train_peak(self.recipe, arm, self.sizes, gpus)
        what = f"{arm.name}: {t.max_steps} steps x {seeds} seeds"
        done = work * (t.max_steps * seeds)
        return self._stage("train", what, done, seconds * gpus, peak, gpus)

    def step(self, arm: Arm) -> Work:
        """One optimizer step over all cards; sampling steps are counted by `_step_seconds`."""
        recipe, share = self.recipe, self.recipe.cost.image_share or 0.0
        album = arm.switches.pictured(arm.method)
        one = self._prompt(arm, _seen(recipe.training_protocol, 1), image=True)
        asked = self._prompt(arm, None, image=False) * (1 - share) + one * share
        mixed = asked * (1 - album) + self._prompt(arm, _album(recipe), image=True) * album
        return mixed * arm.trainer.prompts_per_step

    def _prompt(self, arm: Arm, seen: cost.Clip | None, *, image: bool) -> Work:
        t, counted = arm.trainer, arm.switches.passes(arm.method)
        asked = _asked(self.recipe, self.recipe.cost.completion_tokens or 0, seen)
        passes = cost.prompt_work(
            self.sizes, asked, kl=t.beta > 0, visual="visual" in counted,
            temporal="temporal" in counted and not image,
            auxiliary=arm.method == "t_grpo" and not image, checkpointing=t.gradient_checkpointing,
        )  # fmt: skip
        if arm.switches.repairs(arm.method) != "no":
            failed = self.recipe.cost.failed_share or 0.0
            passes["repair"] = cost.sampling(self.sizes, asked, share=failed)
            blind = arm.switches.blind_passes(arm.method) * t.num_generations * failed
            passes["blind test"] = cost.forward(self.sizes, blind * asked.text, asked.text / 2)
        return cost.summed(passes.values())

    def _step_seconds(self, arm: Arm) -> float:
        """A card's prompts are sampled together, part by part, and computed one after another."""
        t, gpus = arm.trainer, self.hardware.gpus
        again = arm.method == "t_grpo" or arm.switches.repairs(arm.method) != "no"
        work, rounds = self.step(arm), 2 if again else 1
        own = Work(
            flop=work.flop / gpus,
            steps=rounds * t.gradient_accumulation_steps * t.max_completion_length,
        )
        return own.seconds(self.sizes, self.card, self._speed(t.use_vllm))

    def sft(self) -> StageBill:
        """The cold start."""
        s = self.recipe.sft
        assert s is not None
        return self._tuned("sft", f"cold start: {s.max_steps} steps, on request", s, 1)

    def _tuned(self, stage: str, what: str, s: SFT, seeds: int) -> StageBill:
        """Supervised fine-tuning: one process, fp32 weights whole on its card."""
        mean = float(self.recipe.cost.completion_tokens or 0)
        seen = _seen(self.recipe.training_protocol, self.recipe.view.max_frames)
        asked = Asked(seen, self.recipe.cost.text_tokens or 0, 1, mean, mean)
        records = s.max_steps * s.per_device_train_batch_size * s.gradient_accumulation_steps
        work = cost.sft_work(self.sizes, asked, checkpointing=s.gradient_checkpointing)
        work = work * records * seeds
        load = memory.Load(asked.prompt, seen.patches, int(mean), 1, s.per_device_train_batch_size)
        stages = memory.stages(
            self.sizes, load, "packed", dtype=4, zero=0, checkpointing=s.gradient_checkpointing,
        )  # fmt: skip
        kept = {name: stages[name] for name in ("backward", "optimizer")}
        for parts in kept.values():
            del parts["reference"]
        seconds = work.seconds(self.sizes, self.card, self._speed(False))
        return self._stage(stage, what, work, seconds, memory.peak(kept), 1)

    # --- evaluation

    def cells(self, arms: Sequence[str], seeds: Sequence[int]) -> list[CellBill]:
        """Every benchmark at every number of frames, by stage and what is asked."""
        s = self.recipe.scoring
        if s is None:
            return []
        found: dict[tuple[str, str, str, int], list[tuple[Work, float]]] = {}

        def add(stage: str, what: str, arm: str | None, batches: Sequence[int]) -> None:
            for asking in grid(self.recipe, arm):
                key = (stage, what, asking.benchmark, asking.protocol.max_frames)
                found.setdefault(key, []).extend(self._asking(asking, b) for b in batches)

        for weights in (*(checkpoint for _, checkpoint in s.public), self.recipe.model.id):
            add("score-released", weights, None, s.batches)
        for name in arms:
            add("eval", f"{name} x {len(seeds)} seeds", name, s.batches[:1] * len(seeds))
        return [
            CellBill(*key, len(runs), cost.summed(work for work, _ in runs),
                     sum(seconds for _, seconds in runs) / 3600)
            for key, runs in found.items()
        ]  # fmt: skip

    def _asking(self, asking: Asking, batch: int) -> tuple[Work, float]:
        s = self.recipe.scoring
        assert s is not None
        law = asking.protocol
        seen = _seen(law, law.max_frames)
        reply = float(self.recipe.cost.reply_tokens or law.decoding.max_new_tokens)
        asked = Asked(
            seen, self.recipe.cost.text_tokens or 0, 1, reply, float(law.decoding.max_new_tokens)
        )
        work = cost.question_work(self.sizes, asked, batch) * (asking.questions or _GUESS)
        return work, work.seconds(self.sizes, self.card, self._speed(s.engine == "vllm"))

    def answered(self, stage: str, cells: Sequence[CellBill]) -> StageBill:
        """All evaluations of a stage, each on one card."""
        own = [cell for cell in cells if cell.stage == stage]
        seconds = 3600 * sum(cell.gpu_hours for cell in own)
        what = f"{sum(cell.runs for cell in own)} runs of a benchmark"
        work = cost.summed(cell.work for cell in own)
        return self._stage(stage, what, work, seconds, self._answering(), self.hardware.gpus)

    def _answering(self) -> tuple[str, float]:
        """Weights, and one question's cache and activations at the most frames."""
        s = self.recipe.scoring
        assert s is not None
        seen = max(
            (_seen(a.protocol, a.protocol.max_frames) for a in grid(self.recipe)),
            key=lambda clip: clip.tokens,
        )
        tokens = seen.tokens + (self.recipe.cost.text_tokens or 0) + 1024
        cache = tokens * self.sizes.layers * 2 * self.sizes.kv * 2
        layer = tokens * memory.layer_bytes(self.sizes, 2)
        block = seen.patches * memory.block_bytes(self.sizes, 2)
        return "prefill", 2.0 * self.sizes.parameters + cache + max(layer, block)

    def disk(self, runs: int, downloads: Sequence[Download]) -> float:
        """Downloads of known size, final weights of every run, and one run's checkpoints."""
        state = 14 * self.sizes.parameters  # bf16 weights, fp32 weights and two moments
        final = 2 * self.sizes.parameters * runs
        known = sum(d.bytes or 0 for d in downloads)
        return (known + final + CHECKPOINTS * state) / GIB


#: Questions of a file that nobody has counted, for the bill alone: those of Video-MME (chosen).
_GUESS = 2700
