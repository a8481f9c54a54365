"""A lease as its worker spends it: in memory, with no round trip, never beyond what the store set aside for it.

What the store says of a lease is always ``nano`` here + what is held by requests in flight + what was used and is not
recorded yet. Requests and tokens are *admitted* here first and reported once a second (a turn): from then on they count in
the store's sliding minute, in the slot of the second that the store names.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from msgspec import Struct

from shipworthy.model.ledger import Charge, Claim, Hold, Standing

REPORTED = -1
"""The slot of a hold whose turn is under way: the store has not said its second yet."""
LOST = -2
"""The slot of a hold whose turn got no answer: nobody will ever know where it counts, so nothing is taken back there."""


class Share(Struct, frozen=True):
    """An amount of each thing that a lease can hold. What no level of the path limits is 0."""

    nano: int
    requests: int
    tokens: int
    places: int


class Turn(Struct, frozen=True):
    """What a worker reports of one lease since the last turn; the store renews the lease, or ends it."""

    id: UUID
    back_nano: int
    back_requests: int
    back_tokens: int
    back_places: int
    used_requests: int
    used_tokens: int
    over: tuple[tuple[int, int, int], ...]  # (second, requests, tokens): counted in that slot, and not used after all
    ended: bool


class Turned(Struct, frozen=True):
    """The store's answer. ``gone``: it took the lease for a dead worker's, and has settled it."""

    id: UUID
    gone: bool
    second: int
    standing: Standing


class Purse:
    """One lease of one path. ``until_ns`` (monotonic) is earlier than the moment at which the store takes it for expired."""

    __slots__ = (
        "_admitted_requests", "_admitted_tokens", "_fresh", "_late", "_low_nano", "_low_places", "_low_requests",
        "_low_tokens", "_over", "_owed_nano", "_paces_places", "_paces_requests", "_paces_tokens", "_reported",
        "_spent_nano", "asked", "budgeted", "drawn", "ended", "id", "in_flight", "nano", "paced", "places", "refill_nano",
        "refill_requests", "requests", "retired", "standing", "tokens", "until_ns",
    )  # fmt: skip

    def __init__(self, id: UUID, claims: Sequence[Claim]) -> None:
        self.id = id
        self.budgeted = any(claim.cap_nano >= 0 for claim in claims)
        self._paces_requests = any(claim.requests_per_min for claim in claims)
        self._paces_tokens = any(claim.tokens_per_min for claim in claims)
        self._paces_places = any(claim.concurrent for claim in claims)
        self.paced = self._paces_requests or self._paces_tokens or self._paces_places
        self.nano = self.requests = self.tokens = self.places = 0
        self.refill_nano = self.refill_requests = 0  # at or below these it is time to ask for more
        self.in_flight = 0
        self.asked = 0  # questions under way that may add to it: until they are answered it cannot end
        self.drawn = 0  # requests since the last turn
        self.until_ns = 0
        self.retired = False  # spends no more; what is in flight ends on it
        self.ended = False
        self.standing = Standing()
        self._admitted_requests = self._admitted_tokens = 0
        self._fresh: dict[UUID, Hold] = {}  # admitted and not reported
        self._reported: dict[UUID, Hold] = {}  # reported by the turn that is under way
        self._late = [0, 0]  # corrections of those: requests, tokens
        self._over: dict[int, list[int]] = {}
        self._owed_nano = self._spent_nano = 0
        self._low_nano = self._low_requests = self._low_tokens = self._low_places = 0

    def wish(self, requests: int, amount_nano: int, tokens: int, waiting: int) -> Share:
        """What is missing for ``requests`` like this one, ``waiting`` of which want to begin now."""
        places = min(requests, waiting + 1 + self.in_flight)
        return Share(
            max(0, requests * amount_nano - self.nano) if self.budgeted else 0,
            max(0, requests - self.requests) if self._paces_requests else 0,
            max(0, requests * tokens - self.tokens) if self._paces_tokens else 0,
            max(0, places - self.places) if self._paces_places else 0,
        )

    def grant(self, given: Share, until_ns: int, standing: Standing) -> None:
        """The store set it aside."""
        self.nano += given.nano
        self.requests += given.requests
        self.tokens += given.tokens
        self.places += given.places
        self.until_ns = until_ns
        self.standing = standing
        self.refill_nano = self.nano // 2
        self.refill_requests = self.requests // 2

    def draw(self, hold: Hold, now_ns: int) -> bool:
        """Sets ``hold`` aside from the lease; False when it does not cover it, or may not be spent any more."""
        if now_ns >= self.until_ns or self.retired:
            return False
        amount_nano, tokens = hold.estimate.amount_nano, hold.estimate.tokens
        if self.budgeted and amount_nano > self.nano:
            return False
        if self.paced:
            if (
                (self._paces_requests and self.requests < 1)
                or (self._paces_tokens and self.tokens < tokens)
                or (self._paces_places and self.places < 1)
            ):
                return False
            self._pace(hold, tokens)
        if self.budgeted:
            self.nano -= amount_nano
            if self.nano < self._low_nano:
                self._low_nano = self.nano
        self.in_flight += 1
        self.drawn += 1
        hold.purse = self
        hold.lease_id = self.id
        hold.placed = True
        return True

    @property
    def scarce(self) -> bool:
        """Whether it is time to ask for more, so that nobody has to wait for it."""
        return (self.budgeted and self.nano <= self.refill_nano) or (
            self._paces_requests and self.requests <= self.refill_requests
        )

    def stands(self) -> Standing:
        """What is left at the tightest level: in the store, and here."""
        known = self.standing
        if not self.paced:
            return known
        return Standing(
            known.limit_requests,
            known.remaining_requests + self.requests if known.limit_requests else 0,
            known.reset_requests_s,
            known.limit_tokens,
            max(0, known.remaining_tokens + self.tokens) if known.limit_tokens else 0,
            known.reset_tokens_s,
        )

    def trim(self, hold: Hold, amount_nano: int) -> None:
        """Takes back what ``hold`` has beyond ``amount_nano``."""
        if self.budgeted:
            self.nano += hold.estimate.amount_nano - amount_nano

    def stretch(self, more_nano: int, now_ns: int) -> bool:
        """Sets ``more_nano`` aside for a hold of this purse; False when the lease does not cover it."""
        if not self.budgeted:
            return True
        if more_nano > self.nano or now_ns >= self.until_ns or self.retired:
            return False
        self.nano -= more_nano
        self._low_nano = min(self._low_nano, self.nano)
        return True

    def leave(self, hold: Hold) -> None:
        """The exchange of ``hold`` has ended, recorded or not: its place is free."""
        if hold.placed:
            hold.placed = False
            self.places += 1

    def settle(self, hold: Hold, charge: Charge, counts: bool) -> None:
        """The exchange of ``hold`` is recorded, or as good as: what it did not use can be spent again.

        What it used beyond its hold is charged beyond the lease; as much as can be is given back for it at the next turn.
        """
        self.leave(hold)
        self.in_flight -= 1
        held_nano, estimated = hold.estimate.amount_nano, hold.estimate.tokens
        hold.purse = None
        if self.budgeted:
            self._spent_nano += charge.amount_nano
            if charge.amount_nano <= held_nano:
                self.nano += held_nano - charge.amount_nano
            else:
                owed_nano = min(self.nano, charge.amount_nano - held_nano)
                self.nano -= owed_nano
                self._owed_nano += owed_nano
        if self.paced:
            self._correct(hold, charge.tokens - estimated, counts)

    def abandon(self, hold: Hold) -> None:
        """The exchange of ``hold`` has ended and will not be recorded by this worker: what it held stays set aside."""
        self.leave(hold)
        self.in_flight -= 1
        hold.purse = None

    def undo(self, hold: Hold) -> None:
        """The draw did not happen: nothing was sent for it."""
        self.settle(hold, _NOTHING, counts=False)

    # ---------------------------------------------------------------------------------------- the turn

    def turn(self, *, everything: bool) -> Turn:
        """What there is to report, taken out of the purse. ``everything``: keep nothing that is not in use."""
        unused = not self.in_flight and not self.asked
        idle = unused and not self.drawn
        back = self._back(all_of_it=self.retired or everything or idle)
        self.ended = unused and (self.retired or idle)
        self.retired |= self.ended
        turn = Turn(
            self.id,
            back[0] + self._owed_nano,
            back[1],
            back[2],
            back[3],
            max(0, self._admitted_requests),
            max(0, self._admitted_tokens),
            tuple((second, requests, tokens) for second, (requests, tokens) in self._over.items()),
            self.ended,
        )
        self.nano -= back[0]
        self.requests -= back[1]
        self.tokens = max(0, self.tokens - back[2])  # more than was estimated is reported, and no debt any more
        self.places -= back[3]
        self._reported, self._fresh = self._fresh, {}
        for hold in self._reported.values():
            hold.second = REPORTED
        self._over = {}
        self._late = [0, 0]
        self._owed_nano = self._spent_nano = self._admitted_requests = self._admitted_tokens = self.drawn = 0
        self._low_nano, self._low_requests = self.nano, self.requests
        self._low_tokens, self._low_places = self.tokens, self.places
        return turn

    def _back(self, *, all_of_it: bool) -> tuple[int, int, int, int]:
        """What is not needed: all, or what would have been left over if the last turn had been twice as busy."""
        if all_of_it:
            return max(0, self.nano), max(0, self.requests), max(0, self.tokens), max(0, self.places)
        return (
            max(0, min(self.nano, self._low_nano - self._spent_nano)),
            max(0, min(self.requests, self._low_requests - self._admitted_requests)),
            max(0, min(self.tokens, self._low_tokens - self._admitted_tokens)),
            max(0, min(self.places, self._low_places - self.drawn)),
        )

    def unheard(self) -> None:
        """The turn that is under way got no answer: the store has heard of it, or not. The lease is spent no more."""
        self.retired, self.ended = True, False
        for hold in self._reported.values():
            hold.second = LOST
        self._reported = {}
        self._late = [0, 0]

    def turned(self, answer: Turned, until_ns: int) -> None:
        """The store's answer to the turn that is under way."""
        if answer.gone:
            self.retired = self.ended = True
            self.nano = self.until_ns = 0
            return
        self.until_ns = until_ns
        self.standing = answer.standing
        for hold in self._reported.values():
            hold.second = answer.second
        self._reported = {}
        if any(self._late):
            self._note_over(answer.second, *self._late)
            self._late = [0, 0]

    # ---------------------------------------------------------------------------------------- windows

    def _pace(self, hold: Hold, tokens: int) -> None:
        self.requests -= 1
        self.tokens -= tokens
        self.places -= 1
        self._admitted_requests += 1
        self._admitted_tokens += tokens
        self._low_requests = min(self._low_requests, self.requests)
        self._low_tokens = min(self._low_tokens, self.tokens)
        self._low_places = min(self._low_places, self.places)
        self._fresh[hold.id] = hold

    def _correct(self, hold: Hold, more: int, counts: bool) -> None:
        """From estimated to real tokens, and from a request that counts to one that does not."""
        less_requests = 0 if counts else 1
        if hold.second == 0:  # nobody knows of it yet
            self._fresh.pop(hold.id, None)
            self._admitted_tokens += more
            self.tokens -= more
            self._admitted_requests -= less_requests
            self.requests += less_requests
            return
        if more > 0:  # counts now
            self._admitted_tokens += more
            self.tokens -= more
            more = 0
        if hold.second == LOST:
            return
        if hold.second == REPORTED:
            self._reported.pop(hold.id, None)
            self._late[0] += less_requests
            self._late[1] -= more
        elif more or less_requests:
            self._note_over(hold.second, less_requests, -more)

    def _note_over(self, second: int, requests: int, tokens: int) -> None:
        noted = self._over.setdefault(second, [0, 0])
        noted[0] += requests
        noted[1] += tokens


_NOTHING = Charge((), 0, 0, 0)
