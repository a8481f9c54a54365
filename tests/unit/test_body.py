"""Bodies: what all requests have in hand together is bounded, shared between tenants, and given back when each ends."""

from __future__ import annotations

import asyncio

import pytest

from shipworthy.http.body import BODIES_BYTES_MAX, BODY_BYTES_MAX, IN_MEMORY, REQUEST_BYTES, TENANT_SHARE, Body, Room
from shipworthy.http.edge import IN_FLIGHT_MAX
from shipworthy.http.headers import Head
from shipworthy.http.wire.request import Request
from shipworthy.model.errors import Refusal

JSON = Head([(b"content-type", b"application/json")])


def a_body(room: Room, size: int = 10) -> Body:
    request = Request("POST", "/", [], "", lambda taken: None)
    for _ in range(2):
        request.came(b"x" * (size // 2))
    request.ended()
    return Body(JSON, request, room)


def test_the_bodies_in_hand_have_one_bound_together() -> None:
    async def scenario() -> None:
        room = Room(bytes_max=5 * REQUEST_BYTES * IN_MEMORY)
        first, second, third = (a_body(room, 3 * REQUEST_BYTES) for _ in range(3))
        assert len(await first.read("acme", alone=True)) == 3 * REQUEST_BYTES
        with pytest.raises(Refusal, match=r"decode\.no_room"):
            await second.read("acme", alone=True)
        second.drop()
        assert room.taken == 3 * REQUEST_BYTES * IN_MEMORY
        first.drop()
        assert (room.taken, room.of) == (0, {})
        assert len(await third.read("acme", alone=True)) == 3 * REQUEST_BYTES

    asyncio.run(scenario())


def test_one_of_several_tenants_leaves_room_for_the_others() -> None:
    """Promise 3: who opens every connection and sends nothing keeps nobody else out."""

    async def scenario() -> None:
        room = Room(bytes_max=100 * REQUEST_BYTES)
        for _ in range(75):
            await a_body(room).read("greedy", alone=False)
        with pytest.raises(Refusal, match=r"decode\.no_room"):
            await a_body(room).read("greedy", alone=False)
        for _ in range(25):
            await a_body(room).read("other", alone=False)

    asyncio.run(scenario())


def test_there_is_room_for_as_many_requests_as_there_are_places() -> None:
    assert IN_FLIGHT_MAX * REQUEST_BYTES <= BODIES_BYTES_MAX


def test_a_tenant_has_room_for_a_body_of_the_largest_size() -> None:
    assert BODY_BYTES_MAX * IN_MEMORY <= BODIES_BYTES_MAX * TENANT_SHARE
