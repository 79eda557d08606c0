"""Items from a video's vectors: a masked stretch, hard distractors, a seeded shuffle (mvp.md 1.3).

    walk    from a random start keep a picture when it differs from the last kept one, until N + h
    mask    K consecutive kept pictures, `side` or more kept ones before and after
    context the other kept ones, but for h held out, which are distractors
    others  distractors from just outside the walk; l in all, both sides of the mask
    pool    K + l pictures, shuffled; the answer is where the masked ones lie, in order

An item is well posed: no candidate is like another candidate or like the context (product above
kappa), and no distractor was shown inside the gap or within one accepted step of it. Pictures that
the walk refused inside its window are never used: each is like a kept one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from evals.seeds import derive
from repro.mvp.synthesis.store import Film

Lost = Literal["short", "static", "looping", "repeats", "no distractors"]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Sampling:
    """How pass 2 draws; every number is chosen (mvp.md 11.1). kappa: pictures are alike above it.

    frames: N, masked ones included. distractors: l, or None for as many as are masked. per_film:
    items of each K at most, from windows that do not overlap. shortest: seconds that must remain
    after `trim` of the length is cut off at both ends. neighbourhood: seconds on each side of the
    window from which others come, at least its own length. guard: leave out the kept pictures that
    touch the gap. flat: luma spread below which a picture is a fade or a title, and is not used.
    """

    kappa: float
    ks: tuple[int, ...] = (4,)
    frames: int = 16
    distractors: int | None = None
    per_film: int = 3
    shortest: float = 24.0
    trim: float = 0.05
    side: int = 3
    neighbourhood: float = 30.0
    guard: bool = False
    flat: float = 0.03
    draws: int = 20
    seed: int = 0

    @property
    def key(self) -> str:
        """First 12 hex digits of the sha256 of its values."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:12]

    def pool(self, k: int) -> int:
        """Candidates: K + l."""
        return k + (k if self.distractors is None else self.distractors)


@dataclass(frozen=True)
class Item:
    """One question. before, after: pictures of the context; candidates: as shown; answer: 1-based
    slots of the masked pictures in their order; sources: `masked`, `held` or `outside` per slot;
    alike: highest and mean product within the pool, and the highest between pool and context;
    gap: seconds of one accepted step."""

    film: str
    k: int
    number: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    candidates: tuple[int, ...]
    answer: tuple[int, ...]
    sources: tuple[str, ...]
    alike: tuple[float, float, float]
    gap: float

    @property
    def id(self) -> str:
        return f"{self.film[:16]}-{self.k}-{self.number}"

    @property
    def masked(self) -> tuple[int, ...]:
        """The pictures that the answer names, in order."""
        return tuple(self.candidates[slot - 1] for slot in self.answer)


@dataclass(frozen=True)
class Usable:
    """The part of a video that items may be drawn from; numbers: of its pictures in the store."""

    seconds: npt.NDArray[np.float64]
    vectors: npt.NDArray[np.float32]
    numbers: Ints

    @classmethod
    def of(cls, film: Film, sampling: Sampling) -> Usable:
        end = film.seconds[-1] if len(film.seconds) else 0.0
        cut = sampling.trim * end
        keep = (film.seconds >= cut) & (film.seconds <= end - cut)
        keep &= film.light[:, 1] >= sampling.flat
        return cls(film.seconds[keep], film.vectors[keep], np.flatnonzero(keep))

    @property
    def length(self) -> float:
        return float(self.seconds[-1] - self.seconds[0]) if len(self.seconds) else 0.0


def walk(vectors: npt.NDArray[np.float32], start: int, kappa: float, n: int) -> list[int]:
    """Up to n places, from `start`, each unlike the one kept before it."""
    kept = [start]
    while len(kept) < n:
        at, ahead = kept[-1] + 1, 32
        while at < len(vectors):
            unlike = np.flatnonzero(vectors[at : at + ahead] @ vectors[kept[-1]] <= kappa)
            if len(unlike):
                kept.append(at + int(unlike[0]))
                break
            at, ahead = at + ahead, ahead * 4
        else:
            return kept
    return kept


def items(film: Film, sampling: Sampling) -> tuple[list[Item], Lost | None]:
    """A film's items, K by K; without any, why there are none."""
    usable = Usable.of(film, sampling)
    if usable.length < sampling.shortest:
        return [], "short"
    found: list[Item] = []
    reasons: set[Lost] = set()
    for k in sampling.ks:
        windows: list[tuple[int, int]] = []
        for number in range(sampling.per_film):
            item = _draw(film.id, usable, sampling, k, number, windows)
            if not isinstance(item, Item):
                reasons.add(item)
                break
            found.append(item)
    if found:
        return found, None
    if reasons == {"static"}:
        return [], "static"
    if _loops(usable, sampling.kappa):
        return [], "looping"
    return [], "no distractors" if "no distractors" in reasons else "repeats"


def _draw(
    film: str, usable: Usable, sampling: Sampling, k: int, number: int,
    windows: list[tuple[int, int]],
) -> Item | Lost:  # fmt: skip
    """An item outside the windows drawn so far, or how far the best draw came: no walk long enough
    (static), none with K pictures to mask (repeats), none with enough distractors."""
    distractors = sampling.pool(k) - k
    held = distractors // 2
    best: Lost = "static"
    for draw in range(sampling.draws):
        rng = np.random.default_rng(derive(sampling.seed, film, k, number, draw))
        start = int(rng.integers(len(usable.seconds))) if draw + 1 < sampling.draws else 0
        kept = walk(usable.vectors, start, sampling.kappa, sampling.frames + held)
        if len(kept) < sampling.frames + held:
            continue
        best = "repeats" if best == "static" else best
        if any(a <= kept[-1] and kept[0] <= b for a, b in windows):
            continue
        item = _Window(usable, sampling, k, kept, rng).item(film, number, held, distractors)
        if isinstance(item, Item):
            windows.append((kept[0], kept[-1]))
            return item
        best = item if item == "no distractors" else best
    return best


class _Window:
    """One walk, and what can be made of it."""

    def __init__(
        self, usable: Usable, sampling: Sampling, k: int, kept: list[int], rng: np.random.Generator
    ):
        self.usable, self.sampling, self.k, self.rng = usable, sampling, k, rng
        self.kept = np.array(kept)
        self.gap = float(np.median(np.diff(usable.seconds[self.kept])))

    def item(self, film: str, number: int, held: int, distractors: int) -> Item | Lost:
        """Or why no well-posed item can be made of it."""
        mask = self._mask()
        if mask is None:
            return "repeats"
        masked = self.kept[mask : mask + self.k]
        spared = self._held(mask, held)
        context = self._context(masked, spared)
        if self.sampling.guard:
            context = np.setdiff1d(context, self.kept[[mask - 1, mask + self.k]])
        outside = self._outside(masked, context, spared, distractors - len(spared))
        drawn = np.concatenate([masked, spared, outside])
        if len(drawn) < self.k + distractors or not self._on_both_sides(drawn[self.k :], masked):
            return "no distractors"
        order = self.rng.permutation(len(drawn))
        source = ["masked"] * self.k + ["held"] * len(spared) + ["outside"] * len(outside)
        return Item(
            film, self.k, number,
            before=self._names(context[context < masked[0]]),
            after=self._names(context[context > masked[0]]),
            candidates=self._names(drawn[order]),
            answer=tuple(int(slot) + 1 for slot in np.argsort(order)[: self.k]),
            sources=tuple(source[i] for i in order),
            alike=self._alike(drawn, context), gap=self.gap,
        )  # fmt: skip

    def _names(self, places: Ints) -> tuple[int, ...]:
        return tuple(int(n) for n in self.usable.numbers[places])

    def _mask(self) -> int | None:
        """A place in the walk from which K pictures are unlike all others of the walk."""
        alike = self._products(self.kept, self.kept)
        np.fill_diagonal(alike, -1)
        clean = np.asarray((alike <= self.sampling.kappa).all(1))
        room = range(self.sampling.side, len(self.kept) - self.k - self.sampling.side + 1)
        starts = [a for a in room if clean[a : a + self.k].all()]
        return int(self.rng.choice(starts)) if starts else None

    def _held(self, mask: int, wanted: int) -> Ints:
        """Kept pictures, two or more places from the mask, for distractors."""
        alike = self._products(self.kept, self.kept)
        np.fill_diagonal(alike, -1)
        clean = (alike <= self.sampling.kappa).all(1)
        far = self._far(self.kept, self.kept[mask : mask + self.k])
        places = np.arange(len(self.kept))
        near = (places > mask - 2) & (places < mask + self.k + 1)
        free = places[clean & far & ~near]
        spare = {True: mask - self.sampling.side,
                 False: len(self.kept) - mask - self.k - self.sampling.side}  # fmt: skip
        chosen: list[int] = []
        for place in self._in_turn(free[free < mask], free[free > mask]):
            earlier = bool(place < mask)
            if len(chosen) < wanted and spare[earlier] > 0:
                spare[earlier] -= 1
                chosen.append(place)
        found: Ints = self.kept[np.array(sorted(chosen), int)]
        return found

    def _context(self, masked: Ints, spared: Ints) -> Ints:
        """N - K kept pictures: where fewer could be held out than wanted, the walk is cut shorter
        at the end that has more."""
        context = np.setdiff1d(self.kept, np.concatenate([masked, spared]))
        while len(context) > self.sampling.frames - self.k:
            later = int((context > masked[-1]).sum())
            context = context[:-1] if 2 * later >= len(context) else context[1:]
        return context

    def _outside(self, masked: Ints, context: Ints, spared: Ints, wanted: int) -> Ints:
        """Pictures before and after the walk, unlike everything shown."""
        t = self.usable.seconds
        first, last = t[self.kept[0]], t[self.kept[-1]]
        reach = max(self.sampling.neighbourhood, last - first)
        around = (t >= first - reach) & (t <= last + reach) & ((t < first) | (t > last))
        near = np.flatnonzero(around & self._far(np.arange(len(t)), masked))
        shown = np.concatenate([masked, context, spared])
        near = near[(self._products(near, shown) <= self.sampling.kappa).all(1)]
        chosen: list[int] = []
        for place in self._in_turn(near[near < masked[0]], near[near > masked[0]]):
            if len(chosen) == wanted:
                break
            if (self._products([place], chosen) <= self.sampling.kappa).all():
                chosen.append(place)
        return np.array(sorted(chosen), int)

    def _far(self, places: Ints, masked: Ints) -> npt.NDArray[np.bool_]:
        """Whether each was shown more than one accepted step before or after the gap."""
        t = self.usable.seconds
        early, late = t[masked[0]] - self.gap, t[masked[-1]] + self.gap
        far: npt.NDArray[np.bool_] = (t[places] < early) | (t[places] > late)
        return far

    def _in_turn(self, earlier: Ints, later: Ints) -> list[int]:
        """All of both sides, in random order, one from each side in turn while both last."""
        sides = [list(self.rng.permutation(side)) for side in (earlier, later)]
        if self.rng.random() < 0.5:
            sides.reverse()
        both = [int(p) for pair in zip(*sides, strict=False) for p in pair]
        shorter = min(map(len, sides))
        return both + [int(p) for side in sides for p in side[shorter:]]

    def _on_both_sides(self, distractors: Ints, masked: Ints) -> bool:
        sides = {bool(d < masked[0]) for d in distractors}
        return len(sides) == min(2, len(distractors))

    def _products(
        self, a: Sequence[int] | Ints, b: Sequence[int] | Ints
    ) -> npt.NDArray[np.float32]:
        v = self.usable.vectors
        found: npt.NDArray[np.float32] = v[np.asarray(a, int)] @ v[np.asarray(b, int)].T
        return found

    def _alike(self, drawn: Ints, context: Ints) -> tuple[float, float, float]:
        pool = self._products(drawn, drawn)[np.triu_indices(len(drawn), 1)]
        across = self._products(drawn, context)
        return tuple(round(float(x), 4) for x in (pool.max(), pool.mean(), across.max()))  # type: ignore[return-value]


def _loops(usable: Usable, kappa: float) -> bool:
    """Whether the video shows the same again: at some lag nearly all pictures are like those one
    lag before, but at half of it few are (0.9 and 0.5 chosen)."""
    v = usable.vectors
    like = [float((np.einsum("ij,ij->i", v[lag:], v[:-lag]) > kappa).mean())
            for lag in range(1, len(v) // 2 + 1)]  # fmt: skip
    return any(share >= 0.9 and like[(lag - 1) // 2] < 0.5 for lag, share in enumerate(like, 1))
