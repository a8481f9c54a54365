"""Everything the program can say, as one closed union. Where it goes (log, metric, span) is decided in adapters/telemetry.

No observation carries a secret or a body; a canary test greps every sink.
"""

from __future__ import annotations

from traceback import format_exception

from msgspec import Struct


class Refused(Struct, frozen=True, tag=True):
    """A request was refused before identity: a counter and a bounded security log, no row."""

    exchange_id: str
    code: str
    detail: str
    peer: str


class Ended(Struct, frozen=True, tag=True):
    """An exchange ended; its row says everything else."""

    exchange_id: str
    tenant: str
    use_case: str
    model: str
    outcome: str
    code: str
    duration_ms: float
    first_token_ms: float
    input_tokens: int
    output_tokens: int
    charged_nano: int
    overrun_nano: int


class AttemptFailed(Struct, frozen=True, tag=True):
    """One provider attempt failed."""

    exchange_id: str
    model: str
    provider: str
    kind: str
    status: int
    detail: str


class CircuitChanged(Struct, frozen=True, tag=True):
    """A circuit opened, half-opened or closed."""

    provider: str
    model: str
    state: str
    reason: str


class Reloaded(Struct, frozen=True, tag=True):
    """A manifest was put in force, or refused while the last good one stays."""

    digest: str
    accepted: bool
    reason: str


class IssuerDegraded(Struct, frozen=True, tag=True):
    """An issuer's keys could not be refreshed; the cached ones serve until their stated age."""

    issuer: str
    reason: str
    age_s: float


class StoreDegraded(Struct, frozen=True, tag=True):
    """The store did not answer; what was waiting and what happened to it."""

    where: str
    reason: str
    waiting: int


class TelemetryDegraded(Struct, frozen=True, tag=True):
    """A sink of observations did not take them; how many of its items were dropped since it was last said."""

    sink: str
    reason: str
    dropped: int


class Lifecycle(Struct, frozen=True, tag=True):
    """A process came up, drains, ended or was respawned."""

    process: str
    state: str
    detail: str


CERTIFICATE_DAYS_LEFT = 14
"""A certificate that ends so soon should have been renewed: whoever reads a manifest or a log is warned."""


class CertificateShown(Struct, frozen=True, tag=True):
    """Clients of ``bind`` are shown this certificate from now on; the time until it ends is negative when it has ended."""

    bind: str
    names: str
    ends: str
    ends_unix_s: int
    days_left: int


class Swept(Struct, frozen=True, tag=True):
    """Holds of a dead worker were settled by the sweeper."""

    holds: int
    charged_nano: int


class BudgetAlert(Struct, frozen=True, tag=True):
    """A budget, named by its level, was charged past a threshold; ``exhausted_at`` "" = not at this pace, or unknown."""

    alert_id: str
    tenant: str
    budget: str
    threshold: str
    charged_nano: int
    cap_nano: int
    period: str
    period_start: str
    period_end: str
    exhausted_at: str


class AlertPosted(Struct, frozen=True, tag=True):
    """One try to post an alert ended: ``delivered``, ``pending`` (again after ``again_s``) or ``failed`` (given up)."""

    alert_id: str
    tenant: str
    delivery: str
    tries: int
    status: int
    reason: str
    again_s: float


class RunawayPaused(Struct, frozen=True, tag=True):
    """A spend rate ran away from normal; ``stopped`` False = the tenant has too many pauses, so that it spends on."""

    tenant: str
    kind: str
    principal: str
    session: str
    reason: str
    release: str  # the command
    stopped: bool


class AdminActed(Struct, frozen=True, tag=True):
    """An administrative act was recorded."""

    act: str
    actor: str
    target: str


class Failed(Struct, frozen=True, tag=True):
    """Something failed that the code did not foresee; the traceback goes to the log only."""

    where: str
    reason: str
    exchange_id: str
    traceback: str

    @classmethod
    def of(cls, where: str, bug: BaseException, exchange_id: str = "") -> Failed:
        """What ``bug`` says of itself."""
        return cls(where, repr(bug), exchange_id, "".join(format_exception(bug)))


Observation = (
    Refused
    | Ended
    | AttemptFailed
    | CircuitChanged
    | Reloaded
    | IssuerDegraded
    | StoreDegraded
    | TelemetryDegraded
    | Lifecycle
    | CertificateShown
    | Swept
    | BudgetAlert
    | AlertPosted
    | RunawayPaused
    | AdminActed
    | Failed
)
