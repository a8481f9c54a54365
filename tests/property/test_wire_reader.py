"""The reader of requests: the same for every way of cutting the bytes, and never an error that nobody named."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shipworthy.http.wire import bounds
from shipworthy.http.wire.reader import Malformed, Reader
from shipworthy.http.wire.request import Headers, Request

Seen = tuple[str, str, Headers, bytes, bool]


class Socket:
    """A transport whose reading may be paused."""

    def __init__(self) -> None:
        self.paused = 0

    def pause_reading(self) -> None:
        assert self.paused == 0
        self.paused += 1

    def resume_reading(self) -> None:
        assert self.paused == 1
        self.paused -= 1


class Side:
    """The server's side of a connection: takes what comes."""

    def __init__(self) -> None:
        self.socket = Socket()
        self.requests: list[Request] = []
        self.reader = Reader(self.socket, "peer", self.requests.append, self.wanted)  # type: ignore[arg-type]

    def wanted(self, taken: int) -> None:
        self.reader.let_go(taken)

    def feed(self, pieces: list[bytes]) -> list[Seen]:
        bodies: dict[int, bytes] = {}
        for piece in pieces:
            self.reader.feed(piece)
            for place, request in enumerate(self.requests):
                bodies[place] = bodies.get(place, b"") + request.take()
        return [
            (request.method, request.path, request.headers, bodies[place], request.complete)
            for place, request in enumerate(self.requests)
        ]


PLAIN = (
    b"POST /v1/chat/completions?x=%20#y HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 11\r\n"
    b'\r\n{"a": "b"}\n'
)
CHUNKED = (
    b"POST /a%20b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: Chunked\r\nX-A: \xc3\xa4\r\n\r\n"
    b"5;e=f\r\nhello\r\n1\r\n,\r\n0\r\nauthorization: trailer\r\n\r\n"
)
WISHING = (
    b"PUT /up HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"Content-Length: 5\r\n\r\nhello"
)
BARE = b"\r\nGET http://example.org/c HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\r\n"
requests = st.lists(st.sampled_from([PLAIN, CHUNKED, WISHING, BARE]), min_size=1, max_size=4)


@given(requests, st.lists(st.integers(0, 1_000), max_size=12))
def test_any_cut_is_read_alike(sent: list[bytes], cuts: list[int]) -> None:
    whole = b"".join(sent)
    places = [0, *sorted(cut % len(whole) for cut in cuts), len(whole)]
    pieces = [whole[start:end] for start, end in pairwise(places)]
    seen = Side().feed(pieces)
    assert seen == Side().feed([whole])
    assert seen == [one for each in sent for one in Side().feed([each])]
    assert all(complete for *_, complete in seen)
    assert not any(value == b"trailer" for _, _, headers, _, _ in seen for _, value in headers)


@given(st.lists(st.binary(max_size=60) | st.sampled_from([PLAIN, CHUNKED, WISHING, BARE]), max_size=6))
def test_no_bytes_break_it(pieces: list[bytes]) -> None:
    side = Side()
    said: list[int] = []
    try:
        side.feed(pieces)
    except Malformed as fault:
        said.append(fault.status)
    assert set(said) <= {400, 417, 431, 501, 505}
    assert side.socket.paused == 0


@given(requests, st.integers(0, 1_000), st.binary(min_size=1, max_size=3))
def test_a_changed_byte_is_refused_or_changes_one_request(sent: list[bytes], place: int, byte: bytes) -> None:
    """No change makes two requests of one, except where it is a whole request of its own."""
    whole = bytearray(b"".join(sent))
    place %= len(whole)
    whole[place : place + 1] = byte
    side = Side()
    try:
        seen = side.feed([bytes(whole)])
    except Malformed:
        seen = []
    assert len(seen) <= len(sent)


@given(st.integers(1, 400_000), st.integers(8_000, 300_000))
def test_what_is_held_is_counted(size: int, step: int) -> None:
    """Reading pauses beyond the bound, and goes on when what was held is taken."""
    side = Side()
    side.reader.feed(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
    (request,) = side.requests
    held = 0
    for start in range(0, size, step):
        piece = b"x" * min(step, size - start)
        side.reader.feed(piece)
        held += len(piece)
        assert side.socket.paused == (held > bounds.HELD_BYTES_MAX)
        if held > bounds.HELD_BYTES_MAX:
            assert len(request.take()) == held
            assert side.socket.paused == 0
            held = 0
    assert request.complete
