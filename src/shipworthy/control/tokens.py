"""Development tokens minted, and any token explained: claims → principal → grant, or the exact rule that refused it."""

from __future__ import annotations

from difflib import get_close_matches

from msgspec import Struct

from shipworthy.model.chat import Dialect, Request
from shipworthy.model.errors import Refusal, StartRefused
from shipworthy.model.grant import choose_role
from shipworthy.model.identity import Credentials, Grant, Principal
from shipworthy.model.op import Op, uuid7
from shipworthy.model.policy import Snapshot, Tenant, UseCase
from shipworthy.model.route import Ability
from shipworthy.model.service_key import PREFIX
from shipworthy.ports import (
    AdminAct,
    AdminRecorder,
    Arrival,
    TokenCheck,
    TokenInspector,
    TokenMinter,
    TokenReading,
    TokenWish,
)
from shipworthy.stages.authorize import make_authorize
from shipworthy.stages.identify import check_tenant

TTL_S_MAX = 30 * 24 * 3600
NAME_CHARS_MAX = 256
GROUPS_MAX = 100


class Minted(Struct, frozen=True, kw_only=True):
    """A development token, in hand once, and the act that says so."""

    token: str
    expires_unix_s: int
    warnings: tuple[str, ...]
    act: AdminAct


class UseCaseAnswer(Struct, frozen=True, kw_only=True):
    """What authorize says about one use case: the grant, or the code that refuses. ``reasons`` say why each role matched."""

    use_case: str
    code: str  # "" = granted
    said: str
    role: str
    team: str
    data_class: str
    clearance: str
    models: tuple[str, ...]
    reasons: tuple[str, ...]


class Explanation(Struct, frozen=True, kw_only=True):
    """A token taken apart. ``verdict`` is trusted, refused, or unchecked when a check could not be made from here."""

    verdict: str
    rule: TokenCheck | None  # what decided against it, or could not be checked
    reading: TokenReading
    use_cases: tuple[UseCaseAnswer, ...]


def mint(op: Op, snapshot: Snapshot, minter: TokenMinter, wish: TokenWish, actor: str) -> Minted:
    """A token of the development issuer. Raises StartRefused when the wish names what the manifest does not."""
    check_wish(snapshot, wish)
    now_ns = op.clock.unix_ns()
    token_id = uuid7(now_ns)
    facts = {"groups": ", ".join(wish.groups), "ttl_s": str(wish.ttl_s), "jti": str(token_id)}
    facts |= {"clearance": wish.clearance} if wish.clearance else {}
    facts |= {"actor": wish.actor} if wish.actor else {}
    act = AdminAct(
        id=uuid7(now_ns),
        at_unix_ns=now_ns,
        actor=actor,
        act="token.mint",
        tenant=wish.tenant,
        target=wish.subject,
        facts=facts,
    )
    token = minter.mint(wish, token_id, now_ns)
    ends_s = now_ns // 1_000_000_000 + wish.ttl_s
    warnings = unused_groups(snapshot, wish)
    return Minted(token=token, expires_unix_s=ends_s, warnings=warnings, act=act)


async def record_mint(acts: AdminRecorder, minted: Minted) -> None:
    """Puts the mint on record. Raises StoreUnavailable."""
    await acts.act(minted.act)


def check_wish(snapshot: Snapshot, wish: TokenWish) -> None:
    if wish.tenant not in snapshot.tenants:
        raise unknown("tenant", wish.tenant, tuple(snapshot.tenants))
    if wish.clearance and wish.clearance not in snapshot.data_classes:
        raise unknown("clearance", wish.clearance, snapshot.data_classes)
    if not 0 < wish.ttl_s <= TTL_S_MAX:
        raise StartRefused(
            "token.ttl", f"a lifetime of {wish.ttl_s} s", f"ask for 1 second to {TTL_S_MAX // 86400} days"
        )
    if len(wish.groups) > GROUPS_MAX:
        raise StartRefused("token.groups", f"{len(wish.groups)} groups", f"name at most {GROUPS_MAX}")
    named = [("subject", wish.subject), *(("group", group) for group in wish.groups)]
    for what, name in [*named, ("actor", wish.actor)] if wish.actor else named:
        if not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable() or name != name.strip():
            hint = f"use 1 to {NAME_CHARS_MAX} printable characters"
            raise StartRefused("token.name", f"the {what} {name[:64]!a} is no name that a token may carry", hint)


def unknown(what: str, said: str, known: tuple[str, ...]) -> StartRefused:
    near = get_close_matches(said, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"the manifest has {', '.join(known) or 'none'}"
    return StartRefused(f"token.{what}", f"the {what} {said[:64]!a} is not in the manifest", hint)


def unused_groups(snapshot: Snapshot, wish: TokenWish) -> tuple[str, ...]:
    """Groups that no role of the tenant names: legal, and most often a slip."""
    named = snapshot.operator_groups.union(*(role.groups for role in snapshot.tenants[wish.tenant].roles))
    unused = [group for group in wish.groups if group not in named]
    warnings = [f"no role of {wish.tenant} names the group {group}" for group in unused]
    return tuple(warnings) if wish.groups else (f"without groups no role of {wish.tenant} matches the token",)


async def explain(op: Op, snapshot: Snapshot, inspector: TokenInspector, token: str) -> Explanation:
    """What a request with this token would meet. Raises StartRefused for a service key: only the store knows those."""
    if token.startswith(PREFIX):
        raise StartRefused(
            "token.service_key",
            "this is a service key, not a token",
            "`shipworthy key list` shows its role and use cases",
        )
    reading = await inspector.inspect(op, token)
    reading = with_tenant(snapshot, reading)
    verdict, rule = judge(reading)
    tenant = snapshot.tenants.get(reading.principal.tenant) if reading.principal else None
    if reading.principal is None or tenant is None:
        return Explanation(verdict=verdict, rule=rule, reading=reading, use_cases=())
    answers = tuple(
        answer(op, snapshot, tenant, reading.principal, use_case) for use_case in snapshot.use_cases.values()
    )
    return Explanation(verdict=verdict, rule=rule, reading=reading, use_cases=answers)


def with_tenant(snapshot: Snapshot, reading: TokenReading) -> TokenReading:
    """The reading with the identify stage's own last check: the tenant must be one of the manifest's."""
    if reading.principal is None:
        last = TokenCheck("tenant", "unchecked", "needs the checks before it")
    else:
        try:
            check_tenant(snapshot, reading.principal)
            last = TokenCheck("tenant", "passed", f"{reading.principal.tenant} is in the manifest")
        except Refusal as refusal:
            said = f"{refusal.message} {refusal.detail}"
            if reading.principal.operator:
                said += "; as an operator's it works on the control plane"
            last = TokenCheck("tenant", "refused", said, refusal.code)
    return TokenReading((*reading.checks, last), reading.header, reading.claims, reading.principal)


def judge(reading: TokenReading) -> tuple[str, TokenCheck | None]:
    """The verdict and the check that it rests on: the first that refused, else the first that could not be made."""
    for result in ("refused", "unchecked"):
        for check in reading.checks:
            if check.result == result:
                return result, check
    return "trusted", None


def answer(op: Op, snapshot: Snapshot, tenant: Tenant, principal: Principal, use_case: UseCase) -> UseCaseAnswer:
    """What the authorize stage says when the principal names this use case in an empty request."""
    _, reasons = choose_role(tenant, principal, use_case.name)
    try:
        grant = make_authorize(snapshot)(op, principal, empty_request(use_case), ARRIVAL)
    except Refusal as refusal:
        said = f"{refusal.message} {refusal.hint}"
        return UseCaseAnswer(
            use_case=use_case.name,
            code=refusal.code,
            said=said,
            role="",
            team="",
            data_class=snapshot.data_classes[use_case.data_class],
            clearance=principal.clearance or "",
            models=(),
            reasons=reasons,
        )
    return granted(grant, reasons)


def granted(grant: Grant, reasons: tuple[str, ...]) -> UseCaseAnswer:
    considered = grant.considered
    return UseCaseAnswer(
        use_case=grant.use_case.name,
        code="",
        said=f"granted by role {grant.role.name} of team {grant.team.name}",
        role=grant.role.name,
        team=grant.team.name,
        data_class=considered.data_class,
        clearance=considered.clearance,
        models=tuple(model.name for model in grant.permitted),
        reasons=reasons,
    )


def empty_request(use_case: UseCase) -> Request:
    """The smallest request for what the use case is able to do."""
    chats = Ability.CHAT in use_case.abilities or Ability.EMBED not in use_case.abilities
    dialect, operation = (Dialect.OPENAI_CHAT, Ability.CHAT) if chats else (Dialect.OPENAI_EMBEDDINGS, Ability.EMBED)
    return Request(dialect=dialect, operation=operation, model=use_case.name, body=b"", fields={}, parts=())


async def _no_body() -> bytes:
    return b""


ARRIVAL = Arrival(dialect=Dialect.OPENAI_CHAT, credentials=Credentials(), read_body=_no_body)
