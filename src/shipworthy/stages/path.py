"""The path of a request, built over one snapshot: every stage in its place. What is not configured leaves its receipt."""

from __future__ import annotations

from collections.abc import Mapping

from shipworthy.model.fleet import Fleet
from shipworthy.model.policy import Snapshot
from shipworthy.ports import Ledger, Quotas, Recorder, Repeats, Stages, Upstream
from shipworthy.stages import unconfigured
from shipworthy.stages.authorize import make_authorize
from shipworthy.stages.call import make_call
from shipworthy.stages.decode import make_decode
from shipworthy.stages.dedupe import make_dedupe
from shipworthy.stages.encode import encode
from shipworthy.stages.fit import fit
from shipworthy.stages.identify import Identify
from shipworthy.stages.pausing import Check, unless_paused
from shipworthy.stages.record import Took, make_draft, make_record
from shipworthy.stages.reserve import make_reserve
from shipworthy.stages.route import make_route
from shipworthy.stages.settle import settle


def stages_of(
    snapshot: Snapshot,
    *,
    identify: Identify,
    paused: Check,
    ways: Mapping[str, Upstream],
    fleet: Fleet,
    ledger: Ledger,
    quotas: Quotas,
    recorder: Recorder,
    repeats: Repeats,
    took: Took,
) -> Stages:
    """The stages; ``ways`` are the providers by name. What outlives the snapshot is handed in."""
    reserve = make_reserve(ledger, make_draft(snapshot))
    return Stages(
        identify=identify,
        decode=make_decode(),
        authorize=make_authorize(snapshot),
        dedupe=make_dedupe(repeats),
        reserve=unless_paused(paused, reserve),
        resolve=unconfigured.resolve,
        retrieve=unconfigured.retrieve,
        screen=unconfigured.screen,
        fit=fit,
        recall=unconfigured.recall,
        route=make_route(fleet, ledger),
        call=make_call(ways, fleet, ledger, quotas),
        inspect=unconfigured.inspect,
        encode=encode,
        settle=settle,
        record=make_record(snapshot, recorder, ledger, repeats, took),
    )
