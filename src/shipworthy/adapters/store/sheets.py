"""One entry ready for its batch: its row as JSON, its bodies sealed. Made without the store, by any thread."""

from __future__ import annotations

import hashlib

from msgspec import Struct

from shipworthy.adapters.store.rows import clean_text, encode
from shipworthy.adapters.store.vault import DataKey, Sealed, Vault, seal
from shipworthy.ports import Entry


class Sheet(Struct, frozen=True, gc=False):
    """What ``entry`` became. ``row`` is JSON without its closing brace: its levels are still to come."""

    entry: Entry
    key: DataKey | None  # under which its bodies are sealed; None = it has none
    row: bytes
    parts: tuple[tuple[str, Sealed], ...]

    def stands(self, entry: Entry, key: DataKey | None) -> bool:
        """Whether it would come out the same now: of this entry, and under a key that is still in use."""
        return self.entry is entry and self.key is key


def sheet(entry: Entry, key: DataKey | None) -> Sheet:
    """``key`` is the one of the entry's tenant and subject, unless it has no bodies."""
    row, bodies = entry.row, entry.bodies
    if bodies is None or key is None:
        return Sheet(entry, key, encode(row)[:-1], ())
    sides = (("request", bodies.request), ("reply", bodies.reply))
    parts = tuple((part, seal(key, row.tenant, row.id, part, clear)) for part, clear in sides if clear)
    digests = b"".join(
        b',"%b_sha256":"\\\\x%b"' % (part.encode(), hashlib.sha256(sealed.ciphertext).hexdigest().encode())
        for part, sealed in parts
    )
    return Sheet(entry, key, encode(row)[:-1] + digests, parts)


def sheet_ahead(entry: Entry, vault: Vault) -> Sheet | None:
    """The same with no question to the store: None when the key is not at hand."""
    if entry.bodies is None:
        return sheet(entry, None)
    key = vault.cached(entry.row.tenant, clean_text(entry.row.subject))
    return None if key is None else sheet(entry, key)
