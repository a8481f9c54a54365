"""Bytes into a socket now, not at the end of the loop's turn: who waits for them waits for nothing else that is in it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

Write = Callable[[bytes], None]


def straight(transport: asyncio.Transport) -> Write:
    """``transport.write``, but what the socket takes at once is not kept until the turn is over.

    The rest, and every error, is left to the transport, which waits, or ends the connection. So is all that it encrypts.
    """
    write, waiting, closing = transport.write, transport.get_write_buffer_size, transport.is_closing
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0 or transport.get_extra_info("ssl_object") is not None:
        return write
    fd: int = sock.fileno()

    def send(data: bytes) -> None:
        if waiting() or closing():  # closing, the number may already be another connection's
            write(data)
            return
        try:
            sent = os.write(fd, data)
        except OSError:
            sent = 0
        if sent < len(data):
            write(data[sent:])

    return send
