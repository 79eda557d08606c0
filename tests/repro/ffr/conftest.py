"""The fixtures of the trainer core, under FFR's recipe."""

from __future__ import annotations

import pytest

from repro.recipe import Recipe
from tests.repro.core.conftest import (  # noqa: F401
    asked,
    complete,
    group_of,
    loud,
    prompts,
    records,
)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return Recipe.load("ffr")
