"""A provider's words without its client's. Error messages may quote the request (validators print the value they refuse),
and what was said in a request belongs to its sealed bodies: not into a log line or a column that many may read.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

RUN_CHARS_MIN = 12
"""A shorter run that both have in common is a coincidence: a field's name, a word or two."""
TEXT_CHARS_MAX = 262_144
"""Of a request beyond it nothing is compared: the message is not kept at all."""

QUOTED = "[quoted]"
UNCOMPARED = "[not kept: it may quote the request]"

_PROBE = RUN_CHARS_MIN // 2


def unquoted(message: str, texts: Iterable[str]) -> str:
    """``message`` with every run of 12 characters or more that stands in one of ``texts`` replaced."""
    said = "\0".join(texts)
    if len(said) > TEXT_CHARS_MAX:
        return UNCOMPARED
    quoted = [False] * len(message)
    # any 12 characters hold the 6 that begin at a multiple of 6: only around those that occur is looked closely
    for place in range(0, len(message) - _PROBE + 1, _PROBE):
        if message[place : place + _PROBE] in said:
            for start in range(max(0, place - _PROBE), place + 1):
                run = message[start : start + RUN_CHARS_MIN]
                if len(run) == RUN_CHARS_MIN and run in said:
                    quoted[start : start + RUN_CHARS_MIN] = [True] * RUN_CHARS_MIN
    runs = groupby(zip(message, quoted, strict=True), key=lambda pair: pair[1])
    return "".join(QUOTED if was_quoted else "".join(char for char, _ in run) for was_quoted, run in runs)
