"""What the readers of usual payloads have in common: what is not listed is not theirs to read."""

from __future__ import annotations

from msgspec import Struct


class Listed(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """An object all of whose fields are named here."""
