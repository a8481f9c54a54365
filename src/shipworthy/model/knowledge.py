"""What retrieval found for a principal."""

from __future__ import annotations

from msgspec import Struct

from shipworthy.model.guard import Receipt


class Passages(Struct, frozen=True):
    """The passages that go into the prompt, in order, all readable by the principal."""

    ids: tuple[str, ...]
    tokens: int
    receipt: Receipt
