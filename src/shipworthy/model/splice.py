"""Top-level rewriting of a JSON object without touching any other byte of it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw

ENCODER = msgspec.json.Encoder()


def splice(fields: Mapping[str, Raw], replace: Mapping[str, bytes]) -> bytes:
    """``fields`` as a JSON object with ``replace`` laid over it.

    Every value that is not replaced keeps its bytes; keys keep the client's order, new ones follow in theirs. The values of
    ``replace`` are JSON already.
    """
    spliced: dict[str, Raw] = dict(fields)
    for key, value in replace.items():
        spliced[key] = Raw(value)
    return ENCODER.encode(spliced)
