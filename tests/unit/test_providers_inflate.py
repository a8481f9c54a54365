"""Compressed bodies: whole, cut anywhere, damaged, and bombs."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipworthy.adapters.providers.inflate import PIECE_BYTES_MAX, Inflater, inflater


def unpack(encoding: str, chunks: list[bytes]) -> tuple[bytes, bool]:
    unpacking = inflater(encoding)
    assert unpacking is not None
    said = b"".join(piece for chunk in chunks for piece in unpacking.pieces(chunk))
    return said, unpacking.ended()


@given(st.binary(max_size=5_000), st.sampled_from(["gzip", "deflate", " GZIP "]), st.integers(1, 50))
def test_any_cut_unpacks_to_the_same(content: bytes, encoding: str, size: int) -> None:
    """How the network cuts a body changes nothing."""
    packed = zlib.compress(content) if encoding == "deflate" else gzip.compress(content)
    chunks = [packed[start : start + size] for start in range(0, len(packed), size)]
    assert unpack(encoding, chunks) == (content, True)


def test_a_bomb_comes_in_small_pieces() -> None:
    """64 MiB in 64 KiB: whoever stops asking has paid for one piece."""
    packed = gzip.compress(b"\0" * (64 << 20))
    tracemalloc.start()
    pieces = Inflater(31).pieces(packed)
    taken = [len(next(pieces)) for _ in range(10)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(taken) <= PIECE_BYTES_MAX
    assert peak < 4 << 20


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x" * 1_000])
def test_encodings_that_were_not_asked_for_are_refused(encoding: str) -> None:
    with pytest.raises(ValueError, match="was not asked for"):
        inflater(encoding)


def test_plain_bodies_need_nothing() -> None:
    assert inflater("") is None
    assert inflater("identity") is None


def test_damage_is_said() -> None:
    """Garbage, a cut body and a tail after the end are told apart from a whole one."""
    packed = gzip.compress(b"hello" * 100)
    with pytest.raises(ValueError, match="damaged"):
        unpack("gzip", [b"not gzip at all"])
    with pytest.raises(ValueError, match="follow"):
        unpack("gzip", [packed + b"tail"])
    assert unpack("gzip", [packed[:-3]])[1] is False
