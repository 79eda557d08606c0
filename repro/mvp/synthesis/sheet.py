"""index.html: what became of the videos, the audits, and contact sheets of twenty items.

The page holds its pictures and asks for nothing; a content security policy inside it says so.
"""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from evals.seeds import derive
from repro.mvp.synthesis.audits import gold
from repro.mvp.synthesis.records import context_paths

SHOWN, _HEIGHT = 20, 72  # items, pixels (chosen)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_CSS = """
:root{color-scheme:light dark;--ink:#1c2128;--dim:#5b6672;--bg:#fff;--line:#d8dee4;--hit:#0a7f3f}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--dim:#9aa4af;--bg:#0d1117;--line:#30363d;
--hit:#3fb950}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--bg);max-width:1180px;
margin:0 auto;padding:24px}
h1{font-size:24px;margin:0}h2{font-size:17px;margin:32px 0 8px}p{margin:4px 0 12px}
.dim,figcaption,th{color:var(--dim)}
table{border-collapse:collapse}td,th{padding:3px 14px 3px 0;text-align:left;font-weight:400;
border-bottom:1px solid var(--line);font-variant-numeric:tabular-nums}
article{border-top:1px solid var(--line);padding:14px 0}article h3{font-size:15px;margin:0 0 6px}
.row{display:flex;flex-wrap:wrap;gap:5px;align-items:end;margin-bottom:8px}
figure{margin:0}figcaption{font-size:12px;text-align:center;white-space:nowrap}
img{display:block;height:72px;border-radius:3px}
.hit img{outline:3px solid var(--hit);outline-offset:-3px}.hit figcaption{color:var(--hit)}
.gap{align-self:stretch;display:flex;align-items:center;padding:0 12px;border:1px dashed var(--dim);
border-radius:3px;font-size:12px;color:var(--dim)}
"""


def write(
    path: Path, records: Sequence[Mapping[str, Any]], films: Sequence[Mapping[str, Any]],
    audited: Sequence[Mapping[str, Any]], root: Path,
) -> None:  # fmt: skip
    """The page; the same bytes for the same records. root: of the pictures."""
    rng = np.random.default_rng(derive("sheet"))
    some = [records[i] for i in sorted(rng.permutation(len(records))[:SHOWN])]
    outcomes = Counter(film["outcome"] for film in films)
    lost = [f for f in films if f["outcome"] != "used"]
    body = (
        "<h1>Masked video prediction: records</h1>"
        f'<p class="dim">{len(records):,} items from {outcomes["used"]:,} of {len(films):,} videos'
        "</p><h2>Videos</h2>"
        + _table(("outcome", "videos"), [(o, f"{n:,}") for o, n in sorted(outcomes.items())])
        + (_lost(lost) if lost else "")
        + "<h2>Audits</h2>"
        + _table(
            ("K", "audit", "items", "sel", "chance", "bound", "exact", "p", ""),
            [(*(str(row.get(key, "")) for key in
                ("k", "audit", "n", "sel", "chance", "bound", "exact", "p")),
              "ok" if row["ok"] else "OUTSIDE ITS BOUND") for row in audited],
        )
        + f"<h2>{len(some)} items, drawn at random</h2>"
        + "".join(_item(record, root) for record in some)
    )  # fmt: skip
    path.write_text(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<title>Masked video prediction: records</title><link rel="icon" href="data:,">\n'
        f"<style>{_CSS}</style></head>\n<body>{body}</body></html>\n",
        encoding="utf-8",
    )


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in headings)
    lines = (f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _lost(films: Sequence[Mapping[str, Any]], most: int = 20) -> str:
    """Which videos gave nothing, and why."""
    rows = [(f["film"], f["outcome"], f["why"]) for f in films[:most]]
    more = f'<p class="dim">and {len(films) - most:,} more: films.jsonl</p>'
    return (
        f"<details><summary>Videos without items</summary>{_table(('video', 'outcome', ''), rows)}"
        f"{more if len(films) > most else ''}</details>"
    )


def _item(record: Mapping[str, Any], root: Path) -> str:
    about, paths = record["mvp"], context_paths(record)
    rank = {slot: place for place, slot in enumerate(gold(record), 1)}
    before, after = (
        "".join(_figure(root / p, f"{s:.1f} s") for p, s in zip(*side, strict=True))
        for side in zip(paths, about["context_seconds"], strict=True)
    )
    pool = [
        _figure(
            root / path,
            f"{slot}: {about['candidate_seconds'][slot - 1]:.1f} s, "
            + (f"no. {rank[slot]}" if slot in rank else about["sources"][slot - 1]),
            hit=slot in rank,
        )
        for slot, path in enumerate(record["images"][-record["candidates"] :], 1)
    ]
    gap = f'<div class="gap">{about["k"]} missing</div>'
    return (
        f"<article><h3>{escape(record['film'])} <span class=dim>{escape(record['problem_id'])}"
        f", answer {escape(', '.join(map(str, rank)))}</span></h3>"
        f'<div class="row">{before}{gap}{after}</div>'
        f'<div class="row">{"".join(pool)}</div></article>'
    )


def _figure(path: Path, caption: str, hit: bool = False) -> str:
    from PIL import Image

    with Image.open(path) as image:
        image.thumbnail((4 * _HEIGHT, 2 * _HEIGHT))
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality=80)
    data = base64.b64encode(sink.getvalue()).decode()
    return (
        f'<figure{" class=hit" if hit else ""}><img alt="" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
