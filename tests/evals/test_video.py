"""evals.video: the frame law, the very frames asked for, a clear sentence for every bad file."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from evals import video
from evals.errors import Undecodable
from evals.frames import Ask, choose
from evals.types import Protocol, Sample
from evals.video import Clips, Probe, contents, decode, probe, read_image

LAW = Protocol("test", fps=2.0, min_frames=4, max_frames=16)
Writer = Callable[..., Path]


def law(total: int, fps: float) -> tuple[int, ...]:
    return choose("video-r1", total, fps, Ask(2.0, 4, 16)).indices


def ask(path: Path, modality: str = "video", id: str = "q") -> Sample:
    return Sample(id, "?", "numerical", "1", modality, path)  # type: ignore[arg-type]


def numbered(n: int) -> np.ndarray:
    """n frames of 64 x 64 pixels; frame i is grey level 40 + 4 i, so pixels tell its number."""
    levels = 40 + 4 * np.arange(n, dtype=np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (n, 64, 64, 3)).copy()


def numbers(frames: np.ndarray) -> list[int]:
    return [round((float(frame.mean()) - 40) / 4) for frame in frames]


# --- the law -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "fps", "expected"),
    [
        # 4 s at 4 fps: 8 frames; linspace(0, 15, 8) = 0, 2.14, 4.29, 6.43, 8.57, 10.71, 12.86, 15
        (16, 4.0, (0, 2, 4, 6, 9, 11, 13, 15)),
        # 10 s at 30 fps: 20 frames, clamped to 16, steps of 299 / 15 = 19.93
        (300, 30.0, (0, 20, 40, 60, 80, 100, 120, 140, 159, 179, 199, 219, 239, 259, 279, 299)),
        # 1 s: 2 frames, raised to 4
        (30, 30.0, (0, 10, 19, 29)),
        # 3.5 s: 7 frames, made even; linspace(0, 104, 6) = 0, 20.8, 41.6, 62.4, 83.2, 104
        (105, 30.0, (0, 21, 42, 62, 83, 104)),
        (16, 8.0, (0, 5, 10, 15)),
        (6, 3.0, (0, 2, 3, 5)),
        (4, 1.0, (0, 1, 2, 3)),
        (3, 1.0, (0, 2)),
        (2, 30.0, (0, 1)),
        (1, 30.0, (0,)),
    ],
)
def test_golden_frames(total: int, fps: float, expected: tuple[int, ...]) -> None:
    assert law(total, fps) == expected


@settings(max_examples=300)
@given(
    st.integers(1, 20_000), st.floats(0.5, 240), st.floats(0.1, 30), st.integers(1, 8),
    st.integers(0, 60),
)  # fmt: skip
def test_law_properties(total: int, fps: float, target: float, low: int, more: int) -> None:
    found = choose("video-r1", total, fps, Ask(target, 2 * low, 2 * (low + more))).indices
    n = len(found)
    assert n == 1 if total == 1 else n % 2 == 0
    assert n <= min(total, 2 * (low + more))
    assert n >= min(2 * low, total // 2 * 2)
    assert found[0] == 0 and found[-1] == (total - 1 if n > 1 else 0)
    assert all(a < b for a, b in pairwise(found))
    # Each is the whole number nearest to its place on the line. No place is a half: an even number
    # of frames has an odd number of steps.
    for i, frame in enumerate(found):
        assert abs(frame - Fraction((total - 1) * i, max(n - 1, 1))) < Fraction(1, 2)


@settings(max_examples=100)
@given(st.integers(16, 2000), st.floats(1, 60))
def test_between_the_limits_the_rate_is_the_target(total: int, fps: float) -> None:
    n = len(law(total, fps))
    if 4 < n < 16:
        assert n <= total / fps * 2 < n + 2


# --- decoding ----------------------------------------------------------------------------------


def test_decodes_exactly_the_frames_asked(mp4: Writer) -> None:
    path = mp4(numbered(40))
    assert probe(path) == Probe("h264", 40, 4.0, 64, 64)
    clip = Clips(LAW).load(ask(path))
    assert clip is not None
    assert clip.indices == law(40, 4.0) and len(clip.indices) == 16
    assert clip.frames.shape == (16, 64, 64, 3) and clip.frames.dtype == np.uint8
    assert numbers(clip.frames) == list(clip.indices)
    assert (clip.fps, clip.total, clip.duration) == (4.0, 40, 10.0)
    assert clip.sampled_fps == pytest.approx(1.6)  # 16 frames in 10 s
    assert numbers(decode(path, (0, 1, 17, 39))) == [0, 1, 17, 39]


def test_colours_are_rgb(mp4: Writer) -> None:
    red = np.zeros((4, 64, 64, 3), np.uint8)
    red[..., 0] = 255
    clip = Clips(LAW).load(ask(mp4(red)))
    assert clip is not None
    r, g, b = clip.frames.reshape(-1, 3).mean(0)
    assert r > 240 and g < 12 and b < 12


@pytest.mark.parametrize("gop", [1, 12, 250])
def test_any_distance_of_key_frames_and_reordered_ones(tmp_path: Path, gop: int) -> None:
    path = tmp_path / "b.mp4"
    write(path, numbered(30), {"g": str(gop), "bf": "2", "qp": "10"})
    assert numbers(decode(path, (3, 4, 20, 29))) == [3, 4, 20, 29]


FORMS = {
    "gop1": {"g": "1"}, "b": {"g": "48", "bf": "3"}, "long": {"g": "400"},
    "open": {"g": "12", "bf": "3", "x264-params": "open-gop=1"},
    "intra": {"g": "48", "x264-params": "intra-refresh=1"},
}  # fmt: skip
#: Frames before and after key frames, far enough apart that seeking pays; one twice.
WANTED = ((0, 22, 70, 70, 118, 166, 226, 298), (0, 49, 100, 147, 200, 245, 299))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("form", FORMS)
def test_seeking_and_decord_give_the_frames_of_one_pass(
    tmp_path: Path, form: str, suffix: str
) -> None:
    """Seeking always; decord (0.6.0) only where every GOP stands alone: elsewhere it shows damaged
    pictures without a word, which is why files of unknown origin are not its business."""
    path = tmp_path / f"film.{suffix}"
    base = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    write(path, np.stack([np.roll(base, 3 * i, 1) for i in range(300)]), FORMS[form])
    known, same = contents(path), []
    for wanted in WANTED:
        plain = video._in_one_pass(path, wanted)
        whole = np.stack([plain[i] for i in wanted])
        assert (decode(path, wanted) == whole).all()
        if form in ("gop1", "b"):
            assert video._by_seeking(path, wanted, known) is not None
        theirs = video.decode_with_decord(path, wanted, known)
        assert theirs is not None
        same.append((theirs == whole).all())
    assert all(same) == (form not in ("open", "intra"))


def test_seeking_decodes_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted: 4 of 600 frames, a key frame every 50, take at most 4 GOPs."""
    path = tmp_path / "film.mp4"
    write(path, np.zeros((600, 32, 32, 3), np.uint8), {"g": "50"})
    decoded, real = 0, video._open

    class Counted:
        def __init__(self, container: object):
            self.container = container

        def __getattr__(self, name: str) -> object:
            return getattr(self.container, name)

        def decode(self, stream: object = None, **which: int) -> Iterator[object]:
            nonlocal decoded
            for frame in self.container.decode(stream, **which):  # type: ignore[attr-defined]
                decoded += 1
                yield frame

    @contextmanager
    def opened(path: Path) -> Iterator[Counted]:
        with real(path) as container:
            yield Counted(container)

    known = contents(path)
    monkeypatch.setattr(video, "_open", opened)
    decode(path, (0, 199, 399, 599), known)
    assert decoded <= 1 + 3 * 50
    decoded = 0
    video._in_one_pass(path, (0, 199, 399, 599))
    assert decoded == 600


def test_decord_is_not_used_where_it_counts_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "trimmed.mp4"
    write(path, numbered(40), {"g": "250", "bf": "0", "qp": "10"}, shift=5,
          avoid_negative_ts="disabled")  # fmt: skip
    assert video.decode_with_decord(path, (0, 5), contents(path)) is None


def test_a_container_that_lies_about_its_frames(tmp_path: Path) -> None:
    """Its head promises more than there is: named, and decord is never asked (it would hang)."""
    path = tmp_path / "liar.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    write(path, noise, {"qp": "20"}, movflags="faststart")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.9)])
    assert "cut short" in undecodable(path)
    path.write_bytes(data[: int(len(data) * 0.9)] + bytes(len(data) - int(len(data) * 0.9)))
    message = undecodable(path)  # there are 40 packets, but the last ones hold no picture
    assert "decoding failed" in message or "broke off" in message


def write(
    path: Path, frames: np.ndarray, options: dict[str, str], shift: int = 0, **container: str
) -> None:
    """H.264 in the container named by the suffix; the clock starts `shift` frames before 0."""
    with av.open(str(path), "w", options=container) as out:
        stream = out.add_stream("libx264", rate=4)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.options = "yuv420p", options
        for packet in _packets(stream, frames):
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            out.mux(packet)


def _packets(stream: av.VideoStream, frames: np.ndarray) -> Iterator[av.Packet]:
    for array in frames:
        yield from stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24"))
    yield from stream.encode()


def test_a_trimmed_film_shows_what_a_player_shows(tmp_path: Path) -> None:
    """Cutting without encoding leaves frames before the edit list's start; they are not shown."""
    path = tmp_path / "trimmed.mp4"
    write(path, numbered(40), {"g": "250", "bf": "0", "qp": "10"}, shift=5,
          avoid_negative_ts="disabled")  # fmt: skip
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 40  # what the head says
    assert probe(path).frames == 35
    clip = Clips(LAW).load(ask(path))
    assert clip is not None
    assert numbers(clip.frames) == [i + 5 for i in clip.indices]


def test_a_container_without_a_frame_count(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    write(path, numbered(12), {"qp": "10"})
    assert probe(path).frames == 12
    clip = Clips(LAW).load(ask(path))
    assert clip is not None and numbers(clip.frames) == list(clip.indices)


@pytest.mark.parametrize("name", ["a:b.mp4", "-x.mp4", "50%.mp4", "%03d.mp4", "é ü.mp4"])
def test_names_are_only_names(
    mp4: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    mp4(numbered(4), name=name)
    monkeypatch.chdir(tmp_path)
    assert probe(Path(name)).frames == 4
    assert numbers(decode(Path(name), (0, 3))) == [0, 3]


def test_an_image_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    pixels = np.arange(30 * 20 * 3, dtype=np.uint8).reshape(30, 20, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    clip = Clips(LAW).load(ask(tmp_path / "a.png", "image"))
    assert clip is not None
    assert (clip.modality, clip.indices, clip.total) == ("image", (0,), 1)
    assert (clip.frames == pixels[None]).all()
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").shape == (1, 30, 20, 3)


# --- reading once ------------------------------------------------------------------------------


def test_each_clip_is_decoded_once(mp4: Writer) -> None:
    a, b = mp4(numbered(8), name="a.mp4"), mp4(numbered(8), name="b.mp4")
    clips = Clips(LAW)
    loaded = [clips.load(ask(path, id=str(i))) for i, path in enumerate([a, b, a, a, b])]
    assert clips.decodes == 2
    assert loaded[0] is loaded[2] is loaded[3]
    assert clips.load(replace(ask(a), modality="text", media=None)) is None
    assert clips.decodes == 2


def test_memory_is_bounded_in_bytes(mp4: Writer) -> None:
    paths = [mp4(numbered(4), name=f"{i}.mp4") for i in range(3)]
    size = 4 * 64 * 64 * 3
    clips = Clips(LAW, keep=2 * size)
    for path in [*paths, paths[2], paths[1]]:
        clips.load(ask(path))
    assert clips.decodes == 3
    clips.load(ask(paths[0]))  # the one used longest ago has gone
    assert clips.decodes == 4
    clips.load(ask(paths[1]))  # was used after paths[2]
    assert clips.decodes == 4
    small = Clips(LAW, keep=size - 1)
    assert small.load(ask(paths[0])) is not None  # too big to keep is not too big to read


# --- what cannot be read -----------------------------------------------------------------------


def undecodable(path: Path | None, modality: str = "video") -> str:
    with pytest.raises(Undecodable) as caught:
        Clips(LAW).load(replace(ask(Path("x"), modality), media=path))
    message = str(caught.value)
    assert "\n" not in message and (path is None or message.startswith(str(path)))
    return message


def test_no_file(tmp_path: Path) -> None:
    assert "no such file" in undecodable(tmp_path / "none.mp4")
    assert "no such file" in undecodable(tmp_path)  # a folder
    assert "no such file" in undecodable(tmp_path / "none.png", "image")
    assert "name too long" in undecodable(tmp_path / ("x" * 300)).lower()
    assert "no such file" in undecodable(tmp_path / "a\0b.mp4")
    assert "names no file" in undecodable(None)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "e.mp4").touch()
    assert "empty" in undecodable(tmp_path / "e.mp4")
    assert "empty" in undecodable(tmp_path / "e.mp4", "image")


def test_a_film_cut_anywhere(mp4: Writer, tmp_path: Path) -> None:
    """With the index at the end (as written) and at the start (as streamed)."""
    fast = tmp_path / "fast.mp4"
    write(fast, numbered(40), {"g": "250", "qp": "10"}, movflags="faststart")
    for path, last in ((mp4(numbered(40)), 0.9), (fast, 0.999)):
        whole = path.read_bytes()
        for share in (0.01, 0.1, 0.3, 0.5, 0.7, last):
            cut = tmp_path / "cut.mp4"
            cut.write_bytes(whole[: int(len(whole) * share)])
            message = undecodable(cut)
            said = ("not a readable video", "no video stream", "cut short")
            assert any(words in message for words in said)
    assert "frames are there" in message


def test_a_film_with_noise_inside(tmp_path: Path) -> None:
    path = tmp_path / "noise.mp4"
    write(path, numbered(40), {"g": "250", "qp": "10"}, movflags="faststart")
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    data[start : start + 400] = bytes(400)
    path.write_bytes(data)
    assert "decoding failed" in undecodable(path) or "broke off" in undecodable(path)


def test_text_and_playlists(mp4: Writer, tmp_path: Path) -> None:
    mp4(numbered(4), name="real.mp4")
    texts = {
        "text.mp4": "I am not a film.\n" * 50,
        "list.mp4": "ffconcat version 1.0\nfile real.mp4\n",  # FFmpeg would open the other file
        "hls.mp4": "#EXTM3U\n#EXTINF:1,\nreal.mp4\n#EXT-X-ENDLIST\n",
        "text.txt": "drawn as pictures by FFmpeg's tty\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        message = undecodable(tmp_path / name)
        assert "not a readable video" in message or "not a video" in message
    assert "concat" in undecodable(tmp_path / "list.mp4")
    assert "not a readable image" in undecodable(tmp_path / "text.mp4", "image")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP"])
def test_an_image_is_no_video_nor_the_reverse(mp4: Writer, tmp_path: Path, form: str) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.mp4", form)
    assert "not a video" in undecodable(tmp_path / "a.mp4")
    assert "not a readable image" in undecodable(mp4(numbered(4)), "image")


def test_sound_alone(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100)
        for _ in range(10):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate = 44100
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    assert "no video stream" in undecodable(path)


def test_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "none.mp4"
    with av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"}) as out:
        stream = out.add_stream("libx264", rate=4)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        out.start_encoding()
    assert "0 frames" in undecodable(path)


def test_a_broken_image(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "c.ppm").write_bytes(b"P6\n6x 64\n255\n" + bytes(64))  # Pillow: a ValueError
    for name in ("b.png", "c.ppm"):
        assert "not a readable image" in undecodable(tmp_path / name, "image")


def test_pictures_too_slim_to_encode(mp4: Writer, tmp_path: Path) -> None:
    Image.new("RGB", (1000, 4)).save(tmp_path / "line.png")
    assert "1000 x 4 pixels" in undecodable(tmp_path / "line.png", "image")
    assert "1000 x 4 pixels" in undecodable(mp4(np.zeros((4, 4, 1000, 3), np.uint8)))
    Image.new("RGB", (1000, 5)).save(tmp_path / "edge.png")
    assert Clips(LAW).load(ask(tmp_path / "edge.png", "image")) is not None


# --- parts of videos, and videos in archives ---------------------------------------------------


def test_a_span_is_a_video_of_its_own(mp4: Writer) -> None:
    """Frames 4 to 8 of 12 at 4 per second: the model hears of 5 frames and of no other."""
    frames = np.stack([np.full((32, 32, 3), 20 * i, np.uint8) for i in range(12)])
    sample = replace(ask(mp4(frames)), span=(1.0, 2.0))
    clip = Clips(LAW).load(sample)
    assert clip is not None and (clip.total, clip.fps, clip.duration) == (5, 4.0, 1.25)
    assert clip.indices == (0, 1, 3, 4) and clip.seconds == (0.0, 0.25, 0.75, 1.0)
    assert [round(f.mean() / 20) for f in clip.frames] == [4, 5, 7, 8]
    whole = Clips(replace(LAW, clipped=False)).load(sample)
    assert whole is not None and whole.total == 12
    cut = Clips(LAW).load(replace(sample, span=None, stop=6))
    assert cut is not None and cut.total == 6 and round(cut.frames[-1].mean() / 20) == 5


def test_questions_on_two_parts_of_a_video_do_not_share_a_clip(mp4: Writer) -> None:
    path = mp4(np.zeros((12, 32, 32, 3), np.uint8))
    clips = Clips(LAW)
    one, two = (clips.load(replace(ask(path), span=s)) for s in ((0.0, 1.0), (1.0, 2.5)))
    assert one is not None and two is not None and (one.total, two.total) == (5, 7)
    assert clips.decodes == 2


def test_a_span_beyond_the_end_is_undecodable(mp4: Writer) -> None:
    path = mp4(np.zeros((12, 32, 32, 3), np.uint8))
    with pytest.raises(Undecodable, match=r"clip\.mp4: no frame of 12 lies in the question's part"):
        Clips(LAW).load(replace(ask(path), span=(9.0, 10.0)))


def test_a_film_in_a_zip(mp4: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REELPROOF_CACHE", str(tmp_path / "cache"))
    path = mp4(np.zeros((8, 32, 32, 3), np.uint8))
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as out:
        out.write(path, "d/clip.mp4")
    clip = Clips(LAW).load(ask(tmp_path / "films.zip" / "d" / "clip.mp4"))
    assert clip is not None and clip.total == 8
    with pytest.raises(Undecodable, match=r"films\.zip holds no d/none\.mp4"):
        Clips(LAW).load(ask(tmp_path / "films.zip" / "d" / "none.mp4"))
    with pytest.raises(Undecodable, match="no such file"):
        Clips(LAW).load(ask(tmp_path / "none.zip" / "clip.mp4"))


@pytest.mark.parametrize(("encoder", "name"), [("ffv1", "x.mkv"), ("mjpeg", "x.avi")])
def test_a_codec_that_is_not_on_the_list(encoder: str, name: str, tmp_path: Path) -> None:
    with av.open(str(tmp_path / name), "w") as out:
        stream = out.add_stream(encoder, rate=4)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuvj420p" if encoder == "mjpeg" else "yuv420p"
        for n in (*range(4), None):
            picture = np.full((64, 64, 3), 9, np.uint8)
            frame = None if n is None else av.VideoFrame.from_ndarray(picture, format="rgb24")
            out.mux(stream.encode(frame))
    assert f"{encoder} video is not opened" in undecodable(tmp_path / name)


def test_ffmpeg_starts_no_other_decoder(tmp_path: Path) -> None:
    """Opening a file makes FFmpeg decode some of it: the list must hold there, not only after."""
    with av.open(str(tmp_path / "x.flv"), "w") as out:
        stream = out.add_stream("flv", rate=4)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    with av.open(str(tmp_path / "x.flv")) as free, video._open(tmp_path / "x.flv") as bound:
        seen = [c.streams.video[0].codec_context.width for c in (free, bound)]
    assert seen == [64, 0], "only a decoder finds the width of such a file"


def test_frames_beyond_any_screen(mp4: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    path = mp4(numbered(4))
    height, width = numbered(4).shape[1:3]
    monkeypatch.setattr(video, "_LARGEST", height * width - 1)
    assert f"{width} x {height} are too large" in undecodable(path)
