"""Pass 1: pictures by their times, upright, from files of every kind; vectors and the store."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evals.errors import BadInput, Undecodable
from evals.video import NoPictures
from repro.mvp.synthesis import films
from repro.mvp.synthesis.embed import BuiltIn, Clip, Embedder, embedder
from repro.mvp.synthesis.films import Filming, jpeg, pictures, size_of
from repro.mvp.synthesis.store import Store
from tests import scenes

FAST = Filming()


def seen(path: Path, filming: Filming = FAST) -> tuple[list[float], list[np.ndarray]]:
    found = list(pictures(path, filming))
    return [t for t, _ in found], [p for _, p in found]


def test_the_first_frame_of_every_second(mp4: Callable[..., Path]) -> None:
    shown = np.stack([scenes.numbered(n) for n in range(35)])
    times, found = seen(mp4(shown, fps=5))
    assert times == pytest.approx(range(7))
    assert [scenes.read_number(p) for p in found] == [0, 5, 10, 15, 20, 25, 30]
    times, found = seen(mp4(shown, fps=5, name="b.mp4"), Filming(fps=2.0))
    assert [scenes.read_number(p) for p in found] == [0, 3, 5, 8, 10, 13, 15, 18, 20, 23, 25, 28,
                                                      30, 33]  # fmt: skip


def test_a_variable_rate_is_read_by_times(tmp_path: Path) -> None:
    """A second without a frame has no picture; frames come with reordering (B-frames)."""
    times = [0, 0.1, 0.9, 1.3, 1.4, 2.0, 4.7, 4.8, 5.0, 5.5, 6.2]
    path = scenes.timed(tmp_path / "v.mp4", [scenes.numbered(n) for n in range(len(times))], times)
    found_times, found = seen(path)
    assert [scenes.read_number(p) for p in found] == [0, 3, 5, 6, 8, 10]
    assert found_times == pytest.approx([0, 1.3, 2.0, 4.7, 5.0, 6.2], abs=0.01)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "mpeg4"])
def test_what_is_left_out_changes_no_pixel(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames that nothing refers to are not decoded unless they are wanted; at 5 pictures a second,
    so that some of the wanted ones are such."""
    import av

    path, rng = tmp_path / "film.mkv", np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 112, 168, "yuv420p"
        stream.options = {
            "g": "60",
            "bf": "3",
            "b-pyramid": "normal",
            "log-level": "error",
            "deadline": "realtime",
            "cpu-used": "8",
        }
        for n, picture in enumerate(scenes.frames(0, 8, 25)):
            noisy = picture.astype(int) + rng.integers(0, 9 * (1 + n % 3), picture.shape)
            frame = av.VideoFrame.from_ndarray(noisy.clip(0, 255).astype(np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    filming = Filming(fps=5.0)
    times, quick = seen(path, filming)
    kept = films._decoded
    monkeypatch.setattr(films, "_decoded", lambda c, s, wanted: kept(c, s, frozenset()))
    plain_times, plain = seen(path, filming)
    assert times == plain_times and len(times) == 40
    assert all((a == b).all() for a, b in zip(quick, plain, strict=True))


def test_a_film_of_a_phone_stands_upright(tmp_path: Path, mp4: Callable[..., Path]) -> None:
    """Marked as turned a quarter clockwise: its left side is shown on top."""
    stored = np.full((8, 56, 112, 3), 40, np.uint8)
    stored[:, :, :56] = (220, 30, 30)
    path = scenes.rotated(mp4(stored), tmp_path / "turned.mp4")
    _, found = seen(path)
    assert found[0].shape == (112, 56, 3)
    assert found[0][:40, :, 0].mean() > 150 > 60 > found[0][70:, :, 0].mean()


def boxed(picture: np.ndarray, top: int, left: int) -> np.ndarray:
    """The picture between black bars, with the noise that coding leaves in them."""
    noise = np.random.default_rng(int(picture.sum()) % 97).integers(0, 9, (*picture.shape[:2], 1))
    out = np.repeat(noise, 3, -1).astype(np.uint8)
    inner = picture[: picture.shape[0] - 2 * top, : picture.shape[1] - 2 * left]
    out[top : top + len(inner), left : left + inner.shape[1]] = inner
    return out


@pytest.mark.parametrize(("top", "left"), [(14, 0), (0, 28), (0, 0)])
def test_black_bars_are_cut_off(mp4: Callable[..., Path], top: int, left: int) -> None:
    """What remains fills whole patches, and is the picture."""
    shown = scenes.frames(3, 12, 4, width=168, height=112)
    path = mp4(np.stack([boxed(p, top, left) for p in shown]), fps=4)
    _, found = seen(path)
    height, width = 112 - 2 * top, 168 - 2 * left
    assert {p.shape[:2] for p in found} == {(height // 28 * 28, width // 28 * 28)}
    assert all(p.min(-1).mean(1).min() > 24 and p.min(-1).mean(0).min() > 24 for p in found)
    kept = Image.fromarray(shown[4][:height, :width]).resize(found[1].shape[1::-1])
    assert np.abs(found[1].astype(int) - np.asarray(kept)).mean() < 8
    _, whole = seen(path, Filming(bars=True))
    assert whole[0].shape == (112, 168, 3)


def test_a_dark_film_and_a_dark_beginning_have_no_bars(mp4: Callable[..., Path]) -> None:
    night = np.zeros((40, 112, 168, 3), np.uint8)
    night[:, 50:60, 80:90] = 200
    assert seen(mp4(night, fps=4))[1][0].shape == (112, 168, 3)
    opening = np.concatenate([np.zeros((8, 112, 168, 3), np.uint8), scenes.frames(5, 20, 4)])
    assert seen(mp4(opening, fps=4, name="o.mp4"))[1][0].shape == (112, 168, 3)


def test_files_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(NoPictures):
        seen(scenes.sound(tmp_path / "sound.mp4"))
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "empty.mp4").touch()
    for name in ("noise", "empty", "missing"):
        with pytest.raises(Undecodable):
            seen(tmp_path / f"{name}.mp4")


def test_a_file_cut_short_shows_what_is_there(tmp_path: Path) -> None:
    """An mp4 whose index comes first, as streaming wants it, can be read to where it ends."""
    import av

    path = tmp_path / "whole.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("libx264", rate=4)
        stream.height, stream.width, stream.pix_fmt = 56, 224, "yuv420p"
        for n in range(80):
            frame = av.VideoFrame.from_ndarray(scenes.numbered(n), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    data = path.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) * 2 // 3])
    _, found = seen(cut)
    assert 3 < len(found) < 20
    assert [scenes.read_number(p) for p in found] == [4 * n for n in range(len(found))]


@pytest.mark.parametrize(
    ("width", "height", "wider", "size"),
    [(640, 360, 1, (420, 224)), (112, 112, 1, (112, 112)), (1920, 1080, 1, (420, 224)),
     (720, 576, 16 / 15, (364, 252)), (20, 3000, 1, (28, 2996))],
)  # fmt: skip
def test_sizes_are_whole_patches(
    width: int, height: int, wider: float, size: tuple[int, int]
) -> None:
    assert size_of(width, height, 128 * 28 * 28, wider) == size


# --- vectors -----------------------------------------------------------------------------------


def test_the_built_in_vectors_tell_scenes_apart() -> None:
    one = [scenes.scene(s) for s in range(40)]
    moved = [np.roll(p, 3, 1) for p in one]
    vectors = BuiltIn()([jpeg(p, 90) for p in (*one, *moved)])
    assert vectors.shape[1] == 63 + 48 + 128 and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    product = vectors @ vectors.T
    same = product[np.arange(40), np.arange(40) + 40]
    other = product[:40, :40][~np.eye(40, dtype=bool)]
    assert same.min() > 0.9 > 0.7 > other.max()
    assert (vectors == BuiltIn()([jpeg(p, 90) for p in (*one, *moved)])).all()


def test_a_picture_of_nothing_has_a_vector() -> None:
    black = BuiltIn()([jpeg(np.zeros((56, 56, 3), np.uint8), 90)])
    grey = BuiltIn()([jpeg(np.full((56, 56, 3), 127, np.uint8), 90)])
    assert np.isfinite(black).all() and np.isfinite(grey).all()


def test_clip_from_a_folder(tmp_path: Path) -> None:
    """A CLIP with random weights, saved and loaded as a real one."""
    from evals._torchvision import install

    install()
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        image_size=32, patch_size=8, projection_dim=12,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "tiny-clip")
    size = {"shortest_edge": 32}
    CLIPImageProcessor(size=size, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "tiny-clip"
    )
    clip: Embedder = Clip(str(tmp_path / "tiny-clip"))
    jpegs = [jpeg(scenes.scene(s), 90) for s in range(3)]
    vectors = clip(jpegs)
    assert clip.name == "clip-tiny-clip" and vectors.shape == (3, 12)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert clip(jpegs[1:2])[0] == pytest.approx(vectors[1], abs=1e-5)


def test_an_unknown_embedder_is_named() -> None:
    with pytest.raises(BadInput, match="no embedder 'dhash'"):
        embedder("dhash")


# --- the store ---------------------------------------------------------------------------------


def test_pictures_come_back_by_number(tmp_path: Path) -> None:
    store, shown = Store(tmp_path, FAST), [scenes.scene(s) for s in range(5)]
    with store.writing("ab12") as writer:
        for n, picture in enumerate(shown):
            writer.add(float(n), picture)
    assert store.has("ab12") and not store.has("ab12", "built-in")
    store.embed("ab12", BuiltIn())
    film = store.load("ab12", "built-in")
    assert film.seconds.tolist() == [0, 1, 2, 3, 4] and store.length("ab12") == 4
    assert film.vectors.shape == (5, 239)
    grey = [p[::4, ::4] @ np.array([0.299, 0.587, 0.114]) / 255 for p in shown]
    assert film.light[:, 1] == pytest.approx([g.std() for g in grey], abs=1e-4)
    for n, data in zip((4, 1), store.pictures(film, (4, 1)), strict=True):
        back = np.asarray(Image.open(io.BytesIO(data))).astype(int)
        assert np.abs(back - shown[n]).mean() < 4
        assert not Image.open(io.BytesIO(data)).getexif()


def test_a_film_that_fails_midway_is_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path, FAST)
    with pytest.raises(RuntimeError), store.writing("ab12") as writer:
        writer.add(0.0, scenes.scene(0))
        raise RuntimeError
    assert not store.has("ab12")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
