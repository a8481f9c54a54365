"""One sink's trouble reaches neither the caller nor its neighbours."""

from __future__ import annotations

import asyncio

import pytest

from shipworthy.adapters.telemetry.fanout import fan
from shipworthy.model.observation import Failed, Observation, Swept

SAID = Swept(1, 2)


def broken(observation: Observation) -> None:
    raise RuntimeError("no room")


def test_everyone_hears_and_the_first_failure_of_a_sink_is_told_once():
    before: list[Observation] = []
    after: list[Observation] = []
    observe = fan(before.append, broken, after.append)
    for _ in range(3):
        observe(SAID)
    assert [said for said in before if said == SAID] == [SAID] * 3
    assert [said for said in after if said == SAID] == [SAID] * 3
    (told,) = [said for said in before if isinstance(said, Failed)]
    assert told.where == "telemetry sink broken"
    assert "no room" in told.traceback
    assert observe.failures == [0, 3, 0]


def test_sinks_that_all_fail_fail_quietly():
    observe = fan(broken, broken)
    observe(SAID)
    observe(SAID)
    assert min(observe.failures) >= 2


def test_no_sink_is_fine():
    fan()(SAID)


def test_a_cancel_is_not_a_sinks_failure():
    def cancelled(observation: Observation) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        fan(cancelled)(SAID)
