"""Completions, each token coloured by the signal that chose it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import Any

from results.charts import MINUS
from results.ledger import Run
from results.sections.parts import View, card, section

_WORDS = {
    "entropy": "the model was unsure here",
    "visual": "depends on seeing the film",
    "temporal": "depends on the order of frames",
    "several": "chosen by more than one",
    "drawn": "kept without a signal",
    "none": "dropped from the loss",
}
_RETURN = "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}"


def tokens(view: View) -> str:
    """Completions of the last step; arms whose tokens all enter the loss are only named."""
    views, plain = {}, []
    for arm in view.arms:
        run = next((run for run in arm.runs if run.tokens), None)
        if run is None:
            continue
        kinds = Counter(chosen_by(token) for item in run.tokens for token in item["tokens"])
        if set(kinds) <= {"drawn"}:
            plain.append(escape(arm.label))
        else:
            views[arm.name] = (f"{escape(arm.label)}, seed {run.record.seed}", run, kinds)
    if not views:
        return ""
    method = view.claims[0].method if view.claims else ""
    order = sorted(views, key=lambda name: name != method)  # the method first
    buttons = "".join(
        f'<button role="tab" aria-selected="true" value="{view.key}tokens-{view.colours[name]}">'
        f"{views[name][0]}</button>"
        for name in order
    )
    cards = "".join(
        f'<div id="{view.key}tokens-{view.colours[name]}">{_token_view(*views[name][1:])}</div>'
        for name in order
    )
    everything = f" In {' and '.join(plain)} every token enters the loss." if plain else ""
    text = (
        "Completions of the last training step. A coloured token enters the loss, a grey one does "
        f"not; point at a token for its scores.{everything}"
    )
    body = f'<div class="tabs" role="tablist">{buttons}</div>{cards}'
    return section(view, "tokens", "Which tokens were chosen", text, body)


def chosen_by(token: Mapping[str, Any]) -> str:
    """Which class colours a token: one signal, several, kept without one (drawn), or none."""
    signals = token["signals"]
    if len(signals) > 1:
        return "several"
    if signals:
        return str(signals[0]) if signals[0] in _WORDS else "drawn"
    return "drawn" if token.get("kept") else "none"


def _token_view(run: Run, kinds: Counter[str]) -> str:
    total = sum(kinds.values())
    legend = "".join(
        f'<span><b class="key s-{name}">{"grey" if name == "none" else name}</b>{words} '
        f'<span class="faint">{100 * kinds[name] / total:.0f} %</span></span>'
        for name, words in _WORDS.items()
        if kinds[name]
    )
    shown = f'<span class="soft">Of {total:,} tokens shown:</span>'
    completions = "".join(_completion(item) for item in run.tokens)
    return card(f'<div class="signals">{shown}{legend}</div>{completions}')


def _completion(item: Mapping[str, Any]) -> str:
    advantage = item["advantage"]
    pushed = ""
    if advantage:
        pushed = ", made likelier" if advantage > 0 else ", made less likely"
    facts = (
        f"gold <b>{escape(item['gold'])}</b> \N{MIDDLE DOT} "
        f"reward <b>{_plain(item['reward'])}</b><br>"
        f"advantage <b>{_plain(advantage, sign=True)}</b>{pushed}"
    )
    text = "".join(_token(token) for token in item["tokens"])
    return (
        f'<div class="completion"><div><div class="q">{escape(item["question"])}</div>'
        f'<div class="facts">{facts}</div></div><div class="text">{text}</div></div>'
    )


def _token(token: Mapping[str, Any]) -> str:
    kind = chosen_by(token)
    facts = [" + ".join(token["signals"]) or _WORDS[kind]]
    facts += [f"{name} {_plain(token[name])}" for name in ("entropy", "visual", "temporal")]
    bare = token["text"].lstrip(" ")
    space = " " * (len(token["text"]) - len(bare))  # outside, so that colour hugs the word
    text = escape(bare.replace("\n", f"{_RETURN}\n"))
    return f'{space}<span class="t s-{kind}" title="{escape(chr(10).join(facts))}">{text}</span>'


def _plain(value: float | None, *, sign: bool = False) -> str:
    if value is None:
        return "not computed"
    return f"{value:{'+' if sign else ''}.3g}".replace("-", MINUS)
