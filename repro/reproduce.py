"""`repro reproduce`: arms x seeds as child processes, side by side and resumable.

    <out>/recipe.json              which recipe made this folder; another one is refused
    <out>/<arm>-s<seed>/           done.json once trained, record.json once evaluated
    <out>/<arm>-s<seed>-greedy/    record.json at temperature 0
    <out>/cold-s0[-greedy]/        record.json of the start checkpoint
    <out>/logs/<stage>.log         what a child printed

A stage whose proof file exists is finished and never repeated. Children run one thread each, in
sessions of their own: the driver alone hears Ctrl-C or SIGTERM, passes it on once, and waits.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from evals.errors import BadInput
from repro.exits import ENVIRONMENT, Interrupted, StageFailed
from repro.folder import read_json, write_json
from repro.recipe import Recipe, papers
from repro.show import Show, clock

OURS = (sys.executable, "-m", "repro.cli")
GRACE = 60.0  # seconds a child may take to save its checkpoint after a signal (chosen)
COLD = "cold"


@dataclass(frozen=True)
class Stage:
    """One child process. proof: the file that exists once it has finished.

    pace: a file that grows by one line per unit of work, of `total` units.
    """

    name: str
    argv: tuple[str, ...]
    proof: Path
    pace: Path
    total: int
    log: Path


@dataclass(frozen=True)
class Scope:
    """What a run covers. steps, limit: shorter than the recipe says, None for the recipe's."""

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int | None = None
    limit: int | None = None
    stages: frozenset[str] = frozenset({"train", "eval"})


Chain = tuple[Stage, ...]  # stages that follow one another


def chains(recipe: Recipe, out: Path, scope: Scope) -> list[Chain]:
    """The work in the order it starts: the start checkpoint, then arm by arm within each seed."""
    found = [_evaluations(recipe, out, scope, COLD, 0)] if recipe.evaluation.cold else []
    for seed in scope.seeds:
        for arm in scope.arms:
            train = _training(recipe, out, scope, arm, seed)
            found.append((train, *_evaluations(recipe, out, scope, arm, seed)))
    wanted = [tuple(s for s in chain if s.name.split()[-1] in scope.stages) for chain in found]
    return [chain for chain in wanted if chain]


def _training(recipe: Recipe, out: Path, scope: Scope, arm: str, seed: int) -> Stage:
    folder = out / f"{arm}-s{seed}"
    argv = ["train", _name(recipe), *_which(recipe, arm, seed), "--out", str(folder), "--resume"]
    steps = recipe.arm(arm).trainer.max_steps
    if scope.steps is not None:
        steps = scope.steps
        argv += ["--steps", str(steps)]
    return Stage(
        name=f"{folder.name} train",
        argv=tuple(argv),
        proof=folder / "done.json",
        pace=folder / "metrics.jsonl",
        total=steps,
        log=out / "logs" / f"{folder.name}-train.log",
    )


def _evaluations(recipe: Recipe, out: Path, scope: Scope, arm: str, seed: int) -> Chain:
    base = out / f"{arm}-s{seed}"
    passes = [(base, ())]
    if recipe.evaluation.greedy:
        passes.append((out / f"{arm}-s{seed}-greedy", ("--greedy",)))
    limit = scope.limit or recipe.evaluation.limit
    extra = ("--limit", str(limit)) if limit else ()
    model = () if arm == COLD else ("--model", str(base / "final"))
    return tuple(
        Stage(
            name=f"{folder.name} eval",
            argv=(
                "eval", "--recipe", _name(recipe), *_which(recipe, arm, seed), *model,
                "--out", str(folder), "--resume", *greedy, *extra,
            ),
            proof=folder / "record.json",
            pace=folder / "rows.part.jsonl",
            total=(limit or 0) * (1 if greedy else recipe.evaluation.samples),
            log=out / "logs" / f"{folder.name}-eval.log",
        )
        for folder, greedy in passes
    )  # fmt: skip


def _name(recipe: Recipe) -> str:
    known = papers().get(recipe.paper)
    return recipe.paper if known == recipe.file else str(recipe.file)


def _which(recipe: Recipe, arm: str, seed: int) -> tuple[str, ...]:
    return ("--profile", recipe.profile_name, "--arm", arm, "--seed", str(seed))


def remember(recipe: Recipe, out: Path, scope: Scope) -> None:
    """Writes recipe.json, or raises BadInput if the folder was made by another recipe."""
    now = {
        "paper": recipe.paper,
        "profile": recipe.profile_name,
        "fingerprint": recipe.fingerprint,
        "steps": scope.steps,
        "limit": scope.limit,
    }
    path = out / "recipe.json"
    if path.exists():
        then = read_json(path)
        changed = sorted(key for key, value in now.items() if then.get(key) != value)
        if changed:
            raise BadInput(
                f"{out} was made with another recipe ({', '.join(changed)} changed): --fresh "
                "deletes it and starts again, another --out keeps it"
            )
        return
    if any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise BadInput(f"{out} is not empty and no run of ours; choose another --out")
    write_json(path, now)


# --- running ------------------------------------------------------------------------------------


@dataclass
class _Counter:
    """Lines of a growing file, read from where the last look ended."""

    path: Path
    lines: int = 0
    offset: int = 0

    def look(self) -> int:
        if not self.path.exists():
            return self.lines
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self.offset:
                self.lines = self.offset = 0  # a resumed run rewrote it
            file.seek(self.offset)
            new = file.read()
        self.offset += len(new)
        self.lines += new.count(b"\n")
        return self.lines


@dataclass
class _Child:
    stage: Stage
    rest: Chain
    process: subprocess.Popen[bytes]
    counter: _Counter
    started: float = field(default_factory=time.monotonic)


def run(
    work: Sequence[Chain],
    jobs: int,
    show: Show,
    *,
    program: Sequence[str] = OURS,
    poll: float = 0.3,
    grace: float = GRACE,
) -> None:
    """Run every unfinished stage, `jobs` chains at a time.

    Raises StageFailed at the first failing child, after the others were stopped (they resume), and
    KeyboardInterrupt or Interrupted once all children have saved and ended.
    """
    waiting = deque(left for chain in work if (left := _unfinished(chain, show)))
    running: list[_Child] = []
    with _stopping(running, grace):
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_start(waiting.popleft(), program, show))
            time.sleep(poll)
            for child in list(running):
                show.update(child.stage.name, child.counter.look(), child.stage.total)
                if child.process.poll() is None:
                    continue
                running.remove(child)
                _ended(child, show)
                if child.rest:
                    waiting.appendleft(child.rest)


def _unfinished(chain: Chain, show: Show) -> Chain:
    for stage in chain:
        if stage.proof.exists():
            show.say(f"{stage.name}: finished earlier")
    return tuple(stage for stage in chain if not stage.proof.exists())


def _start(chain: Chain, program: Sequence[str], show: Show) -> _Child:
    stage, rest = chain[0], chain[1:]
    stage.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONUNBUFFERED": "1"}
    with stage.log.open("ab") as log:
        process = subprocess.Popen(
            [*program, *stage.argv], stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT, env=environment, start_new_session=True,
        )  # fmt: skip
    show.say(f"{stage.name}: started")
    return _Child(stage, rest, process, _Counter(stage.pace))


def _ended(child: _Child, show: Show) -> None:
    stage, code = child.stage, child.process.returncode
    show.drop(stage.name)
    if code == 0 and stage.proof.exists():
        show.say(f"{stage.name}: done in {clock(time.monotonic() - child.started)}")
        return
    last = last_line(stage.log)
    if code == 0:
        problem, code = f"ended without writing {stage.proof}", 1
    elif code == -signal.SIGKILL:
        problem, code = "was killed, most likely for want of memory; try --jobs 1", ENVIRONMENT
    elif code < 0:
        problem, code = f"was ended by {signal.Signals(-code).name}", 128 - code
    else:
        problem = f"failed: {last.removeprefix('error: ')}"
    raise StageFailed(f"{stage.name} {problem} (all it printed: {stage.log})", code)


def last_line(log: Path) -> str:
    """The last line that is not blank, or a word that there is none."""
    lines = [x for x in log.read_text(errors="replace").splitlines() if x.strip()]
    return lines[-1].strip() if lines else "it printed nothing"


@contextmanager
def _stopping(running: list[_Child], grace: float) -> Iterator[None]:
    """However the block ends, no child outlives it; each is asked first, so that it can save."""
    try:
        yield
    except KeyboardInterrupt as stop:
        _stop(running, signal.SIGTERM if isinstance(stop, Interrupted) else signal.SIGINT, grace)
        raise
    except BaseException:
        _stop(running, signal.SIGTERM, grace)
        raise


def _stop(running: list[_Child], signum: signal.Signals, grace: float) -> None:
    for child in running:
        if child.process.poll() is None:
            child.process.send_signal(signum)
    deadline = time.monotonic() + grace
    try:
        for child in running:
            child.process.wait(max(0.0, deadline - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):  # too slow, or asked a second time
        for child in running:
            child.process.kill()
    for child in running:
        child.process.wait()
