"""What policy says before it looks at a request: worked out once, over one snapshot, and kept for those that follow."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

from shipworthy.model.identity import Principal
from shipworthy.model.policy import Role, Snapshot, UseCase
from shipworthy.model.route import Candidate, Lineup, Model, unmet
from shipworthy.stages.levels import LevelsOf, make_levels

FOOTINGS_MAX = 4_096
"""How many footings are kept; who comes beyond takes the place of the oldest."""
NS_PER_DAY = 86_400 * 1_000_000_000


class Footing(Struct, frozen=True):
    """What policy says of a sender at a use case before it looks at a request. ``principal`` is kept, so that its id stays
    its own."""

    principal: Principal
    use_case: UseCase
    role: Role
    clearance: int
    words: dict[str, str]  # for the record
    rules: tuple[str, ...]


class Known:
    """What was worked out before, over one snapshot: nothing in it depends on a request."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.levels_of: LevelsOf = make_levels(snapshot)
        self.footings: dict[tuple[int, str], Footing] = {}
        self._lineups: dict[str, Lineup] = {}
        self._candidates: dict[str, Candidate] = {}
        self._unmet: dict[tuple[str, int], str] = {}
        self._day = -1

    def footing(self, principal: Principal, said: str) -> Footing | None:
        found = self.footings.get((id(principal), said))
        return found if found is not None and found.principal is principal else None

    def keep(self, footing: Footing, said: str) -> None:
        if len(self.footings) >= FOOTINGS_MAX:
            del self.footings[next(iter(self.footings))]
        self.footings[id(footing.principal), said] = footing

    def lineup(self, use_case: UseCase, permitted: Sequence[Model]) -> Lineup:
        """``permitted`` of the use case's models; the same object each time for nearly all requests: those that may use
        every one."""
        if len(permitted) < len(use_case.models):
            return Lineup(permitted)
        found = self._lineups.get(use_case.name)
        if found is None:
            found = self._lineups[use_case.name] = Lineup(permitted)
        return found

    def candidates(self, permitted: Lineup) -> Sequence[Candidate]:
        """What the record says of models that may see the request."""
        return [self._candidate(model) for model in permitted]

    def _candidate(self, model: Model) -> Candidate:
        found = self._candidates.get(model.name)
        if found is None:
            found = self._candidates[model.name] = Candidate(model.name, model.provider.name, True, "permitted")
        return found

    def unmet(self, model: Model, data_class: int, unix_ns: int) -> str:
        """Why the boundary of ``model``'s provider does not admit the class on this day; "" when it does."""
        day = unix_ns // NS_PER_DAY
        if day != self._day:
            self._day = day
            self._unmet.clear()
        why = self._unmet.get((model.name, data_class))
        if why is None:
            today = datetime.fromtimestamp(unix_ns / 1e9, UTC).date().isoformat()
            why = unmet(model.provider.boundary, self.snapshot.demands[data_class], today)
            self._unmet[model.name, data_class] = why
        return why
