"""repro.selection.page: one file that asks nothing, escapes everything, and counts right."""

from __future__ import annotations

import random
import re
from html.parser import HTMLParser

from repro.selection import files, page, rules
from repro.selection.rules import Decision, Rules, Tried

EVIL = '<script>alert("1")</script>'
LAW = Rules()
VOID = {"meta", "link", "br"}


def decisions(n: int) -> list[Decision]:
    rng = random.Random(5)
    pool = [Tried("gone", EVIL, "multiple choice", lost=f"undecodable: {EVIL}")]
    for i in range(n):
        p, grounded = rng.random(), i % 2
        tries = tuple((rng.random() < p) * (rng.random() if grounded else 1.0) for _ in range(8))
        begun = {"tiou" if grounded else "accuracy": tries[:4]}
        tried = Tried(f"{EVIL}{i}", f"source {i % 3}", "grounding" if grounded else "choice", begun)
        if rules.tries_on(tried, LAW):
            tried = Tried(tried.id, tried.source, tried.kind, dict.fromkeys(begun, tries))
        pool.append(tried)
    first = [rules.decide(tried, LAW) for tried in pool]
    return rules.choose(first, rules.quotas(first, n // 10, {}), 0)


def build(found: list[Decision]) -> str:
    return page.build(found, files.summary(found, LAW, {"source 0": 5}, 900, 10), LAW, EVIL)


class Outline(HTMLParser):
    """Fails on a tag that closes another."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_it_is_whole_escaped_and_asks_nothing() -> None:
    html = build(decisions(300))
    outline = Outline()
    outline.feed(html)
    assert outline.open == [] and "script" not in outline.tags
    assert EVIL not in html and "&lt;script&gt;" in html
    assert set(re.findall(r'(?:src|href)="([^"]*)"', html)) == {"data:,"}
    assert "default-src 'none'" in html and html == build(decisions(300))


def test_circles_count_every_sample_that_was_asked() -> None:
    found = decisions(400)
    html = build(found)
    shown = [int(n.replace(",", "")) for n in re.findall(r"<title>([\d,]+) (?:kept|fits|dr)", html)]
    assert sum(shown) == sum(len(d.tried.signals) for d in found) == 400
    kept = [int(n) for n in re.findall(r"<title>([\d,]+) kept: mean", html)]
    assert sum(kept) == sum(d.kept for d in found) == 40


def test_a_large_pool_is_a_small_page() -> None:
    assert len(build(decisions(6000))) < 250_000


def test_parts_of_a_source_add_up() -> None:
    found = decisions(200)
    for own in rules.by_source(found).values():
        assert sum(page.part(d) in page.PARTS for d in own) == len(own)
    assert {page.part(d) for d in found} == set(page.PARTS)
