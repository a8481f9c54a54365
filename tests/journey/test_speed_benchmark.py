"""benchmarks/load.py against benchmarks/upstream.py over real connections: it counts what is good, and names what is not."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SENDERS = [{"authorization": "Bearer a"}, {"authorization": "Bearer b"}]


@pytest.fixture(scope="module", autouse=True)
def rooms() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@contextmanager
def upstream() -> Iterator[int]:
    from gateway_ground import upstream as started

    with started() as (port, _):
        yield port


@pytest.mark.parametrize(
    ("model", "stream", "body_bytes"),
    [("gpt-4o-mini", False, 601), ("gpt-4o-mini", True, 4_800), ("gpt-4o", True, 4_800)],
)
def test_good_answers_are_counted(model: str, stream: bool, body_bytes: int) -> None:
    """Each kind of load is answered whole, by as many connections as were asked for."""
    from load import Requests, load

    with upstream() as port:
        requests = Requests(f"http://127.0.0.1:{port}/v1/chat/completions", SENDERS, model, stream=stream)
        seen = load(requests, 4, 0.4)
    assert not seen.errors
    assert len(seen.latencies) == len(seen.firsts) >= 8
    assert seen.bytes_seen == {body_bytes}
    assert all(0 < first <= whole for first, whole in zip(seen.firsts, seen.latencies, strict=True))
    if model == "gpt-4o":
        assert min(seen.latencies) > 0.14  # 30 gaps of 5 ms


def test_faults_are_named() -> None:
    """Refusals, half an answer, no JSON, and connections that are cut: none counts as an answer."""
    from load import Requests, load
    from upstream import FAULTS

    with upstream() as port:
        requests = Requests(f"http://127.0.0.1:{port}/v1/chat/completions", SENDERS, "faulty", stream=False)
        seen = load(requests, 1, 0.6)
    assert {"status 503", "status 500", "a body of 9 bytes", "connection lost"} <= set(seen.errors)
    assert seen.latencies
    assert len(FAULTS) == 5


def test_nobody_there_is_an_error() -> None:
    """A target that is gone is no fast target."""
    from load import Requests, load
    from processes import free_port

    seen = load(Requests(f"http://127.0.0.1:{free_port()}/v1", SENDERS, "x", stream=False), 2, 0.1)
    assert set(seen.errors) == {"ConnectionRefusedError"}
    assert not seen.latencies


def test_events_know_how_long_they_were_on_their_way() -> None:
    """Streams that stamp their events end whole, and what is added to their gaps is little where nothing is between."""
    from load import Requests
    from open_streams import listen, steady

    opened: list[bool] = []
    with upstream() as port:
        model = steady(5, 50, 0.5)
        requests = Requests(f"http://127.0.0.1:{port}/v1", [{}], model, stream=True)
        heard = listen(requests, 5, 50, 0.5, opened.append)
    assert opened == [True, False]
    assert (heard.whole, heard.starved, dict(heard.wrong)) == (5, 0, {})
    assert len(heard.way_ms) > 50
    assert 0 < min(heard.way_ms) < 20
