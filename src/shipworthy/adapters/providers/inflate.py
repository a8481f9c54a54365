"""Bodies that arrive compressed although we ask for none: unpacked in bounded pieces, so that a bomb costs no memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

PIECE_BYTES_MAX = 65_536
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def inflater(encoding: str) -> Inflater | None:
    """What unpacks ``encoding``; None when nothing is packed. Raises ValueError for one that is not known here."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return None
    bits = _WINDOW_BITS.get(encoding)
    if bits is None:
        raise ValueError(f"content-encoding {encoding[:40]!r} was not asked for")
    return Inflater(bits)


class Inflater:
    """One body. Feed pieces in order; ``ended`` says at the body's end whether it was whole."""

    __slots__ = ("_unpack",)

    def __init__(self, window_bits: int) -> None:
        self._unpack = zlib.decompressobj(window_bits)

    def ended(self) -> bool:
        return self._unpack.eof

    def pieces(self, packed: bytes) -> Iterator[bytes]:
        """What ``packed`` holds, at most 64 KiB at a time and no sooner than asked for. Raises ValueError on garbage."""
        while packed:
            if self.ended():
                raise ValueError("bytes follow the end of the compressed body")
            try:
                piece = self._unpack.decompress(packed, PIECE_BYTES_MAX)
            except zlib.error as reason:
                raise ValueError(f"the compressed body is damaged: {reason}") from reason
            packed = self._unpack.unused_data if self.ended() else self._unpack.unconsumed_tail
            if piece:
                yield piece
