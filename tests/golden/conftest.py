"""Goldens: one file = input, a line of dashes, what is expected. `--golden-rewrite` writes what is seen: review it."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-rewrite", action="store_true", help="write what is seen into the golden files; review it"
    )


@pytest.fixture
def golden_rewrite(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--golden-rewrite", default=False))
