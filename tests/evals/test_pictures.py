"""Several pictures in one prompt: where they stand, what is read, and that all of it is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evals.benchmarks.jsonl import read
from evals.errors import BadInput
from evals.models import Checkpoint, Question
from evals.probes import Probe
from evals.prompts import Turn
from evals.replies import pixels
from evals.served import Served
from evals.types import Decoding, Sample, VideoClip
from evals.video import NOTHING, Clips
from evals.vlm import VLM, Encoded
from repro.core.packing import pack, tree
from repro.core.scoring import score_trees
from repro.tiny.model import PROTOCOL

WORDS = "Which is next, 1: <image> or 2: <image>?"


def shot(seed: int, side: int = 56) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def film(*images: np.ndarray) -> VideoClip:
    """Four frames at 2 fps; with pictures beside them."""
    frames = np.stack([shot(n) for n in range(4)])
    return VideoClip(frames, (0, 1, 2, 3), 2.0, 4, images=images)


def alone(*images: np.ndarray) -> VideoClip:
    return replace(NOTHING, images=images)


# --- the prompt ----------------------------------------------------------------------------------


def shown(vlm: VLM, encoded: Encoded) -> str:
    """The prompt's words with one pad for each run of pads."""
    told = vlm.processor.tokenizer.decode(encoded.ids)
    for pad in ("<|video_pad|>", "<|image_pad|>"):
        while pad * 2 in told:
            told = told.replace(pad * 2, pad)
    return str(told)


def test_the_clip_comes_first_and_pictures_where_the_words_have_them(student: VLM) -> None:
    encoded = student.encode(film(shot(8), shot(9)), WORDS, PROTOCOL)
    assert shown(student, encoded) == (
        "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>Which is next, 1: "
        "<|vision_start|><|image_pad|><|vision_end|> or 2: "
        "<|vision_start|><|image_pad|><|vision_end|>?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert encoded.grid is not None and encoded.grid.tolist() == [[2, 4, 4], [1, 4, 4], [1, 4, 4]]


def test_positions_by_hand(student: VLM) -> None:
    """The second picture: two words after the first, whose 2 x 2 features take two positions."""
    encoded = student.encode(film(shot(8), shot(9)), WORDS, PROTOCOL)
    first, second = (encoded.ids == student.image_pad).nonzero()[:, 0].view(2, 4).tolist()
    at = int(encoded.positions[0, first[0] - 1]) + 1
    assert encoded.positions[:, first].tolist() == [
        [at] * 4, [at, at, at + 1, at + 1], [at, at + 1] * 2
    ]  # fmt: skip
    words = second[0] - first[-1] - 1
    after = at + 2 + words
    assert encoded.positions[:, second].tolist() == [
        [after] * 4, [after, after, after + 1, after + 1], [after, after + 1] * 2
    ]  # fmt: skip


def test_each_picture_has_its_own_features(student: VLM) -> None:
    """Encoded together or each alone: the same features, in the order of the words."""
    together = student.encode(film(shot(8), shot(9)), WORDS, PROTOCOL)
    single = [student.encode(c, "?", PROTOCOL) for c in (film(), alone_first(8), alone_first(9))]
    with torch.no_grad():
        (found,), parts = student.features([together]), student.features(single)
    torch.testing.assert_close(found, torch.cat(parts), atol=1e-5, rtol=1e-5)


def alone_first(seed: int) -> VideoClip:
    return VideoClip(shot(seed)[None], (0,), 1.0, 1, "image")


def test_pictures_without_a_clip(student: VLM) -> None:
    encoded = student.encode(alone(shot(1), shot(2)), WORDS, PROTOCOL)
    told = shown(student, encoded)
    assert told.startswith("<|im_start|>user\nWhich is next, 1: <|vision_start|><|image_pad|>")
    assert encoded.grid is not None and len(encoded.grid) == 2


@pytest.mark.parametrize("words", ["no mark", "one <image>", "<image> <image> <image>"])
def test_marks_and_pictures_must_agree(student: VLM, words: str) -> None:
    with pytest.raises(BadInput, match="2 pictures for"):
        student.encode(film(shot(8), shot(9)), words, PROTOCOL)


def test_a_mark_is_a_word_where_there_are_no_pictures(student: VLM) -> None:
    encoded = student.encode(film(), "What does <image> mean?", PROTOCOL)
    assert "What does <image> mean?" in student.text(encoded.ids)


# --- it is trained on ----------------------------------------------------------------------------


def test_the_gradient_reaches_clip_and_every_picture(student: VLM) -> None:
    encoded = student.encode(film(shot(8), shot(9)), WORDS, PROTOCOL)
    assert encoded.pixels is not None and encoded.grid is not None
    leaf = encoded.pixels.clone().requires_grad_()
    asked = replace(encoded, pixels=leaf)
    logp, _ = score_trees(student, [tree(asked, [(30, 31, 32), (33, 34)])], pack)
    logp.sum().backward()
    assert leaf.grad is not None
    for part in leaf.grad.split(encoded.grid.prod(-1).tolist()):
        assert float(part.abs().max()) > 0
    student.model.zero_grad()


def test_sampling_beside_other_prompts(student: VLM) -> None:
    """What is drawn does not depend on the prompts beside it."""
    hot = Decoding(temperature=1.0, max_new_tokens=8, samples=2)
    prompts = [
        student.encode(film(shot(8), shot(9)), WORDS, PROTOCOL),
        student.encode(None, "How many?", PROTOCOL),
        student.encode(alone(shot(1), shot(2)), WORDS, PROTOCOL),
    ]
    together = student.sample(prompts, hot, [1, 2, 3])
    for prompt, seed, found in zip(prompts, [1, 2, 3], together, strict=True):
        (again,) = student.sample([prompt], hot, [seed])
        assert [s.ids for s in again] == [s.ids for s in found]


# --- records -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, mp4: Callable[..., Path]) -> Path:
    mp4(np.stack([shot(n, 64) for n in range(8)]), fps=4, name="a.mp4")
    for n in range(3):
        Image.fromarray(shot(n)).save(tmp_path / f"{n}.png")
    return tmp_path


def record(**changes: Any) -> dict[str, Any]:
    return {
        "problem": WORDS, "solution": "<answer>1</answer>", "problem_type": "numerical",
        "path": "a.mp4", "images": ["0.png", "1.png"], **changes,
    }  # fmt: skip


def samples(folder: Path, *records: dict[str, Any]) -> list[Sample]:
    path = folder / "records.json"
    path.write_text(json.dumps(records))
    return read(path, folder)


def test_records_with_pictures_are_read(folder: Path) -> None:
    alone = {"data_type": "image", "path": None, "film": "a"}
    both, pictures = samples(folder, record(), record(**alone))
    clips = Clips(PROTOCOL)
    clip, other = clips.load(both), clips.load(pictures)
    assert clip is not None and len(clip.frames) == 4 and len(clip.images) == 2
    assert other is not None and len(other.frames) == 0 and len(other.images) == 2
    assert np.array_equal(clip.images[1], shot(1)) and pictures.cluster == "a"
    assert clips.decodes == 3 and clips.load(both) is clip
    assert clip.nbytes == clip.frames.nbytes + 2 * 56 * 56 * 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": ["0.png"]}, "1 `images` for 2 <image> in the question"),
        ({"images": "0.png"}, "must be a list of paths"),
        ({"images": ["../0.png", "1.png"]}, "leaves the folder"),
        ({"data_type": "text"}, "data_type image or video"),
        ({"path": None}, "`path` is missing"),
    ],
)
def test_records_that_cannot_be_used(folder: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        samples(folder, record(**changes))


def test_replies_are_keyed_by_the_pictures_too() -> None:
    assert len({pixels(film(*images)) for images in ((), (shot(1),), (shot(2),))}) == 3


def test_a_checkpoint_answers_and_shares(student: VLM, folder: Path) -> None:
    """Two questions with the same pictures, one with others: as asked one by one."""
    rows = [record(), record(problem="Once more: " + WORDS), record(images=["0.png", "2.png"])]
    clips = Clips(PROTOCOL)
    asked = [Question(s, clips.load(s), 0) for s in samples(folder, *rows)]
    greedy = Decoding(max_new_tokens=6)
    together = Checkpoint(student, "tiny").answer(asked, PROTOCOL, greedy)
    plain = Checkpoint(student, "tiny", shared=False).answer(asked, PROTOCOL, greedy)
    assert [r[0].text for r in together] == [r[0].text for r in plain]


def test_probes_of_frames_refuse_pictures_alone() -> None:
    sample = Sample("q", WORDS, "numerical", "1", "image", None)
    with pytest.raises(BadInput, match="pictures only"):
        Probe("shuffled", [sample]).clip(sample, lambda s: alone(shot(1), shot(2)))


def test_a_server_is_sent_the_same_order() -> None:
    sample = Sample("q", WORDS, "numerical", "1", "video", Path("a.mp4"))
    question = Question(sample, film(shot(8), shot(9)), 0)
    served = Served("m", "http://127.0.0.1:1")
    (message,) = served._messages(question, replace(PROTOCOL, prompt="micro"))
    kinds = [part["type"] for part in message["content"]]
    assert kinds == ["image_url"] * 4 + ["text", "image_url", "text", "image_url", "text"]
    assert message["content"][4]["text"] == "Which is next, 1: "
    assert Turn(None, "", WORDS).words == WORDS
