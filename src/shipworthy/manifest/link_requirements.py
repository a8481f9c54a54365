"""``requirements`` → data classes and what each demands of a provider."""

from __future__ import annotations

from shipworthy.manifest.linking import Linking
from shipworthy.manifest.problem import KeyPath, one_of
from shipworthy.manifest.shape_requirements import DemandShape
from shipworthy.model.policy import Bodies
from shipworthy.model.route import Demand, Network

_HERE: KeyPath = ("requirements",)


def link_classes(linking: Linking) -> tuple[str, ...]:
    """The data classes, lowest first."""
    classes = linking.classes
    for index, name in enumerate(classes):
        if name in classes[:index]:
            path = (*_HERE, "data_classes", index)
            linking.tree.report(path, "a data class stands here twice", wanted="each class once", hint="order is rank")
    return tuple(classes)


def link_demands(linking: Linking) -> dict[int, Demand]:
    """By rank, what a class demands, joined with what the classes below it demand."""
    stated = linking.manifest.requirements.boundary
    for name in stated:
        if name not in linking.classes:
            linking.unknown((*_HERE, "boundary", name), "data class", name, linking.classes)
    demands: dict[int, Demand] = {}
    below = Demand()
    for rank, name in enumerate(linking.classes):
        if name in stated:
            below = _joined(linking, (*_HERE, "boundary", name), below, stated[name])
        demands[rank] = below
    return demands


def _joined(linking: Linking, path: KeyPath, below: Demand, shape: DemandShape) -> Demand:
    regions = _narrowed(linking, (*path, "regions"), below.regions, tuple(shape.regions or ()))
    said = tuple(Network(name) for name in shape.network or ())
    network = tuple(Network(name) for name in _narrowed(linking, (*path, "network"), below.network, said))
    days = [days for days in (below.retention_days_max, shape.retention_days_max) if days is not None]
    return Demand(
        regions=regions,
        network=network,
        trains_on_data=False if False in (below.trains_on_data, shape.trains_on_data) else None,
        retention_days_max=min(days) if days else None,
        agreement=below.agreement or shape.agreement,
    )


def _narrowed(linking: Linking, path: KeyPath, below: tuple[str, ...], own: tuple[str, ...]) -> tuple[str, ...]:
    """What both allow. Nothing in common is a problem: an empty demand would demand nothing."""
    if not below or not own:
        return own or below
    both = tuple(name for name in own if name in below)
    if not both:
        what = "a class also demands what the classes below it demand, and nothing satisfies both"
        linking.tree.report(path, what, wanted=one_of(below), hint="narrow the class below, or widen this one")
    return both or own


def link_bodies(linking: Linking) -> Bodies:
    """How bodies are kept."""
    audit = linking.manifest.requirements.audit
    if audit.bodies.bytes_max and audit.bodies.retention_days > audit.retention_days:
        path = (*_HERE, "audit", "bodies", "retention_days")
        wanted = f"at most {audit.retention_days}, the retention_days of the record"
        linking.tree.report(path, "bodies would outlive the record that explains them", wanted=wanted)
    return Bodies(audit.bodies.retention_days, audit.bodies.bytes_max)
