"""Loading: secrets never print, the digest covers what is said and never a secret's value, a second load is a fresh one."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from shipworthy.adapters.policy.cel import compile_condition
from shipworthy.manifest.load import Loaded, files_of, load
from shipworthy.manifest.problem import ManifestRefused
from shipworthy.manifest.specs import Config, Secret, Spec
from shipworthy.model.errors import StartRefused
from shipworthy.model.money import Component, Period
from shipworthy.model.policy import Mode
from shipworthy.model.route import Ability, Boundary, Demand, Network, Strategy

CANARY = "canary-7f3a9c"
MANIFEST = """\
shipworthy: 1
name: northwind
environment: test
region: eu
requirements:
  data_classes: [public, internal, confidential, restricted]
  boundary:
    internal: {retention_days_max: 30, regions: [eu, us]}
    confidential: {trains_on_data: false, retention_days_max: 90, regions: [eu]}
    restricted: {network: [private, local]}
  audit: {durability: relaxed, retention_days: 400, bodies: {retention_days: 7, bytes_max: 1000}}
store: {url: {env: DATABASE_URL}}
identity:
  service_keys: true
  issuers: [{issuer: "https://login.example", audience: [a, b], claims: {tenant: org},
             leeway_seconds: 5, tenants: [northwind]}]
tenants:
  northwind:
    budget: {usd: 0.1, per: month, zone: Europe/Berlin}
    limits: {requests_per_min: 60}
    teams:
      support: {budget: {usd: "0.000000001", per: day}}
      sales: {limits: {}}
    roles:
      agent: {groups: [agents], team: support, use_cases: [faq]}
      backend: {keys: true, team: sales, use_cases: ["*"], may_assert_end_user: true, each_end_user: {usd: 1, per: hour}}
    aliases: {gpt-4o: faq, meta/llama-3.1-8b: faq}
operators: {groups: [platform], tenant_claim_optional: true}
providers:
  far: {kind: test, credentials: {env: KEY}, boundary: {regions: [us], retention_days: 30}}
  near: {kind: child, credentials: {file: secret.txt}}
models:
  small: {provider: far, upstream: m, price: {input_usd_per_mtok: 0.02, output_usd_per_mtok: 0.08, request_usd: 0.001}}
  home: {provider: near, upstream: h, price: {input_usd_per_mtok: 0, output_usd_per_mtok: 0}, chars_per_token: 4}
  vectors: {provider: near, upstream: e, abilities: [embed], price: {input_usd_per_mtok: 0.000001}}
use_cases:
  faq:
    job: Answer.
    owner: support
    data_class: internal
    mode: observe
    tokens: {input_max: 4000, output_max: 500}
    route:
      strategy: weighted
      models: [{model: small, weight: 3}, home]
      rules: [{id: stays-home, when: "request.data_class >= class.confidential", models: [home]}]
    budget: {usd: 5, per: week, zone: UTC}
    on_disconnect: {drain_seconds: 2.5}
  search: {job: Embed., owner: support, route: {models: [vectors]}}
"""


class KeyedConfig(Config):
    """Settings with a secret."""

    credentials: Secret


SPECS = {
    "test": Spec("test", KeyedConfig, object),
    "child": Spec("child", KeyedConfig, object, Boundary((), Network.LOCAL, False, 0), concurrent_max=2),
}
ENVIRON = {"KEY": CANARY, "DATABASE_URL": f"postgresql://app:{CANARY}@db/x"}


def loaded_of(folder: Path, text: str = MANIFEST, environ: dict[str, str] | None = None) -> Loaded:
    path = folder / "shipworthy.yaml"
    path.write_text(text)
    (folder / "secret.txt").write_text(f"{CANARY}\n")
    environ = ENVIRON if environ is None else environ
    return load(
        path, environ, SPECS, compile_condition, lambda kind, upstream, base_url: None, today=date(2026, 11, 21)
    )


def test_everything_is_linked(tmp_path: Path) -> None:
    """What the manifest says is what the snapshot holds: exact money, ranks, names as objects."""
    loaded = loaded_of(tmp_path)
    snapshot = loaded.snapshot
    assert loaded.warnings == ()
    assert (snapshot.name, snapshot.environment, snapshot.region, snapshot.strict) == ("northwind", "test", "eu", False)
    assert (snapshot.retention_days, snapshot.bodies.retention_days, snapshot.bodies.bytes_max) == (400, 7, 1000)
    assert snapshot.operator_groups == {"platform"}
    tenant = snapshot.tenants["northwind"]
    assert tenant.budget is not None
    assert (tenant.budget.cap_nano, tenant.budget.per) == (100_000_000, Period.MONTH)
    support = tenant.teams["support"]
    assert support.budget is not None
    assert (support.budget.cap_nano, support.budget.zone) == (1, ZoneInfo("Europe/Berlin")), (
        "a team's zone is its tenant's"
    )
    assert tenant.teams["sales"].limits is None
    agent, backend = tenant.roles
    assert agent.clearance == 1, "cleared for the classes of the use cases that it names"
    assert backend.clearance == 3, "search is unlabelled, so it is of the most sensitive class"
    assert backend.team is tenant.teams["sales"]
    assert tenant.aliases == {"gpt-4o": "faq", "meta/llama-3.1-8b": "faq"}
    faq = snapshot.use_cases["faq"]
    assert (faq.mode, faq.strategy, faq.weights, faq.drain_seconds) == (
        Mode.OBSERVE,
        Strategy.WEIGHTED,
        (3.0, 1.0),
        2.5,
    )
    assert faq.models == (snapshot.models["small"], snapshot.models["home"])
    assert (faq.tokens.input_max, faq.tokens.output_max) == (4000, 500)
    assert faq.rules[0].when({"request.data_class": 2})
    assert not faq.rules[0].when({"request.data_class": 1})
    small, vectors = snapshot.models["small"], snapshot.models["vectors"]
    assert small.price.unit_pico == {Component.INPUT: 20_000, Component.OUTPUT: 80_000, Component.REQUEST: 10**9}
    assert vectors.price.unit_pico == {Component.INPUT: 1, Component.OUTPUT: 0}
    assert snapshot.use_cases["search"].abilities == {Ability.EMBED}
    assert snapshot.use_cases["search"].data_class == 3
    assert snapshot.providers["near"].boundary == Boundary(("eu",), Network.LOCAL, False, 0), "a child is where we are"
    assert snapshot.providers["near"].concurrent_max == 2
    assert snapshot.providers["far"].boundary.trains_on_data, "not stated: the worst case"


def test_a_class_demands_what_the_classes_below_it_demand(tmp_path: Path) -> None:
    demands = loaded_of(tmp_path).snapshot.demands
    assert demands[0] == Demand()
    assert demands[1] == Demand(regions=("eu", "us"), retention_days_max=30)
    assert demands[2] == Demand(regions=("eu",), trains_on_data=False, retention_days_max=30)
    assert demands[3] == Demand(("eu",), (Network.PRIVATE, Network.LOCAL), trains_on_data=False, retention_days_max=30)


def test_processes_get_their_settings(tmp_path: Path) -> None:
    deployment = loaded_of(tmp_path).deployment
    assert deployment.store.path is None
    assert deployment.store.url is not None
    assert deployment.store.url.reveal() == ENVIRON["DATABASE_URL"]
    assert deployment.keys_file == tmp_path / ".shipworthy/keys"
    (issuer,) = deployment.identity.issuers
    assert (issuer.audience, issuer.claims.tenant, issuer.claims.actor, issuer.leeway_s) == (
        ("a", "b"),
        "org",
        "act.sub",
        5,
    )
    assert issuer.tenants == {"northwind"}
    assert deployment.identity.operators_without_tenant


def test_a_secret_never_prints(tmp_path: Path) -> None:
    """repr, str, format, JSON, pickle, copy: the value is only ever revealed."""
    loaded = loaded_of(tmp_path)
    secret = loaded.snapshot.providers["near"].settings.credentials  # type: ignore[attr-defined]
    assert secret.reveal() == CANARY
    for shown in (
        repr(loaded),
        str(loaded.snapshot),
        f"{loaded.deployment}",
        f"{secret}",
        f"{secret:>40}",
        "%s" % (secret,),  # noqa: UP031  # the old way must not leak either
    ):
        assert CANARY not in shown
    assert CANARY not in loaded.snapshot.providers["near"].settings.model_dump_json()  # type: ignore[attr-defined]
    for encode in (json.dumps, msgspec.json.encode, pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            encode(secret)
    assert secret == Secret(CANARY, "file secret.txt")
    assert secret != Secret("other", "file secret.txt")


def test_no_problem_shows_a_secret(tmp_path: Path) -> None:
    """Whatever key a literal secret is put under, what is said about it never quotes it."""
    for broken in (
        MANIFEST.replace("credentials: {env: KEY}", f"credentials: {CANARY}"),
        MANIFEST.replace("credentials: {env: KEY}", f"credentials: {{env: {CANARY}}}"),
        MANIFEST.replace("credentials: {env: KEY}", f"credentials: {{value: {CANARY}}}"),
        MANIFEST.replace("credentials: {env: KEY}", f"credentials: [{CANARY}]"),
        MANIFEST.replace("credentials: {env: KEY}", f"credentials: {{env: KEY}}, password: {CANARY}"),
        MANIFEST.replace("store: {url: {env: DATABASE_URL}}", f'store: {{url: "postgresql://a:{CANARY}@db/x"}}'),
        MANIFEST.replace("store: {url: {env: DATABASE_URL}}", f'store: {{path: 5, url: "{CANARY}"}}'),
    ):
        with pytest.raises(ManifestRefused) as refused:
            loaded_of(tmp_path, broken)
        assert CANARY not in repr(refused.value.problems)
        assert CANARY not in str(refused.value)


def test_the_digest_is_of_what_is_said(tmp_path: Path) -> None:
    """Comments, layout and secrets' values leave it; every said value, and every order that decides, changes it."""
    digest = loaded_of(tmp_path).snapshot.digest
    assert loaded_of(tmp_path).snapshot.digest == digest
    assert loaded_of(tmp_path, "# a comment\n" + MANIFEST).snapshot.digest == digest
    assert loaded_of(tmp_path, MANIFEST, ENVIRON | {"KEY": "rotated"}).snapshot.digest == digest
    for said, instead in (
        ("{env: KEY}", "{env: DATABASE_URL}"), ("job: Answer.", "job: Answer!"), ("usd: 0.1", "usd: 0.2"),
        ("[public, internal, confidential, restricted]", "[public, internal, confidential, restricted, secret]"),
        ("id: stays-home", "id: at-home"),
        ("[{model: small, weight: 3}, home]", "[home, {model: small, weight: 3}]"),
    ):  # fmt: skip
        assert loaded_of(tmp_path, MANIFEST.replace(said, instead)).snapshot.digest != digest, said


def test_a_reload_sees_the_files_as_they_are_now(tmp_path: Path) -> None:
    first = loaded_of(tmp_path)
    assert first.files == (tmp_path / "shipworthy.yaml", tmp_path / "secret.txt")
    assert set(first.texts) == {str(path) for path in first.files}
    assert "texts" not in repr(first)  # secrets are among them
    second = loaded_of(tmp_path, MANIFEST.replace("usd: 0.1", "usd: 0.2"), ENVIRON | {"KEY": "rotated"})
    assert first.snapshot.providers["far"].settings.credentials.reveal() == CANARY  # type: ignore[attr-defined]
    assert second.snapshot.providers["far"].settings.credentials.reveal() == "rotated"  # type: ignore[attr-defined]
    assert second.snapshot.tenants["northwind"].budget != first.snapshot.tenants["northwind"].budget


def test_files_of_names_every_file(tmp_path: Path) -> None:
    (tmp_path / "tenants").mkdir()
    for name in ("a.yaml", "b.yml", ".hidden.yaml", "notes.txt"):
        (tmp_path / "tenants" / name).write_text(
            "teams: {t: {}}\nroles: {r: {keys: true, team: t, use_cases: [faq]}}\n"
        )
    head, _, rest = MANIFEST.partition("tenants:\n  northwind:")
    text = head.replace(", tenants: [northwind]", "") + "tenants_from: tenants\n" + rest[rest.index("operators:") :]
    loaded = loaded_of(tmp_path, text)
    assert set(loaded.snapshot.tenants) == {"a", "b"}
    expected = tuple(tmp_path / name for name in ("shipworthy.yaml", "tenants", "tenants/a.yaml", "tenants/b.yml"))
    assert files_of(tmp_path / "shipworthy.yaml") == expected
    assert loaded.files[:4] == expected
    changed = tmp_path / "tenants/a.yaml"
    changed.write_text(changed.read_text() + "budget: {usd: 1, per: day}\n")
    again = load(tmp_path / "shipworthy.yaml", ENVIRON, SPECS, compile_condition, lambda kind, upstream, base_url: None)
    assert again.snapshot.digest != loaded.snapshot.digest
    (tmp_path / "shipworthy.yaml").write_text("half a manif")
    for tenant in (tmp_path / "tenants").iterdir():
        tenant.unlink()
    given = load(
        tmp_path / "shipworthy.yaml", ENVIRON, SPECS, compile_condition, lambda kind, upstream, base_url: None,
        given=loaded.texts,
    )  # fmt: skip
    assert given.snapshot.digest == loaded.snapshot.digest
    assert set(given.snapshot.tenants) == {"a", "b"}


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.yaml", tmp_path):
        with pytest.raises(ManifestRefused) as refused:
            load(path, {}, SPECS, compile_condition, lambda kind, upstream, base_url: None)
        (problem,) = refused.value.problems
        assert problem.what.startswith("cannot be read")
    assert isinstance(refused.value, StartRefused)


def test_references_may_be_left_open_for_a_check(tmp_path: Path) -> None:
    path = tmp_path / "shipworthy.yaml"
    path.write_text(MANIFEST)
    with pytest.raises(ManifestRefused) as refused:
        load(path, {}, SPECS, compile_condition, lambda kind, upstream, base_url: None)
    assert {problem.path for problem in refused.value.problems} == {
        "store.url", "providers.far.credentials", "providers.near.credentials"
    }  # fmt: skip
    load(path, {}, SPECS, compile_condition, lambda kind, upstream, base_url: None, require_references=False)
