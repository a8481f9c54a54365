"""What a lease costs a request, in CPU µs: set aside, announce, settle, on a busy path; how often the store is asked.

The store answers at once and counts the questions; the recorder is a queue that nobody drains: what is measured is the
worker's own work. `python benchmarks/lease.py`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter, deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from shipworthy.adapters.leasing.ledger import LeasedLedger
from shipworthy.kit.builders import a_claim, an_estimate, an_op
from shipworthy.model.lease import Turn, Turned
from shipworthy.model.ledger import Charge, Hold, Standing
from shipworthy.model.op import SystemClock
from shipworthy.ports import Advance, Ask

IN_FLIGHT = 64
PATHS = {
    "3 budgets": (a_claim("team=a", 10**15), a_claim("tenant", 10**15), a_claim("use_case=b", 10**15)),
    "3 budgets, limits of 3 kinds": (
        a_claim("team=a", 10**15),
        a_claim("tenant", 10**15, requests=10**9, tokens=10**9, concurrent=10**6),
        a_claim("use_case=b", 10**15, requests=10**9, tokens=10**9, concurrent=10**6),
    ),
}


class Roomy:
    """A store with room for everything."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    async def reserve(self, op: Any, tenant: str, claims: Any, estimate: Any, draft: Any) -> Hold:
        self.asked["reserve"] += 1
        return Hold(op.id, tenant, estimate, tuple(claims), Standing())

    async def reserve_ahead(self, op: Any, tenant: str, claims: Any, estimate: Any, draft: Any, ask: Ask) -> Advance:
        self.asked["reserve_ahead"] += 1
        return Advance(ask.wish, Standing())

    async def refill(self, op: Any, tenant: str, claims: Any, estimate: Any, ask: Ask) -> Advance:
        self.asked["refill"] += 1
        return Advance(ask.wish, Standing())

    async def turn(self, tenant: str, turns: Sequence[Turn], ttl_s: float) -> Sequence[Turned]:
        self.asked["turn"] += 1
        return [Turned(turn.id, False, int(time.time()), Standing()) for turn in turns]


async def measure(claims: Any, requests: int) -> tuple[float, Counter[str]]:
    """CPU µs a request, and what the store was asked."""
    store: Any = Roomy()
    ledger = LeasedLedger(store, SystemClock(), lambda _: None, lambda: False)
    queue: deque[Any] = deque(maxlen=1_000)
    recorder: Any = SimpleNamespace(intend=queue.append)
    ledger.recorder = recorder
    turning = asyncio.create_task(ledger.run())
    estimate, charge = an_estimate(1_000, 500), Charge((), 300, 0, 150)
    row = SimpleNamespace(outcome="served")
    ops = [an_op() for _ in range(requests)]
    flying: deque[Hold] = deque()
    draft = bytes
    spent_ns = 0
    for op in ops:
        began_ns = time.thread_time_ns()
        hold = await ledger.reserve(op, "acme", claims, estimate, draft)
        await ledger.announce(op, hold)
        flying.append(hold)
        if len(flying) > IN_FLIGHT:
            hold = flying.popleft()
            entry: Any = SimpleNamespace(hold=hold, charge=charge, row=row)
            ledger.leave(hold)
            ledger.settled(entry)
        spent_ns += time.thread_time_ns() - began_ns
        if op.id.int % 512 == 0:
            await asyncio.sleep(0)
    turning.cancel()
    return spent_ns / 1e3 / requests, store.asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = {}
    for name, claims in PATHS.items():
        rounds = [asyncio.run(measure(claims, given.requests)) for _ in range(given.rounds)]
        asked = rounds[-1][1]
        found[name] = {
            "us_a_request": round(statistics.median(us for us, _ in rounds), 2),
            "us_fastest": round(min(us for us, _ in rounds), 2),
            "store_questions": dict(asked),
            "requests": given.requests,
        }
    if given.json:
        print(json.dumps(found, indent=2))
        return
    for name, said in found.items():
        took = f"{said['us_a_request']:>7} µs a request (fastest round {said['us_fastest']})"
        print(f"{name:32} {took}; {said['store_questions']}")


if __name__ == "__main__":
    main()
