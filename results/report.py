"""The report: one HTML file that asks nothing of the network.

    of a run    headline claim · comparisons · scores · curves · envelope · tokens · timeline
                · outcomes · families · flips · alarms · cost · history · provenance
    of all      counts by word · scoreboard · differences with margins · the papers' claims
                · a card per number; then every micro profile as above, in a part of its own

A content security policy inside the file forbids every request; two builds are byte-identical.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path

from results import charts
from results.arms import arms, label
from results.ledger import Run, write_atomically
from results.scoreboard import Board, MicroBoard
from results.sections import board as boards
from results.sections.cards import Command, cards, how_to_run
from results.sections.evaluation import families, outcomes, scores
from results.sections.evidence import flips, history
from results.sections.headline import comparisons, hero
from results.sections.parts import View
from results.sections.provenance import provenance as provenance_section
from results.sections.provenance import whole_provenance
from results.sections.timeline import timeline
from results.sections.tokens import tokens
from results.sections.training import alarms, cost, curves, envelope
from results.verdict import START, Claim, Policy, count, load_policy, registered

_SECTIONS = (
    comparisons, scores, curves, envelope, tokens, timeline, outcomes, families, flips, alarms,
    cost, history,
)  # fmt: skip
_ANCHOR = re.compile(r'<section id="([a-z0-9_-]+)">')
_LOGO = (
    '<svg viewBox="0 0 24 24" aria-hidden="true">'
    '<rect x="1.5" y="3.5" width="21" height="17" rx="4" fill="var(--ink)"/><g fill="var(--bg)">'
    '<rect x="4" y="6" width="2.4" height="2.6" rx=".8"/>'
    '<rect x="4" y="10.7" width="2.4" height="2.6" rx=".8"/>'
    '<rect x="4" y="15.4" width="2.4" height="2.6" rx=".8"/></g>'
    '<path d="M9.5 12.4l3.2 3.2 6-6.6" fill="none" stroke="var(--arm2)" stroke-width="2.6" '
    'stroke-linecap="round" stroke-linejoin="round"/></svg>'
)
_BRAND = f'<span class="brand">{_LOGO}ReelProof</span>'


def build(
    runs: Sequence[Run],
    claims: Sequence[Claim],
    path: Path | str,
    *,
    reference: Sequence[Run] = (),
    reference_claims: Sequence[Claim] = (),
    policy: Policy | None = None,
    title: str = "",
    command: str = "",
    provenance: Mapping[str, str] | None = None,
) -> Path:
    """Write the report of `runs` to `path` and return it.

    claims: the first is the headline. reference, reference_claims: committed runs and what they
    decided, shown beside. command: what makes this report again. provenance: further facts, name
    to text. Raises LedgerError when the runs belong to more than one paper, profile or benchmark.
    """
    policy = policy or load_policy()
    view = View(
        arms=arms(runs, claims, policy),
        claims=tuple(claims),
        reference=arms(reference, reference_claims, policy) if reference else (),
        reference_claims=tuple(reference_claims),
        policy=policy,
    )
    record = view.arms[0].runs[0].record
    title = title or f"{record.paper} \N{MIDDLE DOT} {record.profile} profile"
    partial = [run for run in runs if run.record.partial]
    body = (
        f'<div class="top">{_BRAND}{_chips(view)}</div>'
        f"{_view(view, title, 1, command, provenance or {}, partial)}{_footer(view.policy)}"
    )
    return _write(path, _document(_headline(view, title), body))


def build_suite(
    board: Board,
    path: Path | str,
    *,
    command: str = "repro report",
    provenance: Mapping[str, str] | None = None,
    how: Command = how_to_run,
    remake: Callable[[MicroBoard], str] = lambda micro: "",
) -> Path:
    """Write the report of everything to `path` and return it: the papers' numbers, how the papers'
    methods were trained here, then every micro profile in a part of its own.

    command: what makes this report again. provenance: further facts (the lock file's hash, where
    the SBOM lies), name to text. how: the command that fills a cell. remake: the command that makes
    a micro profile's runs again.
    """
    parts = "".join(part(board) for part in (boards.scoreboard, boards.differences, boards.claims))
    parts += cards(board, how)
    views = [_micro_view(micro, board.policy) for micro in board.micro]
    own = "".join(
        f'<div class="part"><p class="kicker">Our own numbers, never compared with a paper\'s</p>'
        f"{_view(view, _title(view), 2, remake(micro), {}, ())}</div>"
        for view, micro in zip(views, board.micro, strict=True)
    )
    trained = "".join(map(_training, trainings(board)))
    end = whole_provenance(board, command, provenance or {})
    links = _links(parts) + "".join(
        f'<a href="#{view.key}claims">micro: {escape(view.arms[0].runs[0].record.paper)}</a>'
        for view in views
    )
    body = (
        f'<div class="top">{_BRAND}{_totals(board)}</div>'
        f'<div class="wide">{boards.hero(board)}</div>'
        f'<div class="bar-sticky"><div>{boards.filters(board)}'
        f'<nav>{links}<a href="#provenance">provenance</a></nav></div></div>'
        f"<main>{parts}{trained}{own}{end}</main>{_footer(board.policy)}"
    )
    return _write(path, _document(f"{board.headline} - ReelProof", body))


def _micro_view(micro: MicroBoard, policy: Policy) -> View:
    return View(
        arms=arms(micro.runs, micro.claims, policy),
        claims=micro.claims,
        reference=(),
        reference_claims=(),
        policy=policy,
        key=f"{micro.paper}-{micro.benchmark}-{micro.split}-".replace("_", "-"),
        source="Committed reference runs",
    )


def trainings(board: Board) -> list[View]:
    """Per paper the arms that were trained here, as scored on the benchmark most of them share."""
    found = []
    for part in board.papers:
        groups: dict[tuple[str, str, str], dict[str, Run]] = {}
        for entry in part.entries:
            for run in entry.trained.runs if entry.trained else ():
                r = run.record
                if run.curves and not r.partial:
                    key = (r.benchmark, r.split, r.protocol_hash)
                    groups.setdefault(key, {})[f"{r.arm} {r.seed}"] = run
        if groups:
            most = max(sorted(groups), key=lambda key: len(groups[key]))
            runs = list(groups[most].values())
            own = registered(runs, board.policy)
            claims = tuple(claim for claim in own if claim.delta is not None)
            place = f"{part.paper.id}-trained-".replace("_", "-")
            shown = arms(runs, claims, board.policy)
            found.append(View(shown, claims, (), (), board.policy, key=place))
    return found


def _training(view: View) -> str:
    """Curves, token view, alarms and cost of a paper's arms."""
    record = view.arms[0].runs[0].record
    body = "".join(part(view) for part in (curves, envelope, tokens, alarms, cost))
    title = f"How the arms of {escape(record.paper)} were trained here"
    return (
        f'<div class="part view"><p class="kicker">Trained again, {escape(record.profile)} profile'
        f'</p><h2>{title}</h2>{_bar(view, body)}<div class="wide">{body}</div></div>'
    )


def _write(path: Path | str, text: str) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, text.encode("utf-8", "replace"))  # a lone surrogate is no text
    return target


def _document(title: str, body: str) -> str:
    here = Path(__file__).parent
    css = (here / "page.css").read_text(encoding="utf-8")
    script = (here / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{css}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""


def _view(
    view: View,
    title: str,
    level: int,
    command: str,
    provenance: Mapping[str, str],
    partial: Sequence[Run],
) -> str:
    """One benchmark of one paper's profile, with its own legend."""
    body = "".join(part(view) for part in _SECTIONS) + provenance_section(view, command, provenance)
    return (
        f'<div class="view"><div class="wide">{hero(view, title, level)}{_partial(partial)}</div>'
        f'{_bar(view, body)}<div class="wide">{body}</div></div>'
    )


def _title(view: View) -> str:
    record = view.arms[0].runs[0].record
    return (
        f"{record.paper} \N{MIDDLE DOT} {record.profile} profile \N{MIDDLE DOT} {record.benchmark}"
    )


def _headline(view: View, title: str) -> str:
    if not view.claims:
        return f"{title} - ReelProof"
    first = view.claims[0]
    return (
        f"{label(first.method)} against {label(first.baseline)}: {first.text} - {title} - ReelProof"
    )


def _chips(view: View) -> str:
    record = view.arms[0].runs[0].record
    videos = len(set(view.arms[0].runs[0].items.clusters.tolist()))
    trained = [run for arm in view.arms if arm.name != START for run in arm.runs]
    steps = {len(run.curves) for run in trained if run.curves}
    texts = [
        f"{record.profile} profile",
        f"{record.benchmark} {record.split}",
        f"{record.n:,} questions on {videos:,} videos",
        count(len(trained), "trained run"),
        *([f"{max(steps):,} steps"] if steps else []),
    ]
    return (
        f'<div class="chips">{"".join(f"<span class=chip>{escape(t)}</span>" for t in texts)}</div>'
    )


def _bar(view: View, body: str) -> str:
    """The legend of all plots, which is also the filter of arms, and the way around."""
    shown = dict.fromkeys(arm.name for arm in (*view.arms, *view.reference))
    buttons = "".join(
        f'<button aria-pressed="true" value="{arm}"><svg class="a{arm}" aria-hidden="true">'
        f'<line class="mean dash{arm}" x2="26" y1="6" y2="6"/>{charts.marker(arm, 50, 6)}</svg>'
        f"{escape(label(name))}</button>"
        for name, arm in view.colours.items()
        if name in shown
    )
    return (
        f'<div class="bar-sticky"><div><div class="legend" role="group" aria-label="Arms">{buttons}'
        f"</div><nav>{_links(body, view.key)}</nav></div></div>"
    )


def _links(body: str, key: str = "") -> str:
    """The way around: one link per section."""
    return "".join(
        f'<a href="#{place}">{place.removeprefix(key).replace("-", " ")}</a>'
        for place in re.findall(_ANCHOR, body)
    )


def _totals(board: Board) -> str:
    """Of all runs: how many, until when, under which commits."""
    runs = [run for entry in board.entries for asked in entry.asked for run in asked.runs]
    runs += [run for micro in board.micro for run in micro.runs]
    days = [run.record.started[:10] for run in runs]
    commits = {run.record.git["commit"][:10] for run in runs if run.record.git["commit"]}
    texts = [
        count(len(board.papers), "paper"),
        count(len(runs), "run"),
        *([f"until {max(days)}"] if days else []),
        *([f"commit {commits.pop()}"] if len(commits) == 1 else [count(len(commits), "commit")]),
    ]
    return (
        f'<div class="chips">{"".join(f"<span class=chip>{escape(t)}</span>" for t in texts)}</div>'
    )


def _partial(partial: Sequence[Run]) -> str:
    if not partial:
        return ""
    names = ", ".join(f"{label(run.record.arm)} seed {run.record.seed}" for run in partial)
    return (
        f'<p class="notice">{count(len(partial), "partial run")} left out of every number: '
        f"{escape(names)}.</p>"
    )


def _footer(policy: Policy) -> str:
    level = f"{100 * policy.level:.0f} %"
    return (
        "<footer><h3>How to read this</h3>"
        f"<p><b>Over seeds</b>: {level} t interval of the paired differences; it answers "
        "whether the <em>method</em> is better, because two models trained by the same method "
        f"already differ. <b>Over videos</b>: {level} bootstrap interval, whole videos drawn "
        f"with replacement ({policy.draws:,} draws); it answers whether other questions would "
        "agree.</p><p>Numbers of the micro profile are this project's own and are never compared "
        "with a paper's.</p></footer>"
    )
