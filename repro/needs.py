"""What a recipe needs from elsewhere: checkpoints, training data, benchmarks; each with its commit.

stage            needs
score-released   the released and the start checkpoint, the benchmarks
sft              the model before the cold start, its demonstrations
train            the arms' start checkpoints, the training records and where their films are from
eval             the benchmarks
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from evals import benchmarks
from evals.errors import BadInput
from repro import lock, training
from repro.core.memory import KNOWN
from repro.recipe import UNRESOLVED, Recipe

VIDEO_R1_EVAL = "Video-R1/Video-R1-eval"


@dataclass(frozen=True)
class Need:
    """key: of the lock. stages: that cannot do without it. bytes: of the download, None if unknown;
    of a model's weights when only they are known. folder: below $REELPROOF_DATA, "" where the
    files are placed by hand. patterns: files asked for."""

    key: str
    revision: str
    what: str
    stages: frozenset[str]
    bytes: int | None
    folder: str
    patterns: tuple[str, ...] = ("*",)

    @property
    def resolved(self) -> bool:
        """Whether it names one commit."""
        return bool(lock.COMMIT.fullmatch(self.revision))


def needs(recipe: Recipe, arms: Collection[str] | None = None) -> list[Need]:
    """Everything, each key once, with the commits locked beside the recipe. arms: that are to be
    trained, by default the recipe's own run."""
    pins = lock.read(recipe.file)
    found: dict[str, Need] = {}
    for need in (*_models(recipe, arms), *_records(recipe), *_benchmarks(recipe)):
        pin = pins.get(need.key)
        before = found.get(need.key)
        found[need.key] = Need(
            need.key,
            pin.revision if pin and not need.resolved else need.revision,
            need.what,
            need.stages | (before.stages if before else frozenset()),
            pin.bytes if pin and pin.bytes is not None else need.bytes,
            need.folder,
            tuple(dict.fromkeys((*(before.patterns if before else ()), *need.patterns))),
        )
    return list(found.values())


def require_resolved(
    recipe: Recipe, stages: Collection[str], arms: Collection[str] | None = None
) -> None:
    """Raises BadInput naming what these stages need at a commit that nobody has looked up."""
    open_ones = [
        need.key for need in needs(recipe, arms) if not need.resolved and need.stages & set(stages)
    ]
    if open_ones:
        raise BadInput(
            f"{recipe.paper} --profile {recipe.profile_name} names no commit of "
            f"{', '.join(open_ones)}; run repro data lock {recipe.paper} on a machine with network "
            "access (a branch may move under the numbers)"
        )


def _models(recipe: Recipe, arms: Collection[str] | None) -> Iterable[Need]:
    sizes = KNOWN.get(recipe.model.architecture or "")
    size = 2 * sizes.parameters if sizes else None  # as bf16
    named = [(recipe.model.id, recipe.model.revision, {"train", "score-released"})]
    starts = [recipe.arm(name).start for name in (recipe.run if arms is None else arms)]
    named += [(start.id, start.revision, {"train"}) for start in starts if start]
    if recipe.scoring:
        s = recipe.scoring
        for _, checkpoint in s.public:
            revision = s.revision if checkpoint == s.released else None
            named.append((checkpoint, revision, {"score-released"}))
    if recipe.sft:
        named.append((recipe.sft.model.id, recipe.sft.model.revision, {"sft"}))
    for name, revision, stages in named:
        if "/" in name and not name.startswith("tiny/") and not Path(name).is_dir():
            folder = f"models/{name.replace('/', '--')}"
            yield Need(
                f"model:{name}", revision or UNRESOLVED, "checkpoint", frozenset(stages), size,
                folder,
            )  # fmt: skip


def _records(recipe: Recipe) -> Iterable[Need]:
    for data, stage in ((recipe.data, "train"), (recipe.sft.data if recipe.sft else None, "sft")):
        if data is not None and data.repository:
            yield Need(
                lock.key_of("dataset", data.repository), data.revision or UNRESOLVED,
                f"records of {data.records}", frozenset({stage}), None, "",
            )  # fmt: skip
    manifest = training.manifest_of(recipe)
    if manifest is not None and recipe.data.repository:
        for part in manifest.parts:
            if part.repository.count("/") != 1:  # no data set of the hub: its owner's own place
                continue
            yield Need(
                f"dataset:{part.repository}", UNRESOLVED, f"films of {part.name}",
                frozenset({"train"}), None, "",
            )  # fmt: skip


def _benchmarks(recipe: Recipe) -> Iterable[Need]:
    stages = frozenset({"score-released", "eval"})
    for asked in recipe.scoring.benchmarks if recipe.scoring else ():
        name, _, subset = asked.partition("/")
        card = benchmarks.card(name)
        if card.host == "huggingface":
            yield Need(
                f"dataset:{card.dataset}", card.revision, f"benchmark {name}", stages, None, name,
                card.files,
            )  # fmt: skip
        if subset == "video-r1-eval":
            yield Need(
                f"dataset:{VIDEO_R1_EVAL}", UNRESOLVED, "annotations as Video-R1 has them", stages,
                None, name, (f"eval_{name}.json",),
            )  # fmt: skip


def fetch(
    recipe: Recipe, root: Path, stages: Collection[str], arms: Collection[str] | None = None
) -> list[tuple[Need, Path]]:
    """Download what these stages need and can be placed without being asked; what was fetched.

    Raises as `require_resolved` and evals.fetch.snapshot do.
    """
    from evals.fetch import snapshot

    require_resolved(recipe, stages, arms)
    done = []
    for need in needs(recipe, arms):
        kind, _, name = need.key.partition(":")
        if not need.folder or not need.stages & set(stages):
            continue
        places = [need.folder]
        if name == VIDEO_R1_EVAL:  # each benchmark's own file, beside that benchmark
            places = [p.removeprefix("eval_").removesuffix(".json") for p in need.patterns]
        for place in places:
            patterns = [p for p in need.patterns if name != VIDEO_R1_EVAL or place in p]
            snapshot(name, kind, need.revision, root / place, patterns)
            done.append((need, root / place))
    return done
