"""The report asks nothing of the network, escapes everything, and is the same bytes twice."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from results import ledger, publish, report, terminal, verdict
from results.arms import arms
from results.schema import LedgerError
from results.scoreboard import Board
from results.sections.tokens import chosen_by
from results.sections.training import band, curve, spans

POLICY = verdict.load_policy()
ROOT = Path(report.__file__).parents[1]
EVIL = "<script>alert(1)</script>"
VOID = {"meta", "link", "br", "wbr"}


def build(runs: Sequence[ledger.Run], path: Path, **more: Any) -> str:
    report.build(runs, verdict.registered(runs, POLICY), path, **more)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(suite: list[ledger.Run], tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(suite, tmp_path_factory.mktemp("report") / "r.html", command="make it")


class Outline(HTMLParser):
    """Open elements, ids, links, and whether every element was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found["href"] or ""] if "href" in found else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


def outline(text: str) -> Outline:
    parser = Outline()
    parser.feed(text)
    parser.close()
    return parser


# --- one file, no request ------------------------------------------------------------------


def test_no_request_to_anywhere(html: str) -> None:
    assert not re.search(r"""(src|href|action|@import|url\()\s*=?\s*["'(]?\s*(https?:)?//""", html)
    assert not re.search(r"(src|href|@import|url\()[^>]{0,40}http", html)
    script = re.search(r"<script>(.*?)</script>", html, re.S)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:; " in html
    assert f"script-src 'sha256-{digest}'" in html


def test_size(html: str) -> None:
    assert len(html.encode()) < 2_000_000


def test_every_element_closes_and_every_id_is_one(html: str) -> None:
    found = outline(html)
    assert found.open == []
    assert len(found.ids) == len(set(found.ids))
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    wanted = {"claims", "scores", "curves", "tokens", "outcomes", "families", "flips", "alarms"}
    assert wanted | {"cost", "provenance"} < set(found.ids)


def test_two_builds_are_the_same_bytes(suite: list[ledger.Run], tmp_path: Path, html: str) -> None:
    assert build(suite, tmp_path / "a.html", command="make it") == html
    assert build(suite[::-1], tmp_path / "b.html", command="make it") == html


# --- what it says --------------------------------------------------------------------------


def test_words_are_there_not_only_colours(html: str) -> None:
    text = " ".join("".join(outline(html).text).split())
    assert "Does KTR beat GRPO?" in text
    assert "undecided (2 seeds)" in text
    assert "2 seeds, and the rule asks for at least 3" in text.replace("  ", " ")
    assert "KTR \N{MINUS SIGN} random tokens" in text
    assert "GRPO \N{MINUS SIGN} cold start" in text
    assert "make it" in text
    assert "short replies are almost empty" in text  # the alarm of random tokens, seed 1
    for word in ("correct", "wrong", "unparsed", "truncated", "undecodable", "timeout"):
        assert word in text


def test_outcome_counts_are_those_of_the_rows(html: str, suite: list[ledger.Run]) -> None:
    own = [run for run in suite if run.record.arm == "ktr" and not run.greedy]
    correct = sum(row.outcome == "correct" for run in own for row in run.rows)
    section = html[html.index('id="outcomes"') : html.index('id="families"')]
    assert f">{correct:,}</td>" in section


def test_reference_runs_stand_beside(
    suite: list[ledger.Run], maker: Callable[..., ledger.Run], tmp_path: Path
) -> None:
    reference = [maker(arm, s, gain) for arm, gain in (("ktr", 0.2), ("grpo", 0)) for s in range(3)]
    decided = verdict.registered(reference, POLICY)
    text = build(suite, tmp_path / "r.html", reference=reference, reference_claims=decided)
    assert "Committed reference runs" in text and 'class="word w-holds"' in text
    assert text.count('class="card claim"') == 2
    assert "The table of the reference runs" in text
    assert 'id="envelope"' in text and text.count('class="word w-inside"') == 4
    assert "from 3 reference seeds" in text


def test_partial_runs_are_named_and_left_out(
    maker: Callable[..., ledger.Run], tmp_path: Path
) -> None:
    whole = [maker("grpo", 0), maker("cold", 0)]
    half = maker("ktr", 1, 0.3, partial=True)
    text = build([*whole, half], tmp_path / "r.html")
    assert "1 partial run left out of every number: KTR seed 1." in text
    assert "w-not-run" in text
    assert "1 partial run left out: ktr" in terminal.summary_text(
        [*whole, half], verdict.registered([*whole, half], POLICY)
    )
    with pytest.raises(LedgerError, match="no whole run"):
        build([half], tmp_path / "r.html")


def test_one_report_shows_one_benchmark(maker: Callable[..., ledger.Run], tmp_path: Path) -> None:
    runs = [maker("grpo", 0), maker("ktr", 0, profile="paper")]
    with pytest.raises(LedgerError, match="one benchmark of one paper"):
        report.build(runs, (), tmp_path / "r.html")


def test_a_lone_run_without_curves_tokens_or_claims(
    maker: Callable[..., ledger.Run], tmp_path: Path
) -> None:
    run = maker("cold", 0)
    assert run.record.curves is None
    report.build([run], (), tmp_path / "r.html", title="A title")
    found = outline((tmp_path / "r.html").read_text())
    assert "A title" in found.text and "curves" not in found.ids and "tokens" not in found.ids


# --- everything ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything(board: Board, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("suite") / "report.html"
    report.build_suite(board, path, provenance={"lock file": "sha256 abc"})
    return path.read_text(encoding="utf-8")


def test_the_whole_report_is_one_small_sound_file(everything: str) -> None:
    assert len(everything.encode()) < 2_000_000
    found = outline(everything)
    assert found.open == [] and len(found.ids) == len(set(found.ids))
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert {"scoreboard", "differences", "paper-claims", "numbers", "provenance"} < set(found.ids)
    assert not re.search(r"(src|href|@import|url\()[^>]{0,40}http", everything)
    assert "default-src 'none'" in everything


def test_the_whole_report_twice_is_the_same_bytes(
    paper_suite: Path, everything: str, tmp_path: Path
) -> None:
    board, _ = publish.load_board(ROOT, paper_suite)
    report.build_suite(board, tmp_path / "a.html", provenance={"lock file": "sha256 abc"})
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == everything


def test_every_word_has_its_number_and_its_icon(everything: str, board: Board) -> None:
    text = " ".join("".join(outline(everything).text).split())
    assert board.headline in text
    for word in ("reproduced", "below", "above", "within noise", "failed", "not run"):
        css = word.replace(" ", "-")
        assert re.search(rf'class="word w-{css}"><svg[^>]*><(path|circle)', everything), word
    assert "not comparable (prompt)" in text
    assert "Prompt think, the paper has unstated, assumed video-r1." in text
    assert "repro reproduce ktr --profile paper" in text
    assert "89 numbers not run" not in text and "31 numbers not run" in text
    assert "CUDA out of memory" in text and "sha256 abc" in text


def test_micro_and_paper_never_share_a_table(everything: str) -> None:
    paper, micro = everything.split('<div class="part">')
    for place, other in ((paper, "microworld"), (micro, "Video-KTR, ")):
        for found in re.findall(r"<table.*?</table>", place, re.S):
            assert other not in found


def test_without_any_run_the_report_says_what_is_missing(tmp_path: Path) -> None:
    board, _ = publish.load_board(ROOT, tmp_path / "none")
    report.build_suite(board, tmp_path / "r.html")
    text = "".join(outline((tmp_path / "r.html").read_text()).text)
    assert "No printed number counts yet" in text and "No printed number has been measured" in text
    assert "paper-claims" not in outline((tmp_path / "r.html").read_text()).ids


def test_what_a_stranger_wrote_stays_text(board: Board, tmp_path: Path) -> None:
    """Into a record, into a row: everything is escaped."""
    entry = next(e for e in board.entries if e.shown.verdict.word == "reproduced")
    first = entry.shown.runs[0]
    evil = {"reply": EVIL, "prediction": EVIL, "gold": EVIL, "id": EVIL, "tags": {EVIL: EVIL}}
    rows = tuple(dataclasses.replace(row, **evil) for row in first.rows[:1])
    record = dataclasses.replace(
        first.record,
        who=EVIL,
        engine={"name": EVIL, "version": EVIL},
        machine={"cpu": EVIL, "gpu": EVIL, "driver": EVIL},
    )
    asked = dataclasses.replace(entry.shown, runs=(ledger.Run(record, rows),))
    field = dataclasses.replace(asked.verdict.fields[0], ours=EVIL, paper=EVIL, source=EVIL)
    verdict = dataclasses.replace(asked.verdict, fields=(field,), reason=EVIL, excluded=(EVIL,))
    asked = dataclasses.replace(asked, verdict=verdict)
    part = dataclasses.replace(board.papers[1], entries=(dataclasses.replace(entry, score=asked),))
    report.build_suite(
        dataclasses.replace(board, papers=(part,)), tmp_path / "r.html", provenance={EVIL: EVIL}
    )
    text = (tmp_path / "r.html").read_text()
    assert EVIL not in text and outline(text).open == []
    assert "".join(outline(text).text).count(EVIL) >= 10


# --- escaping ------------------------------------------------------------------------------


def test_a_reply_with_a_script_stays_text(maker: Callable[..., ledger.Run], tmp_path: Path) -> None:
    token = {"text": EVIL, "entropy": 1.0, "visual": None, "temporal": 0.1}
    signals = [["entropy"], [f'"{EVIL}', "visual"], []]
    view = {
        "question": EVIL,
        "gold": f'"><img src=x onerror="{EVIL}">',
        "reward": 1.0,
        "advantage": None,
        "tokens": [{**token, "signals": chosen} for chosen in signals],
    }
    made = maker("ktr", 0, who=EVIL, model={"id": EVIL, "revision": EVIL, "sha256": None})
    evil = ledger.Run(
        made.record,
        made.rows,
        ({"step": 1, "kl": 0.1, "alarms": [EVIL]}, {"step": 2, "kl": 0.2, "alarms": []}),
        (view,),
    )
    text = build(
        [evil, maker("grpo", 0, split="test")],
        tmp_path / "r.html",
        title=EVIL,
        command=f"repro {EVIL}",
        provenance={EVIL: EVIL},
    )
    assert EVIL not in text and "<img" not in text
    found = outline(text)
    assert found.open == [] and "".join(found.text).count(EVIL) >= 8


def test_the_curve_data_cannot_close_its_element(html: str) -> None:
    block = re.search(r'class="curve-data">(.*?)</script>', html, re.S)
    assert block is not None and "<" not in block[1]
    data = json.loads(block[1])
    assert set(data["panels"]) == {"reward", "accuracy", "length", "kl", "kept", "zero_std"}
    for panel in data["panels"].values():
        for arm, values in panel["arms"].items():
            assert len(values) == len(data["arms"][arm]["steps"])


# --- parts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signals", "kept", "kind"),
    [
        (["entropy"], True, "entropy"),
        (["visual", "temporal"], True, "several"),
        ([], True, "drawn"),
        ([], False, "none"),
        (["novel"], True, "drawn"),
    ],
)
def test_which_signal_chose_a_token(signals: list[str], kept: bool, kind: str) -> None:
    assert chosen_by({"signals": signals, "kept": kept}) == kind


def test_a_curve_is_the_mean_of_its_seeds(suite: list[ledger.Run]) -> None:
    arm = next(arm for arm in arms(suite, (), POLICY) if arm.name == "grpo")
    drawn = curve(arm, "reward", 1)
    assert drawn is not None and len(drawn.seeds) == 2 and len(drawn.steps) == 30
    first = [run.curves[0]["reward"] for run in arm.runs]
    assert drawn.mean[0] == pytest.approx(sum(first) / 2)
    assert curve(arm, "no such metric", 1) is None


def test_long_curves_are_averaged_not_cut(suite: list[ledger.Run]) -> None:
    run = next(run for run in suite if run.curves)
    lines = tuple({"step": s, "kl": float(s)} for s in range(1, 1001))
    arm = arms([ledger.Run(run.record, run.rows, lines)], (), POLICY)[0]
    drawn = curve(arm, "kl", 1)
    assert drawn is not None and len(drawn.steps) == 250
    assert drawn.mean[0] == 2.5 and drawn.mean[-1] == 998.5


def test_alarm_steps_are_joined_to_spans() -> None:
    assert spans([3, 7, 8, 9]) == "3, 7\N{EN DASH}9"
    assert spans(range(1, 40, 2)).endswith("15 and 12 more")


def test_a_band_needs_seeds_and_holds_them(maker: Callable[..., ledger.Run]) -> None:
    three = arms([maker("grpo", seed) for seed in range(3)], (), POLICY)[0]
    drawn = curve(three, "reward", 3)
    assert drawn is not None
    shade = band(drawn, 3, POLICY)
    assert shade is not None and shade.steps == drawn.steps
    for low, mean, high in zip(shade.low, drawn.mean, shade.high, strict=True):
        assert low is not None and high is not None and mean is not None and low < mean < high
    two = arms([maker("ktr", seed) for seed in range(2)], (), POLICY)[0]
    few = curve(two, "reward", 3)
    assert few is not None and band(few, 3, POLICY) is None


# --- the terminal --------------------------------------------------------------------------


def test_the_closing_table(suite: list[ledger.Run]) -> None:
    claims = verdict.registered(suite, POLICY)
    text = terminal.summary_text(suite, claims, reference_claims=claims[:1])
    lines = text.splitlines()
    assert lines[0].startswith(
        "ktr, micro profile: microworld test, 240 questions, accuracy, avg@4"
    )
    assert [line.split("  ")[1].strip() for line in lines[3:7]] == [
        "cold start", "GRPO", "KTR", "random tokens",
    ]  # fmt: skip
    assert "KTR \N{MINUS SIGN} GRPO" in text and "->  undecided (2 seeds)" in text
    assert "  reference KTR" in text
    assert max(map(len, lines)) <= 100
    score = next(r for r in suite if r.record.arm == "cold" and not r.greedy).record.score
    assert f"{100 * score:.1f} [" in lines[3]
