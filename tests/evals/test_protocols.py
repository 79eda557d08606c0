"""evals.protocols: every file resolves, hashes what may move a score, and keeps old hashes."""

from __future__ import annotations

import gzip
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest

from evals import benchmarks, protocols
from evals.aggregate import METRICS
from evals.errors import BadInput
from evals.extract import GRADERS, resolve
from evals.frames import LAWS
from evals.types import Decoding, Protocol

RUNS = Path(__file__).parents[2] / "results" / "runs"
PAIRS = [(p, b) for p in protocols.names() for b in protocols.covered(p)]


@pytest.mark.parametrize(("name", "of"), PAIRS)
def test_every_pair_resolves(name: str, of: str) -> None:
    assert of in benchmarks.OWNED
    own = protocols.variants(name, of)
    loaded = [protocols.load(f"{name}@{variant}", of) for variant in own]
    plain = protocols.load(name, of)
    for protocol in (plain, *loaded):
        assert protocol.sampling in LAWS and protocol.grader in GRADERS
        assert protocol.decoding.max_new_tokens >= 16
        wanted = set(filter(None, protocol.subset.split(",")))
        assert wanted <= set(benchmarks.card(of).subsets)
    assert len({p.hash for p in loaded}) == len(own)
    assert (plain in loaded) == bool(protocols.document(name).get("variants"))


def test_every_benchmark_has_its_official_protocol() -> None:
    assert set(protocols.covered("official")) == set(benchmarks.OWNED)
    assert set(protocols.names()) == {
        "official", "video-r1", "ffr", "temporal-r1", "lmms-eval", "vlmevalkit",
        "onethinker", "videorft",
    }  # fmt: skip


def test_metrics_of_every_card_exist() -> None:
    for name in benchmarks.OWNED:
        assert set(benchmarks.card(name).metrics) <= set(METRICS)


def test_the_first_variant_is_meant_where_none_is_named() -> None:
    plain, named = (protocols.load(n, "videomme") for n in ("video-r1", "video-r1@16f"))
    assert plain == named and plain.id == "video-r1@16f"
    assert protocols.load("video-r1@64f", "videomme").max_frames == 64
    assert protocols.load("official", "videomme").id == "official"


def test_video_r1_as_printed() -> None:
    """benchmarks of the family: 2 fps, 4 to 16 frames of 128 to 256 x 28 x 28 pixels, T 0.1."""
    p = protocols.load("video-r1", "mmvu")
    assert (p.fps, p.min_frames, p.max_frames, p.subset) == (2.0, 4, 16, "mc")
    assert (p.min_pixels, p.max_pixels) == (128 * 28 * 28, 256 * 28 * 28)
    assert p.decoding == Decoding(temperature=0.1, top_p=0.001, max_new_tokens=1024)
    assert (p.prompt, p.grader, p.sampling, p.time) == ("video-r1", "video-r1", "video-r1", "true")


def test_temporal_r1_as_printed() -> None:
    p = protocols.load("temporal-r1", "charades_sta")
    assert (p.fps, p.max_frames, p.min_pixels, p.total_pixels) == (2.0, 768, 3136, 1605632)
    assert p.decoding == Decoding(max_new_tokens=4096) and p.time == "true"
    assert protocols.load("temporal-r1@released-3b", "charades_sta").time == "constant"
    no_think = protocols.load("temporal-r1@no-think", "charades_sta")
    assert no_think.system == "You are a helpful assistant."
    assert (p.grader, no_think.grader) == ("temporal-r1", "temporal-r1-no-think")


def test_temporal_r1_asks_the_eight_benchmarks_of_its_chart() -> None:
    """temporal_r1.md 4.1; questions get the budget of 2,048 tokens, or 32 frames (7, A9)."""
    assert set(protocols.covered("temporal-r1")) == {
        "charades_sta", "activitynet_captions", "activitynet_rtl", "nextgqa", "mvbench",
        "videomme", "tempcompass", "mmvu",
    }  # fmt: skip
    for name in protocols.covered("temporal-r1"):
        think, no_think = (protocols.load(f"temporal-r1@{v}", name) for v in ("think", "no-think"))
        for p in (think, no_think):
            assert (p.max_frames, p.total_pixels, p.decoding.temperature) == (768, 1605632, 0)
        assert think.grader == resolve("temporal-r1", name) and "<think>" in (think.system or "")
        assert no_think.prompt == think.prompt and no_think.system == "You are a helpful assistant."
    for name in ("nextgqa", "mvbench", "videomme", "tempcompass", "mmvu"):
        assert protocols.load("temporal-r1@32f", name).max_frames == 32
    assert protocols.load("temporal-r1", "mmvu").subset == "mc"
    assert protocols.load("temporal-r1", "tempcompass").subset == "multi-choice"
    assert protocols.load("temporal-r1", "nextgqa").aggregation == "Acc@QA"


@pytest.mark.parametrize(
    ("name", "of", "said"),
    [
        ("nobody", "mmvu", "unknown protocol 'nobody'; known: ffr, lmms-eval"),
        ("video-r1@8f", "mmvu", "protocol video-r1 has no variant '8f' for mmvu: 16f, 32f, 64f"),
        ("temporal-r1", "lvbench", "temporal-r1 does not say how lvbench is asked; it covers char"),
        ("official@direct", "videomme", "has no variant 'direct' for videomme: subtitles"),
    ],
)
def test_unknown_names(name: str, of: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        protocols.load(name, of)


def test_only_general_protocols_ask_what_they_do_not_name() -> None:
    assert protocols.load("video-r1", "lvbench").prompt == "video-r1"
    assert protocols.load("ffr", "charades_sta").sampling == "fixed"


def test_a_later_field_at_its_default_changes_no_hash() -> None:
    base = Protocol("p")
    later = [f for f in fields(Protocol) if "later" in f.metadata]
    assert later and not {f.name for f in later} & base.as_dict().keys()
    other = {"str": "x", "NoneType": "x", "bool": False, "int": 7}
    for f in later:
        changed = replace(base, **{f.name: other[type(f.default).__name__]})
        assert changed.hash != base.hash and changed.as_dict()[f.name] != f.default
    assert replace(base, decoding=Decoding(seed=5)).hash == base.hash


def test_committed_records_keep_their_hash() -> None:
    records = sorted(RUNS.glob("*/*/*/record.json*"))
    assert records
    for path in records:
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        record = json.loads(text)
        decoding = Decoding(**record["protocol"]["decoding"])
        protocol = Protocol(**{**record["protocol"], "decoding": decoding})
        assert protocol.hash == record["protocol_hash"]
        assert protocol.as_dict() == record["protocol"]


def test_a_changed_word_changes_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    before = protocols.load("official", "mmvu")
    texts = {**protocols.wording("official/mmvu")}
    monkeypatch.setattr(protocols, "wording", lambda prompt: {**texts, "texts": {"any": "?"}})
    assert protocols.load("official", "mmvu").hash != before.hash
