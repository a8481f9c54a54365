"""Claims, times and clocks: which well-signed tokens count, when, and whom they name."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any

import pytest

from shipworthy.adapters.identity.checks import GROUPS_MAX
from shipworthy.adapters.identity.keys import KeySet, read_key
from shipworthy.adapters.identity.settings import ClaimNames, IdentitySettings, IssuerSettings
from shipworthy.adapters.identity.source import FixedKeys
from shipworthy.adapters.identity.verifier import JwtVerifier
from shipworthy.kit.clock import HandClock
from shipworthy.kit.signing import SigningKey
from shipworthy.model.errors import Refusal, StartRefused
from shipworthy.model.identity import Principal
from shipworthy.model.op import Op

ISSUER = "https://login.example"
NOW = 1_800_000_000
LEEWAY = 30
KEY = SigningKey("RS256", "k")


def claims(**more: object) -> dict[str, object]:
    said: dict[str, object] = {
        "iss": ISSUER,
        "aud": "shipworthy",
        "sub": "ada",
        "tenant": "northwind",
        "exp": NOW + 3600,
    }
    said |= more
    return {name: value for name, value in said.items() if value is not None}


class Desk:
    """A verifier with a clock in hand."""

    def __init__(
        self, names: ClaimNames | None = None, *, tenants: frozenset[str] | None = None, **identity: Any
    ) -> None:
        issuer = IssuerSettings(
            issuer=ISSUER,
            audiences=("shipworthy", "https://api.example"),
            claims=names or ClaimNames(),
            leeway_s=LEEWAY,
            tenants=tenants,
        )
        self.keys = FixedKeys(KeySet((read_key(KEY.published()),)))
        self.verifier = JwtVerifier(IdentitySettings(issuers=(issuer,), **identity), {ISSUER: self.keys})
        self.clock = HandClock(NOW)

    def verify(self, token: str) -> Principal:
        principal = drive(self.verifier.verify(Op.for_request(self.clock, lambda _: None), token))
        assert isinstance(principal, Principal)
        return principal

    def says(self, **more: object) -> Principal:
        return self.verify(KEY.sign(claims(**more)))

    def code(self, token: str) -> str:
        try:
            self.verify(token)
        except Refusal as refusal:
            return refusal.code if refusal.message else "a refusal that says nothing"
        return "accepted"

    def code_of(self, **more: object) -> str:
        return self.code(KEY.sign(claims(**more)))


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited for something")


@pytest.mark.parametrize(
    ("expires", "code"),
    [
        (NOW + 1, "accepted"),
        (NOW - LEEWAY + 1, "accepted"),
        (NOW - LEEWAY + 0.5, "accepted"),
        (NOW - LEEWAY, "identify.expired"),
        (0, "identify.expired"),
        (253_402_300_799, "accepted"),
        (253_402_300_800, "identify.missing_claim"),
        (2**63, "identify.missing_claim"),
        (10**300, "identify.missing_claim"),
        (1e300, "identify.missing_claim"),
        (-1, "identify.missing_claim"),
        (-0.5, "identify.missing_claim"),
        (str(NOW + 60), "identify.missing_claim"),
        (True, "identify.missing_claim"),
        (False, "identify.missing_claim"),
        ([NOW + 60], "identify.missing_claim"),
        ({"n": NOW + 60}, "identify.missing_claim"),
        ("", "identify.missing_claim"),
        (None, "identify.missing_claim"),
    ],
)
def test_exp_is_a_number_in_the_calendar_and_required(expires: object, code: str) -> None:
    assert Desk().code_of(exp=expires) == code


@pytest.mark.parametrize("name", ["nbf", "iat"])
@pytest.mark.parametrize(
    ("value", "code"),
    [
        (NOW, "accepted"),
        (0, "accepted"),
        (NOW + LEEWAY, "accepted"),
        (NOW + LEEWAY + 1, "identify.not_yet_valid"),
        (-1, "identify.missing_claim"),
        (-1e30, "identify.missing_claim"),
        ("now", "identify.missing_claim"),
        (True, "identify.missing_claim"),
        (1e300, "identify.missing_claim"),
    ],
)
def test_nbf_and_iat(name: str, value: object, code: str) -> None:
    assert Desk().code_of(**{name: value}) == code


def test_a_token_issued_after_its_end_is_none() -> None:
    assert Desk().code_of(iat=NOW + 10, exp=NOW) == "identify.malformed"


@pytest.mark.parametrize(
    ("audience", "code"),
    [
        ("shipworthy", "accepted"),
        ("https://api.example", "accepted"),
        (["other", "shipworthy"], "accepted"),
        ("other", "identify.wrong_audience"),
        ("shipworthy ", "identify.wrong_audience"),
        ("Shipworthy", "identify.wrong_audience"),
        ([], "identify.wrong_audience"),
        (["ship", "worthy"], "identify.wrong_audience"),
        ("", "identify.wrong_audience"),
        (None, "identify.missing_claim"),
        (1, "identify.missing_claim"),
        (["shipworthy", 1], "identify.missing_claim"),
        ([["shipworthy"]], "identify.missing_claim"),
        ({"shipworthy": 1}, "identify.missing_claim"),
        (["shipworthy"] * 101, "identify.missing_claim"),
    ],
)
def test_the_audience_names_this_server(audience: object, code: str) -> None:
    assert Desk().code_of(aud=audience) == code


@pytest.mark.parametrize("name", ["tenant", "sub", "clearance"])
@pytest.mark.parametrize(
    "value",
    [1, 1.5, True, ["northwind"], {"a": 1}, "", " ", "northwind ", " northwind", "a\x00b", "a\nb", "a\tb", "a\u202eb",
     "a\u200bb", "\ud800", "\x7f", "\u0085", "x" * 257],
    ids=ascii,
)  # fmt: skip
def test_names_are_short_printable_texts(name: str, value: object) -> None:
    assert Desk().code_of(**{name: value}) == "identify.missing_claim"


@pytest.mark.parametrize("value", ["x" * 256, "Ünïcødé", "auth0|5f7c8", "urn:a:b", "o'neill", "日本", "a b", "a/b=c"])
def test_names_may_be_anything_that_can_be_read(value: str) -> None:
    assert Desk().says(sub=value).subject == value


def test_lookalikes_are_not_unified() -> None:
    """One spelling of a name is one name: é composed and decomposed are two subjects, whatever a page shows."""
    assert Desk().says(sub="\u00e9").subject != Desk().says(sub="e\u0301").subject


@pytest.mark.parametrize(
    ("value", "groups"),
    [
        (["a", "b"], ("a", "b")),
        (["a", "b", "a"], ("a", "b")),
        ([], ()),
        (None, ()),
        ("a", ("a",)),
        ("a b", ("a b",)),
        ("a,b", ("a,b",)),
        ([str(n) for n in range(GROUPS_MAX)], tuple(str(n) for n in range(GROUPS_MAX))),
    ],
    ids=lambda value: f"{value!a:.20}",
)
def test_groups_are_a_list_or_one_text(value: object, groups: tuple[str, ...]) -> None:
    assert Desk().says(groups=value).groups == groups


@pytest.mark.parametrize(
    "value", [1, True, {"a": 1}, [1], ["a", None], [["a"]], [""], ["a\x00"], ["x" * 257], "", ["g"] * (GROUPS_MAX + 1)],
    ids=lambda value: f"{value!a:.20}",
)  # fmt: skip
def test_groups_that_are_none(value: object) -> None:
    assert Desk().code_of(groups=value) == "identify.missing_claim"


def test_claims_may_stand_deeper() -> None:
    """Keycloak's realm_access.roles, Auth0's namespaced claims; a claim of the very name comes before the path."""
    names = ClaimNames(tenant="https://example.com/tenant", groups="realm_access.roles", subject="sub")
    desk = Desk(names)
    deep = {"https://example.com/tenant": "northwind", "realm_access": {"roles": ["agents"]}, "tenant": "other"}
    assert (desk.says(**deep).tenant, desk.says(**deep).groups) == ("northwind", ("agents",))
    assert desk.says(**deep, **{"realm_access.roles": ["exact"]}).groups == ("exact",)
    assert desk.says(**(deep | {"realm_access": "text"})).groups == ()
    assert desk.code_of(realm_access={"roles": ["agents"]}) == "identify.missing_claim"


def test_a_missing_subject_or_tenant() -> None:
    assert Desk().code_of(sub=None) == "identify.missing_claim"
    assert Desk().code_of(tenant=None) == "identify.missing_claim"


def test_operators_alone_may_come_without_a_tenant() -> None:
    operators = {"operator_groups": frozenset({"platform-ops"})}
    optional = operators | {"tenant_claim_optional": True}
    assert Desk(**optional).says(tenant=None, groups=["platform-ops"]).operator
    assert Desk(**optional).says(tenant=None, groups=["platform-ops"]).tenant == ""
    assert Desk(**operators).code_of(tenant=None, groups=["platform-ops"]) == "identify.missing_claim"
    assert Desk(**optional).code_of(tenant=None, groups=["agents"]) == "identify.missing_claim"
    assert Desk(**operators).says(groups=["platform-ops"]).operator
    assert not Desk(**operators).says(groups=["Platform-Ops"]).operator
    assert not Desk().says(groups=["platform-ops"]).operator


def test_an_issuer_bound_to_tenants_speaks_for_no_other_and_makes_no_operators() -> None:
    operators = {"operator_groups": frozenset({"platform-ops"}), "tenant_claim_optional": True}
    desk = Desk(tenants=frozenset({"northwind"}), **operators)
    assert desk.says().tenant == "northwind"
    assert desk.code_of(tenant="contoso") == "identify.unknown_tenant"
    assert not desk.says(groups=["platform-ops"]).operator
    assert desk.code_of(tenant=None, groups=["platform-ops"]) == "identify.missing_claim"


@pytest.mark.parametrize("act", ["bot", 1, [], {}, {"sub": ""}, {"sub": 1}, {"sub": None}, {"name": "bot"}], ids=ascii)
def test_an_act_that_names_no_actor_is_refused(act: object) -> None:
    assert Desk().code_of(act=act) == "identify.missing_claim"


def test_act_names_the_actor() -> None:
    """RFC 8693 §4.1: of nested actors the outermost is the current one."""
    assert Desk().says(act={"sub": "bot", "act": {"sub": "older"}}).actor == "bot"
    assert Desk().says().actor == ""


def test_a_token_given_to_a_client_for_itself_is_a_service() -> None:
    assert Desk().says(sub="app", client_id="app").kind == "service"
    assert Desk().says(sub="app", azp="app").kind == "service"
    assert Desk().says(sub="ada", azp="app").kind == "person"


# ------------------------------------------------------------------------------------------ the cache, and the clock


def test_a_verified_token_is_not_verified_again() -> None:
    desk, token = Desk(), KEY.sign(claims())
    first = desk.verify(token)
    assert desk.verify(token) is first
    assert desk.says(jti="other") is not first


def test_a_cached_token_ends_with_its_exp_and_begins_with_its_nbf() -> None:
    """Clock jumps: a verdict holds for the token's own time, forwards and backwards."""
    desk, token = Desk(), KEY.sign(claims(nbf=NOW, exp=NOW + 100))
    assert desk.code(token) == "accepted"
    desk.clock.jump_s(100 + LEEWAY - 1)
    assert desk.code(token) == "accepted"
    desk.clock.jump_s(1)
    assert desk.code(token) == "identify.expired"
    desk.clock.jump_s(-100 - 2 * LEEWAY)
    assert desk.code(token) == "accepted"
    desk.clock.jump_s(-1)
    assert desk.code(token) == "identify.not_yet_valid"
    desk.clock.jump_s(1)
    assert desk.code(token) == "accepted"


def test_a_cached_token_ends_with_its_key() -> None:
    desk, token = Desk(), KEY.sign(claims())
    assert desk.code(token) == "accepted"
    desk.keys.keys = KeySet(())
    assert desk.code(token) == "identify.unknown_key"


def test_a_cached_token_ends_with_the_age_of_its_keys() -> None:
    desk, token = Desk(), KEY.sign(claims())
    assert desk.code(token) == "accepted"
    desk.keys.good_until_ns = desk.clock.monotonic_ns()
    assert desk.code(token) == "identify.issuer_unavailable"


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shipworthy.adapters.identity.verifier.VERDICTS_MAX", 3)
    desk = Desk()
    tokens = [KEY.sign(claims(jti=str(n))) for n in range(5)]
    principals = [desk.verify(token) for token in tokens]
    assert len(desk.verifier._verdicts) == 3
    assert [desk.verify(token) is known for token, known in zip(tokens[2:], principals[2:], strict=True)] == [True] * 3
    assert desk.verify(tokens[0]) is not principals[0]


def test_a_hit_costs_a_hash_and_little_more() -> None:
    """The bound is loose (a busy machine), the order is not: no signature is checked on a hit."""
    desk, token = Desk(), KEY.sign(claims())
    desk.verify(token)
    op, verify = Op.for_request(desk.clock, lambda _: None), desk.verifier.verify
    best = 1e9
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(1000):
            drive(verify(op, token))
        best = min(best, (time.perf_counter() - began) / 1000)
    assert best < 15e-6


# ------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    "settings",
    [
        {"issuer": ""},
        {"audiences": ()},
        {"audiences": ("",)},
        {"algorithms": ()},
        {"algorithms": ("none",)},
        {"algorithms": ("RS256", "HS256")},
        {"algorithms": ("ES384",)},
        {"leeway_s": 301},
        {"leeway_s": -1},
    ],
    ids=str,
)
def test_settings_that_would_trust_too_much_do_not_start(settings: dict[str, Any]) -> None:
    good: dict[str, Any] = {"issuer": ISSUER, "audiences": ("a",)}
    IssuerSettings(**good)
    with pytest.raises(StartRefused):
        IssuerSettings(**(good | settings))


def test_an_issuer_is_listed_once() -> None:
    issuer = IssuerSettings(issuer=ISSUER, audiences=("a",))
    with pytest.raises(StartRefused, match="twice"):
        IdentitySettings(issuers=(issuer, issuer))
