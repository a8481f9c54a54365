"""genai-prices without its updater: prices change when the package does, and nobody is asked for newer ones.

Why a stand-in? The package loads its updater with its table, and with that an HTTP client: nearly half of the time that the
table takes, in every process that reads a manifest whose prices come from it.
"""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot

UPDATER = "genai_prices.update_prices"


class _NoUpdater(ModuleType):
    """Has whatever the package takes from it, and does nothing."""

    def __getattr__(self, name: str) -> None:
        return None


@cache
def snapshot() -> DataSnapshot:
    """The table that was installed."""
    stands_in = UPDATER not in sys.modules
    if stands_in:
        sys.modules[UPDATER] = _NoUpdater(UPDATER)
    try:
        from genai_prices.data_snapshot import get_snapshot
    finally:
        if stands_in:
            del sys.modules[UPDATER]  # who wants it by its name gets it whole
    return get_snapshot()
