"""Trains arms in forked children that can be killed: one JSON request a line, one answer a line.

The parent imports what is slow once; every child is a real process of its own.

    request  out, model, data, arm (or sft), seed, steps, save_steps, resume
             kill           SIGKILL at the n-th file operation below `out` (open, mkdir, rename)
             kill_writing   the same, counting only what happens in a checkpoint half written
             kill_torn      SIGKILL from outside, as the weights of the n-th checkpoint are written
             kill_in        SIGKILL after so many seconds
             signals   [step, signal, times]: raised while that step is computed
             limit     [step, bytes]: after that step no file may grow beyond
    answer   code (negative: the signal that ended it), said, events and writing (file operations
             seen), torn (the file being written when kill_torn struck)
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from repro import exits
from repro.arm import train_arm
from repro.coldstart import train_sft
from repro.core import method
from repro.core.collect import Collector
from repro.recipe import Recipe

FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}
Request = dict[str, Any]


def count_file_operations(out: str, kill: int | None, kill_writing: int | None) -> dict[str, int]:
    seen = {"events": 0, "writing": 0}

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event not in FILE_EVENTS or not str(args[0]).startswith(out):
            return
        seen["events"] += 1
        seen["writing"] += ".writing" in str(args[0])
        if seen["events"] == kill or seen["writing"] == kill_writing:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return seen


def kill_torn(pid: int, out: Path, number: int) -> str | None:
    """Kills the child as soon as there are weights in the n-th checkpoint that it writes: mostly in
    the temporary file that safetensors fills. That file's name, None if the child ended before.
    Busy, for it is whole within milliseconds."""
    begun: set[Path] = set()
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        for folder in out.glob(".checkpoint-*.writing"):
            found = []
            with suppress(FileNotFoundError):  # whole and renamed in the meantime
                found = [n for n in os.listdir(folder) if n.startswith((".tmp", "model."))]
            begun |= {folder} if found else set()
            if found and len(begun) == number:
                os.kill(pid, signal.SIGKILL)
                return found[0]
    return None


def recipe(request: Request) -> Recipe:
    full = Recipe.load("ktr")
    small = {
        "prompts_per_step": 2, "num_generations": 4, "max_completion_length": 8,
        "learning_rate": request.get("learning_rate", 1e-3), "lr_scheduler_type": "cosine",
        "save_steps": request["save_steps"],
    }  # fmt: skip
    arms = {n: replace(a, trainer=replace(a.trainer, **small)) for n, a in full.arms.items()}
    assert full.sft is not None
    cold = replace(
        full.sft, blind_steps=request["steps"] // 2, per_device_train_batch_size=2,
        save_steps=request["save_steps"],
    )  # fmt: skip
    return replace(full, arms=arms, sft=cold)


def forbid(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("pickle is not used here")


def pay_parity(rollouts: Any) -> torch.Tensor:
    """A random student earns nothing, so it is paid by the parity of what it wrote."""
    return torch.tensor([float(sum(r.ids) % 2) for r in rollouts])


def raise_signal(step: int, signum: int, times: int) -> None:
    own = Collector.collect

    def collect(self: Any, sampler: Any, batch: int, *rest: Any) -> Any:
        if batch + 1 == step:
            for _ in range(times):
                signal.raise_signal(signum)
        return own(self, sampler, batch, *rest)

    Collector.collect = collect


def train(request: Request) -> None:
    def after_step(row: dict[str, Any]) -> None:
        if "limit" in request and row["step"] == request["limit"][0]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"][1],) * 2)

    data, steps, chosen = Path(request["data"]), request["steps"], recipe(request)
    if request["arm"] == "sft":  # half of the steps are blind
        work, steps = partial(train_sft, chosen), steps - steps // 2
    else:
        work = partial(train_arm, chosen, request["arm"])
    work(
        request["seed"], Path(request["out"]), resume=request["resume"], steps=steps, data=data,
        videos=data.parent, model=Path(request["model"]), progress=after_step,
    )  # fmt: skip


def child(request: Request, answer: int) -> None:
    exits.listen()
    torch.save = forbid
    method.accuracies = pay_parity
    if "signals" in request:
        raise_signal(*request["signals"])
    if "kill_in" in request:
        pid = os.getpid()
        timer = threading.Timer(request["kill_in"], os.kill, (pid, signal.SIGKILL))
        timer.daemon = True
        timer.start()
    kills = (request.get("kill"), request.get("kill_writing"))
    seen = count_file_operations(request["out"], *kills)
    code, said = 0, ""
    try:
        train(request)
    except BaseException as error:
        code, said = exits.explain(error) or (1, "".join(traceback.format_exception(error)))
    os.write(answer, json.dumps({"said": said, **seen}).encode())
    os._exit(code)


def serve(line: str) -> dict[str, Any]:
    request = json.loads(line)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(2, 1)
        child(request, write)
    os.close(write)
    torn = None
    if "kill_torn" in request:
        torn = kill_torn(pid, Path(request["out"]), request["kill_torn"])
    _, status = os.waitpid(pid, 0)
    told = os.read(read, 1 << 16)
    os.close(read)
    more = json.loads(told) if told else {"said": "", "events": None, "writing": None}
    return {"code": os.waitstatus_to_exitcode(status), "torn": torn, **more}


if __name__ == "__main__":
    print(json.dumps({"ready": time.time()}), flush=True)
    for request_line in sys.stdin:
        print(json.dumps(serve(request_line)), flush=True)
