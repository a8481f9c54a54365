"""What the supervisor and its processes say to each other: one JSON message a line over an inherited socket pair.

Secrets travel here and nowhere else: never on a command line, never in the environment of a child.
"""

from __future__ import annotations

import asyncio
import socket

import msgspec
from msgspec import Struct

from shipworthy.adapters.providers.reach import ModelServer
from shipworthy.launch import Launch

MESSAGE_BYTES_MAX = 32 << 20
"""A manifest with all its tenants' files, in base64."""


class Reload(Struct, frozen=True, tag=True):
    """Put the manifest with this digest in force; the one in force stays when that cannot be done."""

    digest: str
    texts: dict[str, bytes]  # what its files held: nobody else reads them again
    models: dict[str, ModelServer]

    def __repr__(self) -> str:  # secrets' files are among the texts
        return f"Reload({self.digest})"


class Degraded(Struct, frozen=True, tag=True):
    """The newest manifest was refused; the last good one stays in force. "" = all is well again."""

    reason: str


class Drain(Struct, frozen=True, tag=True):
    """Take nothing new, finish what runs within ``seconds``, then end."""

    seconds: float


class Dead(Struct, frozen=True, tag=True):
    """To the control plane: these workers are gone; settle what they held."""

    process_ids: list[str]


class Ready(Struct, frozen=True, tag=True):
    """From a process: it serves now. ``ports`` are what it bound by itself."""

    digest: str
    ports: dict[str, int]


class Reloaded(Struct, frozen=True, tag=True):
    """From a process: the outcome of a Reload; "" = in force."""

    digest: str
    refused: str


Message = Launch | Reload | Degraded | Drain | Dead | Ready | Reloaded

_decode = msgspec.json.Decoder(Message).decode
_encode = msgspec.json.Encoder().encode


class Channel:
    """One end. ``receive`` returns None when the other end is gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Channel:
        reader, writer = await asyncio.open_unix_connection(sock=end, limit=MESSAGE_BYTES_MAX)
        return cls(reader, writer)

    async def send(self, message: Message) -> None:
        """Raises OSError when the other end is gone."""
        self._writer.write(_encode(message) + b"\n")
        await self._writer.drain()

    async def receive(self) -> Message | None:
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        return _decode(line) if line.endswith(b"\n") else None

    def close(self) -> None:
        self._writer.close()
