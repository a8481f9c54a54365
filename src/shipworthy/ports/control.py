"""What the control plane works with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from shipworthy.model.identity import Credentials, Principal
from shipworthy.model.op import Clock, Observe, Op
from shipworthy.model.policy import Snapshot
from shipworthy.ports.acts import AdminRecorder
from shipworthy.ports.books import Books, Corrections, Exchanges
from shipworthy.ports.identity import KeyStore
from shipworthy.ports.watching import AlertLog, PauseStore


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
