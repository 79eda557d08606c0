"""Checkpoints are whole or absent, without pickle, and give back what they were given."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from evals.vlm import VLM
from repro.core import checkpoint


def _trained(steps: int) -> tuple[nn.Module, torch.optim.Optimizer, object]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(
        [{"params": model[0].parameters(), "weight_decay": 0.1}, {"params": model[1].parameters()}],
        lr=0.1, betas=(0.9, 0.98),
    )  # fmt: skip
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: 1 / (1 + s))
    for step in range(steps):
        _step(model, optimizer, scheduler, step)
    return model, optimizer, scheduler


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: object, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    loss = model(torch.randn(5, 3, generator=generator)).square().sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()


def test_optimizer_and_schedule_come_back_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer, scheduler = _trained(3)
    checkpoint.save_optimizer(optimizer, scheduler, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "optimizer.json", "optimizer.safetensors", "scheduler.json",
    ]  # fmt: skip
    again, fresh, schedule = _trained(0)
    again.load_state_dict(model.state_dict())
    checkpoint.load_optimizer(fresh, schedule, tmp_path)
    for _ in range(2):
        _step(model, optimizer, scheduler, 7)
        _step(again, fresh, schedule, 7)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
    assert fresh.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == 0.1 / 6


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-1"

    def half(scratch: Path) -> None:
        (scratch / "model").write_text("half")
        assert not folder.exists() and checkpoint.latest(tmp_path) is None
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoint.write_aside(folder, half)
    assert list(tmp_path.iterdir()) == []  # what was half written is given back
    checkpoint.write_aside(folder, lambda scratch: (scratch / "model").write_text("one"))
    assert (folder / "model").read_text() == "one"


def test_writing_again_replaces_and_a_failure_keeps_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "final"
    checkpoint.write_aside(folder, lambda scratch: (scratch / "old").touch())

    def fail(scratch: Path) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        checkpoint.write_aside(folder, fail)
    assert [p.name for p in folder.iterdir()] == ["old"]
    checkpoint.write_aside(folder, lambda scratch: (scratch / "new").touch())
    assert [p.name for p in folder.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["final"]


def test_a_killed_removal_leaves_nothing_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoint-4"
    folder.mkdir()
    (folder / "model").touch()

    def killed(path: Path, **kwargs: object) -> None:
        if Path(path).exists():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoint.discard(folder)
    assert checkpoint.latest(tmp_path) is None
    folder.mkdir()  # the same step once more
    checkpoint.discard(folder)
    assert list(tmp_path.iterdir()) == []


def test_what_killed_processes_left_is_swept_away(tmp_path: Path) -> None:
    for name in (".checkpoint-2.discarded", ".checkpoint-3.writing", "checkpoint-2", "final"):
        (tmp_path / name).mkdir()
    (tmp_path / ".lock").touch()
    checkpoint.sweep(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "checkpoint-2", "final"]


def test_latest_counts_steps_and_ignores_what_is_half_written(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    for name in ("checkpoint-9", "checkpoint-10", ".checkpoint-11.writing",
                 ".checkpoint-12.discarded"):  # fmt: skip
        (tmp_path / name).mkdir()
    assert checkpoint.latest(tmp_path) == tmp_path / "checkpoint-10"


def test_weights_come_back_bit_for_bit(student: VLM, loud: VLM, tmp_path: Path) -> None:
    loud.model.save_pretrained(tmp_path)
    model = copy.deepcopy(student.model)
    checkpoint.load_weights(model, tmp_path)
    wanted = loud.model.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())
    head, embeds = model.lm_head.weight, model.get_input_embeddings().weight
    assert head.data_ptr() == embeds.data_ptr()  # still tied


def test_weights_that_do_not_fit_are_refused(student: VLM, tmp_path: Path) -> None:
    student.model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = checkpoint.load_file(file)
    name = next(n for n in whole if "visual" in n)
    for broken in ({n: t for n, t in whole.items() if n != name}, {**whole, "x": torch.ones(1)}):
        checkpoint.save_file(broken, file, metadata={"format": "pt"})
        with pytest.raises(ValueError, match="does not fit the model"):
            checkpoint.load_weights(copy.deepcopy(student.model), tmp_path)


def test_the_hash_follows_every_weight(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        checkpoint.save_file({"w": torch.zeros(2)}, tmp_path / name / "model.safetensors")
    first = checkpoint.weights_sha256(tmp_path / "a")
    assert first == checkpoint.weights_sha256(tmp_path / "b")
    checkpoint.save_file({"w": torch.tensor([0.0, 1e-7])}, tmp_path / "b" / "model.safetensors")
    assert first != checkpoint.weights_sha256(tmp_path / "b")


def test_a_checkpoint_of_the_trainer_holds_no_pickle(trainer: object) -> None:
    t = trainer("ktr", steps=2, save_steps=1)
    t.train()
    assert [p.name for p in t.out.glob("checkpoint-*")] == ["checkpoint-2"]  # the newest alone
    files = [p for p in t.out.rglob("*") if p.is_file()]
    assert {p.suffix for p in files} <= {".safetensors", ".json", ".jsonl", ".jinja"}
    for path in files:
        if path.suffix != ".safetensors":
            [json.loads(x) for x in path.read_text().splitlines()] if path.suffix == ".jsonl" else (
                path.suffix == ".jinja" or json.loads(path.read_text()))  # fmt: skip
        else:
            size = int.from_bytes(path.read_bytes()[:8], "little")
            json.loads(path.read_bytes()[8 : 8 + size])
    assert os.listdir(t.out / "checkpoint-2")
