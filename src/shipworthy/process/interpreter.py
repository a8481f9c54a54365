"""How the interpreter is set for a process that serves: what was measured, and why."""

from __future__ import annotations

import gc
import sys

YOUNG_OBJECTS = 10_000
"""Allocations between two looks for garbage. Python's 700 is one look for every other request, and finds nothing: what a
request leaves behind is freed by counting references."""
YOUNG_LOOKS, MIDDLE_LOOKS = 20, 50
SWITCH_S = 0.0005
"""How long a thread may keep the loop waiting. Python's 5 ms, once for every batch that the recorder encodes, is what a
client would see as a slow answer."""


def settle() -> None:
    """Call when everything is loaded: what lives by now lives as long as the process, and is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_LOOKS, MIDDLE_LOOKS)
    sys.setswitchinterval(SWITCH_S)
