"""Answers as bytes: one write where one is enough, and nothing to a client that has left."""

from __future__ import annotations

from collections.abc import Callable

from shipworthy.http.wire.answer import JOINED_BYTES_MAX, Answer


class Way:
    """A connection that notes each write; turns of the loop are made by hand."""

    paused = False
    keeping = True
    date = b"date: now\r\n"

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.write: Callable[[bytes], None] = self.writes.append
        self._soon: list[Callable[[], None]] = []
        self._turn = 1.0

    def now(self) -> float:
        return self._turn

    def soon(self, then: Callable[[], None]) -> None:
        self._soon.append(then)

    async def drained(self) -> None: ...

    def turn(self) -> list[bytes]:
        """What was written until the end of this turn."""
        self._turn += 1
        soon, self._soon = self._soon, []
        for then in soon:
            then()
        writes, self.writes[:] = self.writes[:], []
        return writes


def an_answer(*, keep: bool = True, bodiless: bool = False, chunked: bool = True) -> tuple[Way, Answer]:
    way = Way()
    return way, Answer(way, keep=keep, bodiless=bodiless, chunked=chunked)


def test_a_whole_answer_is_one_write() -> None:
    way, answer = an_answer()
    answer.whole(200, b"a: b\r\n", b"hello")
    assert way.turn() == [b"HTTP/1.1 200 OK\r\ndate: now\r\na: b\r\ncontent-length: 5\r\n\r\nhello"]


def test_a_long_body_is_not_copied() -> None:
    way, answer = an_answer()
    body = b"x" * (JOINED_BYTES_MAX + 1)
    answer.whole(200, b"", body)
    head, written = way.turn()
    assert head.endswith(b"content-length: 65537\r\n\r\n")
    assert written is body


def test_what_comes_in_one_turn_is_one_chunk_in_one_write() -> None:
    way, answer = an_answer()
    answer.start(200, b"")
    answer.write(b"one,")
    answer.write(b"two")
    assert way.writes == []
    head = b"HTTP/1.1 200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\n\r\n"
    assert way.turn() == [head + b"7\r\none,two\r\n"]
    for piece in (b"three", b"four", b"five"):
        answer.write(piece)
    assert way.writes == [b"5\r\nthree\r\n"], "the first waits for nothing"
    assert way.turn()[1:] == [b"8\r\nfourfive\r\n"]
    for piece in (b"six", b"seven"):
        answer.write(piece)
    answer.end(b"eight")
    assert way.turn() == [b"3\r\nsix\r\n", b"a\r\nseveneight\r\n0\r\n\r\n"]
    assert way.turn() == []


def test_a_head_does_not_wait_for_a_piece() -> None:
    way, answer = an_answer()
    answer.start(200, b"")
    assert way.turn() != []
    answer.write(b"")
    assert way.turn() == [], "an empty chunk would be the end"
    answer.end()
    assert way.turn() == [b"0\r\n\r\n"]


def test_no_turn_gathers_without_end() -> None:
    way, answer = an_answer()
    answer.start(200, b"")
    for _ in range(100):
        answer.write(b"x" * 10_000)
    assert sum(map(len, way.writes)) > 900_000


def test_what_is_gathered_for_a_client_that_leaves_is_dropped() -> None:
    way, answer = an_answer()
    answer.start(200, b"")
    answer.write(b"one")
    answer.gone = True
    assert way.turn() == []
    answer.end(b"two")
    assert way.turn() == []


def test_head_and_http_1_0() -> None:
    way, answer = an_answer(bodiless=True)
    answer.start(200, b"")
    answer.write(b"one")
    answer.end()
    assert way.turn() == [b"HTTP/1.1 200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\n\r\n"]
    way, answer = an_answer(keep=False, chunked=False)
    answer.start(200, b"")
    answer.end(b"one")
    assert way.turn() == [b"HTTP/1.1 200 OK\r\ndate: now\r\nconnection: close\r\n\r\none"]


def test_a_status_without_a_name() -> None:
    """499 is nobody's: it is for logs, and still well formed."""
    way, answer = an_answer()
    answer.whole(499, b"", b"")
    assert way.turn()[0].startswith(b"HTTP/1.1 499 \r\n")
