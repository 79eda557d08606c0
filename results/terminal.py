"""Verdicts as plain text of at most 100 columns, for the end of a run.

summary_text   arms with their scores and gains, then the registered claims (any profile)
board_text     printed numbers that were measured, each with its word and what stands behind it
micro_text     every registered claim of the micro profile, paper by paper
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from results.arms import arms, difference
from results.charts import ends, percent, signed
from results.ledger import Run
from results.policy import Policy, load_policy
from results.schema import OUTCOMES
from results.scoreboard import Asked, AskedClaim, Board, Entry, MicroBoard
from results.sections.parts import View
from results.verdict import Claim, count

DOT = " \N{MIDDLE DOT} "


def board_text(board: Board) -> str:
    """Every measured number of the papers' main tables, and the words of the papers; a sentence
    where nothing was measured."""
    blocks = [
        entry_text(entry, asked)
        for entry in board.entries
        for asked in entry.asked
        if asked.verdict.word != "not run"
    ]
    words = [
        f"{part.paper.id}: released checkpoint {part.score.word} ({part.score.reason}); "
        f"trained again {part.trained.word} ({part.trained.reason})"
        for part in board.papers
        if part.entries
    ]
    return "\n\n".join([*blocks, "\n".join([*words, f"{board.headline}."])]) + "\n"


def entry_text(entry: Entry, asked: Asked) -> str:
    """One verdict with its numbers, the claims beside it, and what became of the questions."""
    verdict, number = asked.verdict, entry.number
    what = "released checkpoint" if verdict.question == "E" else "trained here"
    head = [number.paper, number.benchmark, entry.row, what, *([verdict.symbol] * bool(asked.runs))]
    lines = [DOT.join(head)]
    if verdict.delta is None or verdict.narrow is None or verdict.score is None:
        lines.append(f"  reported {number.printed:<10}->  {verdict.text}: {verdict.reason}")
        return "\n".join(lines)
    half = f"{100 * verdict.narrow.half_width:.1f}"
    margin = "no margin" if verdict.margin is None else f"margin ±{100 * verdict.margin:.1f}"
    lines.append(
        f"  reported {number.printed:<10}ours {percent(verdict.score)} ± {half} (90 %)   "
        f"{margin:<15}->  {verdict.text}"
    )
    lines.append(f"  {signed(verdict.delta.estimate)} {ends(verdict.narrow)}: {verdict.reason}")
    lines += [_claim_text(claim) for claim in entry.claims if claim.claim.delta is not None]
    return "\n".join([*lines, _outcomes(asked.runs)])


def _claim_text(asked: AskedClaim) -> str:
    claim = asked.claim
    assert claim.delta is not None and claim.item_interval is not None
    name = f"claim: {difference(claim)}"
    proof = "" if claim.p is None else f"{claim.test.removeprefix('exact ')} p = {claim.p:.1g}  "
    return (
        f"  {name:<26}printed {signed(asked.printed)}   ours {signed(claim.delta)} "
        f"{ends(claim.item_interval)}   {proof}->  {claim.text}"
    )


def _outcomes(runs: Sequence[Run]) -> str:
    counts = Counter[str]()
    for run in runs:
        counts.update(dict(run.record.outcomes))
    found = DOT.join(f"{counts[name]:,} {name}" for name in OUTCOMES if counts[name])
    hours = [run.record.gpu_hours for run in runs if run.record.gpu_hours is not None]
    cost = f"      {sum(hours):.1f} GPU-hours" if hours else ""
    times = f" x {len(runs)}" if len(runs) > 1 else ""
    return f"  {runs[0].record.n:,} items{times}: {found}{cost}"


def summary_text(
    runs: Sequence[Run],
    claims: Sequence[Claim],
    *,
    reference_claims: Sequence[Claim] = (),
    policy: Policy | None = None,
) -> str:
    """The closing table of the terminal, plain text of at most 100 columns."""
    policy = policy or load_policy()
    view = View(arms(runs, claims, policy), tuple(claims), (), tuple(reference_claims), policy)
    record = view.arms[0].runs[0].record
    cell = f"{record.paper}, {record.profile} profile: {record.benchmark} {record.split}"
    columns = f"  {'arm':<18}{'seeds':>5}   {'score':>5} {'interval':<15}{'greedy':>7}"
    lines = [
        f"{cell}, {record.n:,} questions, {view.metric}",
        "",
        f"{columns}   gain over the start",
    ]
    for arm in view.arms:
        greedy = "" if arm.greedy_score is None else percent(arm.greedy_score)
        gain = ""
        if (
            arm.gain is not None
            and arm.gain.delta is not None
            and arm.gain.item_interval is not None
        ):
            gain = f"{signed(arm.gain.delta)} {ends(arm.gain.item_interval)}"
        lines.append(
            f"  {arm.label:<18}{len(arm.runs):>5}   {percent(arm.score.estimate):>5} "
            f"{ends(arm.score, sign=False):<15}{greedy:>7}   {gain}".rstrip()
        )
    lines.append("")
    lines += [line for claim in claims for line in _claim_lines(claim, "claim")]
    lines += [line for claim in reference_claims for line in _claim_lines(claim, "reference")]
    partial = [run.record.arm for run in runs if run.record.partial]
    if partial:
        lines.append(
            f"  {count(len(partial), 'partial run')} left out: {', '.join(sorted(partial))}"
        )
    return "\n".join(lines) + "\n"


def micro_text(boards: Sequence[MicroBoard], kept: Sequence[MicroBoard] = ()) -> str:
    """One line a claim: method, baseline, points, the word, and that of the committed runs."""
    words = {
        (board.paper, difference(claim)): claim.text for board in kept for claim in board.claims
    }
    lines = [f"{'paper':<12}{'claim':<39}{'points':>6}  {'these runs':<20}committed runs"]
    for board in boards:
        for claim in board.claims:
            name = difference(claim)
            points = "" if claim.delta is None else signed(claim.delta)
            known = words.get((board.paper, name), "")
            lines.append(
                f"{board.paper:<12}{name:<39}{points:>6}  {claim.text:<20}{known}".rstrip()
            )
    return "\n".join(lines) + "\n"


def _claim_lines(claim: Claim, source: str) -> list[str]:
    name = difference(claim)
    first = f"  {source:<10}{name:<26}->  {claim.text}"
    reason = f"  {'':<10}{claim.reason}"
    if claim.delta is None or claim.seed_interval is None or claim.item_interval is None:
        return [first, reason]
    numbers = (
        f"{signed(claim.delta)} points   over seeds {ends(claim.seed_interval)}   "
        f"over videos {ends(claim.item_interval)}"
    )
    return [first, f"  {'':<10}{numbers}", reason]
