"""The manifest's money keys as objects: thresholds, models to go on with, quotas, runaways, the alert webhook."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from shipworthy.adapters.policy.cel import compile_condition
from shipworthy.manifest.load import Loaded, load
from shipworthy.manifest.specs import Config, Spec
from shipworthy.model.money import Period
from shipworthy.model.policy import Budget, Runaway, Watched
from shipworthy.model.route import Quota

CANARY = "canary-7f3a9c-of-more-than-16-bytes"
MANIFEST = """\
shipworthy: 1
name: northwind
environment: test
requirements: {boundary: {confidential: {trains_on_data: false}}}
identity: {service_keys: true}
tenants:
  northwind:
    budget: {usd: 10, per: month, zone: Europe/Berlin, alert_at: [0.5, 0.875, 1], on_exhausted: {models: [free]}}
    teams: {support: {budget: {usd: 1, per: day, on_exhausted: refuse}}}
    roles: {app: {keys: true, team: support, use_cases: [faq], clearance: internal}}
    runaway: {multiple: 20}
  southwind:
    teams: {support: {}}
    roles: {app: {keys: true, team: support, use_cases: [faq], clearance: internal}}
    runaway: {multiple: 3, at_least_usd_per_min: 0.000000001, window_minutes: 1, normal_days: 30, watch: [principal]}
providers:
  near: {kind: test, limits: {requests_per_min: 500}}
  far: {kind: test, limits: {}}
models:
  small: {provider: far, upstream: m, price: {input_usd_per_mtok: 1, output_usd_per_mtok: 2}}
  free: {provider: near, upstream: h, price: {input_usd_per_mtok: 0, output_usd_per_mtok: 0}}
use_cases:
  faq:
    job: Answer.
    owner: support
    data_class: internal
    route: {models: [small, free]}
    budget: {usd: 5, per: week, on_exhausted: {models: [free]}}
alerts: {webhook: {url: "https://hooks.example/CANARY", secret: {env: SECRET}}}
""".replace("CANARY", CANARY)


class NoConfig(Config):
    """No settings."""


def loaded_of(folder: Path, environ: dict[str, str], text: str = MANIFEST, *, require: bool = True) -> Loaded:
    (folder / "shipworthy.yaml").write_text(text)
    specs = {"test": Spec("test", NoConfig, object)}
    return load(
        folder / "shipworthy.yaml", environ, specs, compile_condition, lambda kind, upstream, base_url: None,
        require_references=require,
    )  # fmt: skip


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    return loaded_of(tmp_path, {"SECRET": CANARY})


def test_budgets_know_when_to_alert_and_how_to_go_on(loaded: Loaded) -> None:
    """Thresholds are whole thousandths, so that they compare exactly with money."""
    tenant = loaded.snapshot.tenants["northwind"]
    berlin = ZoneInfo("Europe/Berlin")
    assert tenant.budget == Budget(10 * 10**9, Period.MONTH, berlin, (500, 875, 1000), ("free",))
    assert tenant.teams["support"].budget == Budget(10**9, Period.DAY, berlin)
    budget = loaded.snapshot.use_cases["faq"].budget
    assert budget == Budget(5 * 10**9, Period.WEEK, ZoneInfo("UTC"), on_exhausted=("free",))


def test_a_runaway_is_defined_by_its_multiple(loaded: Loaded) -> None:
    tenants = loaded.snapshot.tenants
    assert tenants["northwind"].runaway == Runaway(20, 500_000_000, 5, 7, (Watched.SESSION, Watched.PRINCIPAL))
    assert tenants["southwind"].runaway == Runaway(3, 1, 1, 30, (Watched.PRINCIPAL,))


def test_a_quota_is_stated_or_none(loaded: Loaded) -> None:
    providers = loaded.snapshot.providers
    assert (providers["near"].limits, providers["far"].limits) == (Quota(requests_per_min=500), None)


def test_the_webhook_never_prints(loaded: Loaded) -> None:
    """Who knows its address may post: literally or by reference, it is as secret as the secret."""
    webhook = loaded.deployment.alerts
    assert webhook is not None
    assert webhook.url.reveal() == f"https://hooks.example/{CANARY}"
    assert webhook.secret.reveal() == CANARY
    assert CANARY not in f"{loaded!r} {loaded} {webhook.url:>30} {webhook}"


def test_an_unset_webhook_is_no_problem_where_secrets_are_not_required(tmp_path: Path) -> None:
    """`check` on a machine without the secrets says nothing of an address that it cannot know."""
    text = MANIFEST.replace(f'"https://hooks.example/{CANARY}"', "{env: HOOK}")
    loaded = loaded_of(tmp_path, {}, text, require=False)
    assert loaded.deployment.alerts is not None


def test_without_a_webhook_nobody_is_told(tmp_path: Path) -> None:
    for said in ("", "alerts: {}\n", "alerts:\n"):
        text = MANIFEST.partition("alerts:")[0] + said
        assert loaded_of(tmp_path, {}, text).deployment.alerts is None
