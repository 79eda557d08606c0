"""`repro rehearse`: a paper's own configuration, stage by stage, on a CPU, before a GPU is rented.

    made data in the owners' schemas and archives, verified -> refused without commits, then locked
    -> sft -> two RL steps, killed after the first and continued -> every cell of `scoring`, for
    released and trained weights -> a ledger of its own -> the report

Weights are random and tiny. What is smaller than in the paper stands in `CUTS`, with the reason;
what a rehearsal cannot show stands in `NOT_REHEARSED`. Records carry the profile `rehearsal`, which
is never a cell, and `repro ledger add` refuses them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from evals import made
from evals.errors import BadInput, EnvironmentFault
from evals.verify import NOTES, Findings, verify
from repro import folder, lock, needs, training
from repro.grid import grid
from repro.recipe import Recipe
from repro.reproduce import OURS, Scope, reproduce
from repro.stages import COLD
from repro.training import Manifest
from results import filing, ledger
from results.cells import REHEARSAL, cells, judge
from results.policy import load_policy
from results.reported import load_reported
from results.schema import LedgerError

STEPS = 2
FAR = 240.0  # seconds that the first step of a killed training may take (chosen)
COMMIT = "0" * 40
FEW = 3  # records of each part
#: (kind, solution) of records that are put together from several sources.
KINDS = (
    ("multiple choice", "A"), ("temporal grounding", "[0.0, 1.0]"), ("grounded qa", "B [0.5, 1.5]")
)  # fmt: skip

#: Dotted key of the profile -> (value, why it is not the paper's). Of the arms the first two run.
CUTS: Mapping[str, tuple[Any, str]] = {
    "seeds": ([0], "one seed trains like another"),
    "trainer.prompts_per_step": (2, "a prompt for each of two processes"),
    "trainer.max_completion_length": (16, "a random student never ends by itself"),
    "trainer.save_steps": (1, "so that there is something to continue from after a kill"),
    "scoring.seeds": ([0, 1], "two re-scores show that they vary"),
    "scoring.batches": ([8, 4], "likewise"),
    "scoring.engine": ("transformers", "vLLM wants a GPU, or an environment of its own"),
    "scoring.max_new_tokens": (8, "a random student never ends by itself"),
}

#: The same where a recipe has a teacher.
TEACHER: Mapping[str, tuple[Any, str]] = {
    "switches.teacher": ("retry", "a teacher is a server elsewhere; repro teacher probe asks one"),
}

#: What no rehearsal on a CPU shows, and why.
NOT_REHEARSED = (
    "memory and speed of the real model: its weights are not here (repro plan computes both)",
    "CUDA kernels, NCCL and several nodes: processes of one machine speak gloo here",
    "bf16 on a GPU: a CPU rounds alike, and sums in another order",
    "vLLM as the engine of evaluation: make test-vllm runs it by itself",
    "the real archives: their schemas and layouts are made from descriptions, some of files that "
    "nobody here has seen (repro data verify says how a copy differs)",
    "films longer than two seconds: as many frames as a recipe allows are then shown",
    "the hub: commits are made up, nothing is downloaded (repro data lock, repro data fetch)",
    "whether anything is learned: weights are random, and two steps are no training",
)


@dataclass(frozen=True)
class Check:
    """One thing that was rehearsed, and what was seen."""

    name: str
    seen: str
    seconds: float


def rehearse(
    name: str, profile: str, out: Path, console: Console, *, processes: int = 2
) -> list[Check]:
    """Every stage of a recipe's profile in the folder `out`, which must be empty.

    Raises BadInput for a profile without cells, and whatever a stage fails with.
    """
    original = Recipe.load(name, profile)
    if original.scoring is None:
        raise BadInput(
            f"{original.paper} has no section scoring in profile {profile}: nothing to rehearse "
            "that repro smoke and repro reproduce would not run"
        )
    with folder.writing(out, what="a rehearsal starts anew"), _data_in(out / "data"):
        return _Rehearsal(original, out, console, processes).run()


@contextmanager
def _data_in(root: Path) -> Iterator[None]:
    """REELPROOF_DATA for this process and its children."""
    before = os.environ.get("REELPROOF_DATA")
    os.environ["REELPROOF_DATA"] = str(root.absolute())
    try:
        yield
    finally:
        os.environ.pop("REELPROOF_DATA")
        if before is not None:
            os.environ["REELPROOF_DATA"] = before


class _Rehearsal:
    def __init__(self, original: Recipe, out: Path, console: Console, processes: int):
        self.original, self.out, self.console = original, out.absolute(), console
        self.processes = processes
        self.file = self.out / "recipe.yaml"
        self.runs = self.out / "runs"

    def run(self) -> list[Check]:
        steps: tuple[tuple[str, Callable[[], str]], ...] = (
            ("weights", self.weights),
            ("data", self.data),
            ("recipe", self.recipe_file),
            ("commits", self.commits),
            ("sft", self.sft),
            ("train, killed", self.killed),
            ("train, continued", self.continued),
            ("score-released and eval", self.answered),
            ("ledger", self.ledger),
            ("report", self.report),
        )
        found = []
        for name, step in steps:
            began = time.monotonic()
            seen = step()
            found.append(Check(name, seen, round(time.monotonic() - began, 1)))
            self.console.print(f"{name}: {seen}", markup=False, highlight=False, soft_wrap=True)
        return found

    @property
    def recipe(self) -> Recipe:
        return Recipe.load(self.file, REHEARSAL)

    def _reproduce(self, *stages: str) -> None:
        recipe = self.recipe
        scope = Scope(
            recipe.run, recipe.seeds, steps=STEPS, stages=frozenset(stages),
            processes=self.processes,
        )  # fmt: skip
        reproduce(recipe, self.runs, scope, 2, console=self.console)

    # --- what is made

    def weights(self) -> str:
        """Random students: the start checkpoint, the released one, and what is scored beside."""
        from repro.tiny import model as student

        tokens = student.tokenizer([_WORDS])
        names = ("start", *(["released"] if self._released else []), *self._beside)
        for seed, name in enumerate(names):
            at = self.out / "models" / name
            student.model(tokens, seed).save_pretrained(at)
            student.processor(tokens).save_pretrained(at)
        return f"{len(names)} random students instead of the real checkpoints"

    @property
    def _released(self) -> bool:
        """Whether anyone released weights of the method."""
        return self.original.scoring is not None and self.original.scoring.released is not None

    @property
    def _beside(self) -> tuple[str, ...]:
        """Arms of the other public checkpoints."""
        assert self.original.scoring is not None
        return tuple(arm for arm, _ in self.original.scoring.public[int(self._released) :])

    def data(self) -> str:
        """Benchmarks and training records, in the owners' schemas and archives, and verified."""
        assert self.original.scoring is not None
        root, seen = self.out / "data", []
        for asked in self.original.scoring.benchmarks:
            name, _, subset = asked.partition("/")
            made.make(name, root)
            if subset == "video-r1-eval":
                made.video_r1_eval(name, root / name)
            report = verify(name, root / name, subset=subset)
            _only(report.findings, ("count", *NOTES), f"the made copy of {name}")
            seen.append(f"{name} {report.questions}")
        records = self._records(root / self._manifest.folder)
        self._demonstrations(root)
        return f"questions: {', '.join(seen)}; {records}"

    @property
    def _manifest(self) -> Manifest:
        """Of the records that the profile trains on."""
        return Manifest.load(self.original.paper, self.original.data.records)

    def _records(self, root: Path) -> str:
        manifest = self._manifest
        few = _few(manifest)
        own = training.schema(manifest.paper) if manifest.published else None
        published, rows = root / manifest.file.name, _published(few)
        made.save(published, [own.published(row) for row in rows] if own else rows)
        rows = training.published_rows(few, published, Findings())
        made.on_disk(root, [r["path"].removeprefix("./") for r in rows])
        report = training.verify(few, published, root)
        _only(report.findings, training.NOTES, "the made training records")
        masked = self._masked(few, root / training.MASKED)
        built = training.build(few, root / training.RECORDS, published=published, masked=masked)
        return f"training records: {built.records}, {len(few.parts)} parts, ids of both kept apart"

    def _masked(self, manifest: Manifest, out: Path) -> Path | None:
        """Items synthesized from made films, where the paper has such records."""
        if training.MASKED not in {part.name for part in manifest.parts}:
            return None
        from repro.mvp.synthesis.films import Filming
        from repro.mvp.synthesis.items import Sampling
        from repro.mvp.synthesis.make import Settings, synthesize

        films = self.out / "films"
        for seed in range(2):
            made.slides(films / f"{seed}.mp4", seed)
        settings = Settings(Filming(), Sampling(0.85, (2, 3, 4)), "built-in")
        synthesize(films, out, settings, self.out / "cache")
        return out

    def _demonstrations(self, root: Path) -> None:
        if self.original.sft is None:
            return
        at = root / self.original.sft.data.records
        rows = [
            {**row, "problem_id": i, "process": "<think>It is red.</think>"}
            for i, row in enumerate(_published(_few(self._manifest)))
        ]
        made.save(at / training.RECORDS, rows)
        made.on_disk(at, [row["path"].removeprefix("./") for row in rows])

    def recipe_file(self) -> str:
        """The paper's own file, its profile renamed, with the weights and `CUTS` put in."""
        raw = yaml.safe_load(self.original.file.read_text(encoding="utf-8"))
        profile = raw["profiles"][self.original.profile_name]
        models: dict[str, Any] = {
            "model.id": str(self.out / "models" / "start"), "model.architecture": None,
            "data.repository": None, "sft.model.id": str(self.out / "models" / "start"),
            "sft.model.architecture": None, "sft.data.repository": None,
            "run": list(self.original.run[:2]),
        }  # fmt: skip
        if self._released:
            models["scoring.released"] = str(self.out / "models" / "released")
        if self._beside:
            models["scoring.beside"] = [f"{a}={self.out / 'models' / a}" for a in self._beside]
        for body in (profile, *profile.get("arms", {}).values()):
            body.get("trainer", {}).pop("gradient_accumulation_steps", None)  # few records a step
        for body in profile.get("arms", {}).values():
            body.pop("model", None)  # a start of an arm that is not rehearsed
        cuts = {**CUTS, **(TEACHER if "teacher" in profile["switches"] else {})}
        for key, value in {**models, **{k: v for k, (v, _) in cuts.items()}}.items():
            section, _, leaf = key.rpartition(".")
            if section.startswith("sft") and self.original.sft is None:
                continue
            place = profile
            for part in section.split(".") if section else ():
                place = place[part]
            place[leaf] = {"value": value, "source": "chosen: rehearsal"}
        raw["profiles"] = {REHEARSAL: profile}
        self.file.write_text(yaml.safe_dump(raw, sort_keys=False, allow_unicode=True))
        return f"{self.original.paper}, {len(cuts)} values smaller than the paper's"

    def commits(self) -> str:
        """Refused without commits, and not when they are locked."""
        recipe = self.recipe
        try:
            self._reproduce("score-released")
        except BadInput as error:
            said = str(error)
        else:
            raise EnvironmentFault("a paper run began without commits; please report this")
        pins = {need.key: lock.Pin(COMMIT, None) for need in needs.needs(recipe)}
        lock.write(self.file, pins)
        needs.require_resolved(recipe, ("score-released", "train", "eval"))
        return f"refused ({said.split(';')[0][:60]}...), then {len(pins)} made commits locked"

    # --- what runs

    def sft(self) -> str:
        if self.recipe.sft is None:
            return "this paper has none"
        self._reproduce("sft")
        done = folder.read_json(self.runs / "sft-s0" / "done.json")
        return f"{done['steps']} steps"

    def killed(self) -> str:
        """A training whose processes are all killed once the first checkpoint is there."""
        first = self.runs / f"{self.recipe.run[0]}-s0"
        words = [
            "reproduce", str(self.file), "--profile", REHEARSAL, "--stage", "train",
            "--steps", str(STEPS), "--gpus", str(self.processes), "--out", str(self.runs),
        ]  # fmt: skip
        log = self.out / "killed.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*OURS, *words], stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + FAR
        try:
            while not (first / "checkpoint-1").is_dir():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise EnvironmentFault(f"training did not come to its first step: {log}")
                time.sleep(0.05)
        finally:
            family = _kill(process)
        if (first / "done.json").exists():
            return "it had ended before it could be killed"
        return f"{family} processes killed after step 1"

    def continued(self) -> str:
        self._reproduce("train")
        seen = []
        for arm in self.recipe.run:
            home = self.runs / f"{arm}-s0"
            lines = (home / ledger.CURVES).read_text().splitlines()
            steps = [json.loads(line)["step"] for line in lines]
            if steps != list(range(1, STEPS + 1)):
                raise EnvironmentFault(f"{home}: steps {steps} after the kill; please report this")
            seen.append(f"{arm} {len(steps)} steps")
        return f"{', '.join(seen)}, each once"

    def answered(self) -> str:
        self._reproduce("score-released", "eval")
        recipe = self.recipe
        asked = {a.protocol.hash for a in grid(recipe)}
        filed = [run.record for run in ledger.load(self.runs)]
        missing = asked - {record.protocol_hash for record in filed}
        if missing:
            raise EnvironmentFault(f"no record of protocols {missing}; please report this")
        arms = sorted({record.arm for record in filed})
        return f"{len(filed)} records under {len(asked)} protocols: {', '.join(arms)}, {COLD} first"

    def ledger(self) -> str:
        """Filed in a ledger of its own; refused by the real one; no cell is touched."""
        own = self.out / "ledger"
        filed = filing.add(self.runs, own, rehearsal=True)
        try:
            filing.add(self.runs, self.out / "real", dry_run=True)
        except LedgerError:
            pass
        else:
            raise EnvironmentFault("the ledger takes a rehearsal for real; please report this")
        runs = ledger.load(own)
        for run in runs:
            if problems := ledger.verify(run):
                raise EnvironmentFault(f"{run.directory}: {problems[0]}; please report this")
        policy = load_policy()
        paper = load_reported(self.original.file.with_name("reported.yaml"))
        words = {judge(cell, runs, policy).word for cell in cells(paper)}
        if words - {"not run"}:
            raise EnvironmentFault(f"a rehearsal filled cells ({words}); please report this")
        said = (
            "every cell of the paper: not run" if words else "the paper has no cell that is known"
        )
        return f"{len(filed)} runs filed, marked {REHEARSAL}; {said}"

    def report(self) -> str:
        self._reproduce("report")
        size = (self.runs / "report.html").stat().st_size
        return f"{self.runs / 'report.html'}, {size // 1024} KiB"


_WORDS = (
    "<think>I see a red circle, so it is A.</think><answer>A</answer> Which one? Options: B. two"
)


def _only(findings: Any, allowed: tuple[str, ...], what: str) -> None:
    other = [f"{f.check}: {f.examples[0]}" for f in findings if f.check not in allowed]
    if other:
        raise EnvironmentFault(f"{what} has problems ({'; '.join(other)}); please report this")


def _few(manifest: Manifest) -> Manifest:
    """The manifest of a file with a handful of each part."""
    asked = [part for part in manifest.parts if part.name != training.MASKED]
    few = {part.name: replace(part, records=part.records and FEW, films=None) for part in asked}
    parts = tuple(few.get(part.name, part) for part in manifest.parts)
    total = FEW * len(few)
    of = replace(manifest.file, records=total, images=0, videos=total, sha256=("", ""))
    return replace(manifest, parts=parts, file=of)


def _published(manifest: Manifest) -> list[dict[str, Any]]:
    """Made records in the published schema, part by part; the first ids of two parts clash."""
    rows = []
    parts = [part for part in manifest.parts if part.name != training.MASKED]
    end = parts[-1]
    for part in parts:
        for i in range(FEW):
            number: Any = f"{part.name}-{i}"
            if part.ids and end.ids:
                number = (part.ids if part is end or i == 0 else end.ids)[0] + i
            folder_ = "videos_train" if part is end and part.ids else part.name
            kind, solution = ("multiple choice", "AB"[i % 2])
            if not manifest.published:  # put together: of every kind that such records have
                kind, solution = KINDS[i % len(KINDS)]
            rows.append({
                "problem_id": number, "problem": f"Which colour is shape {i}?",
                "data_type": "video", "problem_type": kind,
                "options": None if kind == "temporal grounding" else ["A. red", "B. blue"],
                "solution": f"<answer>{solution}</answer>",
                "path": f"./{folder_}/{i}.mp4", "data_source": part.data_source or "made",
            })  # fmt: skip
    return rows


def _kill(process: subprocess.Popen[bytes]) -> int:
    """SIGKILL to a process and everything it started, as when a host goes down; how many."""
    import psutil

    try:
        whole = psutil.Process(process.pid)
        family = [whole, *whole.children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        try:
            member.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait()
    psutil.wait_procs(family, timeout=10)
    return len(family)
