"""What the providers' adapters need of an HTTP client: a port inside the folder, so that the client can be replaced.

Whoever implements it keeps these promises; ``tests/contract/providers`` checks them over real sockets:
one POST is sent at most once on the wire (again only when provably no byte of it left), nothing is followed or remembered
(redirects, cookies), every size has a maximum, and ``close`` is seen by the provider at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Answer(Protocol):
    """A provider's answer whose head is here. Its body is read piece by piece; unread bytes wait at the provider."""

    @property
    def status(self) -> int: ...

    def header(self, name: str) -> str:
        """The header's value, "" when absent."""

    async def read(self) -> bytes:
        """The next piece of the body, decompressed; b"" at its end. Raises ProviderFailure, then and ever after."""

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        """Gives every piece to ``take`` where it arrives, until that wants no more for now; whether there may be more.

        ``take`` neither blocks nor raises. Raises what ``read`` does.
        """

    def finish(self) -> None:
        """Everything wanted was read: the connection is kept if the body ends within a moment, else closed."""

    def close(self) -> None:
        """Closes the connection at once, unsent and unread bytes dropped. Does nothing after the body's end."""


class Transport(Protocol):
    """Connections to one provider."""

    async def post(self, path: str, body: bytes, *, traceparent: str, request_id: str, stream: bool) -> Answer:
        """Sends ``body`` to ``path`` under the provider's base URL; returns when the head of the answer is here.

        ``request_id`` goes with it as ``x-client-request-id``: what the provider logs can be laid beside our rows.

        A ``stream`` may be silent for the provider's first-token or idle bound, whichever is longer; a whole answer for
        its total.

        Raises ProviderFailure: CONNECT with ``sent`` False until the first byte left, BROKEN afterwards. Cancelling closes
        the connection at once.
        """

    async def close(self) -> None:
        """Ends every connection; what runs on them fails, and nothing more is sent."""
