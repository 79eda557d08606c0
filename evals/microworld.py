"""A deterministic world of coloured shapes on short H.264 films; every question's gold is exact.

A film lasts 4 seconds: 8 ticks of half a second, 16 frames at 4 fps, 112 x 112 pixels, one shape
per quadrant. Every frame is a key frame at constant quality, so equal pictures decode to equal
pixels wherever they stand in a film: the twin of an order film (the same film backwards) shows
exactly the same sampled frames in another order. All sizes are chosen.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

VERSION = 1
SIDE = 112
FPS = 4
TICKS = 8
FRAMES_PER_TICK = 2
TICK_SECONDS = FRAMES_PER_TICK / FPS
COLOURS = {
    "red": (230, 40, 40),
    "green": (40, 200, 60),
    "blue": (50, 90, 240),
    "yellow": (240, 220, 50),
}
SHAPES = ("circle", "square", "triangle")
CELLS = ((0, 0), (1, 0), (0, 1), (1, 1))
BACKGROUND = (24, 24, 28)
FAMILIES = ("attribute", "order", "count", "cause", "locate", "located")

#: Films per split (chosen). Test: 320 films x 4 questions = 1,280 questions. The `timed` splits are
#: relays, asked when something is seen: 200 films x 5 questions in the test split. The `masked`
#: splits are ordinary films and as many processions, asked what is missing (evals.procession).
SIZES = {
    "train": 480, "validation": 120, "test": 320, "cold": 2400,
    "timed-train": 480, "timed-validation": 60, "timed-test": 200, "timed-cold": 1600,
    "masked-train": 240, "masked-validation": 60, "masked-test": 160, "masked-cold": 1000,
}  # fmt: skip
TIMED, MASKED = "timed-", "masked-"
#: A film belongs to the split whose bucket its content hashes into, so no film is in two splits.
BUCKETS = {
    "test": range(0, 4),
    "validation": range(4, 6),
    "train": range(6, 12),
    "cold": range(12, 20),
}


def buckets(split: str) -> range:
    """Buckets of a split, whatever is asked about its films."""
    return BUCKETS[split.removeprefix(TIMED).removeprefix(MASKED)]


@dataclass(frozen=True)
class State:
    """One visible shape during one tick; x, y are quadrant coordinates (0 or 1, fractions move)."""

    colour: str
    shape: str
    x: float
    y: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Event:
    """appear, vanish, move, change or collide: who, and from which tick to which (exclusive)."""

    kind: str
    who: str
    start: int
    end: int
    by: str = ""


@dataclass(frozen=True)
class Film:
    """A timeline: `ticks[t]` lists the visible shapes; `kind` names how it was composed."""

    kind: str
    ticks: tuple[tuple[State, ...], ...]
    events: tuple[Event, ...]

    def span(self, name: str) -> tuple[int, int]:
        """First tick in which the shape is visible, and the tick after its last."""
        seen = [t for t, states in enumerate(self.ticks) if any(s.name == name for s in states)]
        return seen[0], seen[-1] + 1

    def place(self, name: str) -> State:
        """The shape's state in the first tick in which it is visible."""
        return next(s for states in self.ticks for s in states if s.name == name)

    @property
    def names(self) -> list[str]:
        """Names in order of first appearance, ties in drawing order."""
        return list(dict.fromkeys(s.name for states in self.ticks for s in states))

    def backwards(self) -> Film:
        """The twin: the same pictures in reverse order."""
        flip = {"appear": "vanish", "vanish": "appear"}
        events = tuple(
            replace(e, kind=flip[e.kind], start=TICKS - e.end, end=TICKS - e.start)
            for e in reversed(self.events)
        )
        return Film(self.kind, self.ticks[::-1], events)

    def bucket(self) -> int:
        """0..19, equal for a film and its twin."""
        keys = sorted(
            json.dumps([[asdict(s) for s in t] for t in ticks])
            for ticks in (self.ticks, self.ticks[::-1])
        )
        return hashlib.sha256(keys[0].encode()).digest()[0] * 20 // 256


# --- composing films ---------------------------------------------------------------------------


def _cast(rng: np.random.Generator, n: int) -> list[tuple[str, str]]:
    """n (colour, shape) pairs with different colours; shapes differ as far as there are enough."""
    colours = rng.permutation(list(COLOURS))[:n]
    shapes = list(rng.permutation(SHAPES)) + list(rng.permutation(SHAPES))
    return [(str(c), str(s)) for c, s in zip(colours, shapes, strict=False)]


def parade(rng: np.random.Generator) -> Film:
    """Two to four shapes, one after the other, each visible for one of the four seconds.

    A second is one temporal patch of the model (two sampled frames), so permuting patches permutes
    what happened.
    """
    n = int(rng.choice([2, 3, 4], p=[0.4, 0.35, 0.25]))
    cast, cells = _cast(rng, n), rng.integers(0, 4, n)
    seconds = np.sort(rng.permutation(TICKS // 2)[:n])
    ticks: list[tuple[State, ...]] = [()] * TICKS
    events = []
    for i, (colour, shape) in enumerate(cast):
        at = 2 * int(seconds[i])
        state = State(colour, shape, *map(float, CELLS[cells[i]]))
        ticks[at] = ticks[at + 1] = (state,)
        events.append(Event("appear", state.name, at, at + 1))
        events.append(Event("vanish", state.name, at + 1, at + 2))
    return Film("parade", tuple(ticks), tuple(events))


def relay(rng: np.random.Generator) -> Film:
    """Two or three shapes, one after the other, each visible for a second or longer, with or
    without a pause between them; ends lie on half seconds, so that an answer may be nearly right.
    """
    n = int(rng.choice([2, 3], p=[0.6, 0.4]))
    cast, cells = _cast(rng, n), rng.integers(0, 4, n)
    spare = rng.multinomial(TICKS - 2 * n, [1 / (2 * n + 1)] * (2 * n + 1))
    ticks: list[tuple[State, ...]] = [()] * TICKS
    events, at = [], 0
    for (colour, shape), cell, pause, longer in zip(
        cast, cells, spare[:n], spare[n : 2 * n], strict=True
    ):
        start = at + int(pause)
        at = start + 2 + int(longer)
        state = State(colour, shape, *map(float, CELLS[cell]))
        ticks[start:at] = [(state,)] * (at - start)
        events.append(Event("appear", state.name, start, start + 1))
        events.append(Event("vanish", state.name, at - 1, at))
    return Film("relay", tuple(ticks), tuple(events))


def collide(rng: np.random.Generator) -> Film:
    """One shape runs into a second, which jumps to the free quadrant; a third stands by.

    In one film of three the second moves by itself, and both others stand by.
    """
    cast = _cast(rng, 3)
    cells = [CELLS[i] for i in rng.permutation(4)]
    (tx, ty), (ax, ay), (bx, by), (fx, fy) = cells
    pushed = rng.random() < 2 / 3
    hit = int(rng.integers(2, 5))
    target, mover, bystander = (State(c, s, 0, 0) for c, s in cast)
    ticks = []
    for t in range(TICKS):
        push = min(max(t - hit + 2, 0), 2) * 0.2 if pushed else 0.0
        jumped = t >= hit + 1
        ticks.append(
            (
                replace(target, x=float(fx if jumped else tx), y=float(fy if jumped else ty)),
                replace(mover, x=ax + push * (tx - ax), y=ay + push * (ty - ay)),
                replace(bystander, x=float(bx), y=float(by)),
            )
        )
    events = [Event("move", target.name, hit, hit + 2, by=mover.name if pushed else "")]
    if pushed:
        events.insert(0, Event("move", mover.name, hit - 2, hit))
        events.insert(1, Event("collide", mover.name, hit, hit + 1, by=target.name))
    return Film("collide", tuple(ticks), tuple(events))


def change(rng: np.random.Generator) -> Film:
    """Two shapes stand still; one changes its colour."""
    (c0, s0), (c1, s1) = _cast(rng, 2)
    new = str(rng.choice([c for c in COLOURS if c not in (c0, c1)]))
    first, second = (CELLS[i] for i in rng.permutation(4)[:2])
    when = int(rng.integers(2, 7))
    still = State(c1, s1, *map(float, second))
    ticks = tuple(
        (State(new if t >= when else c0, s0, *map(float, first)), still) for t in range(TICKS)
    )
    return Film("change", ticks, (Event("change", f"{c0} {s0}", when, when + 1, by=new),))


def still(rng: np.random.Generator) -> Film:
    """One to four shapes in an unmoving picture: the still-image records."""
    n = int(rng.integers(1, 5))
    cells = rng.permutation(4)[:n]
    states = tuple(
        State(c, s, *map(float, CELLS[k])) for (c, s), k in zip(_cast(rng, n), cells, strict=True)
    )
    return Film("still", (states,) * TICKS, ())


#: Composition of ten consecutive films (chosen); a parade is followed by its twin.
MIX: tuple[Callable[[np.random.Generator], Film], ...] = (
    parade, parade, collide, still, parade, parade, change, parade, parade, collide,
)  # fmt: skip
IN_TURN = ("parade", "relay")  # films in which one shape follows another; each has a twin


# --- asking ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """One question with exact gold. `process` is the reasoning a cold start is taught."""

    family: str
    text: str
    kind: str
    options: tuple[str, ...]
    answer: str
    process: str
    interval: tuple[float, float]
    about: str


def _choice(
    rng: np.random.Generator, family: str, text: str, right: str, others: list[str], because: str,
    span: tuple[int, int], about: str, where: str = "",
) -> Question:  # fmt: skip
    # Sorted first, so that a film and its twin print the same options in the same order.
    texts = [str(t) for t in rng.permutation(sorted([right, *others]))]
    letter = "ABCDEF"[texts.index(right)]
    options = tuple(f"{'ABCDEF'[i]}. {t}" for i, t in enumerate(texts))
    seconds = (span[0] * TICK_SECONDS, span[1] * TICK_SECONDS)
    kind = "grounded qa" if where else "multiple choice"
    return Question(
        family, text, kind, options, letter + where, f"{because}, so {right}", seconds, about
    )


def _seconds(span: tuple[int, int]) -> str:
    return f"[{span[0] * TICK_SECONDS:.1f}, {span[1] * TICK_SECONDS:.1f}]"


def _attribute(rng: np.random.Generator, film: Film) -> Question | None:
    if film.kind == "change":
        event = film.events[0]
        old, shape = event.who.split()
        return _choice(
            rng, "attribute", f"What colour does the {shape} become?", event.by,
            [c for c in COLOURS if c != event.by], f"{old} {shape} turns {event.by}",
            (event.start, TICKS), f"{event.by} {shape}",
        )  # fmt: skip
    shapes = [name.split()[1] for name in film.names]
    unique = [name for name in film.names if shapes.count(name.split()[1]) == 1]
    if not unique:
        return None
    name = str(rng.choice(unique))
    colour, shape = name.split()
    if rng.random() < 0.5:
        return _choice(
            rng, "attribute", f"What colour is the {shape}?", colour,
            [c for c in COLOURS if c != colour], name, film.span(name), name,
        )  # fmt: skip
    return _choice(
        rng, "attribute", f"Which shape is {colour}?", shape, [s for s in SHAPES if s != shape],
        name, film.span(name), name,
    )  # fmt: skip


def _order(rng: np.random.Generator, film: Film) -> Question | None:
    if film.kind not in IN_TURN:
        return None
    first = rng.random() < 0.5
    name = film.names[0] if first else film.names[-1]
    return _choice(
        rng, "order", f"Which came {'first' if first else 'last'}?", name,
        [n for n in film.names if n != name], ", then ".join(film.names), (0, TICKS), name,
    )  # fmt: skip


def _count(rng: np.random.Generator, film: Film) -> Question | None:
    if film.kind not in ("parade", "still"):  # elsewhere the number never varies
        return None
    n = len(film.names)
    return Question(
        "count", "How many shapes are there?", "numerical", (), str(n),
        f"{', '.join(film.names)}, so {n}", (0.0, TICKS * TICK_SECONDS), film.names[0],
    )  # fmt: skip


def _cause(rng: np.random.Generator, film: Film) -> Question | None:
    if film.kind != "collide":
        return None
    event = film.events[-1]
    others = [n for n in film.names if n != event.who]
    right = event.by or "nothing"
    because = f"{event.by} hits {event.who}" if event.by else f"{event.who} moves alone"
    return _choice(
        rng, "cause", f"What made the {event.who} move?", right,
        [n for n in [*others, "nothing"] if n != right], because,
        (max(0, event.start - 2), event.end), event.by or event.who,
    )  # fmt: skip


def _locate(rng: np.random.Generator, film: Film) -> Question | None:
    if film.kind not in IN_TURN:
        return None
    name = str(rng.choice(film.names))
    span = film.span(name)
    return Question(
        "locate", f"When is the {name} visible?", "temporal grounding", (), _seconds(span),
        name, (span[0] * TICK_SECONDS, span[1] * TICK_SECONDS), name,
    )  # fmt: skip


def _located(rng: np.random.Generator, film: Film) -> Question | None:
    if film.kind != "parade":
        return None
    name = film.names[0]
    span = film.span(name)
    return _choice(
        rng, "located", "Which came first, and when?", name, film.names[1:],
        ", then ".join(film.names), span, name, where=f" {_seconds(span)}",
    )  # fmt: skip


def _ends(rng: np.random.Generator, film: Film) -> Question:
    first = rng.random() < 0.5
    name = film.names[0] if first else film.names[-1]
    span = film.span(name)
    return _choice(
        rng, "located", f"Which came {'first' if first else 'last'}, and when?", name,
        [n for n in film.names if n != name], ", then ".join(film.names), span, name,
        where=f" {_seconds(span)}",
    )  # fmt: skip


#: The first asker that can ask does; the rest follow in an order drawn per film.
FIRST, REST = (_order, _cause), (_attribute, _attribute, _count, _locate, _located)


def ask(film: Film, rng: np.random.Generator, n: int = 4) -> list[Question]:
    """Up to n different questions about a film: its order or cause question always, then others.

    A relay has five: two of choice, two of when, and one of both.
    """
    if film.kind == "relay":
        return _ask_relay(film, rng)
    questions: dict[tuple[str, tuple[str, ...]], Question] = {}
    for asker in (*FIRST, *(REST[i] for i in rng.permutation(len(REST)))) + (_attribute,) * 16:
        question = asker(rng, film)
        if question and len(questions) < n:
            questions.setdefault((question.text, tuple(sorted(question.options))), question)
    return list(questions.values())


def _ask_relay(film: Film, rng: np.random.Generator) -> list[Question]:
    """The attribute question is left out where two shapes are alike."""
    questions = {q.text: q for q in (_locate(rng, film) for _ in range(16)) if q}
    asked = (_order(rng, film), _attribute(rng, film), _ends(rng, film))
    return [*(q for q in asked if q), *list(questions.values())[:2]]


# --- drawing and writing -----------------------------------------------------------------------


def render(film: Film) -> npt.NDArray[np.uint8]:
    """(16, 112, 112, 3) uint8 RGB. A shape that moves is halfway in the second frame of a tick."""
    return np.stack([_draw(film, f) for f in range(TICKS * FRAMES_PER_TICK)])


def _draw(film: Film, frame: int) -> npt.NDArray[np.uint8]:
    tick, late = divmod(frame, FRAMES_PER_TICK)
    states = film.ticks[tick]
    if late and film.kind == "collide":
        after = film.ticks[min(tick + 1, TICKS - 1)]
        states = tuple(
            replace(s, x=(s.x + a.x) / 2, y=(s.y + a.y) / 2)
            for s, a in zip(states, after, strict=True)
        )
    return paint(states)


def paint(states: Sequence[State]) -> npt.NDArray[np.uint8]:
    """(112, 112, 3) uint8 RGB: the shapes on their background."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (SIDE, SIDE), BACKGROUND)
    pen = ImageDraw.Draw(picture)
    half = SIDE // 2
    for state in states:
        cx, cy, r = half * (state.x + 0.5), half * (state.y + 0.5), half * 0.38
        box = (cx - r, cy - r, cx + r, cy + r)
        if state.shape == "circle":
            pen.ellipse(box, fill=COLOURS[state.colour])
        elif state.shape == "square":
            pen.rectangle(box, fill=COLOURS[state.colour])
        else:
            pen.polygon([(cx, cy - r), (cx + r, cy + r), (cx - r, cy + r)], COLOURS[state.colour])
    return np.asarray(picture)


def write_film(frames: npt.NDArray[np.uint8], path: Path, *, fps: int = FPS) -> None:
    """(F, H, W, 3) uint8 to an H.264 mp4: one thread, key frames only, constant quantiser."""
    import av

    with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as out:
        stream = out.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.codec_context.thread_count = 1
        stream.options = {"qp": "18", "g": "1", "bf": "0", "preset": "veryfast"}
        for array in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)


def films(split: str, n: int, seed: int) -> Iterator[tuple[str, Film, str]]:
    """(id, film, id of its twin or ""), deterministic, all in the split's content buckets."""
    emitted, draw = 0, 0
    pending: tuple[str, Film, str] | None = None
    while emitted < n:
        if pending:
            yield pending
            pending, emitted = None, emitted + 1
            continue
        compose = relay if split.startswith(TIMED) else MIX[emitted % len(MIX)]
        film = compose(np.random.default_rng([seed, VERSION, draw]))
        draw += 1
        if film.bucket() not in buckets(split):
            continue
        name, other = f"{split}-{emitted:05d}", f"{split}-{emitted + 1:05d}"
        if film.kind in IN_TURN and emitted + 1 < n:
            pending = (other, film.backwards(), name)
            yield name, film, other
        else:
            yield name, film, ""
        emitted += 1


def region(film: Film, about: str) -> tuple[float, float, float, float]:
    """Bounding box (x0, y0, x1, y1) in 0..1 of the quadrants in which the shape is seen."""
    seen = [s for states in film.ticks for s in states if s.name == about]
    xs, ys = [s.x / 2 for s in seen], [s.y / 2 for s in seen]
    return min(xs), min(ys), max(xs) + 0.5, max(ys) + 0.5


def _records(split: str, n: int, seed: int, root: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for index, (name, film, twin) in enumerate(films(split, n, seed)):
        image = film.kind == "still"
        path = f"films/{name}.{'png' if image else 'mp4'}"
        frames = render(film)
        if image:
            from PIL import Image

            Image.fromarray(frames[0]).save(root / path)
        else:
            write_film(frames, root / path)
        # A film and its twin are asked the same questions where the same questions exist.
        key = min(index, index + (1 if twin > name else -1)) if twin else index
        for question in ask(film, np.random.default_rng([seed, VERSION, key, 1])):
            records.append(
                {
                    "problem_id": len(records) + 1,
                    "problem": question.text,
                    "data_type": "image" if image else "video",
                    "problem_type": question.kind,
                    "options": list(question.options) or None,
                    "process": f"<think>I see {question.process}</think>",
                    "solution": f"<answer>{question.answer}</answer>",
                    "path": path,
                    "data_source": "microworld",
                    "family": question.family,
                    "film": film.kind,
                    "twin": twin,
                    "evidence": {
                        "interval": list(question.interval),
                        "region": list(region(film, question.about)),
                    },
                }
            )
    return records


def default_cache() -> Path:
    """`$REELPROOF_CACHE`, else `~/.cache/reelproof`."""
    return Path(os.environ.get("REELPROOF_CACHE", Path.home() / ".cache" / "reelproof"))


def make(split: str, *, n: int | None = None, seed: int = 0, cache: Path | None = None) -> Path:
    """Write a split once and return its folder: `records.json` and `films/`.

    n: films, by default SIZES[split]. The folder appears by renaming, so an interrupted call leaves
    nothing that a later one would take for complete.
    """
    if split not in SIZES:
        raise ValueError(f"microworld has no split {split!r}; it has {', '.join(SIZES)}")
    n = SIZES[split] if n is None else n
    folder = (cache or default_cache()) / "microworld" / f"v{VERSION}-{split}-{n}-s{seed}"
    if (folder / "records.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        (scratch / "films").mkdir()
        records = _records(split, n, seed, scratch)
        if split.startswith(MASKED):
            from evals import procession

            records += procession.records(split, n, seed, scratch, len(records) + 1)
        (scratch / "records.json").write_text(json.dumps(records, indent=0))
        try:
            scratch.rename(folder)
        except OSError:
            if not (folder / "records.json").exists():  # another process may have been faster
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder
