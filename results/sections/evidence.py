"""What stands behind a score: flips between two runs, questions as they were answered, history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

import numpy as np

from results import charts
from results.arms import Arm, label
from results.charts import ends, percent, signed
from results.claims import NotComparable
from results.compare import KINDS, Comparison, Flip, compare, paired_p, same_protocol
from results.ledger import Run
from results.policy import Policy
from results.sections.parts import (
    View,
    card,
    cell,
    more,
    number,
    row,
    section,
    swatch,
    table,
    word_badge,
)

SAMPLES = 20  # questions shown of a run
_LONGEST = 1200  # characters of a reply
_WORDS = {
    "fixed": "answered better in the second run",
    "broken": "answered worse in the second run",
    "format only": "only the share of readable replies changed",
    "same wrong": "wrong in both, with the same answers",
    "other wrong": "wrong in both, with other answers",
}


# --- in a view of arms ---------------------------------------------------------------------


def flips(view: View) -> str:
    """Question by question: method against baseline of the headline claim, seed by seed."""
    if not view.claims:
        return ""
    by_name = {arm.name: arm for arm in view.arms}
    claim = view.claims[0]
    if claim.method not in by_name or claim.baseline not in by_name:
        return ""
    seeds = {run.record.seed: run for run in by_name[claim.baseline].runs}
    pairs = [
        (seeds[r.record.seed], r) for r in by_name[claim.method].runs if r.record.seed in seeds
    ]
    if not pairs:
        return ""
    found = [compare(first, second, view.policy) for first, second in pairs]
    rows = [
        row(
            [
                cell(f"seed {second.record.seed}", "nowrap"),
                cell(_bar(comparison), "plot"),
                *(number(f"{comparison.counts[kind]:,}") for kind in KINDS),
                number(signed(comparison.difference.estimate)),
            ]
        )
        for comparison, (_, second) in zip(found, pairs, strict=True)
    ]
    headings = [("", ""), ("", "")]
    headings += [(f'<i class="box {_css(kind)}"></i>{kind}', "num") for kind in KINDS]
    headings += [("Δ, pp", "num")]
    text = (
        f"{escape(label(claim.method))} against {escape(label(claim.baseline))}, paired by "
        "question. Questions that both answer without a fault are not counted."
    )
    last = pairs[0][1]
    inside = more(f"Flips of seed {last.record.seed}", flip_table(found[0]))
    inside += more(_drawn(last), sample_table(last, view.policy))
    body = card(table(headings, rows) + inside)
    return section(view, "flips", "Question by question", text, body)


def _drawn(run: Run) -> str:
    shown = min(SAMPLES, run.record.n)
    whose = f"{label(run.record.arm)}, seed {run.record.seed}"
    drawn = f"{shown} of {run.record.n:,} questions, drawn with a fixed seed"
    return f"{drawn}, as {escape(whose)}, answered"


def history(view: View) -> str:
    """Score per commit of the suite, with the changes that are more than chance marked."""
    commits = commits_of([run for arm in view.arms for run in arm.runs])
    if len(commits) < 2:
        return ""
    body = card(history_table(view.arms, commits, view.policy, view.colours))
    text = "Ours only, oldest first. A mark says that the same weights scored differently."
    return section(view, "history", "History", text, body)


# --- parts, also of a cell card ------------------------------------------------------------


def flip_table(comparison: Comparison, limit: int = 24) -> str:
    """The questions that changed, fixed and broken alternating, at most `limit`."""
    changed = [f for f in comparison.flips if f.kind in ("fixed", "broken", "format only")]
    chosen = sorted(_spread(changed, limit), key=lambda f: (KINDS.index(f.kind), f.id))
    rows = [
        row(
            [
                cell(escape(flip.id), "mono nowrap"),
                cell(f'<i class="box {_css(flip.kind)}"></i>{flip.kind}', "nowrap"),
                cell(escape(flip.gold)),
                cell(escape(flip.answers[0])),
                cell(escape(flip.answers[1])),
                number(f"{percent(flip.first)} → {percent(flip.second)}"),
                cell(_tags(flip.tags.values()), "faint"),
            ]
        )
        for flip in chosen
    ]
    headings = (
        ("Question", ""), ("", ""), ("Gold", ""), ("First run", ""), ("Second run", ""),
        ("Score, %", "num"), ("", ""),
    )  # fmt: skip
    left = len(changed) - len(rows)
    rest = f'<p class="faint">and {left:,} more; <code>repro compare</code> lists all</p>'
    return table(headings, rows) + (rest if left else "")


def flip_bar(comparison: Comparison) -> str:
    """A bar of the kinds with its legend, and the paired test."""
    legend = "".join(
        f'<span title="{_WORDS[kind]}"><i class="box {_css(kind)}"></i>{kind} '
        f"<b>{comparison.counts[kind]:,}</b></span>"
        for kind in KINDS
    )
    d = comparison.difference
    test = (
        f'<span class="faint">{signed(d.estimate)} pp {ends(d)}, {comparison.test} '
        f"p = {comparison.p:.2g}</span>"
    )
    return f'{_bar(comparison)}<div class="keys">{legend}{test}</div>'


def sample_table(run: Run, policy: Policy, limit: int = SAMPLES) -> str:
    """Questions of one run with gold, prediction, outcome, and the reply where it was kept."""
    ids = run.items.ids
    rng = np.random.default_rng(policy.draw_seed)
    chosen = {ids[i] for i in rng.choice(len(ids), min(limit, len(ids)), replace=False)}
    rows = []
    for reply in run.rows:
        if reply.id not in chosen or reply.k > 0:
            continue
        text = ""
        if reply.reply is not None:
            kept = reply.reply[:_LONGEST] + (" …" if len(reply.reply) > _LONGEST else "")
            text = more("reply", f"<pre>{escape(kept)}</pre>")
        elif reply.detail:
            text = f'<span class="faint">{escape(reply.detail)}</span>'
        rows.append(
            row(
                [
                    cell(escape(reply.id), "mono"),
                    cell(escape(reply.gold)),
                    cell("" if reply.prediction is None else escape(reply.prediction)),
                    cell(f'<i class="box o-{reply.outcome}"></i>{reply.outcome}', "nowrap"),
                    number(f"{reply.tokens}"),
                    cell(_tags(reply.tags.values()), "faint"),
                    cell(text, "reply"),
                ]
            )
        )
    headings = (
        ("Question", ""), ("Gold", ""), ("Answer", ""), ("Outcome", ""), ("Tokens", "num"),
        ("", ""), ("", ""),
    )  # fmt: skip
    return table(headings, rows)


def history_table(
    arms: Sequence[Arm],
    commits: Sequence[tuple[str, str]],
    policy: Policy,
    colours: Mapping[str, int] | None = None,
) -> str:
    """Commits by arms; commits: (commit, day of its first run)."""
    every = [run.record.score for arm in arms for run in arm.runs]
    scale = charts.scale_over(every)
    rows = []
    before: dict[str, list[Run]] = {}
    for commit, day in commits:
        for place, arm in enumerate(arms):
            runs = [run for run in arm.runs if run.record.git["commit"] == commit]
            if not runs:
                continue
            colour = (colours or {}).get(arm.name, place)
            mean = float(np.mean([run.record.score for run in runs]))
            marks = "".join(charts.marker(colour, scale.at(r.record.score), 9) for r in runs)
            rows.append(
                row(
                    [
                        cell(escape(commit[:10]), "mono"),
                        cell(escape(day), "nowrap faint"),
                        cell(f"{swatch(colour)}{escape(arm.label)}", "nowrap"),
                        cell(charts.track(marks, 18), "plot"),
                        number(f"{percent(mean)}"),
                        cell(_step(before.get(arm.name, []), runs, policy), "nowrap"),
                    ],
                    arm=colour if colours else None,
                )
            )
            before[arm.name] = runs
    headings = (
        ("Commit", ""), ("", ""), ("Arm", ""), ("A point per run", ""), ("Score", "num"), ("", ""),
    )  # fmt: skip
    return table(headings, rows)


def commits_of(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Commits of the suite with the day of their first run, oldest first."""
    first: dict[str, str] = {}
    for run in runs:
        commit = run.record.git["commit"]
        if commit:
            first[commit] = min(first.get(commit, run.record.started), run.record.started)
    return [(c, at[:10]) for c, at in sorted(first.items(), key=lambda pair: (pair[1], pair[0]))]


def _step(before: Sequence[Run], now: Sequence[Run], policy: Policy) -> str:
    """A mark where the same weights and seed scored otherwise than under the commit before."""
    seeds = {(run.record.seed, run.record.model["sha256"]): run for run in before}
    for run in now:
        other = seeds.get((run.record.seed, run.record.model["sha256"]))
        if other is None or run.record.model["sha256"] is None:
            continue
        try:
            same_protocol(other, run)
        except NotComparable:
            return word_badge("not comparable", "another protocol")
        delta = run.items.scores - other.items.scores
        p, _ = paired_p(delta, run.items.clusters, policy)
        if p < policy.gate_alpha and abs(float(delta.mean())) >= policy.gate_drop:
            return word_badge("above" if delta.mean() > 0 else "below", signed(float(delta.mean())))
    return ""


def _bar(comparison: Comparison) -> str:
    parts = [(kind.replace(" ", "-"), comparison.counts[kind]) for kind in KINDS]
    return charts.stacked(parts, max(1, sum(comparison.counts.values())))


def _css(kind: str) -> str:
    return f"o-{kind.replace(' ', '-')}"


def _tags(values: Iterable[str]) -> str:
    return escape(", ".join(values))


def _spread(flips: Sequence[Flip], limit: int) -> list[Flip]:
    """At most `limit`, the same number of every kind as far as there are any."""
    by_kind = {kind: [f for f in flips if f.kind == kind] for kind in KINDS}
    chosen: list[Flip] = []
    while len(chosen) < limit and any(by_kind.values()):
        for group in by_kind.values():
            if group and len(chosen) < limit:
                chosen.append(group.pop(0))
    return chosen
