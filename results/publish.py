"""What is committed beside the runs, and the proof that it follows from them.

    SCOREBOARD.md           every registered cell, and the micro claims in a table of their own
    README.md               the same function, brief, between two marker comments
    results/report.json     the same board as data

`verify_all` computes every score from its rows and these files from the runs, and names whatever
differs by a byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from results import ledger
from results.arms import Arm, arms, difference
from results.charts import ends, percent, signed
from results.filing import failures
from results.ledger import Run, write_atomically
from results.policy import Policy, load_policy
from results.reported import load_reported
from results.schema import LedgerError
from results.scoreboard import (
    GENERATED,
    AskedClaim,
    Board,
    Entry,
    MicroBoard,
    PaperBoard,
    build_board,
    report_json,
)
from results.verdict import WORDS, Claim, Verdict, count

BEGIN, END = "<!-- scoreboard: begin -->", "<!-- scoreboard: end -->"
ICONS = {
    "reproduced": "\N{WHITE HEAVY CHECK MARK}",
    "holds": "\N{WHITE HEAVY CHECK MARK}",
    "below": "\N{DOWNWARDS BLACK ARROW}",
    "reversed": "\N{DOWNWARDS BLACK ARROW}",
    "above": "\N{UPWARDS BLACK ARROW}",
    "within noise": "\N{ALMOST EQUAL TO}",
    "undecided": "\N{ALMOST EQUAL TO}",
    "open": "\N{ALMOST EQUAL TO}",
    "not comparable": "\N{NOT EQUAL TO}",
    "failed": "\N{WARNING SIGN}",
    "not run": "\N{MIDDLE DOT}",
}
NOTHING = "\N{EM DASH}"


@dataclass(frozen=True)
class Verified:
    """What a verification read, and every difference it found, one sentence each."""

    runs: int
    files: int
    problems: tuple[str, ...]


# --- markdown ------------------------------------------------------------------------------


def scoreboard_markdown(board: Board, *, brief: bool = False) -> str:
    """The board as Markdown: the papers, then the micro profile. brief: for the README, where the
    reader has just run the micro profile, it comes first, and a paper is one line."""
    papers = [f"**{board.headline}.**", _brief(board) if brief else _full(board)]
    micro = [_micro(part, board.policy) for part in board.micro]
    level = "###" if brief else "##"
    if micro:
        kept = "A tiny student trained on a CPU; its numbers are our own, never beside a paper's."
        micro = [f"{level} Micro profile", kept, *micro]
    parts = [*micro, f"{level} Printed numbers", *papers] if brief else [*papers, *micro]
    return "\n\n".join(parts) + "\n"


def scoreboard_file(board: Board) -> str:
    """SCOREBOARD.md."""
    return f"# Scoreboard\n\n<!-- {GENERATED} -->\n\n{scoreboard_markdown(board)}"


def readme_with(text: str, board: Board) -> str:
    """The README with its scoreboard replaced. Raises LedgerError without the two markers."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise LedgerError(f"README.md needs one {BEGIN} and, after it, one {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    block = f"<!-- {GENERATED} -->\n\n{scoreboard_markdown(board, brief=True)}"
    return f"{before}{BEGIN}\n{block}{END}{after}"


def _brief(board: Board) -> str:
    rows = []
    for part in board.papers:
        words = (part.score.word, part.trained.word)
        rows.append(
            (
                part.paper.title,
                str(len(part.entries)) if part.entries else "none could be had",
                *(f"{ICONS[word]} {word}" for word in words),
                f"{part.score.reproduced + part.trained.reproduced}"
                f" of {part.score.counted + part.trained.counted}",
            )
        )
    return _table(
        ("Paper", "Registered numbers", "Released checkpoint", "Trained again", "Reproduced"), rows
    )


def _full(board: Board) -> str:
    """Per paper: a matrix of printed numbers with their words, then every measured one."""
    blocks = []
    for part in board.papers:
        head = f"## {part.paper.title}\n\narXiv {part.paper.arxiv}. {part.paper.told}"
        blocks.append("\n\n".join([head, *_matrix(part), *_measured(part)]))
    return "\n\n".join(blocks)


def _matrix(part: PaperBoard) -> list[str]:
    """Lines of the paper by benchmarks: icon, ours where there is one, and the printed number."""
    if not part.entries:
        return []
    columns = list(dict.fromkeys(map(_column, part.entries)))
    rows: dict[str, dict[str, str]] = {}
    for entry in part.entries:
        verdict = entry.shown.verdict
        ours = "" if verdict.score is None else f"{percent(verdict.score)} / "
        text = f"{ICONS[verdict.word]} {ours}{entry.number.printed}"
        rows.setdefault(entry.row, {})[_column(entry)] = text
    lines = [(row, *(found.get(column, "") for column in columns)) for row, found in rows.items()]
    said = f"Ours / printed; {', '.join(f'{icon} {word}' for word, icon in _legend(part))}."
    return [said, _table(("Method", *columns), lines)]


def _measured(part: PaperBoard) -> list[str]:
    rows = [row for entry in part.entries for row in _entry_rows(entry)]
    headings = ("Method", "Benchmark", "Printed", "Ours", "Δ, 90 %", "Margin", "Runs", "Word")
    return [_table(headings, rows, right=(2, 3))] if rows else []


def _legend(part: PaperBoard) -> list[tuple[str, str]]:
    words = {entry.shown.verdict.word for entry in part.entries}
    return [(word, ICONS[word]) for word in WORDS if word in words]


def _column(entry: Entry) -> str:
    metric = entry.number.metric
    return entry.benchmark + ("" if metric == "accuracy" else f" {metric.replace('_', ' ')}")


def _entry_rows(entry: Entry) -> list[tuple[str, ...]]:
    """One line per verdict on runs, and one per measured claim."""
    asked = [each.verdict for each in entry.asked if each.verdict.word != "not run"]
    claims = [each for each in entry.claims if each.claim.delta is not None]
    return [_verdict_row(entry, v) for v in asked] + [_claim_row(entry, c) for c in claims]


def _verdict_row(entry: Entry, verdict: Verdict) -> tuple[str, ...]:
    delta = NOTHING
    if verdict.delta is not None and verdict.narrow is not None:
        delta = f"{signed(verdict.delta.estimate)} {ends(verdict.narrow)}"
    why = f": {verdict.reason}" if verdict.word == "failed" else ""
    return (
        entry.row + (", trained here" if verdict.question == "T" and verdict.runs else ""),
        _column(entry),
        entry.number.printed,
        NOTHING if verdict.score is None else percent(verdict.score),
        delta,
        NOTHING if verdict.margin is None else f"±{100 * verdict.margin:.2f}",
        verdict.symbol if verdict.runs else NOTHING,
        f"{ICONS[verdict.word]} {verdict.text}{why}",
    )


def _claim_row(entry: Entry, asked: AskedClaim) -> tuple[str, ...]:
    claim = asked.claim
    assert claim.delta is not None and claim.item_interval is not None
    return (
        f"claim: {difference(claim)}",
        entry.benchmark,
        signed(asked.printed),
        signed(claim.delta),
        ends(claim.item_interval),
        NOTHING,
        f"S = {claim.seeds}" if claim.p is None else claim.basis,
        f"{ICONS[claim.word]} {claim.text}",
    )


def _micro(part: MicroBoard, policy: Policy) -> str:
    """What was measured, the arms with their gains, and the registered claims."""
    shown = arms(part.runs, part.claims, policy)
    return "\n\n".join([_measure(part, shown), _arms(shown), _claims(part)])


def _measure(part: MicroBoard, shown: Sequence[Arm]) -> str:
    first = shown[0].runs[0]
    seeds = max(len(arm.runs) for arm in shown)
    steps = sorted({r.curves[-1]["step"] for arm in shown for r in arm.runs if r.curves})
    trained = f", {count(seeds, 'seed')} of {' or '.join(map(str, steps))} steps" if steps else ""
    return (
        f"**{part.paper}** on {part.benchmark} ({part.split}): {first.record.n:,} questions, "
        f"{first.record.metric}, {_decoding(first)}{trained}."
    )


def _decoding(run: Run) -> str:
    if run.record.samples == 1:
        return "greedy" if run.greedy else f"T = {run.temperature:g}"
    return f"avg@{run.record.samples} at T = {run.temperature:g}"


def _arms(shown: Sequence[Arm]) -> str:
    rows = [
        (
            arm.label,
            f"{percent(arm.score.estimate)} {ends(arm.score, sign=False)}",
            NOTHING if arm.greedy_score is None else percent(arm.greedy_score),
            _gain(arm.gain),
            str(len(arm.runs)),
        )
        for arm in shown
    ]
    headings = ("Arm", "Score, 95 % over videos", "Greedy", "Gain over the start", "Seeds")
    return _table(headings, rows, right=(2,))


def _gain(gain: Claim | None) -> str:
    if gain is None or gain.delta is None or gain.item_interval is None:
        return ""
    return f"{signed(gain.delta)} {ends(gain.item_interval)}"


def _claims(part: MicroBoard) -> str:
    rows = [
        (
            difference(claim),
            NOTHING if claim.delta is None else signed(claim.delta),
            NOTHING if claim.item_interval is None else ends(claim.item_interval),
            NOTHING if claim.seed_interval is None else ends(claim.seed_interval),
            f"{ICONS[claim.word]} {claim.text}",
            claim.reason,
        )
        for claim in part.claims
    ]
    headings = ("Claim", "Δ, points", "Over videos, 95 %", "Over seeds, 95 %", "Word", "Why")
    return _table(headings, rows, right=(1,))


def _table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()
) -> str:
    rule = ["---:" if place in right else "---" for place in range(len(headings))]
    lines = [headings, rule, *rows]
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)


def _plain(text: str) -> str:
    """A cell's text: nothing in it can end the cell or begin markup."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


# --- files ---------------------------------------------------------------------------------


def load_board(root: Path, runs: Path | None = None) -> tuple[Board, list[Run]]:
    """The board of the repository at `root`, and the runs it was made from.

    runs: the ledger, where it is not results/runs. Raises LedgerError, ReportedError.
    """
    home = runs or root / "results" / "runs"
    found = ledger.load(home) if home.is_dir() else []
    papers = [load_reported(path) for path in sorted(root.glob("repro/*/reported.yaml"))]
    board = build_board(papers, found, load_policy(), failures(home) if home.is_dir() else ())
    return board, found


def artefacts(root: Path, board: Board) -> dict[Path, bytes]:
    """Path -> content of every generated file that is committed."""
    readme = root / "README.md"
    return {
        root / "SCOREBOARD.md": scoreboard_file(board).encode(),
        root / "results" / "report.json": report_json(board).encode(),
        readme: readme_with(readme.read_text(encoding="utf-8"), board).encode(),
    }


def publish(root: Path, board: Board | None = None) -> list[Path]:
    """Write the generated files of the repository at `root`; those that changed."""
    board = board or load_board(root)[0]
    changed = []
    for path, content in artefacts(root, board).items():
        if not path.is_file() or path.read_bytes() != content:
            write_atomically(path, content)
            changed.append(path)
    return changed


def verify_all(root: Path, runs: Path | None = None) -> Verified:
    """Recompute every score, verdict and generated file. Raises LedgerError where a file cannot
    be read at all; every other difference is a problem in the answer."""
    board, found = load_board(root, runs)
    problems = [f"{_place(run, root)}: {what}" for run in found for what in ledger.verify(run)]
    expected = artefacts(root, board)
    for path, content in expected.items():
        name = path.relative_to(root)
        if not path.is_file():
            problems.append(f"{name} is missing; `repro report` writes it")
        elif path.read_bytes() != content:
            line = _first_difference(path.read_bytes(), content)
            problems.append(f"{name} differs from what the runs give, first in line {line}")
    return Verified(len(found), len(expected), tuple(problems))


def _place(run: Run, root: Path) -> str:
    assert run.directory is not None
    if run.directory.is_relative_to(root):
        return str(run.directory.relative_to(root))
    return str(run.directory)


def _first_difference(one: bytes, other: bytes) -> int:
    pairs = zip(one.split(b"\n"), other.split(b"\n"), strict=False)
    return next(
        (n for n, (a, b) in enumerate(pairs, 1) if a != b),
        1 + min(one.count(b"\n"), other.count(b"\n")),
    )
