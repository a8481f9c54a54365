"""Bodies: what all requests have in hand together is bounded, and given back when each of them ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shipworthy.http.body import Body, Room
from shipworthy.http.headers import Head
from shipworthy.model.errors import Refusal

JSON = Head([(b"content-type", b"application/json")])


def a_body(room: Room, *pieces: bytes) -> Body:
    waiting = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> dict[str, Any]:
        return waiting.pop(0)

    return Body(JSON, receive, room)


def test_the_bodies_in_hand_have_one_bound_together() -> None:
    async def scenario() -> None:
        room = Room(bytes_max=100)
        first, second, third = (a_body(room, b"x" * 40, b"x" * 20) for _ in range(3))
        assert len(await first.read()) == 60
        with pytest.raises(Refusal, match=r"decode\.no_room"):
            await second.read()
        second.drop()
        first.drop()
        assert room.taken == 0
        assert len(await third.read()) == 60

    asyncio.run(scenario())
