"""authorize: claim → grant. May this sender use this use case, with data of this class, and which models may then see it?

In mode *observe* a rule of policy is decided and recorded (``observed:CODE``) but not enforced; identity, isolation between
tenants, and money are enforced in every mode. What a provider does on its own (hosted tools, dearer tiers) is money that
nobody priced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from shipworthy.model.chat import PartKind, Request
from shipworthy.model.errors import Refusal
from shipworthy.model.grant import choose_role, clearance_of
from shipworthy.model.identity import Considered, Grant, Principal
from shipworthy.model.op import Op
from shipworthy.model.policy import Mode, Role, Snapshot, UseCase
from shipworthy.model.route import Ability, Candidate, Lineup, Model
from shipworthy.ports import Arrival
from shipworthy.stages.estimate import expected_input
from shipworthy.stages.footing import Footing, Known
from shipworthy.stages.levels import END_USER_CHARS_MAX

CHOICES_MAX = 16
SESSION_CHARS_MAX = 256
NS_PER_MS = 1_000_000
KEPT = frozenset({"store"})
"""What a provider is asked to keep: policy, but no money."""


def make_authorize(snapshot: Snapshot) -> Callable[[Op, Principal, Request, Arrival], Grant]:
    """The stage, over one snapshot's policy."""

    known = Known(snapshot)

    def authorize(op: Op, principal: Principal, request: Request, arrival: Arrival) -> Grant:
        return _Decision(known, op, principal, request, arrival).grant()

    return authorize


class _Decision:
    """One decision in the making: what is known so far goes into the record of a refusal too."""

    __slots__ = (
        "arrival", "candidates", "expected", "known", "op", "principal", "request", "rules", "snapshot", "tenant", "words",
    )  # fmt: skip

    def __init__(self, known: Known, op: Op, principal: Principal, request: Request, arrival: Arrival) -> None:
        self.known = known
        self.snapshot = known.snapshot
        self.op = op
        self.principal = principal
        self.request = request
        self.arrival = arrival
        self.tenant = known.snapshot.tenants[principal.tenant]
        self.words: dict[str, str] = {}
        self.rules: list[str] = []
        self.candidates: list[Candidate] = []
        self.expected: list[int] = []  # input tokens, by each of the use case's models

    def grant(self) -> Grant:
        tenant, request = self.tenant, self.request
        footing = self._footing()
        use_case, role, clearance = footing.use_case, footing.role, footing.clearance
        mode = use_case.mode
        data_class = self._data_class(use_case)
        self.words["data_class"] = self._class_name(data_class)
        if request.operation not in use_case.abilities:
            self._refuse("authorize.wrong_ability", use_case=use_case.name, ability=request.operation.value)
        if data_class > clearance:
            self._object(mode, "authorize.clearance_too_low", data_class=self._class_name(data_class))
        self._check_size(use_case)
        self._check_tools(mode)
        permitted = self._permitted(use_case, role, data_class)
        self._set_deadline(permitted)
        end_user = request.end_user[:END_USER_CHARS_MAX] if role.may_assert_end_user else ""
        if request.end_user and not end_user:
            self.rules.append("end_user_ignored:role may not assert one")
        return Grant(
            principal=self.principal,
            tenant=tenant,
            team=role.team,
            role=role,
            use_case=use_case,
            data_class=data_class,
            mode=mode,
            permitted=permitted,
            end_user=end_user,
            session=self.arrival.session[:SESSION_CHARS_MAX],
            levels=self.known.levels_of(tenant.name, role.name, use_case.name, request.end_user if end_user else ""),
            considered=self._considered(),
        )

    def _footing(self) -> Footing:
        principal, said = self.principal, self.request.model
        footing = self.known.footing(principal, said)
        if footing is None:
            use_case = self._use_case()
            role = self._role(use_case)
            clearance = self._clearance(role)
            self.words["clearance"] = self._class_name(clearance)
            footing = Footing(principal, use_case, role, clearance, dict(self.words), tuple(self.rules))
            self.known.keep(footing, said)
        else:
            self.words = footing.words.copy()
            self.rules += footing.rules
        return footing

    def _use_case(self) -> UseCase:
        said = self.request.model
        name = self.tenant.aliases.get(said, said)
        self.words |= {"use_case": name, "alias": said if name != said else ""}
        use_case = self.snapshot.use_cases.get(name)
        if use_case is None:
            if not self._has_any_role():  # the same answer as for one that exists: names are not to be guessed
                self._refuse("authorize.no_role", "no such use case in the manifest, and no role for any")
            self._refuse("authorize.unknown_use_case", "no such use case in the manifest", use_case=said)
        self.words["mode"] = use_case.mode.value
        return use_case

    def _role(self, use_case: UseCase) -> Role:
        role, reasons = choose_role(self.tenant, self.principal, use_case.name)
        if role is None:
            why = "; ".join(reasons)
            if self._has_any_role():
                self._refuse("authorize.unknown_use_case", why, use_case=self.request.model)
            self._refuse("authorize.no_role", why)
        self.words |= {"role": role.name, "team": role.team.name}
        self.rules.append(f"role:{role.name}")
        return role

    def _has_any_role(self) -> bool:
        return any(choose_role(self.tenant, self.principal, name)[0] for name in self.snapshot.use_cases)

    def _data_class(self, use_case: UseCase) -> int:
        said, floor = self.arrival.data_class, use_case.data_class
        if not said:
            return floor
        if said not in self.snapshot.data_classes:
            known = ", ".join(self.snapshot.data_classes)
            self._refuse("authorize.unknown_data_class", said=said, known=known)
        rank = self.snapshot.data_classes.index(said)
        if rank < floor:
            self._refuse("authorize.data_class_lowered", floor=self._class_name(floor))
        if rank > floor:
            self.rules.append(f"data_class_raised:{said}")
        return rank

    def _clearance(self, role: Role) -> int:
        """The lower of role and claim; a claim that names no class of ours counts as the lowest, -1 is below them all."""
        given, claim = clearance_of(self.tenant, self.principal, role), self.principal.clearance
        if claim is None:
            return given
        known = self.snapshot.data_classes
        return min(given, known.index(claim) if claim in known else 0)

    def _check_size(self, use_case: UseCase) -> None:
        request, caps = self.request, use_case.tokens
        asked = request.output_tokens_asked
        if asked is not None and asked > caps.output_max:
            self._refuse("authorize.output_tokens", asked=asked, limit=caps.output_max)
        if request.choices > CHOICES_MAX:
            self._refuse("authorize.choices", asked=request.choices, limit=CHOICES_MAX)
        expected = self.expected = [expected_input(request, model) for model in use_case.models]
        if min(expected) > caps.input_max:
            self._refuse("authorize.input_tokens", estimated=min(expected), limit=caps.input_max)

    def _check_tools(self, mode: Mode) -> None:
        for tool in self.request.tools:
            if tool.hosted:
                self._object(mode if tool.name in KEPT else Mode.ENFORCE, "authorize.hosted_tool", tool=tool.name)

    def _set_deadline(self, permitted: Lineup) -> None:
        """The latest moment at which a provider may still answer: what is held for the request outlives it."""
        self.op.deadline_ns = self.op.clock.monotonic_ns() + permitted.total_ms * NS_PER_MS

    def _permitted(self, use_case: UseCase, role: Role, data_class: int) -> Lineup:
        """Models that policy lets see this request; every model that is left is a candidate with its reason."""
        rule_id, allowed = self._rule(use_case, role, data_class)
        kinds = {part.kind for part in self.request.parts}
        needs = {_MODALITY[kind] for kind in kinds if kind in _MODALITY}
        permitted: list[Model] = []
        outside = 0
        for model, expected in zip(use_case.models, self.expected, strict=True):
            why = self._unable(model, needs, expected)
            if not why and allowed is not None and model.name not in allowed:
                why = f"rule {rule_id} does not allow it"
            if not why and (broken := self.known.unmet(model, data_class, self.op.arrived_unix_ns)):
                why = f"boundary: {broken}"
                outside += 1
                if use_case.mode is Mode.OBSERVE:
                    self.rules.append(f"observed:authorize.boundary:{model.name}")
                    why = ""
            if why:
                self.candidates.append(Candidate(model.name, model.provider.name, False, why))
            else:
                permitted.append(model)
        if not permitted:
            whys = "; ".join(f"{c.model}: {c.reason}" for c in self.candidates)
            if outside:
                self._refuse("authorize.boundary", whys, data_class=self._class_name(data_class))
            self._refuse("authorize.no_model", why=whys)
        lineup = self.known.lineup(use_case, permitted)
        self.candidates += self.known.candidates(lineup)
        return lineup

    def _rule(self, use_case: UseCase, role: Role, data_class: int) -> tuple[str, frozenset[str] | None]:
        """The first rule that holds decides; a rule that cannot be decided refuses."""
        if not use_case.rules:
            return "", None
        facts = self._facts(use_case, role, data_class)
        for rule in use_case.rules:
            try:
                holds = rule.when(facts)
            except Exception as undecidable:  # noqa: BLE001  # whatever CEL raises means: not allowed
                self.rules.append(f"rule:{rule.id}:failed")
                self._refuse("authorize.condition_failed", f"rule {rule.id}: {undecidable!r}")
            if holds:
                self.rules.append(f"rule:{rule.id}")
                return rule.id, rule.models
        return "", None

    def _facts(self, use_case: UseCase, role: Role, data_class: int) -> Mapping[str, object]:
        request, principal = self.request, self.principal
        return {
            "request.data_class": data_class,
            "request.stream": request.stream,
            "request.images": request.images,
            "request.tokens": min(self.expected),
            "request.operation": request.operation.value,
            "request.tools": len(request.tools),
            "principal.tenant": principal.tenant,
            "principal.team": role.team.name,
            "principal.subject": principal.subject,
            "principal.actor": principal.actor,
            "principal.role": role.name,
            "principal.kind": principal.kind,
            "use_case": use_case.name,
        }

    def _unable(self, model: Model, needs: set[str], expected: int) -> str:
        """Why ``model`` cannot serve the request at all; "" when it can."""
        request = self.request
        if request.operation not in model.abilities:
            return f"it cannot {request.operation}"
        if needs and (missing := needs - model.modalities):
            return f"it does not take {', '.join(sorted(missing))}"
        if (asked := request.output_tokens_asked or 0) > model.output_tokens_max and request.operation is Ability.CHAT:
            return f"{asked} output tokens asked, it gives {model.output_tokens_max}"
        if expected > model.context_tokens_max:
            return f"about {expected} input tokens, its context holds {model.context_tokens_max}"
        return ""

    def _object(self, mode: Mode, code: str, **facts: str | int | float) -> None:
        if mode is Mode.OBSERVE:
            self.rules.append(f"observed:{code}")
        else:
            self._refuse(code, **facts)

    def _refuse(self, code: str, detail: str = "", /, **facts: str | int | float) -> NoReturn:
        raise Refusal.of(code, facts, detail=detail, considered=self._considered())

    def _considered(self) -> Considered:
        return Considered(candidates=tuple(self.candidates), rules=tuple(self.rules), **self.words)

    def _class_name(self, rank: int) -> str:
        return self.snapshot.data_classes[rank] if rank >= 0 else "none"


_MODALITY = {PartKind.IMAGE: "image", PartKind.AUDIO: "audio", PartKind.FILE: "file"}
