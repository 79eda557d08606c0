"""Memory of a training step, stage by stage, computed from the model's sizes: no torch, no weights.

    kept for backward        per token and layer: 8 h + b (8 h + 4 i)
                             per patch and block: 8 h + b (11 h + 4 i)
    under checkpointing      b h of each, and one layer in full while it is computed again

h hidden and i intermediate size, b bytes of the model's dtype. The 8 h are the inputs of two norms
that compute in fp32; then their results (4 h); queries, keys and values repeated to all heads, and
the attention's output (4 h; 7 h in the tower, where transformers keeps q, k and v joined as well);
four of the MLP. Left out: attention scores (fused kernels), workspaces, the allocator's slack, and
what ZeRO-3 gathers layer by layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Path = Literal["packed", "plain"]
Kernel = Literal["sdpa", "flex"]  # of evals.attention
Parts = dict[str, float]  # what holds memory -> bytes

FP32 = 4
CHUNK = 1024  # tokens per call of the head, as in repro.core.scoring
GIB = 2**30

#: Copies of the logits alive at once. plain: the release keeps the logits and log-softmax of its
#: policy pass, and its masked, shuffled and reference logits beside them (ktr.md 6.2); backward
#: adds a gradient. packed: a chunk's logits, their exponentials, and a product or gradient.
LOGITS = {
    "plain": {"policy": 2, "other passes": 5, "backward": 3},
    "packed": {"policy": 3, "other passes": 3, "backward": 4},
}


@dataclass(frozen=True)
class Sizes:
    """A Qwen2.5-VL. kv: width of the keys; tied: the head is the embedding; tower_*: the vision
    tower's; merge: patches per vision token; patch: values per patch."""

    hidden: int
    kv: int
    intermediate: int
    layers: int
    vocab: int
    tied: bool
    tower_hidden: int
    tower_intermediate: int
    tower_layers: int
    merge: int = 4
    patch: int = 3 * 2 * 14 * 14

    @property
    def parameters(self) -> int:
        """Weights of the language model, its embeddings and head, and the vision tower."""
        h, t, wide = self.hidden, self.tower_hidden, self.merge * self.tower_hidden
        attention = 2 * h * h + h + 2 * (h + 1) * self.kv
        layer = attention + 3 * h * self.intermediate + 2 * h
        block = 4 * (t + 1) * t + 3 * t * self.tower_intermediate + 2 * self.tower_intermediate
        merger = t + (wide + 1) * wide + (wide + 1) * h
        tower = self.patch * t + self.tower_layers * (block + t + 2 * t) + merger
        return (2 - self.tied) * self.vocab * h + self.layers * layer + h + tower


#: Qwen2.5-VL-7B-Instruct: 8.29 billion parameters, 0.68 of them in the tower.
QWEN_7B = Sizes(3584, 512, 18944, 28, 152064, False, 1280, 3420, 32)
#: Qwen2.5-VL-3B-Instruct: 3.75 billion parameters.
QWEN_3B = Sizes(2048, 256, 11008, 36, 151936, True, 1280, 3420, 32)
#: By the name that a recipe's model.architecture gives.
KNOWN = {"Qwen2.5-VL-7B": QWEN_7B, "Qwen2.5-VL-3B": QWEN_3B}


@dataclass(frozen=True)
class Load:
    """What one device works on at once: `prompts` prompts, each of `prompt` tokens over `patches`,
    with G `generations` of `completion` tokens."""

    prompt: int
    patches: int
    completion: int
    generations: int
    prompts: int = 1

    def tokens(self, path: Path) -> int:
        """Language-model tokens of a scoring pass; a completion's last token is not forwarded."""
        body = self.prompts * self.generations * (self.completion - 1)
        return body + self.prompt * self.copies(path)

    def copies(self, path: Path) -> int:
        """How many prompts a pass forwards and how many clips it encodes."""
        return self.prompts * (1 if path == "packed" else self.generations)

    @property
    def rows(self) -> int:
        """Completions."""
        return self.prompts * self.generations

    def longest_row(self, path: Path) -> int:
        """Tokens of one row, which a mask is as wide as."""
        return self.tokens(path) // (self.prompts if path == "packed" else self.rows)


#: 16 frames of 224 x 420 pixels (ktr.md 1.2), 230 text tokens, the longest completions allowed.
KTR_7B = Load(prompt=960 + 230, patches=8 * 16 * 30, completion=768, generations=8)


def static(
    sizes: Sizes, *, dtype: int = 2, ranks: int = 1, zero: int = 3, trained: int | None = None
) -> Parts:
    """What lives from step to step on each of `ranks` that share what their ZeRO stage says: Adam
    from stage 1, gradients from 2, weights and reference at 3.

    Adam holds two fp32 moments and, beside half-precision weights, an fp32 copy of them. trained:
    parameters that are; None for all. Under adapters the reference is the model without them.
    """
    n = sizes.parameters / (ranks if zero == 3 else 1)
    moments = (trained or sizes.parameters) / (ranks if zero else 1)
    adam = FP32 * (2 if dtype == FP32 else 3)
    reference = {} if trained else {"reference": n * dtype}
    return {"weights": n * dtype, **reference, "Adam": moments * adam}


def adapters(sizes: Sizes, rank: int) -> int:
    """Parameters of LoRA on every linear layer of the language model."""
    h, kv, i = sizes.hidden, sizes.kv, sizes.intermediate
    shapes = ((h, h), (h, kv), (h, kv), (h, h), (h, i), (h, i), (i, h))
    return sizes.layers * rank * sum(a + b for a, b in shapes)


def activations(
    sizes: Sizes,
    load: Load,
    path: Path,
    *,
    dtype: int = 2,
    checkpointing: bool = True,
    kernel: Kernel = "flex",
) -> Parts:
    """What the policy's forward keeps for its backward, without the head.

    A packed row needs a mask, which SDPA turns into one of the model's dtype in every layer;
    FlexAttention's block mask is too small to count.
    """
    tokens, patches = load.tokens(path), load.patches * load.copies(path)
    row = load.longest_row(path)
    mask = dtype * load.prompts * row**2 if path == "packed" and kernel == "sdpa" else 0
    layer = tokens * layer_bytes(sizes, dtype) + mask
    block = patches * block_bytes(sizes, dtype)
    if not checkpointing:
        return {"language model": sizes.layers * layer, "vision tower": sizes.tower_layers * block}
    return {
        "language model": dtype * tokens * sizes.layers * sizes.hidden,
        "vision tower": dtype * patches * sizes.tower_layers * sizes.tower_hidden,
        "one layer": max(layer, block),
    }


def head(sizes: Sizes, load: Load, path: Path, stage: str, *, dtype: int = 2) -> Parts:
    """Logits and what is made of them: fp32 chunks of completion tokens, or every position in the
    model's dtype. Half-precision heads are copied to fp32; backward adds that copy's gradient."""
    copies = LOGITS[path][stage]
    if path == "plain":
        return {"logits": copies * load.tokens(path) * sizes.vocab * dtype}
    rows = min(CHUNK, load.rows * load.completion)
    cast = (dtype != FP32) + (stage == "backward")
    return {
        "logits": copies * rows * sizes.vocab * FP32,
        "head in fp32": cast * sizes.vocab * sizes.hidden * FP32,
    }


def stages(
    sizes: Sizes,
    load: Load,
    path: Path,
    *,
    dtype: int = 2,
    checkpointing: bool = True,
    ranks: int = 1,
    zero: int = 3,
    trained: int | None = None,
) -> dict[str, Parts]:
    """Peak of each stage of a KTR step by what holds it, in bytes per device.

    packed: this trainer, whose policy features are made before sampling and shared with it. plain:
    the released schedule, G copies of everything.
    """
    fixed = static(sizes, dtype=dtype, ranks=ranks, zero=zero, trained=trained)
    born = (trained or sizes.parameters) / (ranks if zero >= 2 else 1)
    gradients = {"gradients": born * dtype}  # born in backward
    kept = activations(sizes, load, path, dtype=dtype, checkpointing=checkpointing)
    passing = {"one layer": load.tokens(path) * layer_bytes(sizes, dtype)}
    prefill = load.prompt * load.copies(path) * layer_bytes(sizes, dtype)
    held = load.prompt * load.copies(path) + load.rows * load.completion
    cache = held * sizes.layers * 2 * sizes.kv * dtype
    shared = zero == 3 and ranks > 1  # sampling gathers every weight (repro.core.zero.whole)
    gathered = {"gathered": sizes.parameters * dtype * (1 - 1 / ranks)} if shared else {}
    heads = {name: head(sizes, load, path, name, dtype=dtype) for name in LOGITS[path]}
    seen = {"vision tower": kept["vision tower"]} if path == "packed" else {}
    return {
        "sample": {**fixed, **gathered, **seen, "cache": cache, "one layer": prefill},
        "policy": {**fixed, **kept, **heads["policy"]},
        "other passes": {**fixed, **kept, **passing, **heads["other passes"]},
        "backward": {**fixed, **gradients, **kept, **heads["backward"]},
        "optimizer": {**fixed, **gradients},
    }


def layer_bytes(sizes: Sizes, dtype: int) -> int:
    """Kept by one decoder layer for one token, its mask left out."""
    return 2 * FP32 * sizes.hidden + dtype * (8 * sizes.hidden + 4 * sizes.intermediate)


def block_bytes(sizes: Sizes, dtype: int) -> int:
    """Kept by one block of the vision tower for one patch."""
    h, i = sizes.tower_hidden, sizes.tower_intermediate
    return 2 * FP32 * h + dtype * (11 * h + 4 * i)


def peak(found: Mapping[str, Parts]) -> tuple[str, float]:
    """The stage that needs most, and its bytes."""
    totals = {stage: sum(parts.values()) for stage, parts in found.items()}
    return max(totals.items(), key=lambda item: item[1])
