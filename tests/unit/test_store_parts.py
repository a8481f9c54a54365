"""The store's parts without a database: SQL blocks, the key file, sealing, what PostgreSQL's errors mean."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg_pool import PoolTimeout

from shipworthy.adapters.store.blocks import BlockError, Blocks, blocks, folder
from shipworthy.adapters.store.keyring import Kek, Keyring, create_keyring, open_keyring, read_keyring
from shipworthy.adapters.store.pool import Bounds, StoreRole, conninfo
from shipworthy.adapters.store.rows import encode
from shipworthy.adapters.store.trouble import lost, meaning, passing, translated
from shipworthy.adapters.store.vault import (
    KEY_AGE_S_MAX,
    KEYS_CACHED_MAX,
    DataKey,
    Sealed,
    Unsealable,
    Vault,
    Wrapped,
    nonces,
    seal,
    unseal,
)
from shipworthy.model.errors import StartRefused, StoreUnavailable

# ---------------------------------------------------------------------------------------------- SQL blocks


def test_every_shipped_block_has_a_name_and_a_purpose() -> None:
    """A .sql file that breaks the rule is found here, not when a request needs it."""
    files = [file.name.removesuffix(".sql") for file in folder("sql").iterdir()]
    assert files
    assert all(len(blocks(name)) for name in files)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("-- name: a — one\nselect 1;\n-- name: a — two\nselect 2;", "stands twice"),
        ("-- name: a\nselect 1;", "wanted `-- name"),
        ("-- name: a - one\nselect 1;", "wanted `-- name"),
        ("-- name: a — one\n\n-- name: b — two\nselect 2;", "is empty"),
        ("select 1;\n-- name: a — one\nselect 1;", "before the first title"),
    ],
)
def test_a_broken_file_is_an_error(text: str, why: str) -> None:
    with pytest.raises(BlockError, match=why):
        Blocks("broken", text)


def test_a_missing_block_names_what_there_is() -> None:
    found = Blocks("some", "-- a comment first\n-- name: one — first\nselect 1;\n-- name: two — second\nselect 2;\n")
    assert [found[name].as_string() for name in found] == ["select 1", "select 2"]
    with pytest.raises(BlockError, match="no block 'three'; it has one, two"):
        found["three"]


# ---------------------------------------------------------------------------------------------- the key file


def test_a_key_file_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "keys"
    made = open_keyring(place)
    assert open_keyring(place) == made == read_keyring(place)
    assert place.stat().st_mode & 0o777 == 0o600
    assert len(made.pepper) == len(made.newest.key) == 32
    assert made.pepper != made.newest.key != made.cookie_key != made.pepper
    assert os.listdir(place.parent) == ["keys"]
    with pytest.raises(FileExistsError):
        create_keyring(place)


def test_keys_stay_out_of_what_is_printed(tmp_path: Path) -> None:
    ring = open_keyring(tmp_path / "keys")
    for secret in (ring.pepper, ring.newest.key):
        assert repr(secret)[2:20] not in repr(ring) + repr(ring.newest)


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o604])
def test_a_key_file_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "keys"
    open_keyring(place)
    place.chmod(mode)
    with pytest.raises(StartRefused) as refused:
        open_keyring(place)
    assert refused.value.code == "keys.exposed"
    assert f"chmod 600 {place}" in refused.value.hint


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said | {"format": "shipworthy-keys/2"},
        lambda said: said | {"kek": []},
        lambda said: said | {"kek": said["kek"] * 2},
        lambda said: said | {"pepper": "AAAA"},
        lambda said: said | {"pepper": "not base64!"},
        lambda said: said | {"more": 1},
        lambda said: "a string",
    ],
)
def test_a_key_file_that_is_not_one_is_refused(tmp_path: Path, change) -> None:
    place = tmp_path / "keys"
    open_keyring(place)
    place.write_bytes(msgspec.json.encode(change(msgspec.json.decode(place.read_bytes()))))
    with pytest.raises(StartRefused) as refused:
        open_keyring(place)
    assert refused.value.code == "keys.malformed"


# ---------------------------------------------------------------------------------------------- sealing

RING = Keyring((Kek("k-1", bytes(range(32))), Kek("k-2", bytes(range(1, 33)))), bytes(32))


def a_key(vault: Vault) -> DataKey:
    return vault.unwrap("northwind", vault.draw("northwind", 1))


@given(st.binary(max_size=200))
def test_what_was_sealed_opens(clear: bytes) -> None:
    key, exchange_id = a_key(Vault(RING)), uuid4()
    sealed = seal(key, "northwind", exchange_id, "request", clear, nonces(1))
    assert unseal(key, "northwind", exchange_id, "request", sealed) == clear
    assert len(clear) < 8 or clear not in sealed.ciphertext


def test_a_ciphertext_opens_nowhere_else() -> None:
    """Tenant, exchange, part, key, nonce and every bit of the text are bound."""
    key, exchange_id = a_key(Vault(RING)), UUID(int=7)
    sealed = seal(key, "northwind", exchange_id, "request", b"secret", nonces(1))
    flipped = bytes([sealed.ciphertext[0] ^ 1]) + sealed.ciphertext[1:]
    for tenant, place, part, moved in [
        ("southwind", exchange_id, "request", sealed),
        ("northwind", UUID(int=8), "request", sealed),
        ("northwind", exchange_id, "reply", sealed),
        ("northwind", exchange_id, "request", Sealed(uuid4(), sealed.nonce, sealed.ciphertext)),
        ("northwind", exchange_id, "request", Sealed(sealed.key_id, bytes(12), sealed.ciphertext)),
        ("northwind", exchange_id, "request", Sealed(sealed.key_id, sealed.nonce, flipped)),
    ]:
        with pytest.raises(Unsealable):
            unseal(key, tenant, place, part, moved)


def test_the_newest_key_wraps_and_every_key_unwraps() -> None:
    old = Vault(Keyring(RING.keks[:1], bytes(32)))
    new = Vault(RING)
    wrapped = old.draw("northwind", 1)
    assert (wrapped.kek_id, new.draw("northwind", 1).kek_id) == ("k-1", "k-2")
    sealed = seal(old.unwrap("northwind", wrapped), "northwind", UUID(int=1), "reply", b"text", nonces(1))
    assert unseal(new.unwrap("northwind", wrapped), "northwind", UUID(int=1), "reply", sealed) == b"text"


def test_a_data_key_that_cannot_be_unwrapped_says_why() -> None:
    vault = Vault(Keyring(RING.keks[:1], bytes(32)))
    stored = vault.draw("northwind", 1)
    assert stored.wrapped is not None
    for other, why in [
        (Wrapped(stored.key_id, "k-9", stored.wrapped), "does not hold k-9"),
        (Wrapped(stored.key_id, "k-1", None), "was erased"),
        (Wrapped(uuid4(), "k-1", stored.wrapped), "is not what k-1 wrapped"),
    ]:
        with pytest.raises(Unsealable, match=why):
            vault.unwrap("northwind", other)
    with pytest.raises(Unsealable):
        vault.unwrap("southwind", stored)


def test_data_keys_are_kept_for_a_bounded_time_and_in_a_bounded_number() -> None:
    now = [0.0]
    vault = Vault(RING, lambda: now[0])
    key = a_key(vault)
    vault.keep("northwind", "ada", key)
    assert vault.cached("northwind", "ada") is key
    assert vault.cached("southwind", "ada") is None
    now[0] = KEY_AGE_S_MAX
    assert vault.cached("northwind", "ada") is None
    for number in range(KEYS_CACHED_MAX + 1):
        vault.keep("northwind", str(number), key)
    assert vault.cached("northwind", "0") is None
    assert vault.cached("northwind", "1") is key


# ---------------------------------------------------------------------------------------------- text that jsonb takes


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_text_becomes_json_that_the_store_takes(text: str) -> None:
    """No NUL, no lone surrogate; whatever else stays as it was."""
    (back,) = msgspec.json.decode(encode([text]))
    assert "\0" not in back
    back.encode()
    if "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text):
        assert back == text


# ---------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (psycopg.errors.DiskFull("no space"), "store.disk_full"),
        (psycopg.errors.TooManyConnections(""), "store.connections"),
        (psycopg.errors.OutOfMemory(""), "store.out_of_memory"),
        (psycopg.errors.ConfigurationLimitExceeded(""), "store.resources"),
        (psycopg.errors.AdminShutdown(""), "store.stopping"),
        (psycopg.errors.CannotConnectNow(""), "store.stopping"),
        (psycopg.errors.QueryCanceled(""), "store.statement_timeout"),
        (psycopg.errors.LockNotAvailable(""), "store.lock_timeout"),
        (psycopg.errors.IoError(""), "store.io"),
        (psycopg.errors.ReadOnlySqlTransaction(""), "store.read_only"),
        (psycopg.errors.DeadlockDetected(""), "store.deadlock"),
        (psycopg.OperationalError("connection refused"), "store.connection"),
        (PoolTimeout("2 s"), "store.pool_wait"),
    ],
)
def test_what_keeps_the_store_from_serving_has_a_name(error: Exception, said: str) -> None:
    assert meaning(error).startswith(f"{said}: ")
    with pytest.raises(StoreUnavailable, match=rf"^{said}: "), translated():
        raise error


@pytest.mark.parametrize(
    "error", [psycopg.errors.UniqueViolation(""), psycopg.errors.InsufficientPrivilege(""), KeyError("x")]
)
def test_a_defect_keeps_its_own_name(error: Exception) -> None:
    assert meaning(error) == ""
    with pytest.raises(type(error)), translated():
        raise error


def test_what_may_be_tried_again_at_once() -> None:
    assert lost(psycopg.OperationalError("server closed the connection"))
    assert passing(psycopg.errors.DeadlockDetected(""))
    assert not passing(PoolTimeout(""))
    assert not passing(psycopg.errors.DiskFull(""))


def test_a_connection_carries_its_role_and_every_bound() -> None:
    said = conninfo("postgresql://shipworthy@/db?options=-c%20jit%3Doff", StoreRole.APP, Bounds(), "worker-1")
    for part in (
        "-c jit=off",
        "-c role=shipworthy_app",
        "-c statement_timeout=5000",
        "-c lock_timeout=2000",
        "worker-1",
    ):
        assert part in said
