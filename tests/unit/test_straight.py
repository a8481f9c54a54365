"""What both edges write goes into the socket at once; what it does not take is the transport's, in the same order."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from shipworthy.straight import straight


class Transport:
    """Keeps what it is given, as one does whose loop has yet to come to it."""

    def __init__(self, sock: socket.socket) -> None:
        self.said: dict[str, object] = {"socket": sock}
        self.kept = b""
        self.closing = False

    def write(self, data: bytes) -> None:
        self.kept += data

    def get_write_buffer_size(self) -> int:
        return len(self.kept)

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, name: str) -> object:
        return self.said.get(name)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        each.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def made(transport: Any) -> Any:
    return straight(transport)


def test_what_fits_is_sent_at_once(pair) -> None:
    ours, theirs = pair
    transport = Transport(ours)
    made(transport)(b"now")
    assert theirs.recv(10) == b"now"
    assert transport.kept == b""


def test_what_does_not_fit_is_the_transports_and_so_is_all_behind_it(pair) -> None:
    ours, theirs = pair
    transport = Transport(ours)
    write = made(transport)
    large = bytes(range(256)) * 8_192
    write(large)
    assert transport.kept
    came = b""
    while len(came) + len(transport.kept) < len(large):
        came += theirs.recv(1 << 20)
    assert came + transport.kept == large
    write(b"behind")
    assert transport.kept.endswith(b"behind")
    with pytest.raises(BlockingIOError):
        theirs.recv(1)


def test_a_connection_that_broke_is_for_the_transport_to_find(pair) -> None:
    ours, theirs = pair
    theirs.close()
    transport = Transport(ours)
    made(transport)(b"late")
    assert transport.kept == b"late"


def test_nothing_goes_by_the_number_of_a_socket_that_is_closing(pair) -> None:
    ours, theirs = pair
    transport = Transport(ours)
    write = made(transport)
    transport.closing = True
    write(b"late")
    assert transport.kept == b"late"
    with pytest.raises(BlockingIOError):
        theirs.recv(1)


@pytest.mark.parametrize("said", [{"ssl_object": object()}, {"socket": None}])
def test_what_is_encrypted_or_has_no_socket_is_the_transports_alone(pair, said) -> None:
    transport = Transport(pair[0])
    transport.said |= said
    made(transport)(b"secret")
    assert transport.kept == b"secret"
