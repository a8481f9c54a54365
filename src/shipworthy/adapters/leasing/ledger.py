"""The ledger over leases: reserved in memory where a path is busy, in the store where it is not, or where the cap is near.

Nobody is refused here: a refusal is always the store's word, after one round trip. What is set aside in memory was set
aside in the store before, at every level, so that no cap is passed at any concurrency on any number of workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from msgspec import structs

from shipworthy.adapters.leasing.path import NS, LeaseBounds, Path, Paths
from shipworthy.adapters.leasing.turns import Turns
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.exchange import Outcome
from shipworthy.model.lease import Purse, Share
from shipworthy.model.ledger import Claim, Estimate, Hold, Standing
from shipworthy.model.op import Clock, Observe, Op, uuid7
from shipworthy.ports import Ask, Draft, Entry, Intent, LeaseStore, Recorder

_UNKNOWN = Standing()


class LeasedLedger:
    """ports.Ledger. ``run`` must be kept running: it reports and renews. ``settled`` is the recorder's to call."""

    def __init__(
        self,
        store: LeaseStore,
        clock: Clock,
        observe: Observe,
        strict: Callable[[], bool],
        workers: Callable[[], int] = lambda: 1,
        bounds: LeaseBounds | None = None,
    ) -> None:
        self.recorder: Recorder  # set by whoever builds both: each needs the other
        self._store = store
        self._clock = clock
        self._observe = observe
        self._strict = strict
        self._workers = workers
        self._bounds = bounds or LeaseBounds()
        self._hot_ns = int(self._bounds.hot_s * NS)
        self._paths = Paths(self._bounds)
        self._turns = Turns(self._paths, store, clock, observe, self._bounds)
        self._refills: set[asyncio.Task[None]] = set()

    # ---------------------------------------------------------------------------------------- ports.Ledger

    async def reserve(self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, draft: Draft) -> Hold:
        """Raises Refusal reserve.*, StoreUnavailable."""
        path = self._paths.of(tenant, claims)
        if path is None:
            return await self._store.reserve(op, tenant, claims, estimate, draft)
        hold = Hold(op.id, tenant, estimate, path.claims, _UNKNOWN)
        if not await self._set_aside(op, path, hold, draft):
            hold.intent = self._intent(op, hold, draft)
        return hold

    async def announce(self, op: Op, hold: Hold) -> None:
        """``strict`` waits until it is committed, else it is behind. Raises StoreUnavailable."""
        if not isinstance(hold.intent, Intent):
            return  # held directly
        if hold.purse is not None and self._clock.monotonic_ns() >= hold.purse.until_ns:
            raise StoreUnavailable(
                f"store.lease_expired: the lease {hold.purse.id} was not renewed, others may have it"
            )
        hold.intent.queued = True
        if self._strict():
            await self.recorder.intended(hold.intent)
        else:
            self.recorder.intend(hold.intent)

    async def share(self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate) -> Hold:
        """A reservation of no money, that nothing is recorded of: always from a lease. Raises as ``reserve`` does."""
        path = self._paths.of(tenant, claims)
        if path is None:
            raise StoreUnavailable(f"store.paths: more than {self._bounds.paths_max} paths are in use")
        hold = Hold(uuid7(self._clock.unix_ns()), tenant, estimate, path.claims, _UNKNOWN)
        await self._set_aside(op, path, hold, None)
        return hold

    async def raise_to(self, op: Op, hold: Hold, amount_nano: int) -> Hold:
        """Raises Refusal reserve.budget_exhausted (the old hold stays), StoreUnavailable."""
        purse, more_nano = hold.purse, amount_nano - hold.estimate.amount_nano
        if more_nano <= 0:
            return hold
        if purse is None:
            direct = hold.intent is None  # else nothing bounds its path
            return await self._store.raise_to(op, hold, amount_nano) if direct else _sized(hold, amount_nano)
        if not purse.stretch(more_nano, self._clock.monotonic_ns()):
            try:
                await self._store.top_up(op, hold.tenant, purse.id, more_nano)
            except Refusal:
                raise
            except BaseException:  # also a cancel: nobody knows whether the store has added to it
                purse.retired = True
                raise
        _sized(hold, amount_nano)
        before = hold.intent
        if isinstance(before, Intent) and before.queued:
            hold.intent = self._intent(op, hold, before.draft)
            try:
                await self.announce(op, hold)
            except BaseException:  # also a cancel: nothing more is sent; what was sent before has its own
                hold.intent.revoke()
                hold.intent = before
                raise
            before.revoke()
        return hold

    def trim(self, op: Op, hold: Hold, amount_nano: int) -> None:
        if isinstance(hold.intent, Intent) and hold.intent.queued:
            return  # the store may know of more
        if hold.purse is not None and amount_nano < hold.estimate.amount_nano:
            hold.purse.trim(hold, amount_nano)
            _sized(hold, amount_nano)

    def leave(self, hold: Hold) -> None:
        if hold.purse is None:
            return
        if isinstance(hold.intent, Intent) and not hold.intent.void:  # no recorder took it
            if hold.intent.queued:  # it speaks for it
                hold.purse.abandon(hold)
            else:
                hold.purse.undo(hold)
        else:
            hold.purse.leave(hold)

    def settled(self, entry: Entry) -> None:
        """An exchange is recorded, or as good as: what its hold did not use can be spent again."""
        hold, charge = entry.hold, entry.charge
        if hold is None or hold.purse is None or charge is None:
            return
        hold.purse.settle(hold, charge, entry.outcome is not Outcome.REFUSED)

    # ---------------------------------------------------------------------------------------- leases

    def recall(self) -> None:
        """Every lease is spent no more, because what it was taken for may have changed; all that is free goes back now."""
        self._turns.recall()

    def wanted_back(self, tenant: str) -> None:
        """Somebody was refused because of leases of ``tenant`` ("" = of anyone): what is free goes back now."""
        self._turns.wanted_back(tenant)

    async def run(self) -> None:
        """Reports and renews every lease each second, and those that are wanted back when woken, until cancelled."""
        await self._turns.run()

    async def turn(self, recalled: set[str] | None = None) -> None:
        """One turn of every lease, or of those of ``recalled`` tenants (and of leases that are not spent any more)."""
        await self._turns.turn(recalled)

    async def close(self) -> None:
        """Gives every lease back, but for what its last rows are still to be charged."""
        self.recall()
        for task in self._refills:
            task.cancel()
        await self.turn()

    async def _set_aside(self, op: Op, path: Path, hold: Hold, draft: Draft | None) -> bool:
        """Draws ``hold`` from the path's lease, or reserves it directly: then True. Without a draft it never does."""
        now_ns = self._clock.monotonic_ns()
        purse = path.purse
        if (
            path.bounded
            and not (purse is not None and purse.draw(hold, now_ns))
            and await self._ask(op, path, hold, draft)
        ):
            return True
        path.last_ns = now_ns
        purse = hold.purse
        if purse is not None:
            hold.standing = purse.stands()
            if purse.scarce and not path.refilling:
                self._refill(path, hold.estimate)
        return False

    async def _ask(self, op: Op, path: Path, hold: Hold, draft: Draft | None) -> bool:
        """Sets ``hold`` aside with the store's help; whether directly. One asks for a lease, others wait for its answer."""
        for _ in range(self._bounds.waits_max):
            if path.asking is None or (draft is not None and self._clock.monotonic_ns() < path.near_until_ns):
                break
            path.waiting += 1
            try:
                await asyncio.shield(path.asking)
            finally:
                path.waiting -= 1
            if path.purse is not None and path.purse.draw(hold, self._clock.monotonic_ns()):
                return False
        now_ns = self._clock.monotonic_ns()
        cold = now_ns < path.near_until_ns or path.asking is not None or not path.is_hot(now_ns, self._hot_ns)
        if cold and draft is not None:
            return await self._ask_directly(op, path, hold, draft)
        path.last_ns = now_ns
        asking = path.asking = asyncio.get_running_loop().create_future()
        try:
            return await self._ask_for_lease(op, path, hold, draft)
        finally:
            asking.set_result(None)
            if path.asking is asking:
                path.asking = None

    async def _ask_for_lease(self, op: Op, path: Path, hold: Hold, draft: Draft | None) -> bool:
        estimate = hold.estimate
        purse, ask, until_ns = self._asked(path, estimate, direct=draft is not None)
        try:
            given = await self._store.reserve_ahead(op, path.tenant, path.claims, estimate, draft or _nothing, ask)
        except BaseException as reason:  # even a cancel: others go on without a lease
            self._is_near(path)
            if not isinstance(reason, Refusal):
                path.doubt(purse)
            raise
        finally:
            purse.asked -= 1
        hold.standing = given.standing
        if not given.certain:
            path.doubt(purse)
        if given.given is None:
            if draft is None:
                path.doubt(purse)
                raise StoreUnavailable(f"store.lease_gone: the lease {purse.id} was taken for a dead worker's")
            self._is_near(path)
            return True
        self._granted(path, purse, given.given, until_ns, given.standing)
        if purse.draw(hold, self._clock.monotonic_ns()):
            return False
        if draft is None:
            raise Refusal("reserve.tokens_limit", retry_after_s=1, level=path.claims[0].key)
        return await self._ask_directly(op, path, hold, draft)  # used up by others, recalled, or the answer came late

    async def _ask_directly(self, op: Op, path: Path, hold: Hold, draft: Draft) -> bool:
        path.last_ns = self._clock.monotonic_ns()
        hold.standing = (await self._store.reserve(op, path.tenant, path.claims, hold.estimate, draft)).standing
        return True

    def _refill(self, path: Path, estimate: Estimate) -> None:
        """Asks for more before it runs out, behind."""
        if self._clock.monotonic_ns() < path.near_until_ns:
            return
        path.refilling = True
        task = asyncio.get_running_loop().create_task(self._refilled(path, estimate))
        self._refills.add(task)
        task.add_done_callback(self._refills.discard)

    async def _refilled(self, path: Path, estimate: Estimate) -> None:
        purse, ask, until_ns = self._asked(path, estimate)
        op = Op.for_job(self._clock, self._observe)
        try:
            given = await self._store.refill(op, path.tenant, path.claims, estimate, ask)
        except Refusal:
            self._is_near(path)
        except StoreUnavailable:
            self._is_near(path)
            path.doubt(purse)
        except asyncio.CancelledError:
            path.doubt(purse)
            raise
        else:
            if not given.certain:
                path.doubt(purse)
            if given.given is not None:
                self._granted(path, purse, given.given, until_ns, given.standing)
            else:
                self._is_near(path)
        finally:
            purse.asked -= 1
            path.refilling = False

    def _asked(self, path: Path, estimate: Estimate, *, direct: bool = True) -> tuple[Purse, Ask, int]:
        """The lease to ask for, or to ask more for, sized by what the path lately used in a turn."""
        purse = path.purse
        if purse is None or purse.retired or self._clock.monotonic_ns() >= purse.until_ns:
            path.retire()
            purse = Purse(uuid7(self._clock.unix_ns()), path.claims)
        purse.asked += 1
        requests = min(self._bounds.share_min + path.waiting + 2 * path.pace(), self._bounds.share_max)
        wish = purse.wish(requests, estimate.amount_nano, estimate.tokens, path.waiting)
        return purse, Ask(purse.id, wish, self._workers(), self._bounds.ttl_s, direct), self._turns.until_ns()

    def _granted(self, path: Path, purse: Purse, given: Share, until_ns: int, standing: Standing) -> None:
        if purse.until_ns and self._clock.monotonic_ns() >= purse.until_ns:
            path.doubt(purse)  # the store may have ended the lease, and begun another by its name
        else:
            purse.grant(given, until_ns, standing)
            path.spend(purse)

    def _is_near(self, path: Path) -> None:
        path.near_until_ns = self._clock.monotonic_ns() + int(self._bounds.near_s * NS)

    # ---------------------------------------------------------------------------------------- inside

    def _intent(self, op: Op, hold: Hold, draft: Draft) -> Intent:
        left_s = (op.deadline_ns - self._clock.monotonic_ns()) / 1e9 if op.deadline_ns else 0.0
        return Intent(hold, op.arrived_unix_ns, max(self._bounds.hold_s, left_s + 60.0), draft)


def _nothing() -> bytes:
    """The draft of what is not recorded."""
    return b""


def _sized(hold: Hold, amount_nano: int) -> Hold:
    hold.estimate = structs.replace(hold.estimate, amount_nano=amount_nano)
    return hold
