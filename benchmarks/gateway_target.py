"""What is measured: something that answers at a URL, the processes that do its work, and those that work for it."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from load import Requests, wrong_with
from upstream import PACED_MODEL, WHOLE_MODEL

Sender = Mapping[str, str]
"""The headers that say who asks."""

START_S_MAX = 60.0
LOOK_S = 0.005


def nobody() -> list[int]:
    return []


@dataclass(frozen=True)
class Target:
    """One gateway, or the upstream itself; ``core`` does its work and ``beside`` what it leaves to others."""

    name: str
    version: str
    url: str
    senders: Sequence[Sender]
    core: Callable[[], list[int]]
    beside: Mapping[str, Callable[[], list[int]]] = field(default_factory=dict)
    start_s: float = 0.0
    idle_mb: float = 0.0
    models: Mapping[str, str] = field(default_factory=lambda: {WHOLE_MODEL: WHOLE_MODEL, PACED_MODEL: PACED_MODEL})
    """What a client says for the upstream's model."""

    def requests(self, upstream_model: str, *, stream: bool) -> Requests:
        return Requests(self.url, self.senders, self.models[upstream_model], stream=stream)


class NoAnswer(Exception):
    """A gateway that did not come up, or that answered something else; in words."""


def await_answer(requests: Requests, alive: Callable[[], bool]) -> float:
    """When (perf_counter) the first good answer was there. NoAnswer when none comes, or the process is gone."""
    deadline, said = time.perf_counter() + START_S_MAX, "nothing"
    while time.perf_counter() < deadline:
        if not alive():
            raise NoAnswer("it ended while it started")
        try:
            said = _answer(requests)
        except (OSError, http.client.HTTPException) as failed:
            said = repr(failed)
        if not said:
            return time.perf_counter()
        time.sleep(LOOK_S)
    raise NoAnswer(f"no good answer in {START_S_MAX:g} s; the last one was {said}")


def _answer(requests: Requests) -> str:
    """What is wrong with the answer to one request."""
    head, _, body = next(requests).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    connection = http.client.HTTPConnection(requests.host, requests.port, timeout=10)
    try:
        headers = dict(line.split(": ", 1) for line in lines)
        connection.request("POST", first.split()[1], body, headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            return f"{answer.status} {said[:300].decode(errors='replace')}"
        return wrong_with(said, stream=requests.stream)
    finally:
        connection.close()
