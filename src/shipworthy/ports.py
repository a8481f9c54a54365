"""Every Protocol that an adapter may implement, and the ``Stages`` value.

A port names what the inside needs from the outside, in model nouns. Adapters know the world and nothing of each other;
``bootstrap`` joins the two.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from shipworthy.model.alert import Alert, Delivery, Pace, Posted, Watch
from shipworthy.model.books import Balance, Presumed, Used
from shipworthy.model.chat import Dialect, Event, Events, Reply, Request
from shipworthy.model.correction import Applied, Correction
from shipworthy.model.errors import Refusal, ShipworthyError
from shipworthy.model.exchange import Bodies, Exchange, Received, Row
from shipworthy.model.guard import Screened
from shipworthy.model.identity import Credentials, Grant, Principal
from shipworthy.model.knowledge import Passages
from shipworthy.model.lease import Share, Turn, Turned
from shipworthy.model.ledger import Charge, Claim, Estimate, Hold, Standing
from shipworthy.model.op import Clock, Observe, Op
from shipworthy.model.pause import Pause, PauseAsked, Placed
from shipworthy.model.policy import Runaway, Snapshot
from shipworthy.model.prompt import Fitted, Hit, Prompt
from shipworthy.model.reading import CostAsked, CostLine, Page, Place, Wanted
from shipworthy.model.route import Attempt, Model, Provider, Route
from shipworthy.model.runaway import Normal, Spender, Suspect

# ---------------------------------------------------------------------------------------------- the edge


class Arrival(Struct, frozen=True):
    """What the edge knows of a request before its body is read. Header values are length-checked, otherwise as sent."""

    dialect: Dialect
    credentials: Credentials
    read_body: Callable[[], Awaitable[bytes]]  # raises Refusal decode.*; called once, after the sender is known
    data_class: str = ""
    session: str = ""
    idempotency_key: str = ""
    peer: str = ""


class Opening(Struct, frozen=True):
    """What the answer's head says. ``cost_nano`` is None on streams: it is not known yet."""

    stream: bool
    use_case: str
    model: str
    release: str
    source: str
    hold: Hold | None
    output_tokens_max: int
    cost_nano: int | None


class Sink(Protocol):
    """Where the answer goes. After the client has left, sends do nothing."""

    async def open(self, opening: Opening) -> None: ...
    async def send(self, payload: bytes) -> None:
        """One payload of the dialect; the sink frames it. Waits while the client does not read."""

    async def finish(self, opening: Opening, payload: bytes) -> None:
        """The last payload and the end of the answer; opens it first when nothing was sent yet."""

    async def replay(self, stored: Stored) -> None:
        """The stored answer to a repeated request."""

    async def refuse(self, refusal: Refusal) -> None:
        """A status and the dialect's error while nothing was sent; afterwards the dialect's error event."""


# ---------------------------------------------------------------------------------------------- identity


class TokenVerifier(Protocol):
    async def verify(self, op: Op, token: str) -> Principal:
        """The principal that a signed token proves. Raises Refusal identify.*; only an operator may lack a tenant."""


class KeyVerifier(Protocol):
    async def verify(self, op: Op, key: str) -> Principal:
        """The principal behind a service key. Raises Refusal identify.key_*; fails closed when its knowledge is too old."""


class TokenCheck(Struct, frozen=True, gc=False):
    """One check of a token: ``passed``, ``refused`` with its code, or ``unchecked`` because it could not be made."""

    name: str
    result: str
    said: str
    code: str = ""


class TokenReading(Struct, frozen=True):
    """What a token says and how far it may be believed. ``principal`` is whom it names, whether it is believed or not."""

    checks: tuple[TokenCheck, ...]
    header: Mapping[str, object]
    claims: Mapping[str, object]
    principal: Principal | None


class TokenInspector(Protocol):
    async def inspect(self, op: Op, token: str) -> TokenReading:
        """The verifier's checks one by one, for a person. Never raises for what a token holds."""


class TokenWish(Struct, frozen=True, kw_only=True):
    """What a development token shall say. ``clearance`` and ``actor`` "" = nothing."""

    tenant: str
    subject: str
    groups: tuple[str, ...]
    clearance: str = ""
    actor: str = ""
    ttl_s: int


class TokenMinter(Protocol):
    def mint(self, wish: TokenWish, id: UUID, now_unix_ns: int) -> str:
        """A signed token that says what was wished. Whoever calls has checked the wish."""


class ServiceKey(Struct, frozen=True, kw_only=True):
    """A service key as it may be listed: never the key itself. ``secret_hmac`` is HMAC-SHA256 under the pepper."""

    id: str
    tenant: str
    name: str
    role: str
    use_cases: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    created_by: str
    secret_hmac: bytes


class KeyStore(Protocol):
    async def find(self, key_id: str) -> ServiceKey | None: ...
    async def create(self, key: ServiceKey, act: AdminAct) -> None: ...
    async def list(self, tenant: str) -> Sequence[ServiceKey]: ...
    async def revoke(self, tenant: str, key_id: str, act: AdminAct) -> bool: ...


# ---------------------------------------------------------------------------------------------- money


class Refusing(Struct, frozen=True):
    """The level that said no, and why: ``reason`` is the refusal code's second half."""

    key: str
    reason: str  # budget_exhausted | requests_limit | tokens_limit | concurrent_limit
    period: str = ""
    retry_after_s: float | None = None


Draft = Callable[[], bytes]
"""What the sweeper needs to write the row if this worker dies: msgpack of a Row with what is known. Called when needed."""


class Ledger(Protocol):
    async def reserve(self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, draft: Draft) -> Hold:
        """All levels or none, exact at any concurrency on any number of workers.

        Raises Refusal reserve.*, StoreUnavailable.
        """

    async def raise_to(self, op: Op, hold: Hold, amount_nano: int) -> Hold:
        """A hold of at least ``amount_nano``, or Refusal reserve.budget_exhausted and the old hold stays."""

    async def announce(self, op: Op, hold: Hold) -> None:
        """Before anything is sent for ``hold``: the store knows, or will in moments, what it may cost if this worker dies.

        Raises StoreUnavailable.
        """

    def trim(self, op: Op, hold: Hold, amount_nano: int) -> None:
        """Gives back what ``hold`` has beyond ``amount_nano``. Never raises.

        At once for a leased hold; a direct one keeps it until it is settled: giving it back would cost a round trip.
        """

    def leave(self, hold: Hold) -> None:
        """The exchange of ``hold`` has ended, recorded or not: it takes no place any more. Never raises."""


class Quotas(Protocol):
    """What a provider allows the key that we call it with, exact across workers and servers."""

    async def take(self, op: Op, provider: Provider, tokens: int) -> Hold | None:
        """One request of so many tokens, at most; None = the provider has no limits.

        Raises ProviderFailure *capacity* before the provider would say 429; Refusal when the store is away.
        """

    def used(self, taken: Hold, tokens: int, *, sent: bool) -> None:
        """What the attempt really used; one that was not sent does not count."""


class Ask(Struct, frozen=True):
    """A lease that is wanted beside a reservation, or more for one; shared with so many workers at least."""

    lease_id: UUID
    wish: Share
    workers: int
    ttl_s: float
    direct: bool = True  # where there is room for no lease: reserve directly; else a lease for this one request alone


class Advance(Struct, frozen=True):
    """A reservation's answer: what the lease was given, from which the request is to be drawn; None = it is held directly.

    The share may be less than the wish, in each respect; it covers the request, and one more like it unless not ``direct``.
    """

    given: Share | None
    standing: Standing
    certain: bool = True  # False: the answer to a first try was lost, which may have given a lease too


class LeaseStore(Ledger, Protocol):
    """A Ledger that also gives leases. Raises as it does."""

    async def reserve_ahead(
        self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, draft: Draft, ask: Ask
    ) -> Advance:
        """``reserve``, and a lease where there is room for one. Raises Refusal reserve.*, StoreUnavailable."""

    async def refill(self, op: Op, tenant: str, claims: Sequence[Claim], estimate: Estimate, ask: Ask) -> Advance:
        """More for a lease, ahead of need; given None = there is no room. Raises Refusal, StoreUnavailable."""

    async def top_up(self, op: Op, tenant: str, lease_id: UUID, more_nano: int) -> None:
        """More money for one hold of a lease. Raises Refusal reserve.budget_exhausted, StoreUnavailable."""

    async def turn(self, tenant: str, turns: Sequence[Turn], ttl_s: float) -> Sequence[Turned]:
        """Reports and renews leases, one transaction. Raises StoreUnavailable."""


class Entry(Struct, frozen=True):
    """An ended exchange with all that must commit together: its row, its bodies, and its settlement (None = no hold)."""

    row: Row
    bodies: Bodies | None
    hold: Hold | None
    charge: Charge | None


class Intent:
    """That an exchange is about to cost money which no hold in the store names: what is left of it if this worker dies.

    ``queued``: it is on its way into the store. ``void``: its exchange is recorded, so that it need not be written any more.
    """

    __slots__ = ("arrived_unix_ns", "draft", "expires_s", "hold", "queued", "void")

    def __init__(self, hold: Hold, arrived_unix_ns: int, expires_s: float, draft: Draft) -> None:
        self.hold = hold
        self.arrived_unix_ns = arrived_unix_ns
        self.expires_s = expires_s
        self.draft = draft
        self.queued = False
        self.void = False


class Recorder(Protocol):
    """``settled``, which whoever builds it hands in, hears of each entry once: when it is committed, or queued where nobody
    waits for that."""

    async def record(self, entry: Entry) -> None:
        """Returns when row, bodies and counters are committed together. Raises StoreUnavailable."""

    def enqueue(self, entry: Entry) -> None:
        """The same, behind: grouped commits, at most 50 ms late. Raises StoreUnavailable when the bounded queue is full."""

    async def intended(self, intent: Intent) -> None:
        """Returns when ``intent`` is committed, with what else has gathered. Raises StoreUnavailable."""

    def intend(self, intent: Intent) -> None:
        """The same, behind; an intent whose exchange ends before is never written. Raises StoreUnavailable as `enqueue`."""


class Orphan(Struct, frozen=True):
    """A hold that nobody will settle: its worker is gone, or it has expired. ``intent`` is what reserve was given."""

    hold: Hold
    arrived_unix_ns: int  # the exchange's
    worker: str
    intent: bytes


class Expired(Struct, frozen=True):
    """What retention removed. ``months`` are partitions that went as a whole."""

    bodies: int = 0
    exchanges: int = 0
    acts: int = 0
    months: tuple[str, ...] = ()


SUSPENDED_S = 60.0
"""So long a lease is suspended before its worker, of whose death nobody has told, is believed dead."""


class Stray(Struct, frozen=True):
    """A lease past its expiry, or of a worker that is dead."""

    tenant: str
    id: UUID
    worker: str
    suspended_s: float | None  # since when; None = not yet
    ended: bool  # its worker spends it no more
    settled: bool  # none of its exchanges is left to be recorded
    silent: bool  # nothing that its worker sent can still arrive


class Sweeper(Protocol):
    """What the sweeper needs of the store. Any number of sweepers may run at once."""

    async def strays(self, dead_workers: Sequence[str], limit: int) -> Sequence[Stray]:
        """At most ``limit``. Raises StoreUnavailable."""

    async def suspend(self, strays: Sequence[Stray]) -> int:
        """Until it is known what became of it, their money can be spent by nobody. Raises StoreUnavailable."""

    async def bury(self, strays: Sequence[Stray]) -> int:
        """Frees what is left of suspended leases whose exchanges are all recorded. Raises StoreUnavailable."""

    async def orphans(self, dead_workers: Sequence[str], limit: int) -> Sequence[Orphan]:
        """At most ``limit`` holds of ``dead_workers`` or past their expiry. Raises StoreUnavailable."""

    async def presume(self, op: Op, entries: Sequence[Entry]) -> Sequence[Row]:
        """Records and settles each entry whose hold still stands; returns their rows. Raises StoreUnavailable."""

    async def expire(self, rows_before: datetime, bodies_before: datetime, limit: int) -> Expired:
        """Removes what is older: whole months, and at most ``limit`` rows of each kind. Raises StoreUnavailable."""

    async def prepare_partitions(self) -> Sequence[str]:
        """Makes the record's tables for the months to come; says in words what was made, and what could not be."""


# ---------------------------------------------------------------------------------------------- repeats


REPLAYED_BYTES_MAX = 1_048_576
"""A longer answer is not kept for repeats: its repeat runs, and is charged, afresh."""


class Stored(Struct, frozen=True):
    """The answer that an Idempotency-Key already got."""

    exchange_id: UUID
    status: int
    content_type: str
    body: bytes


class Replay(ShipworthyError):
    """Not a failure: the request is a repeat, and ``stored`` is its answer."""

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        super().__init__(str(stored.exchange_id))


class Repeats(Protocol):
    """Idempotency-Keys, scoped by tenant, principal and route."""

    async def begin(self, op: Op, tenant: str, scope: str, key: str, body_sha256: bytes) -> Stored | None:
        """None = first: it is now in flight. Raises Refusal idempotency.other_body or idempotency.in_flight."""

    async def finish(self, op: Op, tenant: str, scope: str, key: str, stored: Stored | None) -> None:
        """Keeps the answer; None forgets the key, so that a retry runs afresh."""


# ---------------------------------------------------------------------------------------------- providers


class Upstream(Protocol):
    """One provider, reached. Adapters keep connect bounds; the call stage keeps first-token and total deadlines."""

    async def open(self, op: Op, model: Model, request: Request, fitted: Fitted) -> Events:
        """Sends the request and returns its events once the provider's head says success.

        Cancelling at any point, or closing the events, closes the connection: the provider stops.
        Raises ProviderFailure, here and while it is read.
        """

    async def close(self) -> None:
        """Ends every connection; what runs on them fails."""


# ---------------------------------------------------------------------------------------------- alerts


class EndUsers(Struct, frozen=True):
    """A page of one tenant's end users in one period: those whose level's key comes after ``after``."""

    tenant: str
    period: str
    period_start: datetime
    after: str


class Passed(Struct, frozen=True):
    """Alerts for the caller to say, and where its next page of end users begins ("" = at the first again)."""

    alerts: tuple[Alert, ...]
    after: str


class Alerts(Protocol):
    """Budget alerts and the outbox of their webhook. Any number of control planes may work on it at once."""

    async def raise_passed(self, watches: Sequence[Watch], end_users: EndUsers | None, deliver: bool) -> Passed:
        """Raises what the charges have passed, each threshold once for ever; also returns what somebody left unsaid.

        The caller has a stated time to say them; afterwards somebody else will. Raises StoreUnavailable.
        """

    async def pace(self, tenant: str, team: str, use_case: str, end_user: str) -> Pace:
        """What a level of those names ("" = any) was charged lately. Raises StoreUnavailable, also if it takes long."""

    async def said(self, alert: Alert, exhausted_at: datetime | None) -> None:
        """The alert was said: it may be delivered. Raises StoreUnavailable."""

    async def claim(self, limit: int) -> Sequence[Alert]:
        """Deliveries that are due, the caller's alone for a stated time; each counts as a try. Raises StoreUnavailable."""

    async def mark(self, alert: Alert, delivery: Delivery, status: int, reason: str, again_s: float) -> None:
        """How the claimed try ended; ``again_s`` is when the next is due, if still pending. Raises StoreUnavailable."""

    async def forget(self, before: datetime, limit: int) -> int:
        """Removes at most ``limit`` alerts of periods that ended before; returns how many. Raises StoreUnavailable."""


class AlertLog(Protocol):
    async def page(self, scope: str, limit: int) -> Sequence[Alert]:
        """The newest alerts of one tenant, or of EVERY_TENANT; whoever calls has recorded the read."""


class AlertPoster(Protocol):
    async def post(self, delivery_id: UUID, body: bytes) -> Posted:
        """Posts ``body``, signed, once, within a stated time. Never raises for what the receiver or the way to it does."""


# ---------------------------------------------------------------------------------------------- administration


class AdminAct(Struct, frozen=True, kw_only=True):
    """An administrative act, recorded the same way as an exchange: who did what to what, when, with which result."""

    id: UUID
    at_unix_ns: int
    actor: str
    act: str  # key.create, key.revoke, token.mint, manifest.reload, body.read, exchanges.read …
    tenant: str  # "" = the whole deployment
    target: str
    facts: Mapping[str, str]


class AdminRecorder(Protocol):
    async def act(self, act: AdminAct) -> None: ...


class Exchanges(Protocol):
    """Reads of the record. ``scope`` is one tenant, or EVERY_TENANT for operators; whoever calls has recorded the read."""

    async def page(self, scope: str, wanted: Wanted, after: Place | None, limit: int) -> Page:
        """At most ``limit`` exchanges before the place ``after``, newest first: stable while others are recorded."""

    async def get(self, scope: str, exchange_id: UUID) -> Row | None: ...

    async def bodies(self, scope: str, exchange_id: UUID) -> Bodies | None:
        """What was said, decrypted; None when it was not kept, or no longer is."""

    async def cost(self, scope: str, asked: CostAsked) -> Sequence[CostLine]:
        """Sums over one snapshot of the record; their total equals the rows to the nano-dollar."""


CORRECTIONS_MAX = 10_000
"""So many corrections are read at once, the oldest."""


class Corrections(Protocol):
    """What was found out later of what exchanges cost. ``scope`` as for Exchanges."""

    async def of(self, scope: str, exchange_ids: Sequence[UUID]) -> Sequence[Correction]:
        """The corrections of these exchanges, oldest first; at most CORRECTIONS_MAX. Raises StoreUnavailable."""

    async def apply(self, correction: Correction, expected_nano: int | None, act: AdminAct) -> Applied:
        """The correction, the counters that it moves and ``act`` together, or none of them.

        ``expected_nano`` is what the caller believes that the exchange comes to before; None = whatever it does. What a
        verdict other than *applied* names has changed nothing. Raises StoreUnavailable.
        """


class Books(Protocol):
    """Reads that check the books, across tenants: each answer is of one moment. Whoever calls has recorded the read."""

    async def balance(self, tenant: str, since: datetime | None, rows_since: datetime, limit: int) -> Balance:
        """Every counter beside what is behind it, of one tenant ("" = all), in periods that end after ``since``.

        Rows that arrived before ``rows_since`` may be gone by retention. Raises StoreUnavailable.
        """

    async def used(self, provider: str, first: date, last: date) -> Sequence[Used]:
        """What was used of each upstream model of ``provider`` on each of these UTC days. Raises StoreUnavailable."""

    async def presumed(self, first: date, last: date) -> Sequence[Presumed]:
        """What is only presumed of those days: no provider is known of it. Raises StoreUnavailable."""


class PauseStore(Protocol):
    """Sessions and principals that are refused until an administrator releases them; each change with its act."""

    async def pause(self, asked: PauseAsked, act: AdminAct) -> Placed:
        """``act`` is recorded only with a new pause. Every worker refuses within a second. Raises StoreUnavailable."""

    async def active(self, scope: str) -> Sequence[Pause]:
        """Those that stand, newest first; ``scope`` as for Exchanges. Raises StoreUnavailable."""

    async def release(self, tenant: str, pause_id: UUID, because: str, act: AdminAct) -> Pause | None:
        """The pause as it ended; None = it stands no more, and nothing is recorded. Raises StoreUnavailable."""


class Folded(Struct, frozen=True):
    """``ours`` False: another control plane is at it. ``behind``: there is more to fold before anyone can be judged."""

    ours: bool
    behind: bool = False


class SpendWatch(Protocol):
    """Who spends how much, from the committed record, across tenants: those that have a rule."""

    async def fold(self, rules: Mapping[str, Runaway]) -> Folded:
        """Adds a bounded stretch of the record to the sums, exactly once. Raises StoreUnavailable."""

    async def suspects(self, rules: Mapping[str, Runaway]) -> Sequence[Suspect]:
        """Who spent more than the least in the running window; a tenant's sessions before its principals, the dearest first.

        What pauses have to do with is left out: what those who are paused spent, and what was spent before a release.
        Raises StoreUnavailable.
        """

    async def normals(self, op: Op, rules: Mapping[str, Runaway], whose: Set[Spender]) -> Mapping[Spender, Normal]:
        """The normal of each, at most a minute old. Raises StoreUnavailable."""

    async def forget(self) -> None:
        """Clears away what no rule needs any more. Raises StoreUnavailable."""


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """What the control plane works with: the admin API, the console and the command line share it."""

    snapshot: Callable[[], Snapshot]
    identify: Callable[[Op, Credentials], Awaitable[Principal]]
    keys: KeyStore
    acts: AdminRecorder
    exchanges: Exchanges
    pauses: PauseStore
    corrections: Corrections
    books: Books
    alerts: AlertLog
    pepper: bytes  # of service keys
    cookie_key: bytes  # 32 bytes; seals the console's session cookie
    clock: Clock
    observe: Observe


# ---------------------------------------------------------------------------------------------- the stages


@dataclass(frozen=True, slots=True)
class Stages:
    """The path of a request as a value: callables, wrapped with timers in ``bootstrap``. A test replaces a field."""

    identify: Callable[[Op, Credentials], Awaitable[Principal]]
    decode: Callable[[Op, Arrival], Awaitable[Request]]
    authorize: Callable[[Op, Principal, Request, Arrival], Grant]
    dedupe: Callable[[Op, Grant, Request, Arrival], Awaitable[None]]
    reserve: Callable[[Op, Grant, Request], Awaitable[Hold]]
    resolve: Callable[[Op, Grant], Prompt]
    retrieve: Callable[[Op, Grant, Request], Awaitable[Passages]]
    screen: Callable[[Op, Grant, Request, Passages], Awaitable[Screened]]
    fit: Callable[[Op, Grant, Request, Prompt, Passages], Fitted]
    recall: Callable[[Op, Grant, Request, Fitted], Awaitable[Hit]]
    route: Callable[[Op, Grant, Hold, Request, Fitted], Route]
    call: Callable[[Op, Route, Request, Fitted, Hold, list[Attempt]], Awaitable[Reply]]
    inspect: Callable[[Op, Grant, Event], Event]
    encode: Callable[[Op, Request, Event], bytes]
    settle: Callable[[Op, Hold, Grant, Sequence[Attempt], Received], Charge]
    record: Callable[[Op, Exchange], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Live:
    """What is in force: one snapshot and the stages built from it. A request keeps the one that it began with."""

    snapshot: Snapshot
    stages: Stages
