"""One provider, reached."""

from __future__ import annotations

from typing import Protocol

from shipworthy.model.chat import Events, Request
from shipworthy.model.op import Op
from shipworthy.model.prompt import Fitted
from shipworthy.model.route import Model


class Upstream(Protocol):
    """One provider, reached. Adapters keep connect bounds; the call stage keeps first-token and total deadlines."""

    async def open(self, op: Op, model: Model, request: Request, fitted: Fitted) -> Events:
        """Sends the request and returns its events once the provider's head says success.

        Cancelling at any point, or closing the events, closes the connection: the provider stops.
        Raises ProviderFailure, here and while it is read.
        """

    async def close(self) -> None:
        """Ends every connection; what runs on them fails."""
