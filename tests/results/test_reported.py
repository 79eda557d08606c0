"""Printed numbers: transcribed as printed, read strictly, with the margins and cells they imply."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from evals import benchmarks, protocols
from results.assumptions import Assumptions, load_assumptions, registered_margin
from results.benchmarks import load_benchmarks
from results.cells import cells, judge, runs_of
from results.ledger import Run
from results.policy import load_policy
from results.printed import GREEN, Baseline, Model, Paper, Reported
from results.protocol import Assumed, combinations, compare
from results.reported import load_reported, paper_from
from results.schema import Record
from results.strict import Node, ReportedError, parse_yaml
from results.verdict import Verdict

ROOT = Path(__file__).resolve().parents[2]
PAPERS = ("ktr", "ffr", "mvp", "temporal_r1")
POLICY = load_policy()
ASSUMED = load_assumptions()
BENCHMARKS = load_benchmarks()
LOADED = {paper: load_reported(ROOT / "repro" / paper / "reported.yaml") for paper in PAPERS}
CELLS = {paper: cells(loaded) for paper, loaded in LOADED.items()}
NUMBERS = [number for paper in LOADED.values() for number in paper.numbers]


def find(id: str) -> Reported:
    return next(number for number in NUMBERS if number.id == id)


def row(paper: str, table: str, model: str, frames: int | None = None) -> list[str]:
    """The printed values of a row, in the order of its columns."""
    return [
        number.printed
        for number in LOADED[paper].numbers
        if (number.table, number.model.name) == (table, model)
        and frames in (None, number.protocol["frames"])
    ]


# --- what the papers print -----------------------------------------------------------------


def test_every_recipe_has_its_numbers() -> None:
    assert {path.parent.name for path in ROOT.glob("repro/*/reported.yaml")} == set(PAPERS)
    recipes = {path.parent.name for path in ROOT.glob("repro/*/recipe.yaml")}
    assert recipes <= set(PAPERS)
    assert all(paper == loaded.id for paper, loaded in LOADED.items())


def test_counts_of_the_second_pass() -> None:
    """Numbers, other numbers and curves, counted against the sources; a lost row shows here."""
    counts = {p: (len(x.numbers), len(x.diagnostics), len(x.curves)) for p, x in LOADED.items()}
    assert counts == {
        "ktr": (220, 44, 0), "ffr": (408, 25, 0), "mvp": (0, 0, 0), "temporal_r1": (79, 0, 2),
    }  # fmt: skip
    kinds = Counter(number.verified for number in NUMBERS)
    assert kinds == {
        "authors_table_image": 101, "authors_data": 94, "paper": 290, "readme": 10,
        "figure_estimate": 80, "third_party": 132,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("id", "printed", "n"),
    [
        ("ktr/main/video-ktr@64/video_holmes/accuracy", "42.7", 1837),
        ("ktr/main/video-ktr@64/videommmu/accuracy", "53.1", 900),
        ("ktr/main/video-ktr@64/mmvu/accuracy", "66.6", 625),
        ("ktr/main/video-ktr@16/tempcompass/accuracy", "73.3", None),
        ("ktr/main/qwen2.5-vl-sft@16/video_holmes/accuracy", "31.7", 1837),
        ("ktr/main/gpt-5/videommmu/accuracy", "84.6", None),
        ("ktr/video_holmes_categories/video-ktr@32/video_holmes.cti/accuracy", "40.7", None),
        ("ktr/selection_ratio/video-ktr-r-20/avg3_reasoning/accuracy", "53.4", None),
        ("ffr/table2_main/ffr-from-video-r1-sft@16/video_holmes/accuracy", "52.3", 1837),
        ("ffr/table2_main/gpt-4o/tempcompass/accuracy", "73.75", None),
        ("ffr/table10_kappa/ffr-kappa-0.1@16/mmvu/accuracy", "72.7", None),
        ("temporal_r1/readme_table/temporal-r1-3b-charades-think@768/charades_sta/miou",
         "53.93", 3720),
        ("temporal_r1/readme_table/temporal-r1-3b-charades-no-think@768/charades_sta/miou",
         "51.10", 3720),
        ("temporal_r1/readme_text_videoqa/qwen2.5-vl-3b-instruct@768/mvbench/accuracy",
         "63.35", 4000),
        ("temporal_r1/onethinker_table4/temporal-rlt/activitynet_rtl/miou", "26.3", 229),
    ],
)  # fmt: skip
def test_golden_numbers(id: str, printed: str, n: int | None) -> None:
    number = find(id)
    assert (number.printed, number.n, number.unit) == (printed, n, "percent")
    assert number.fraction == pytest.approx(float(printed) / 100, abs=1e-12)


def test_golden_rows() -> None:
    assert row("ktr", "same_data", "Vanilla GRPO") == ["38.8", "49.8", "64.8", "51.1"]
    assert row("ktr", "same_data", "Video-KTR") == ["41.6", "52.6", "65.9", "53.4"]
    assert row("ktr", "main", "Video-KTR", 32) == ["41.6", "52.6", "65.9", "73.4", "60.3"]
    assert row("ffr", "table3_ablation", "SFT + vanilla GRPO") == [
        "61.3", "32.8", "43.4", "46.2", "51.2", "36.7", "61.0", "70.5",
    ]  # fmt: skip
    assert row("temporal_r1", "figure1_radar", "Temporal-RLT (Ours)")[-2:] == ["64.5", "75"]


def test_digits_and_half_digits() -> None:
    kept = find("temporal_r1/readme_table/temporal-r1-3b-charades-no-think@768/charades_sta/miou")
    assert (kept.value, kept.decimals, kept.fraction) == (51.1, 2, 0.511)
    assert kept.half_digit == pytest.approx(0.00005)
    assert find("ktr/main/video-ktr@64/video_holmes/accuracy").half_digit == pytest.approx(0.0005)


def test_of_temporal_r1_only_the_readmes_numbers_are_targets() -> None:
    own = LOADED["temporal_r1"].numbers
    targets = [n for n in own if n.may_turn_green]
    assert {n.table for n in targets} == {"readme_table", "readme_text_videoqa"}
    assert {n.id for n in targets} == {n.id for n in own if n.registered}
    assert Counter(n.verified for n in own) == {
        "readme": 10, "third_party": 41, "figure_estimate": 28,
    }  # fmt: skip
    assert {n.table for n in cells_of("temporal_r1")} == {"readme_table", "readme_text_videoqa"}


def cells_of(paper: str) -> list[Reported]:
    return [cell.reported for cell in CELLS[paper] if cell.registered]


def test_mvp_printed_nothing_we_could_see() -> None:
    assert LOADED["mvp"].numbers == () and "No number seen" in LOADED["mvp"].status
    assert CELLS["mvp"] == []


def test_percent_is_percent() -> None:
    """A percentage of 1 or less would be a fraction in disguise, and the reverse."""
    for number in NUMBERS:
        assert number.unit != "percent" or number.value > 1, number.id
        assert number.unit != "fraction" or number.value <= 1, number.id
        assert 0 <= number.fraction <= 1, number.id


def test_benchmarks_are_known_and_sizes_agree() -> None:
    for number in NUMBERS:
        benchmark = BENCHMARKS.by_id[number.benchmark]
        sizes = {benchmark.n, *benchmark.subsets.values(), None}
        assert number.n in sizes, number.id
    files = {path.stem for path in (ROOT / "evals" / "benchmarks").glob("[a-z]*.py")}
    assert files - {"jsonl", "microworld"} <= set(BENCHMARKS.by_id)


def test_sources_that_may_turn_green() -> None:
    for number in NUMBERS:
        assert number.may_turn_green == (number.verified in GREEN)
        assert number.checked == date(2026, 11, 21) and number.source
    assert not find("ffr/fig_rl_comparison/ffr-on-video-r1-sft@16/mmvu/accuracy").may_turn_green
    assert all(n.may_turn_green for n in NUMBERS if n.registered)


MEANS = [
    (a, [b for b in NUMBERS if b.table == a.table and b.model == a.model and b.protocol["frames"]
         == a.protocol["frames"] and b.benchmark in BENCHMARKS.by_id[a.benchmark].of])
    for a in NUMBERS
    if BENCHMARKS.by_id[a.benchmark].of
]  # fmt: skip


@pytest.mark.parametrize(
    ("mean", "parts"),
    [(a, parts) for a, parts in MEANS if len(parts) == len(BENCHMARKS.by_id[a.benchmark].of)],
    ids=lambda x: x.id if isinstance(x, Reported) else "",
)
def test_printed_means_recompute(mean: Reported, parts: list[Reported]) -> None:
    """Within the rounding of the mean and of its parts."""
    computed = sum(part.fraction for part in parts) / len(parts)
    assert abs(computed - mean.fraction) <= 2 * mean.half_digit + 1e-9


def test_some_means_did_recompute() -> None:
    whole = [a for a, parts in MEANS if len(parts) == len(BENCHMARKS.by_id[a.benchmark].of)]
    assert Counter(a.paper for a in whole) == {"ktr": 8, "ffr": 15}


def test_printed_gains_recompute() -> None:
    """FFR's relative gains are those of its own rows."""
    table = {(n.model.name, n.benchmark): n.value for n in NUMBERS if n.table == "table2_main"}
    gains = [n for n in NUMBERS if n.metric == "relative_gain_vs_start"]
    assert len(gains) == 16
    for gain in gains:
        start = gain.model.name.removeprefix("FFR from ")
        after, before = table[gain.model.name, gain.benchmark], table[start, gain.benchmark]
        assert gain.value == pytest.approx(100 * (after - before) / before, abs=0.006)


def test_arms_are_the_recipes() -> None:
    """A printed arm that the recipe does not have could never be run."""
    for recipe in ROOT.glob("repro/*/recipe.yaml"):
        paper = recipe.parent.name
        arms = set(yaml.safe_load(recipe.read_text(encoding="utf-8"))["arms"])
        printed = {n.arm for n in LOADED[paper].numbers if n.arm}
        lacking = {arm for arm in printed if not arm.startswith("cold")} - arms
        assert not lacking, paper


def test_disagreements_between_sources_are_noted() -> None:
    notes = [number.note for number in NUMBERS]
    assert sum("the sources disagree" in note for note in notes) == 17
    radar = find("ktr/video_holmes_categories/video-ktr@32/video_holmes.tci/accuracy")
    assert (radar.printed, "27.7" in radar.note) == ("27.8", True)


# --- the reader ----------------------------------------------------------------------------

FILE = textwrap.dedent("""
    paper: demo
    title: A title
    arxiv: 2601.00001
    repository: null
    commit: 0162d46
    checked: 2026-11-21
    status: all of it
    protocol: {frames: 16, max_pixels: unstated, prompt: unstated, temperature: unstated,
               subtitles: not applicable, subset: unstated, grader: unstated}
    benchmarks:
      Video-Holmes: {n: 1837, source: its README}
      mmvu: {protocol: {subset: mc}}
    models:
      Ours: {role: method, arm: ours, weights: us/ours}
      GRPO: {role: baseline, arm: grpo, baseline_of: [ours]}
    tables:
      main:
        registered: true
        source: Table 1
        verified: paper
        columns: [Video-Holmes, "MMVU(mc)", {benchmark: video_holmes, category: SR}]
        rows:
          - {model: GRPO, values: [40.00, ~, 50.1]}
          - {model: Ours, values: [42.50, 60, 49.0], protocol: {frames: 32}, note: ours}
""")


def read(old: str = "", new: str = "") -> Paper:
    """The demo file with one piece of text replaced."""
    assert old in FILE
    return paper_from(parse_yaml(FILE.replace(old, new, 1), "demo"), BENCHMARKS)


def test_a_file_is_read_as_printed() -> None:
    paper = read()
    assert (paper.arxiv, paper.commit, paper.repository) == ("2601.00001", "0162d46", None)
    grpo, part, ours, mmvu, ours_part = paper.numbers
    assert (grpo.printed, grpo.decimals, grpo.n) == ("40.00", 2, 1837)
    assert (part.category, part.n) == ("SR", None)
    assert ours.baseline is not None
    assert (ours.baseline.name, ours.baseline.value) == ("GRPO", 40.0)
    assert (ours.protocol["frames"], grpo.protocol["frames"], ours.note) == (32, 16, "ours")
    assert "subtitles" not in ours.protocol
    assert (mmvu.benchmark, mmvu.protocol["subset"], mmvu.baseline) == ("mmvu", "mc", None)
    assert ours_part.baseline is not None and ours_part.baseline.printed == "50.1"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title:", "titel:", "unknown key 'titel'; did you mean 'title'?"),
        ("commit: 0162d46\n", "", "lacks commit"),
        ("registered: true", "registred: true", "did you mean 'registered'"),
        ("registered: true", "registered: yes", "expected true or false"),
        ("status: all", "title: all", "demo:8: the key 'title' is given twice"),
        ("values: [40.00", "value: [40.00", "did you mean 'values'"),
        ("verified: paper", "verified: papers", "expected paper or readme"),
        ("prompt: unstated, ", "", "lacks prompt"),
        ("grader: unstated", "greder: unstated", "did you mean 'grader'"),
        ("[Video-Holmes, ", "[Video-Homes, ", "did you mean 'video_holmes'?"),
        ("[40.00, ~, 50.1]", "[40.00, 50.1]", "2 values for 3 columns"),
        ("[40.00, ~, 50.1]", "[4e1, ~, 50.1]", "a number as printed, such as 42.7, got '4e1'"),
        ("[40.00, ~, 50.1]", "[140.00, ~, 50.1]", "140.00 is no percent"),
        ("[40.00, ~, 50.1]", "[-4.0, ~, 50.1]", "-4.0 is no percent"),
        ("registered: true", "unit: fraction", "40.00 is no fraction"),
        ("{model: GRPO,", "{model: GRPA,", "did you mean 'GRPO'"),
        ("role: method", "role: methods", "expected method or baseline"),
        ("[ours]", "[our]", "is a baseline of 'our'; did you mean 'ours'?"),
        ("role: baseline, arm", "role: other, arm", "belongs to a baseline"),
        ("n: 1837, source: its README", "n: 1837", "n and its source come together"),
        ("n: 1837", "n: 18.37", "a whole number above 0"),
        ("checked: 2026-11-21", "checked: today", "a date such as"),
        ("category: SR}", "category: SR, n: 3}", "unknown key 'n'"),
        (', {benchmark: video_holmes, category: SR}', ", video_holmes", "two columns are the same"),
        ("{model: GRPO, values", "{model: Ours, protocol: {frames: 32}, values", "appears twice"),
        ("paper: demo", "paper: [demo]", "expected text, got a list"),
        ("[40.00, ~, 50.1]", "40", "expected a list, got '40'"),
    ],
)  # fmt: skip
def test_mistakes_are_named(old: str, new: str, message: str) -> None:
    with pytest.raises(ReportedError) as error:
        read(old, new)
    assert message in str(error.value) and str(error.value).startswith("demo")


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(ReportedError):
        paper_from(parse_yaml(text, "fuzz"), BENCHMARKS)


SCALARS = st.none() | st.text(max_size=6) | st.integers(-5, 200).map(str) | st.just("42.7")
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
LINES = [line.strip() for line in FILE.splitlines() if ": " in line]


@given(st.sampled_from(sorted({line.split(":")[0].lstrip("- {") for line in LINES})), TREES)
def test_any_value_in_any_place_is_read_or_refused(key: str, value: Any) -> None:
    top = parse_yaml(FILE, "demo").raw

    def put(node: Any) -> Any:
        if isinstance(node, list):
            return [put(item) for item in node]
        if isinstance(node, dict):
            return {k: value if k == key else put(v) for k, v in node.items()}
        return node

    try:
        paper = paper_from(Node(put(top), "demo"), BENCHMARKS)
    except ReportedError as error:
        assert str(error).startswith("demo")
    else:
        assert isinstance(paper, Paper)


@given(st.decimals(0, 100, places=3, allow_nan=False), st.integers(0, 3))
def test_a_printed_number_keeps_its_digits(value: Any, places: int) -> None:
    printed = f"{value:.{places}f}"
    number = read("[40.00, ~, 50.1]", f"[{printed}, ~, 50.1]").numbers[0]
    assert (number.printed, number.decimals, number.value) == (printed, places, float(printed))
    assert number.fraction == pytest.approx(number.value / 100, abs=1e-15)
    assert number.half_digit == pytest.approx(0.5 * 10.0 ** -(places + 2))


def test_every_spelling_finds_its_benchmark() -> None:
    for spelling, id in (("VIDEO-HOLMES", "video_holmes"), ("MMVU(mc)", "mmvu"),
                         ("VideoMMMU", "videommmu"), ("ANet-RTL", "activitynet_rtl"),
                         ("Charades", "charades_sta"), ("avg8", "avg8")):  # fmt: skip
        assert BENCHMARKS.find(Node(spelling, "here")).id == id
    with pytest.raises(ReportedError, match="here: unknown benchmark 'mmvuu'; did you mean 'mmvu'"):
        BENCHMARKS.find(Node("mmvuu", "here"))


def test_a_spelling_has_one_owner(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.yaml"
    path.write_text(
        "benchmarks:\n  a: {name: A, n: 1, aliases: [X]}\n  b: {name: B, n: 1, aliases: [x]}\n"
        "means: {}\n",
        encoding="utf-8",
    )
    with pytest.raises(ReportedError, match="'x' belongs to both a and b"):
        load_benchmarks(path)


# --- margins and assumptions ---------------------------------------------------------------


def number(printed: str, baseline: str | None, **more: Any) -> Reported:
    base = Baseline("b", baseline, float(baseline) / 100, "id") if baseline else None
    fields = {
        "paper": "none", "table": "t", "model": Model("m", "method", arm="m"), "category": None,
        "benchmark": "video_holmes", "metric": "accuracy", "unit": "percent", "n": 1837,
        "protocol": {"frames": 16}, "source": "s", "verified": "paper", "registered": True,
        "checked": date(2026, 11, 21),
    }  # fmt: skip
    return Reported(**{**fields, "printed": printed, "baseline": base, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("printed", "baseline", "points"),
    [
        ("42.7", "39.6", 1.55),  # +3.1, halved
        ("42.7", "33.7", 3.0),  # +9.0, clipped
        ("65.9", "65.8", 1.0),  # +0.1, clipped
        ("59.6", "63.35", 1.0),  # a printed loss claims no gain
    ],
)
def test_margin_is_half_of_the_claimed_gain(printed: str, baseline: str, points: float) -> None:
    margin = registered_margin(number(printed, baseline), POLICY)
    assert margin is not None and margin.value == pytest.approx(points / 100)
    assert printed in margin.source and baseline in margin.source


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_margins_stay_between_one_and_three_points(ours: int, theirs: int) -> None:
    margin = registered_margin(number(f"{ours / 10:.1f}", f"{theirs / 10:.1f}"), POLICY)
    assert margin is not None and 0.01 <= margin.value <= 0.03
    if 20 <= ours - theirs <= 60:
        assert margin.value == pytest.approx((ours - theirs) / 2000)


def test_the_strongest_own_baseline_counts() -> None:
    """At any number of frames, never a model of others, never another result set."""
    ktr = find("ktr/main/video-ktr@64/video_holmes/accuracy")
    assert ktr.baseline is not None  # Video-RTS has 40.7 there, but it is no baseline of theirs
    assert (ktr.baseline.name, ktr.baseline.printed) == ("T-GRPO", "39.7")
    ffr = find("ffr/table2_main/ffr-from-video-r1-sft@16/video_holmes/accuracy")
    assert ffr.baseline is not None  # the figure has 54.0 for Replay
    assert (ffr.baseline.name, ffr.baseline.printed) == ("SFT + vanilla GRPO", "46.2")
    figure = find("ffr/fig_rl_comparison/ffr-on-video-r1-sft@16/video_holmes/accuracy")
    assert figure.baseline is not None and figure.baseline.printed == "54.0"


def test_whatever_may_turn_green_has_a_margin() -> None:
    for item in NUMBERS:
        if item.may_turn_green and item.model.role != "other" and not item.derived:
            assert registered_margin(item, POLICY, ASSUMED) is not None, item.id
    assert registered_margin(number("42.7", None), POLICY, ASSUMED) is None


def test_every_assumption_answers_something_and_none_contradicts_another() -> None:
    used: Counter[int] = Counter()
    for item in NUMBERS:
        found = ASSUMED.about(item)  # raises where two speak about one field
        for place, entry in enumerate(ASSUMED.protocol):
            used[place] += entry.scope.covers(item) and entry.field in found
    idle = [entry for place, entry in enumerate(ASSUMED.protocol) if not used[place]]
    assert not idle
    assert all(entry.source.startswith("chosen: ") for entry in ASSUMED.protocol)
    days = {entry.on for entry in (*ASSUMED.protocol, *ASSUMED.margins)}
    assert days == {date(2026, 11, 21), date(2026, 11, 26)}


@pytest.mark.parametrize(
    ("part", "variants"),
    [
        ("readme_table/temporal-r1-3b-charades-think@768/charades_sta/", ["think"]),
        ("readme_table/temporal-r1-3b-charades-think@768/activitynet_captions/", ["think"]),
        ("readme_table/temporal-r1-3b-charades-no-think@768/charades_sta/", ["no-think"]),
        ("readme_table/sft-3b-charades-no-think@768/activitynet_captions/", ["no-think"]),
        ("readme_table/qwen2.5-vl-3b-instruct-no-think@768/charades_sta/", ["no-think"]),
        ("readme_text_videoqa/qwen2.5-vl-3b-instruct@768/mvbench/", ["think", "no-think"]),
    ],
)
def test_the_readme_of_temporal_r1_can_be_compared_with(part: str, variants: list[str]) -> None:
    """Every field of a run under the protocol of the row's mode is stated or assumed, of the other
    mode the prompt and the grader differ; each mode keeps its own grader."""
    item = next(n for n in NUMBERS if n.id.startswith(f"temporal_r1/{part}"))
    guesses = ASSUMED.about(item)
    assert set(combination(guesses)) == {f"temporal-r1{v}" for v in graders(variants)}
    for variant in ("think", "no-think"):
        law = protocols.load(f"temporal-r1@{variant}", item.benchmark)
        n = item.n or guesses["n"].values[0]
        split = next(iter(benchmarks.card(item.benchmark).splits))
        run = SimpleNamespace(
            protocol=law.as_dict(), n=n, split=split, started="2026-11-27T00:00:00+00:00"
        )
        fields = compare(item.protocol, item.n, cast(Record, run), guesses)
        differing = [f.name for f in fields if not f.comparable]
        assert differing == ([] if variant in variants else ["prompt", "grader"])
        run.protocol = {**law.as_dict(), "grader": "strict"}
        fields = compare(item.protocol, item.n, cast(Record, run), guesses)
        assert "grader" in [f.name for f in fields if not f.comparable]


def graders(variants: list[str]) -> list[str]:
    return ["" if v == "think" else "-no-think" for v in variants]


def combination(guesses: dict[str, Assumed]) -> list[str]:
    """Graders of the plausible protocols: one per mode, never crossed."""
    several = {k: g for k, g in guesses.items() if len(g.values) > 1}
    found = [c["grader"] for c in combinations(several) if "grader" in c]
    return found or list(guesses["grader"].values)


def test_registered_cells_are_answered_except_where_nobody_can() -> None:
    open_fields = {
        item.id.split("/", 2)[2]: ASSUMED.unanswered(item)
        for item in NUMBERS
        if item.registered and item.model.role == "method" and ASSUMED.unanswered(item)
    }
    assert open_fields == {
        "ffr-from-video-r1-sft@16/lvbench/accuracy": ("n",),  # an unreleased, partial list
        "ffr-from-videorft-sft@16/lvbench/accuracy": ("n",),
        "video-ktr@32/avg3_reasoning/accuracy": ("prompt", "subset", "grader", "n"),  # a mean
    }


def test_video_holmes_needs_both_prompts() -> None:
    found = ASSUMED.about(find("ktr/main/video-ktr@64/video_holmes/accuracy"))
    assert found["prompt"].values == ("video-r1", "video-holmes-official")
    assert "frames" not in found and "subtitles" not in found
    assert ASSUMED.about(find("ktr/main/video-rts@51.2/video_holmes/accuracy")) == {}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("field: prompt", "field: promt", "got 'promt'"),
        ("on:", "date:", "unknown key 'date'"),
        ("values: [x]", "values: []", "one or more different values"),
        ("values: [x]", "values: [unstated]", "one or more different values"),
        ("benchmarks: [mmvu]", "benchmarks: [mmvuu]", "did you mean 'mmvu'"),
        ("margin: 0.01", "margin: 1.0", "0.01 is one point"),
        ("roles: [baseline]", "roles: [base]", "expected method or baseline"),
    ],
)
def test_mistakes_in_assumptions_are_named(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = (
        "protocol:\n- {paper: p, field: prompt, values: [x], benchmarks: [mmvu], source: s, "
        "on: 2026-11-21}\nmargins:\n- {paper: p, margin: 0.01, roles: [baseline], source: s, "
        "on: 2026-11-21}\n"
    )
    path = tmp_path / "assumptions.yaml"
    path.write_text(text, encoding="utf-8")
    assert len(load_assumptions(path).protocol) == 1
    broken = tmp_path / "broken.yaml"
    broken.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ReportedError, match="broken") as error:
        load_assumptions(broken)
    assert message in str(error.value)


def test_two_answers_to_one_question_are_refused(tmp_path: Path) -> None:
    entry = "- {paper: none, field: n, values: [3], source: s, on: 2026-11-21}\n"
    path = tmp_path / "assumptions.yaml"
    path.write_text(f"protocol:\n{entry}{entry}margins: []\n", encoding="utf-8")
    with pytest.raises(ReportedError, match="two assumptions about n"):
        load_assumptions(path).about(number("42.7", None, n=None))


# --- cells ---------------------------------------------------------------------------------


def test_every_measured_number_has_a_cell_and_a_reason() -> None:
    for paper in LOADED.values():
        found = CELLS[paper.id]
        assert len({cell.id for cell in found}) == len(found)
        assert all(cell.status == "not run" and cell.reason for cell in found)
        asked = {cell.reported.id for cell in found}
        assert asked == {item.id for item in paper.numbers if not item.derived}


def test_kinds_of_cells() -> None:
    def kinds(id: str) -> list[str]:
        return [c.kind for c in CELLS[id.split("/")[0]] if c.reported.id == id]

    assert kinds("ktr/main/gpt-4o/videommmu/accuracy") == ["score"]
    assert kinds("ktr/main/qwen2.5-vl-sft@64/videommmu/accuracy") == ["score"]
    assert kinds("ktr/same_data/vanilla-grpo@32/mmvu/accuracy") == ["score (trained)"]
    assert kinds("ktr/main/video-ktr@64/mmvu/accuracy") == ["score", "score (trained)", "claim"]
    same_data = kinds("ktr/same_data/video-ktr@32/mmvu/accuracy")
    assert same_data == ["score", "score (trained)", "claim", "claim", "claim"]
    assert kinds("ffr/table2_gains/ffr-from-video-r1-sft@16/mmvu/relative_gain_vs_start") == []


def test_claims_are_like_for_like_and_print_their_gain() -> None:
    claims = [cell for cell in CELLS["ktr"] if cell.kind == "claim"]
    for cell in claims:
        assert cell.against is not None and cell.against.table == cell.reported.table
        assert cell.against.protocol["frames"] == cell.reported.protocol["frames"]
    grpo = next(c for c in claims if c.id.startswith("ktr/same_data/video-ktr@32/video_holmes"))
    assert grpo.id.endswith("claim over vanilla-grpo@32") and grpo.printed_gain == 0.028


def test_registered_cells_are_own_numbers_of_the_main_tables() -> None:
    found = [cell for found in CELLS.values() for cell in found if cell.registered]
    tables = Counter((cell.reported.paper, cell.reported.table) for cell in found)
    assert set(tables) == {
        ("ktr", "main"), ("ktr", "same_data"), ("ffr", "table2_main"),
        ("temporal_r1", "readme_table"), ("temporal_r1", "readme_text_videoqa"),
    }  # fmt: skip
    assert all(cell.reported.model.role != "other" for cell in found)
    assert all(cell.margin is not None for cell in found)
    assert not any(BENCHMARKS.by_id[cell.reported.benchmark].of for cell in found)


def paper_run(maker: Callable[..., Run], arm: str, seed: int, frames: int, **more: Any) -> Run:
    """A made-up run of the paper profile on Video-Holmes."""
    decoding = {"temperature": 0.1, "samples": 1}
    protocol = {"id": "x", "prompt": "video-r1", "max_frames": frames, "decoding": decoding}
    fields = {"profile": "paper", "benchmark": "video_holmes", "protocol": protocol}
    return maker(arm, seed, **{**fields, **more})


def test_runs_find_their_cells(maker: Callable[..., Run]) -> None:
    weights = {"id": "Video-KTR/Video-KTR-7B", "revision": "1" * 40, "sha256": None}
    released = paper_run(maker, "ktr", 0, 64, model=weights)
    trained = paper_run(maker, "ktr", 1, 64)
    runs = [released, trained, paper_run(maker, "ktr", 2, 32), maker("ktr", 3)]
    found = {c.id: c for c in CELLS["ktr"]}
    name = "ktr/main/video-ktr@64/video_holmes/accuracy"
    score, own = found[f"{name} score"], found[f"{name} trained"]
    assert runs_of(score.kind, score.reported, runs, score.assumed) == [released]
    assert runs_of(own.kind, own.reported, runs, own.assumed) == [trained]
    category = next(c for c in found.values() if c.reported.category == "SR")
    assert runs_of(category.kind, category.reported, runs, category.assumed) == []
    verdict = judge(score, runs, POLICY)
    assert isinstance(verdict, Verdict) and verdict.word == "not comparable"
    assert "n" in verdict.text  # 240 made-up questions are not 1,837
    assert judge(score, [], POLICY).reason == "needs a GPU"


@pytest.mark.parametrize(("printed", "word"), [("95.0", "below"), ("5.0", "above")])
def test_a_comparable_run_gets_its_word(maker: Callable[..., Run], printed: str, word: str) -> None:
    """The whole way from a file to a word, with a paper that states everything."""
    changes = {
        "max_pixels: unstated, prompt: unstated, temperature: unstated":
            "max_pixels: 9, prompt: p, temperature: 0.5",
        "subset: unstated, grader: unstated": "subset: test, grader: g",
        "1837": "240",
        "[42.50,": f"[{printed},",
        ", protocol: {frames: 32}": "",
    }  # fmt: skip
    text = FILE
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    cell = next(
        cell
        for cell in cells(paper_from(parse_yaml(text, "demo"), BENCHMARKS))
        if (cell.kind, cell.reported.printed) == ("score", printed)
    )
    protocol = {"prompt": "p", "grader": "g", "max_frames": 16, "max_pixels": 9, "subset": "test"}
    run = maker(
        "ours", 0, paper="demo", profile="paper", benchmark="video_holmes",
        model={"id": "us/ours", "revision": "1" * 40, "sha256": None},
        protocol={**protocol, "decoding": {"temperature": 0.5}},
    )  # fmt: skip
    verdict = judge(cell, [run], POLICY)
    assert (verdict.word, cell.margin and cell.margin.value) == (
        word, 0.03 if printed == "95.0" else 0.01,
    )  # fmt: skip


def test_a_claim_pairs_the_two_arms(maker: Callable[..., Run]) -> None:
    found = {c.id: c for c in CELLS["ktr"]}
    name = "ktr/same_data/video-ktr@32/video_holmes/accuracy claim over"
    assert judge(found[f"{name} vanilla-grpo@32"], [], POLICY).word == "not run"
    runs = [paper_run(maker, arm, seed, 32) for arm in ("ktr", "grpo") for seed in (0, 1)]
    pair = judge(found[f"{name} vanilla-grpo@32"], runs, POLICY)
    assert (pair.word, pair.reason[:7]) == ("undecided", "2 seeds")
    start = paper_run(maker, "cold", 0, 32)
    main = found["ktr/main/video-ktr@32/video_holmes/accuracy claim over qwen2.5-vl-sft@32"]
    assert judge(main, [*runs, start], POLICY).word == "undecided"


def test_assumptions_are_optional() -> None:
    bare = Assumptions((), ())
    assert cells(LOADED["ktr"], assumptions=bare)[0].assumed == {}
