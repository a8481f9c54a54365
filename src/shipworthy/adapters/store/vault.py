"""Bodies are sealed before they leave the worker: AES-256-GCM under a data key of their (tenant, subject).

Data keys lie in the store, wrapped by a key-encryption key that does not. Erasing a data key erases what it sealed. The
associated data binds a ciphertext to its tenant, exchange, part and key: moved elsewhere it does not open.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from shipworthy.adapters.store.keyring import KEY_BYTES, Keyring
from shipworthy.model.errors import ShipworthyError

NONCE_BYTES = 12
KEYS_CACHED_MAX = 10_000
KEY_AGE_S_MAX = 300.0
"""So long at most a worker goes on sealing under a data key that was erased."""


class Unsealable(ShipworthyError):
    """A body cannot be opened: its key was erased or is not in the key file, or it is not what was sealed."""


class DataKey(Struct, frozen=True):
    """A data key, unwrapped. ``cipher`` is ready for use."""

    id: UUID
    cipher: AESGCM


class Wrapped(Struct, frozen=True):
    """A data key as it lies in the store."""

    key_id: UUID
    kek_id: str
    wrapped: bytes | None  # None = erased
    generation: int = 1


class Sealed(Struct, frozen=True):
    """One body as it lies in the store."""

    key_id: UUID
    nonce: bytes
    ciphertext: bytes


class Vault:
    """Seals and opens; keeps a bounded number of unwrapped data keys for a bounded time. Safe to use from any thread."""

    def __init__(self, keyring: Keyring, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._keyring = keyring
        self._monotonic_s = monotonic_s
        self._cache: OrderedDict[tuple[str, str], tuple[DataKey, float]] = OrderedDict()
        self._lock = threading.Lock()

    def cached(self, tenant: str, subject: str) -> DataKey | None:
        """The data key with which to seal, if it was used lately."""
        with self._lock:
            found = self._cache.get((tenant, subject))
            if found is None:
                return None
            key, until = found
            if self._monotonic_s() >= until:
                del self._cache[tenant, subject]
                return None
            self._cache.move_to_end((tenant, subject))
            return key

    def keep(self, tenant: str, subject: str, key: DataKey) -> None:
        with self._lock:
            self._cache[tenant, subject] = key, self._monotonic_s() + KEY_AGE_S_MAX
            self._cache.move_to_end((tenant, subject))
            while len(self._cache) > KEYS_CACHED_MAX:
                self._cache.popitem(last=False)

    def draw(self, tenant: str, generation: int) -> Wrapped:
        """A new data key for one (tenant, subject), wrapped by the newest key-encryption key."""
        key_id = uuid4()
        kek = self._keyring.newest
        nonce = os.urandom(NONCE_BYTES)
        clear = os.urandom(KEY_BYTES)
        wrapped = nonce + AESGCM(kek.key).encrypt(nonce, clear, _wrap_binding(tenant, key_id))
        return Wrapped(key_id, kek.id, wrapped, generation)

    def unwrap(self, tenant: str, stored: Wrapped) -> DataKey:
        if stored.wrapped is None:
            raise Unsealable(f"the data key {stored.key_id} was erased")
        kek = self._keyring.find(stored.kek_id)
        if kek is None:
            raise Unsealable(f"the key file does not hold {stored.kek_id}, which wraps the data key {stored.key_id}")
        nonce, text = stored.wrapped[:NONCE_BYTES], stored.wrapped[NONCE_BYTES:]
        try:
            return DataKey(
                stored.key_id, AESGCM(AESGCM(kek.key).decrypt(nonce, text, _wrap_binding(tenant, stored.key_id)))
            )
        except InvalidTag as wrong:
            raise Unsealable(f"the data key {stored.key_id} is not what {stored.kek_id} wrapped") from wrong


def nonces(count: int) -> Iterator[bytes]:
    """So many, drawn at once: each is one system call less."""
    drawn = os.urandom(count * NONCE_BYTES)
    return (drawn[at : at + NONCE_BYTES] for at in range(0, len(drawn), NONCE_BYTES))


def seal(key: DataKey, tenant: str, exchange_id: UUID, part: str, clear: bytes, fresh: Iterator[bytes]) -> Sealed:
    """``clear`` under the next nonce of ``fresh``."""
    nonce = next(fresh)
    return Sealed(key.id, nonce, key.cipher.encrypt(nonce, clear, _body_binding(tenant, exchange_id, part, key.id)))


def unseal(key: DataKey, tenant: str, exchange_id: UUID, part: str, sealed: Sealed) -> bytes:
    """What was sealed. Raises Unsealable when anything about it was changed or moved."""
    binding = _body_binding(tenant, exchange_id, part, sealed.key_id)
    try:
        return key.cipher.decrypt(sealed.nonce, sealed.ciphertext, binding)
    except InvalidTag as wrong:
        raise Unsealable(f"the {part} of {exchange_id} is not what was sealed under {sealed.key_id}") from wrong


def _wrap_binding(tenant: str, key_id: UUID) -> bytes:
    return b"\0".join([b"shipworthy/data-key/1", tenant.encode(), key_id.bytes])


def _body_binding(tenant: str, exchange_id: UUID, part: str, key_id: UUID) -> bytes:
    return b"\0".join([b"shipworthy/body/1", tenant.encode(), exchange_id.bytes, part.encode(), key_id.bytes])
