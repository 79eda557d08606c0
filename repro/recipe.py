"""A paper's recipe: `recipe.yaml`, read strictly, resolved for one profile.

    switches of an arm = profile.switches <- preset <- arm.switches      (later wins)
    trainer  of an arm = profile.trainer  <- arm.trainer  <- profile.arms.NAME.trainer
    model    of an arm = profile.model, or profile.arms.NAME.model where it starts elsewhere

A preset says how a paper and its released code differ; a profile says how large the run is.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from evals.errors import BadInput
from evals.types import Decoding, Protocol
from repro import lock
from repro.strict import Fragment, Reader, nearest, read_yaml

UNRESOLVED = "unresolved"  # a revision that `repro data lock` has to find


@dataclass(frozen=True)
class LengthBonus:
    """`bonus` is added to a right rollout whose length lies in `window` (tokens, both ends in).

    length: what is counted, real tokens (`valid`) or, as the released KTR does, selected ones.
    """

    window: tuple[int, int]
    bonus: float
    length: Literal["valid", "selected"]


@dataclass(frozen=True)
class Switches:
    """Where papers and their code can differ, whatever the method; a paper adds its own by a
    subclass of this name in `repro/<paper>/switches.py`.

    precision: of the scores. masked_positions: position ids of the vision-free pass. shuffle: unit
    of a frame shuffle, one frame or one 2-frame group. identity: may it change nothing.
    normaliser: tokens the loss is divided by. kl_on: tokens the KL is taken on. flat_groups: `skip`
    runs no counterfactual pass for a group of equal rewards; its policy term is zero either way,
    but its KL is then taken on all tokens.
    """

    precision: Literal["fp32", "model"] = "fp32"
    masked_positions: Literal["kept", "collapsed"] = "kept"
    shuffle: Literal["frame", "group"] = "frame"
    identity: Literal["excluded", "allowed"] = "excluded"
    normaliser: Literal["valid", "selected"] = "valid"
    kl_on: Literal["selected", "valid"] = "valid"
    length_bonus: LengthBonus = LengthBonus((0, 0), 0.0, "valid")
    flat_groups: Literal["score", "skip"] = "score"

    methods: ClassVar[tuple[str, ...]] = ("grpo", "t_grpo")  # the paper's METHODS, by name

    def passes(self, method: str) -> frozenset[str]:
        """Counterfactual passes of a method, out of "visual" and "temporal"."""
        return frozenset()

    def pictured(self, method: str) -> float:
        """Share of a step's prompts that show `cost.pictures` pictures instead of a clip."""
        return 0.0

    def repairs(self, method: str) -> Literal["no", "alone", "asking"]:
        """Whether failed rollouts are sampled again, and whether a model is asked for each."""
        return "no"

    def require_records(self, data: Data) -> None:
        """Raises BadInput where these switches name records that a profile's are not."""

    def blind_passes(self, method: str) -> int:
        """Forwards over a question's words alone, for each failed rollout, of a frozen copy of the
        start checkpoint on every card; 0 where there is no such copy."""
        return 0


@dataclass(frozen=True)
class Trainer:
    """Optimisation and sampling under TRL's field names (trl.GRPOConfig, trl.ModelConfig).

    One batch of rollouts is prompts_per_step prompts, over all devices, and num_generations
    completions of each; it serves num_iterations optimizer steps. Ours are `prompts_per_step`,
    `max_prompt_length` (tokens, clip included; a longer prompt is refused, not cut),
    `dynamic_sampling` (how often groups of equal rewards are drawn again from other records, as in
    DAPO), `scale_rewards: kind` (as batch, over the rewards of one kind of question),
    `advantage_eps` (added to a standard deviation; TRL's is 1e-4 and no field) and `deepspeed` (a
    ZeRO stage, 0 for none). epsilon_high: None means epsilon; for cispo it
    is the largest ratio itself. top_entropy_quantile: share of tokens, by entropy, that the policy
    term keeps. use_peft: LoRA on every linear layer of the language model. vllm_max_model_length:
    None means max_prompt_length + max_completion_length.
    """

    prompts_per_step: int
    num_generations: int
    max_steps: int
    max_completion_length: int
    learning_rate: float
    lr_scheduler_type: Literal[
        "linear", "cosine", "cosine_with_restarts", "polynomial", "constant",
        "constant_with_warmup", "inverse_sqrt",
    ]  # fmt: skip  # those of transformers that need nothing else
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    beta: float
    epsilon: float
    num_iterations: int
    loss_type: Literal["grpo", "dr_grpo", "bnpo", "dapo", "cispo"]
    scale_rewards: Literal["group", "batch", "kind", "none"]
    temperature: float
    top_p: float
    top_k: int
    bf16: bool
    gradient_checkpointing: bool
    save_steps: int
    # Off unless a recipe says otherwise; a field at its default leaves the fingerprint as it is.
    epsilon_high: float | None = None
    importance_sampling_level: Literal["token", "sequence"] = "token"
    top_entropy_quantile: float = 1.0
    advantage_eps: float = 1e-4
    dynamic_sampling: int = 0
    gradient_accumulation_steps: int = 1
    max_prompt_length: int | None = None
    use_peft: bool = False
    lora_r: int = 16
    lora_alpha: int = 32
    deepspeed: Literal[0, 2, 3] = 0
    use_vllm: bool = False
    vllm_mode: Literal["colocate", "server"] = "colocate"
    vllm_gpu_memory_utilization: float = 0.3
    vllm_max_model_length: int | None = None
    vllm_enable_sleep_mode: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError for a number that no run could obey."""
        for least, names in _LEAST.items():
            for name in names:
                value = getattr(self, name)
                if value is not None and value < least:
                    raise ValueError(f"{name} must be at least {least}, not {value}")
        for name in _SHARES:
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1], not {getattr(self, name)}")
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0 for draws to differ: {self.temperature}")


#: Smallest value -> fields of Trainer; a group of one has no advantage.
_LEAST: Mapping[int, tuple[str, ...]] = {
    0: (
        "learning_rate", "warmup_steps", "weight_decay", "max_grad_norm", "beta", "epsilon",
        "epsilon_high", "top_k", "dynamic_sampling", "advantage_eps",
    ),
    1: (
        "prompts_per_step", "max_steps", "max_completion_length", "num_iterations", "save_steps",
        "gradient_accumulation_steps", "max_prompt_length", "lora_r", "lora_alpha",
        "vllm_max_model_length",
    ),
    2: ("num_generations",),
}  # fmt: skip
_SHARES = ("top_p", "top_entropy_quantile", "vllm_gpu_memory_utilization")


@dataclass(frozen=True)
class Model:
    """The start checkpoint: `tiny/<name>` is shipped here; else a hub id or a folder.

    architecture: its sizes, by their name in repro.core.memory; what the plan counts with.
    """

    id: str
    revision: str | None
    freeze_vision: bool
    architecture: str | None = None


@dataclass(frozen=True)
class Data:
    """Training records: `microworld`, or a data set id; `size` counts records, None if unknown.

    repository: where the hub has them, or `github:OWNER/NAME/PATH@COMMIT`. ids: file beside the
    recipe that names the only records to use, one id a line (`repro data select` writes such).
    """

    records: str
    split: str
    revision: str | None
    size: int | None
    repository: str | None = None
    ids: str | None = None


@dataclass(frozen=True)
class SFT:
    """The cold start before RL, under the names of TRL's SFTConfig; `repro train --stage sft`.

    model.id `scratch` is the embedded student with random weights and a tokenizer of its own.
    separator: between a record's process and its solution. blind_steps: of the same questions
    without their clips first, max_steps: of the whole; each phase has a schedule of its own.
    shuffle: batches drawn anew each step, or epoch by epoch. stop_at: greedy accuracy on stop_split
    of the recipe's benchmark, asked every check_every steps of the second phase, that ends it;
    stop_kind: looking at questions of this kind alone.
    patched: share of the demonstrations that `repro/<paper>/demonstrations.py` may add words to.
    """

    model: Model
    data: Data
    separator: str
    completion_only_loss: bool
    max_length: int
    blind_steps: int
    max_steps: int
    shuffle: Literal["replacement", "epoch"]
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    learning_rate: float
    lr_scheduler_type: Literal["linear", "cosine", "cosine_with_min_lr"]
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    bf16: bool
    gradient_checkpointing: bool
    stop_at: float | None
    stop_split: str
    check_every: int
    save_steps: int
    patched: float = 0.0
    stop_kind: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError for a share that is none."""
        if not 0 <= self.patched <= 1:
            raise ValueError(f"patched must lie in [0, 1], not {self.patched}")


@dataclass(frozen=True)
class View:
    """What the model is shown; fields as in evals.types.Protocol. `prompt` is training's, and so
    are `system` (None: the chat template's own), `total_pixels` (over all frames, 0: no limit) and
    `sampling` (the law by which frames are chosen).
    """

    id: str
    prompt: str
    grader: str
    fps: float
    min_frames: int
    max_frames: int
    min_pixels: int
    max_pixels: int
    positions: str
    time: Literal["true", "constant"]
    system: str | None = None
    total_pixels: int = 0
    sampling: str = "video-r1"


@dataclass(frozen=True)
class Evaluation:
    """What is asked of a trained arm. samples: replies per question at `temperature`.

    greedy: also ask once at temperature 0. cold: also ask the start checkpoint. probes: of
    evals.probes, each asked beside the plain questions.
    """

    benchmark: str
    prompt: str
    split: str
    samples: int
    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int
    greedy: bool
    cold: bool
    probes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scoring:
    """How a GPU host fills the cells of the paper's main table: `repro reproduce --stage`.

    released, revision: weights of the method, asked under the arm's name `arm`, None where nobody
    released any; the start checkpoint is asked beside them. protocol: of evals.protocols; every
    benchmark (`NAME` or `NAME/SUBSET`) is asked under it at each of frames x max_pixels, and those
    in `own_words` also with `own_prompt` and read by `own_grader`, in all combinations. seeds,
    batches: one re-score each, in pairs; a trained arm is asked once, under its training seed and
    the first batch, and arms other than `arm` only at `trained_frames`. max_new_tokens: None for
    the protocol's. variants: of the protocol, each asked, or none for its first. beside: further
    public weights to score, as ARM=ID: baselines that the authors released, or others' whose scores
    are known.
    """

    released: str | None
    revision: str | None
    arm: str
    protocol: str
    benchmarks: tuple[str, ...]
    frames: tuple[int, ...]
    trained_frames: tuple[int, ...]
    max_pixels: tuple[int, ...]
    own_words: tuple[str, ...]
    own_prompt: str
    own_grader: str
    seeds: tuple[int, ...]
    batches: tuple[int, ...]
    engine: Literal["transformers", "vllm"]
    max_new_tokens: int | None = None
    variants: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def public(self) -> tuple[tuple[str, str], ...]:
        """(arm, weights) of every checkpoint that others have trained, the start left out."""
        more = (each.partition("=")[::2] for each in self.beside)
        return (*([(self.arm, self.released)] if self.released else []), *more)


@dataclass(frozen=True)
class Cost:
    """What `repro plan` counts with; None means unknown. step_seconds: one arm alone.

    Tokens of a prompt besides its clip, of a completion, and of an evaluated reply; image_share:
    of the training records; failed_share: of the rollouts that a method repairs; teacher_tokens:
    in and out, of one call to its teacher; pictures: of a prompt that shows several. With them, and
    a model of known architecture, the plan computes the rest (repro.core.cost). Where records are
    made from films: film_hours of them, at film_speed times real time per core.
    """

    hardware: str
    step_seconds: float | None
    evaluation_seconds: float | None
    memory_gib: float | None
    download_gib: float | None
    text_tokens: int | None = None
    completion_tokens: int | None = None
    reply_tokens: int | None = None
    image_share: float | None = None
    failed_share: float | None = None
    teacher_tokens: int | None = None
    pictures: int | None = None
    film_hours: float | None = None
    film_speed: float | None = None


@dataclass(frozen=True)
class Arm:
    """One trained variant, fully resolved. start: None for the recipe's own."""

    name: str
    method: str
    preset: str
    switches: Switches
    trainer: Trainer
    start: Model | None = None


@dataclass(frozen=True)
class Recipe:
    """One paper at one profile. `profile("paper")` is the same paper at another.

    arms: every arm the file defines. run: the arms of a default run. sources: dotted key of the
    file -> where its value comes from.
    """

    paper: str
    title: str
    file: Path
    profile_name: str
    profiles: tuple[str, ...]
    arms: Mapping[str, Arm]
    run: tuple[str, ...]
    seeds: tuple[int, ...]
    reference_seeds: tuple[int, ...]
    model: Model
    data: Data
    view: View
    trainer: Trainer
    evaluation: Evaluation
    cost: Cost
    sources: Mapping[str, str]
    sft: SFT | None = None
    scoring: Scoring | None = None

    @classmethod
    def load(cls, name: str | Path, profile: str = "micro") -> Recipe:
        """`name`: a paper of this suite, or the path of a recipe file.

        Raises BadInput naming the file, the key and the nearest known key.
        """
        return _load(_find(name), profile)

    def profile(self, name: str) -> Recipe:
        """The same paper at the named profile."""
        return _load(self.file, name)

    def arm(self, name: str) -> Arm:
        """Raises BadInput with the nearest arm."""
        if name not in self.arms:
            raise BadInput(f"{self.paper} has no arm {name!r}{nearest(name, self.arms)}")
        return self.arms[name]

    def start(self, arm: str | None) -> Model:
        """The checkpoint that an arm starts from. Raises BadInput for an unknown arm."""
        return self.model if arm is None else self.arm(arm).start or self.model

    def require_records(self, arms: Iterable[str]) -> None:
        """Raises BadInput for an arm whose records are not among the profile's own."""
        for name in arms:
            self.arm(name).switches.require_records(self.data)

    def decoding(self, *, greedy: bool = False, seed: int = 0) -> Decoding:
        """How evaluation draws replies; greedy is one reply at temperature 0."""
        e = self.evaluation
        if greedy:
            return Decoding(max_new_tokens=e.max_new_tokens, seed=seed)
        return Decoding(e.temperature, e.top_p, e.top_k, e.max_new_tokens, e.samples, seed)

    def protocol(self, decoding: Decoding) -> Protocol:
        """How a trained arm is asked."""
        view = {**asdict(self.view), "prompt": self.evaluation.prompt}
        return Protocol(**view, decoding=decoding)

    @cached_property
    def training_protocol(self) -> Protocol:
        """How training shows a record; sampling follows each arm's trainer fields."""
        return Protocol(**asdict(self.view))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of everything that may move a number; which arms and seeds run is left out."""
        shaping = (self.model, self.data, self.view, self.trainer, self.evaluation)
        data = {
            "paper": self.paper,
            "profile": self.profile_name,
            "sections": [_shaping(section) for section in shaping],
            "arms": {name: _shaping(arm) for name, arm in self.arms.items()},
        }
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    @cached_property
    def sft_fingerprint(self) -> str:
        """The same of the cold start; what can only refuse or save is left out."""
        assert self.sft is not None
        data = {"sft": _shaping(self.sft), "view": _shaping(self.view)}
        for key in ("max_length", "save_steps"):
            del data["sft"][key]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _shaping(section: Any) -> dict[str, Any]:
    """A section as data, without optional fields at their defaults: a new switch that is off
    leaves old fingerprints valid."""
    found = {}
    for f in fields(section):
        value = getattr(section, f.name)
        if f.default is MISSING or value != f.default:
            found[f.name] = _shaping(value) if is_dataclass(value) else value
    return found


def switches_of(paper: str) -> type[Switches]:
    """The switches a paper's recipe may set: its own, else the shared ones."""
    name = f"repro.{paper}.switches"
    if paper not in papers() or importlib.util.find_spec(name) is None:
        return Switches
    found: type[Switches] = importlib.import_module(name).Switches
    return found


def papers() -> dict[str, Path]:
    """Paper name -> recipe file: every folder beside this module that has a recipe.yaml."""
    return {f.parent.name: f for f in sorted(Path(__file__).parent.glob("*/recipe.yaml"))}


def _find(name: str | Path) -> Path:
    if isinstance(name, Path) or name.endswith((".yaml", ".yml")):
        return Path(name)
    known = papers()
    if name not in known:
        raise BadInput(f"there is no paper {name!r}{nearest(name, known)}")
    return known[name]


_TOP = ("paper", "title", "sources", "presets", "arms", "profiles")
_PROFILE = (
    "run", "seeds", "reference_seeds", "model", "data", "view", "trainer", "switches",
    "evaluation", "cost",
)  # fmt: skip


def _load(file: Path, profile: str) -> Recipe:
    raw = read_yaml(file)
    cited = raw.get("sources")
    reader = Reader(file, cited if isinstance(cited, dict) else {})
    _require(reader, raw, _TOP, "recipe")
    profiles = raw["profiles"]
    if not isinstance(profiles, dict) or profile not in profiles:
        raise BadInput(f"{file} has no profile {profile!r}{nearest(profile, profiles or ())}")
    where = f"profiles.{profile}"
    more = ("sft", "scoring", "arms")
    section = _require(reader, profiles[profile], _PROFILE, where, optional=more)
    trainer = reader.fragment(Trainer, section["trainer"], f"{where}.trainer")
    base = reader.complete(Trainer, f"{where}.trainer", trainer)
    paper = reader.text(raw["paper"], "paper")
    if paper not in papers():
        raise BadInput(f"{file}: there is no paper {paper!r}{nearest(paper, papers())}")
    cls = switches_of(paper)
    switches = reader.fragment(cls, section["switches"], f"{where}.switches")
    start = reader.read(Model, section["model"], f"{where}.model")
    arms = _arms(reader, raw, trainer, switches, cls, section.get("arms", {}), where, start)
    recipe = Recipe(
        paper=paper,
        title=reader.text(raw["title"], "title"),
        file=file,
        profile_name=profile,
        profiles=tuple(profiles),
        arms=arms,
        run=reader.leaf(tuple[str, ...], section["run"], f"{where}.run"),
        seeds=reader.leaf(tuple[int, ...], section["seeds"], f"{where}.seeds"),
        reference_seeds=reader.leaf(
            tuple[int, ...], section["reference_seeds"], f"{where}.reference_seeds"
        ),
        model=start,
        data=reader.read(Data, section["data"], f"{where}.data"),
        view=reader.read(View, section["view"], f"{where}.view"),
        trainer=base,
        evaluation=reader.read(Evaluation, section["evaluation"], f"{where}.evaluation"),
        cost=reader.read(Cost, section["cost"], f"{where}.cost"),
        sources=reader.sources,
        sft=reader.read(SFT, section["sft"], f"{where}.sft") if "sft" in section else None,
        scoring=reader.read(Scoring, section["scoring"], f"{where}.scoring")
        if "scoring" in section
        else None,
    )
    for name in recipe.run:
        recipe.arm(name)
    return pinned(recipe, lock.read(file))


def pinned(recipe: Recipe, commits: Mapping[str, lock.Pin]) -> Recipe:
    """The recipe with every unresolved revision that has been locked."""

    def at(revision: str | None, key: str) -> str | None:
        found = commits.get(key)
        return found.revision if revision == UNRESOLVED and found else revision

    def model(m: Model) -> Model:
        return replace(m, revision=at(m.revision, f"model:{m.id}"))

    def data(d: Data) -> Data:
        return replace(d, revision=at(d.revision, lock.key_of("dataset", d.repository or "")))

    sft, scoring = recipe.sft, recipe.scoring
    if sft:
        sft = replace(sft, model=model(sft.model), data=data(sft.data))
    if scoring:
        scoring = replace(scoring, revision=at(scoring.revision, f"model:{scoring.released}"))
    arms = {
        name: replace(arm, start=model(arm.start)) if arm.start else arm
        for name, arm in recipe.arms.items()
    }
    return replace(
        recipe, model=model(recipe.model), data=data(recipe.data), sft=sft, scoring=scoring,
        arms=arms,
    )  # fmt: skip


def _require(
    reader: Reader, raw: object, known: tuple[str, ...], where: str, optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    given = reader.keys(raw, known + optional, where)
    for key in known:
        if key not in given:
            raise reader.fail(f"{where}.{key}", "this key is missing")
    return given


def _arms(
    reader: Reader, raw: Mapping[str, Any], trainer: Fragment, switches: Fragment,
    cls: type[Switches], here: object, profile: str, model: Model,
) -> dict[str, Arm]:  # fmt: skip
    """here: trainer fields and start checkpoints that some arms have in this profile alone."""
    own = {
        name: reader.keys(body, ("trainer", "model"), f"{profile}.arms.{name}")
        for name, body in reader.keys(here, raw["arms"], f"{profile}.arms").items()
    }
    own_profile = {
        name: reader.fragment(Trainer, body.get("trainer", {}), f"{profile}.arms.{name}.trainer")
        for name, body in own.items()
    }
    starts = {
        name: _start(reader, body["model"], f"{profile}.arms.{name}.model", model)
        for name, body in own.items()
        if "model" in body
    }
    presets = {
        name: reader.fragment(cls, body, f"presets.{name}")
        for name, body in reader.keys(raw["presets"], raw["presets"], "presets").items()
    }
    arms = {}
    for name, body in reader.keys(raw["arms"], raw["arms"], "arms").items():
        where = f"arms.{name}"
        given = reader.keys(body, ("method", "preset", "switches", "trainer", "source"), where)
        reader.sources[where] = reader.source(given.get("source"), f"{where}.source")
        preset = reader.text(given.get("preset"), f"{where}.preset")
        if preset not in presets:
            raise reader.fail(f"{where}.preset", f"unknown preset{nearest(preset, presets)}")
        method = reader.text(given.get("method"), f"{where}.method")
        if method not in cls.methods:
            raise reader.fail(f"{where}.method", f"unknown method{nearest(method, cls.methods)}")
        switched = reader.fragment(cls, given.get("switches", {}), f"{where}.switches")
        faster = reader.fragment(Trainer, given.get("trainer", {}), f"{where}.trainer")
        arms[name] = Arm(
            name=name,
            method=method,
            preset=preset,
            switches=reader.complete(cls, f"{where}.switches", switches, presets[preset], switched),
            trainer=reader.complete(
                Trainer, f"{where}.trainer", trainer, faster, own_profile.get(name, {})
            ),
            start=starts.get(name),
        )
    return arms


def _start(reader: Reader, raw: object, where: str, model: Model) -> Model:
    """An arm's own start, of the same sizes as the recipe's: the plan counts with those."""
    start = reader.read(Model, raw, where)
    if start.architecture != model.architecture:
        raise reader.fail(f"{where}.architecture", f"must be the profile's, {model.architecture}")
    return start
