"""Trains arms in forked processes that form a group: one JSON request a line, one answer a line.

The parent imports what is slow once; every child is a real process of its own with its own place in
a gloo group, as torchrun would have started it.

    request  out, model, data, arm, steps, processes (0: without a group)
             trainer, switches   fields in place of the recipe's
             view                likewise, of what the model is shown
             freeze              whether the vision tower is frozen
             order               place of the record in the data, place by place over the steps
             kill                [step, rank]: SIGKILL of all processes while that step is computed
             paper               whose recipe, ktr by default
             fail                [step, rank, what]: what goes wrong there
             teacher             of this rank never answers
    answer   codes, said (one per process), seconds
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import deepspeed  # noqa: F401  # slow to import
import torch

from evals.errors import BadInput
from repro import exits
from repro.arm import train_arm
from repro.core import method, ranks
from repro.core.collect import Collector
from repro.core.data import Records
from repro.core.trainer import GroupTrainer
from repro.ffr import method as ffr
from repro.ffr.service import Limits, Service
from repro.recipe import Recipe

Request = dict[str, Any]


def recipe(request: Request) -> Recipe:
    full = Recipe.load(request.get("paper", "ktr"))
    small = {
        "prompts_per_step": 4, "num_generations": 4, "max_completion_length": 8,
        "learning_rate": 1e-3, "save_steps": 1, **request.get("trainer", {}),
    }  # fmt: skip
    changed = request.get("switches", {})
    arms = {
        n: replace(a, trainer=replace(a.trainer, **small), switches=replace(a.switches, **changed))
        for n, a in full.arms.items()
    }
    model = replace(full.model, freeze_vision=request.get("freeze", False))
    view = replace(full.view, **request.get("view", {}))
    return replace(full, arms=arms, model=model, view=view)


def pay_parity(rollouts: Any) -> torch.Tensor:
    """A random student earns nothing, so it is paid by the parity of what it wrote."""
    return torch.tensor([float(sum(r.ids) % 2) for r in rollouts])


class Silent:
    """A teacher that takes a call and is never heard of again."""

    id, second_try, stores = "silent@1", False, False

    async def patch(self, failure: Any) -> Any:
        await asyncio.sleep(3600)


def interfere(request: Request, group: int) -> None:
    """Arrange for what is to go wrong."""
    own, nan = Collector.collect, GroupTrainer._advantages
    kill, fail = request.get("kill"), request.get("fail")

    def collect(self: Any, sampler: Any, batch: int, *rest: Any) -> Any:
        if kill and [batch + 1, ranks.rank()] == kill:
            os.killpg(group, signal.SIGKILL)
        return own(self, sampler, batch, *rest)

    def built(self: Any, record: Any) -> Any:
        raise BadInput(f"the record {record.id} is spoilt")

    def round_(self: Any, sampler: Any, batch: int, *rest: Any) -> Any:
        if fail and fail[2] == "record" and fail[:2] == [batch + 1, ranks.rank()]:
            self.prompts.build = built.__get__(self.prompts)
        return turn(self, sampler, batch, *rest)

    def advantages(self: Any, *given: Any) -> Any:
        found = nan(self, *given)
        if fail and fail[:2] == [self.state.global_step + 1, ranks.rank()]:
            if fail[2] == "nan":
                return [f * float("nan") for f in found]
            if fail[2] == "gone":
                os._exit(4)
            if fail[2] == "signal":
                signal.raise_signal(signal.SIGTERM)
        return found

    if int(os.environ.get("RANK", "0")) == request.get("teacher"):
        ffr.opened = lambda switches, blind=None: Service(
            Silent(), limits=Limits(timeout=0.2, tries=1)
        )
    turn = Collector._round
    Collector.collect, Collector._round = collect, round_
    GroupTrainer._advantages = advantages
    if "order" in request:
        order = request["order"]
        Records._at = lambda self, index: self.records[order[index % len(order)]]


def child(request: Request, answer: int, group: int) -> None:
    exits.listen()
    method.accuracies = ffr.accuracies = pay_parity
    interfere(request, group)
    code, said = 0, ""
    data = Path(request["data"])
    try:
        train_arm(
            recipe(request), request["arm"], request.get("seed", 0), Path(request["out"]),
            resume=True, steps=request["steps"], data=data, videos=data.parent,
            model=Path(request["model"]),
        )  # fmt: skip
    except BaseException as error:
        code, said = exits.explain(error) or (1, "".join(traceback.format_exception(error)))
        said = said if exits.speaks(error) else ""
    os.write(answer, said.encode()[-60_000:])
    os._exit(code)


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def serve(line: str) -> dict[str, Any]:
    request = json.loads(line)
    n, port, began = request["processes"], free_port(), time.perf_counter()
    pids, pipes, leader = [], [], 0
    for rank in range(max(1, n)):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, leader)
            os.dup2(2, 1)
            if n:
                os.environ.update(
                    RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(n),
                    LOCAL_WORLD_SIZE=str(n), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
                )  # fmt: skip
            child(request, write, os.getpgrp())
        leader = leader or pid
        os.setpgid(pid, leader)
        os.close(write)
        pids.append(pid)
        pipes.append(read)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    said = []
    for read in pipes:
        said.append(os.read(read, 1 << 16).decode())
        os.close(read)
    return {"codes": codes, "said": said, "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    os.environ["DS_ACCELERATOR"] = "cpu"
    print(json.dumps({"ready": time.time()}), flush=True)
    for request_line in sys.stdin:
        print(json.dumps(serve(request_line)), flush=True)
    os._exit(0)  # what was imported takes seconds to leave
