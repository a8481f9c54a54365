"""How much each observation matters: one table, and the two whose content decides."""

from __future__ import annotations

from enum import IntEnum

from shipworthy.model.observation import (
    CERTIFICATE_DAYS_LEFT,
    AdminActed,
    AlertPosted,
    AttemptFailed,
    BudgetAlert,
    CertificateShown,
    CircuitChanged,
    Ended,
    Failed,
    IssuerDegraded,
    Lifecycle,
    Observation,
    Refused,
    Reloaded,
    RunawayPaused,
    StoreDegraded,
    Swept,
    TelemetryDegraded,
)


class Level(IntEnum):
    """As Python's ``logging`` counts them."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


LEVELS: dict[type[Observation], Level] = {
    Refused: Level.INFO,
    Ended: Level.INFO,
    AttemptFailed: Level.WARNING,
    CircuitChanged: Level.WARNING,
    Reloaded: Level.INFO,
    IssuerDegraded: Level.WARNING,
    StoreDegraded: Level.ERROR,
    TelemetryDegraded: Level.WARNING,
    Lifecycle: Level.INFO,
    CertificateShown: Level.INFO,
    Swept: Level.WARNING,
    BudgetAlert: Level.WARNING,
    AlertPosted: Level.INFO,
    RunawayPaused: Level.WARNING,
    AdminActed: Level.INFO,
    Failed: Level.ERROR,
}


def level_of(observation: Observation) -> Level:
    match observation:
        case Ended(outcome=outcome):  # first: it comes with every request
            return Level.WARNING if outcome in ("failed", "cut") else LEVELS[Ended]
        case Reloaded(accepted=False):
            return Level.ERROR
        case AlertPosted(delivery="pending"):
            return Level.WARNING
        case AlertPosted(delivery="failed"):
            return Level.ERROR
        case RunawayPaused(stopped=False):
            return Level.ERROR
        case Lifecycle(state="died" | "refused"):
            return Level.WARNING
        case CertificateShown(days_left=days) if days <= CERTIFICATE_DAYS_LEFT:
            return Level.ERROR if days < 0 else Level.WARNING
        case _:
            return LEVELS[type(observation)]
