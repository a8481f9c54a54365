"""identify: which credential counts, and how a service acts for a person without lending anything to either."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from shipworthy.kit.clock import HandClock
from shipworthy.model.errors import Refusal
from shipworthy.model.identity import Credentials, Principal
from shipworthy.model.op import Op
from shipworthy.model.policy import Bodies, Snapshot, Tenant
from shipworthy.ports import KeyVerifier
from shipworthy.stages.identify import lower_claim, make_identify

CLASSES = ("public", "internal", "confidential")
ADA = Principal("northwind", "ada", issuer="https://login.example", groups=("agents",), expires_at=200.0)
APP = Principal("northwind", "app", kind="service", issuer="https://login.example", groups=("apps",), expires_at=100.0)
OPS = Principal("", "olga", issuer="https://login.example", groups=("ops",), operator=True)
KEY = Principal("northwind", "bot", kind="service", key_id="k1", key_role="backend", key_use_cases=("support",))

TOKENS = {
    "ada": ADA,
    "app": APP,
    "ops": OPS,
    "ops-with-tenant": replace(OPS, tenant="northwind"),
    "contoso-ada": replace(ADA, tenant="contoso"),
    "stranger": replace(ADA, tenant="fabrikam"),
    "delegated": replace(ADA, actor="someone"),
    "ada-public": replace(ADA, clearance="public"),
    "ada-top": replace(ADA, clearance="confidential"),
    "app-internal": replace(APP, clearance="internal"),
    "app-nonsense": replace(APP, clearance="nonsense"),
}
SNAPSHOT = Snapshot(
    name="house", environment="test", digest="", data_classes=CLASSES, demands={},
    tenants={name: Tenant(name, (), {}, {}) for name in ("northwind", "contoso")},
    use_cases={}, models={}, providers={}, operator_groups=frozenset({"ops"}), strict=True,
    retention_days=1, bodies=Bodies(),
)  # fmt: skip


class Tokens:
    async def verify(self, op: Op, token: str) -> Principal:
        if token not in TOKENS:
            raise Refusal("identify.expired", detail="an hour ago")
        return TOKENS[token]


class Keys:
    async def verify(self, op: Op, key: str) -> Principal:
        if key != "sk-good":
            raise Refusal("identify.key_unknown")
        return KEY


def identify(keys: KeyVerifier | None = Keys(), *, across_tenants: bool = False, **sent: str) -> Principal:  # noqa: B008
    stage = make_identify(SNAPSHOT, Tokens(), keys, across_tenants=across_tenants)
    return asyncio.run(stage(Op.for_request(HandClock(), lambda _: None), Credentials(**sent)))


def refused(keys: KeyVerifier | None = Keys(), *, across_tenants: bool = False, **sent: str) -> Refusal:  # noqa: B008
    with pytest.raises(Refusal) as caught:
        identify(keys, across_tenants=across_tenants, **sent)
    return caught.value


@pytest.mark.parametrize("header", ["bearer", "x_api_key", "api_key"])
def test_one_credential_in_any_of_three_places(header: str) -> None:
    assert identify(**{header: "ada"}) is ADA
    assert identify(**{header: "sk-good"}) is KEY


def test_none_and_two() -> None:
    assert refused().code == "identify.missing_credential"
    assert refused(subject_token="ada").code == "identify.missing_credential"
    assert identify(bearer="ada", x_api_key="ada", api_key="ada") is ADA
    assert refused(bearer="ada", x_api_key="app").code == "identify.conflicting_credentials"
    assert refused(x_api_key="ada", api_key="sk-good").code == "identify.conflicting_credentials"
    assert refused(bearer="ada", api_key="app").detail == "2 different values in the headers"


def test_service_keys() -> None:
    assert refused(bearer="sk-bad").code == "identify.key_unknown"
    assert refused(None, bearer="sk-good").code == "identify.keys_disabled"
    assert identify(None, bearer="ada") is ADA


def test_tenants_that_the_manifest_does_not_name() -> None:
    assert refused(bearer="stranger").code == "identify.unknown_tenant"
    assert refused(bearer="ops").code == "identify.unknown_tenant"
    assert identify(across_tenants=True, bearer="ops") is OPS
    assert refused(across_tenants=True, bearer="stranger").code == "identify.unknown_tenant"


def test_a_key_acts_for_a_person() -> None:
    both = identify(bearer="sk-good", subject_token="ada")
    assert (both.subject, both.actor, both.groups, both.issuer) == ("ada", "bot", ("agents",), "https://login.example")
    assert (both.key_id, both.key_role, both.key_use_cases) == ("k1", "backend", ("support",))
    assert both.actor_groups is None and both.expires_at == 200.0 and both.kind == "person"


def test_a_services_token_acts_for_a_person() -> None:
    both = identify(bearer="app", subject_token="ada")
    assert (both.subject, both.actor, both.groups, both.actor_groups) == ("ada", "app", ("agents",), ("apps",))
    assert both.expires_at == 100.0 and not both.key_id


@pytest.mark.parametrize(
    ("bearer", "subject_token"),
    [
        ("sk-good", "contoso-ada"),
        ("app", "contoso-ada"),
        ("ops", "ada"),
        ("ops", "ops"),
        ("sk-good", "ops"),
        ("sk-good", "delegated"),
        ("delegated", "ada"),
        ("app", "sk-good"),
    ],
)
def test_pairs_that_may_not_be(bearer: str, subject_token: str) -> None:
    assert refused(bearer=bearer, subject_token=subject_token).code == "identify.actor_invalid"
    assert refused(across_tenants=True, bearer=bearer, subject_token=subject_token).code == "identify.actor_invalid"


def test_a_refused_subject_token_is_named_as_the_one() -> None:
    refusal = refused(bearer="sk-good", subject_token="old")
    assert (refusal.code, refusal.detail) == ("identify.expired", "subject token: an hour ago")


def test_nobody_is_an_operator_through_someone_else() -> None:
    assert identify(bearer="ops-with-tenant").operator
    assert not identify(bearer="ops-with-tenant", subject_token="ada").operator
    assert not identify(bearer="sk-good", subject_token="ops-with-tenant").operator


@pytest.mark.parametrize(
    ("bearer", "subject_token", "clearance"),
    [
        ("app", "ada", None),
        ("app", "ada-top", "confidential"),
        ("app-internal", "ada", "internal"),
        ("app-internal", "ada-top", "internal"),
        ("app-internal", "ada-public", "public"),
        ("app-nonsense", "ada-public", "nonsense"),
        ("app-nonsense", "ada-top", "nonsense"),
    ],
)
def test_the_lower_clearance_counts(bearer: str, subject_token: str, clearance: str | None) -> None:
    assert identify(bearer=bearer, subject_token=subject_token).clearance == clearance


def test_no_claim_says_nothing() -> None:
    assert lower_claim(CLASSES, None, None) is None
