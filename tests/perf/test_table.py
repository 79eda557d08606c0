"""The committed tables are what their numbers and formulas say."""

from __future__ import annotations

import json
import re

import pytest

from tests.perf import table

FILES = ("cpu.json", "README.md", "memory.md")


def test_the_tables_are_made_from_the_json() -> None:
    data = json.loads((table.FOLDER / "cpu.json").read_text())
    assert (table.FOLDER / "README.md").read_text() == table.readme(data)


def test_the_memory_table_is_up_to_date() -> None:
    assert (table.FOLDER / "memory.md").read_text() == table.memory_table()


@pytest.mark.parametrize("name", FILES)
def test_no_paths_of_a_machine(name: str) -> None:
    assert not re.search(r"(?<![\w<])/\w+/", (table.FOLDER / name).read_text())


def test_ratios_are_printed_as_measured() -> None:
    case = {
        "name": "a", "student": "1x2, tower 3x4", "tower_share": 0.44, "prompt": 540,
        "patches": 2048, "rounds": 3, "profile": {"sampling": 0.25, "the rest": 0.75},
        "ratios": {"grpo_vs_trl": 4.649, "ktr_vs_released": 5.96, "ktr_extra": 0.1951},
        "work": {"grpo": {"patches": 6144, "tokens": 2748, "decodes": 1, "logits": 614400}},
    }  # fmt: skip
    longer = {**case, "name": "b", "ratios": {"grpo_vs_trl": 7.0}, "profile": None}
    shown = table.readme({
        "command": "make bench", "date": "2026-01-01", "cpu": "C", "versions": {"torch": "2"},
        "generations": 8, "completion": 48, "cases": [case, longer],
        "targets": {"grpo_vs_trl": 4.0, "ktr_vs_released": 6.0, "ktr_extra": 0.3},
    })  # fmt: skip
    assert "| a | 1x2, tower 3x4 | 0.4 | 540 | 4.65x | 5.96x | +20% |" in shown
    assert "| b | 1x2, tower 3x4 | 0.4 | 540 | 7.00x | - | - |" in shown
    assert "| our GRPO | 1 | 6144 | 2748 | 0.61 |" in shown
    assert "| sampling | 25% |" in shown
