"""What every part of link needs: the shapes, where they were written, and how an unknown name is reported."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol
from zoneinfo import ZoneInfo, available_timezones

from shipworthy.manifest.problem import KeyPath, did_you_mean, one_of, quoted
from shipworthy.manifest.shape import Manifest
from shipworthy.manifest.shape_identity import BudgetShape, LimitsShape
from shipworthy.manifest.shaping import Shaped
from shipworthy.manifest.specs import Spec
from shipworthy.manifest.tree import Tree
from shipworthy.model.money import Period, Price
from shipworthy.model.policy import Budget, Condition, Limits

Compile = Callable[[str, Sequence[str]], Condition]
"""A CEL expression and the data classes, lowest first → a condition. Raises ConditionError."""


class PriceOf(Protocol):
    """The price table: None = unpriced. ``base_url`` is "" when the provider has none."""

    def __call__(self, provider_kind: str, upstream: str, base_url: str) -> Price | None: ...


UTC_ZONE = ZoneInfo("UTC")


@dataclass(frozen=True, slots=True)
class Linking:
    """One run of link."""

    manifest: Manifest
    shaped: Shaped
    tree: Tree
    specs: Mapping[str, Spec[object]]
    compile_condition: Compile
    price_of: PriceOf
    today: date

    @property
    def classes(self) -> list[str]:
        return self.manifest.requirements.data_classes.values

    def unknown(self, path: KeyPath, what: str, said: str, known: Collection[str], section: KeyPath = ()) -> None:
        """Reports that ``said`` at ``path`` names nothing; silent if it was declared and is broken itself."""
        if section and said in self.shaped.names(section):
            return
        self.tree.report(
            path, f"no such {what}", said=quoted(said), wanted=one_of(known), hint=did_you_mean(said, known)
        )

    def rank(self, path: KeyPath, said: str) -> int | None:
        """The rank of a data class."""
        if said in self.classes:
            return self.classes.index(said)
        self.unknown(path, "data class", said, self.classes)
        return None

    def zone(self, path: KeyPath, said: str | None, otherwise: ZoneInfo) -> ZoneInfo:
        """The time zone that ``said`` names; ``otherwise`` when nothing is said or nothing is named."""
        if said is None:
            return otherwise
        try:
            return ZoneInfo(said)
        except (KeyError, OSError, ValueError):  # no such key, a folder, or a name that is a path
            known = sorted(available_timezones())
            hint = did_you_mean(said, known) or "see the tz database"
            self.tree.report(
                path, "no such time zone", said=quoted(said), wanted="a name such as Europe/Berlin", hint=hint
            )
            return otherwise

    def budget(
        self, path: KeyPath, shape: BudgetShape | None, routed: Collection[str], zone: ZoneInfo = UTC_ZONE
    ) -> Budget | None:
        """A budget on the wall clock of its own zone, or else of ``zone``. ``routed`` are the models it may go on with."""
        if shape is None:
            return None
        zone = self.zone((*path, "zone"), shape.zone, zone)
        instead = self._instead((*path, "on_exhausted", "models"), shape, routed)
        return Budget(shape.usd, Period(shape.per), zone, tuple(shape.alert_at), instead)

    def _instead(self, path: KeyPath, shape: BudgetShape, routed: Collection[str]) -> tuple[str, ...]:
        """The models that serve on when the budget has no room for the dearest."""
        models = shape.on_exhausted.models if shape.on_exhausted else []
        for index, name in enumerate(models):
            if name in models[:index]:
                self.tree.report(
                    (*path, index), "a model stands here twice", said=quoted(name), wanted="each model once"
                )
            elif name not in routed:
                self.unknown((*path, index), "model in a route that this budget counts for", name, routed)
        if models and set(routed) <= set(models):
            what = "these are all the models that this budget counts for: without the dearer ones left out, nothing changes"
            self.tree.warn(path, what, wanted="the cheaper ones only, or refuse")
        return tuple(models)


def limits_of(shape: LimitsShape | None) -> Limits | None:
    """The limits of a section; none when it states none."""
    if shape is None or shape == LimitsShape():
        return None
    return Limits(shape.requests_per_min or 0, shape.tokens_per_min or 0, shape.concurrent or 0)
