"""The prompt of a use case, the request cut to its token caps, and what a cache knew."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from shipworthy.model.guard import Receipt


class Prompt(Struct, frozen=True):
    """The revision in force, or none: then the client's own messages are the prompt."""

    digest: str
    tokens: int
    receipt: Receipt


class Fitted(Struct, frozen=True):
    """What will be sent: the client's bytes with ``replace`` laid over their top-level fields (raw JSON values).

    ``model`` is not in it: each attempt names its own upstream. ``cut`` says in words what was shortened or capped.
    """

    output_tokens_max: int
    input_tokens: int  # ceiling
    replace: Mapping[str, bytes]
    cut: tuple[str, ...] = ()


class Hit(Struct, frozen=True):
    """What a cache answered: nothing, until one is configured."""

    receipt: Receipt
