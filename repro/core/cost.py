"""Work and time of training and evaluation, from a model's sizes: no torch, no weights.

    forward of T tokens       2 N T + 4 h L (sum of contexts); N the layers' weights
    head of S tokens          2 V h S
    tower of p patches        2 N_tower p + 4 t (4 full layers x patches of a grid row)
    a trained pass            3 forwards, 4 under checkpointing (backward is two)

    seconds = FLOP / (peak x efficiency)
            + sampling steps x max(overhead, bytes of the weights / bandwidth)

A step of GRPO on one prompt (P tokens, G completions of c tokens, the longest of C):

| pass        | tokens        | of                                    |
|-------------|---------------|---------------------------------------|
| sampling    | P + G c       | all; its clip's features are shared   |
| policy      | P + G c       | all; the trained one                  |
| reference   | P + G c       | all with a KL                         |
| vision-free | P_text + G c  | KTR's visual signal                   |
| shuffled    | P + G c       | KTR's temporal signal, videos only    |
| auxiliary   | P + G/2 c     | T-GRPO, videos only                   |

Left out: gathering sharded weights, the optimizer's own arithmetic, decoding films, start-up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from evals.errors import BadInput
from repro.core.memory import Sizes

PATCH, MERGE = 14, 28  # pixels of a patch's side, and of a vision token's (Qwen2.5-VL)
FULL = 4  # of the tower's blocks attend to a whole grid row (config: fullatt_block_indexes)


@dataclass(frozen=True)
class GPU:
    """tflops: dense bf16. gib: memory. bandwidth: TB/s. source: of these."""

    name: str
    tflops: float
    gib: float
    bandwidth: float
    source: str


@cache
def gpus() -> Mapping[str, GPU]:
    """The cards of gpus.yaml, by name."""
    raw = yaml.safe_load((files("repro.core") / "gpus.yaml").read_text(encoding="utf-8"))
    return {name: GPU(name, **values) for name, values in raw.items()}


def gpu(name: str) -> GPU:
    """Raises BadInput naming the known cards."""
    if name.lower() not in gpus():
        raise BadInput(f"unknown GPU {name!r}; known: {', '.join(gpus())}")
    return gpus()[name.lower()]


@dataclass(frozen=True)
class Speed:
    """What of a card's data sheet a run is assumed to reach.

    efficiency: share of the peak in forwards and backwards; overhead: seconds of one step of the
    sampler whatever the model's size; reach: share of the bandwidth while sampling.
    """

    efficiency: float = 0.35
    overhead: float = 0.030
    reach: float = 0.6


#: transformers' generate, and an engine that captures its steps as graphs. All chosen.
SAMPLERS = {"transformers": Speed(), "vllm": Speed(overhead=0.004)}


@dataclass(frozen=True)
class Work:
    """tokens through language models, patches through towers, FLOP, and sequential sampling steps;
    works add up, and steps with them."""

    tokens: float = 0.0
    patches: float = 0.0
    flop: float = 0.0
    steps: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.tokens + other.tokens, self.patches + other.patches, self.flop + other.flop,
            self.steps + other.steps,
        )  # fmt: skip

    def __mul__(self, times: float) -> Work:
        return Work(
            self.tokens * times, self.patches * times, self.flop * times, self.steps * times
        )

    def seconds(self, sizes: Sizes, card: GPU, speed: Speed) -> float:
        """On one card that holds the whole model."""
        reading = 2 * sizes.parameters / (card.bandwidth * 1e12 * speed.reach)
        compute = self.flop / (card.tflops * 1e12 * speed.efficiency)
        return compute + self.steps * max(speed.overhead, reading)


# --- what is shown ---------------------------------------------------------------------------


def resized(height: int, width: int, low: int, high: int) -> tuple[int, int]:
    """Pixels of a frame after Qwen's resizing: sides are multiples of 28, the area in low..high."""
    h, w = max(MERGE, round(height / MERGE) * MERGE), max(MERGE, round(width / MERGE) * MERGE)
    if h * w > high:
        beta = math.sqrt(height * width / high)
        return tuple(max(MERGE, int(side / beta / MERGE) * MERGE) for side in (height, width))  # type: ignore[return-value]
    if h * w < low:
        beta = math.sqrt(low / (height * width))
        return math.ceil(height * beta / MERGE) * MERGE, math.ceil(width * beta / MERGE) * MERGE
    return h, w


@dataclass(frozen=True)
class Clip:
    """A clip as the tower sees it: grid rows, and patches of one."""

    rows: int
    patches_per_row: int

    @property
    def patches(self) -> int:
        """Of all rows."""
        return self.rows * self.patches_per_row

    @property
    def tokens(self) -> int:
        """Vision tokens: four patches each."""
        return self.patches // 4


def clip(frames: int, low: int, high: int, *, height: int = 1080, width: int = 1920) -> Clip:
    """`frames` frames (1 for an image) of a source of 1080p, chosen."""
    h, w = resized(height, width, low, high)
    return Clip(math.ceil(frames / 2), (h // PATCH) * (w // PATCH))


def album(pictures: int, low: int, high: int) -> Clip:
    """So many pictures of a source of 1080p, each a row of its own."""
    one = clip(1, low, high)
    return Clip(pictures, one.patches_per_row)


#: FLOP of one picture through CLIP ViT-L/14 at 224 pixels: 24 layers of width 1024, 257 tokens.
CLIP_PICTURE = 24 * (2 * 12 * 1024**2 * 257 + 4 * 1024 * 257**2)


# --- passes ----------------------------------------------------------------------------------


def layers(sizes: Sizes) -> int:
    """Weights of the language model's layers: neither embeddings nor head nor tower."""
    whole = sizes.parameters - tower(sizes)
    return whole - (2 - sizes.tied) * sizes.vocab * sizes.hidden


def tower(sizes: Sizes) -> int:
    """Weights of the vision tower."""
    bare = Sizes(
        sizes.hidden, 0, 0, 0, 0, True, sizes.tower_hidden, sizes.tower_intermediate,
        sizes.tower_layers, sizes.merge, sizes.patch,
    )  # fmt: skip
    return bare.parameters - sizes.hidden  # the last norm is the language model's


def encode(sizes: Sizes, seen: Clip) -> Work:
    """One forward of the tower."""
    attention = 4 * sizes.tower_hidden * FULL * seen.patches * seen.patches_per_row
    return Work(patches=seen.patches, flop=2 * tower(sizes) * seen.patches + attention)


def forward(sizes: Sizes, tokens: float, context: float, scored: float = 0.0) -> Work:
    """Tokens that each attend to `context` others, `scored` of them through the head."""
    flop = 2 * layers(sizes) * tokens + 4 * sizes.hidden * sizes.layers * tokens * context
    return Work(tokens=tokens, flop=flop + 2 * sizes.vocab * sizes.hidden * scored)


@dataclass(frozen=True)
class Asked:
    """A prompt and what is drawn from it. text: its tokens without vision; mean, longest: tokens
    of a completion, on average and of a group's longest (how many steps sampling takes)."""

    seen: Clip
    text: int
    generations: int
    mean: float
    longest: float

    @property
    def prompt(self) -> int:
        """Tokens of the prompt."""
        return self.seen.tokens + self.text


def group_pass(sizes: Sizes, asked: Asked, prompt: float, share: float = 1.0) -> Work:
    """A packed forward: the prompt once, `share` of the completions behind it, all scored; a
    completion's last token is not forwarded."""
    rows = share * asked.generations
    body = forward(sizes, rows * (asked.mean - 1), prompt + asked.mean / 2, rows * asked.mean)
    return forward(sizes, prompt, prompt / 2) + body


def sampling(sizes: Sizes, asked: Asked, share: float = 1.0) -> Work:
    """Prefill once, then all completions in step."""
    return group_pass(sizes, asked, asked.prompt, share) + Work(steps=asked.longest)


def prompt_work(
    sizes: Sizes, asked: Asked, *, kl: bool, visual: bool, temporal: bool, auxiliary: bool,
    checkpointing: bool,
) -> dict[str, Work]:  # fmt: skip
    """Work of one prompt of a training step, pass by pass. temporal, auxiliary: of a video."""
    whole, seen = group_pass(sizes, asked, asked.prompt), encode(sizes, asked.seen)
    trained = whole + seen
    again = Work(flop=(3 if checkpointing else 2) * trained.flop)  # backward, and to compute again
    found = {"sampling": sampling(sizes, asked), "policy": trained + again}
    if kl:
        found["reference"] = whole + seen
    if visual:
        found["vision-free"] = group_pass(sizes, asked, asked.text)
    if temporal:
        found["shuffled"] = whole + seen
    if auxiliary:
        found["auxiliary"] = seen + sampling(sizes, asked, share=0.5)
    return found


def sft_work(sizes: Sizes, asked: Asked, *, checkpointing: bool) -> Work:
    """One demonstration: a trained pass over the prompt and its completion."""
    whole = group_pass(sizes, asked, asked.prompt) + encode(sizes, asked.seen)
    return whole + Work(flop=(3 if checkpointing else 2) * whole.flop)


def question_work(sizes: Sizes, asked: Asked, batch: int) -> Work:
    """One evaluated question, asked among `batch` that are sampled in step."""
    drawn = sampling(sizes, asked) + encode(sizes, asked.seen)
    return Work(drawn.tokens, drawn.patches, drawn.flop, asked.longest / batch)


def summed(works: Iterable[Work]) -> Work:
    """All of them together."""
    return sum(works, Work())
