"""Templates, with every value escaped: names come from clients, and a client may be hostile."""

from __future__ import annotations

from datetime import UTC, datetime

from jinja2 import Environment, PackageLoader, StrictUndefined

from shipworthy import __version__
from shipworthy.control.wording import counted, lasting, moment, usd
from shipworthy.model.exchange import Outcome

NS_PER_S = 1_000_000_000


class Pages:
    """The console's templates. An unknown name in one is an error, never an empty place."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader("shipworthy.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            lasting=lasting, moment=moment, usd=usd, counted=counted, clock=clock, day=day, iso=iso
        )
        self._environment.globals.update(version=__version__, outcomes=[outcome.value for outcome in Outcome])

    def render(self, template: str, **named: object) -> str:
        return self._environment.get_template(template).render(named)


def clock(unix_ns: int) -> str:
    return f"{_at(unix_ns):%H:%M:%S}"


def day(unix_ns: int) -> str:
    at = _at(unix_ns)
    return f"{at.day} {at:%b}"


def iso(unix_ns: int) -> str:
    return _at(unix_ns).isoformat()


def _at(unix_ns: int) -> datetime:
    return datetime.fromtimestamp(unix_ns // NS_PER_S, tz=UTC)
