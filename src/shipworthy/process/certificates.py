"""Which certificates are shown where, until when, and which of them may replace those that are."""

from __future__ import annotations

from datetime import UTC, datetime

from shipworthy.manifest.deployment import Bind, Deployment
from shipworthy.model.errors import StartRefused
from shipworthy.model.observation import CertificateShown
from shipworthy.model.op import Observe


def show(deployment: Deployment, observe: Observe) -> None:
    """Says of every bind with TLS which certificate its clients are shown."""
    now = datetime.now(UTC)
    for name, bind in deployment.binds.items():
        if bind.tls is not None:
            looked = bind.tls.certificate.look()
            ends = looked.ends
            observe(CertificateShown(name, str(looked), ends.isoformat(), int(ends.timestamp()), (ends - now).days))


def refuse_ended(old: Deployment, new: Deployment) -> None:
    """Raises StartRefused for a new certificate that no client takes today: the one that is shown may still be good.

    At a start there is none to keep: then the server comes up, so that all else can be looked at, and says what is wrong.
    """
    now = datetime.now(UTC)
    for name, bind in new.binds.items():
        before = old.binds[name].tls if name in old.binds else None
        if bind.tls is None or before is None or bind.tls.certificate == before.certificate:
            continue
        looked = bind.tls.certificate.look()
        if not looked.begins <= now < looked.ends:
            when = f"expired at {looked.ends}" if now >= looked.ends else f"begins at {looked.begins}"
            raise StartRefused(
                "tls.ended",
                f"the new certificate of {name} {when}; the one before is still shown",
                "get one that holds now",
            )


def place(bind: Bind | None) -> object:
    """What of a bind is fixed for as long as it listens."""
    return None if bind is None else (bind.host, bind.port, bind.scheme)
