"""The JSON Schema for editors agrees with the loader on the examples, and lists every kind of provider."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from shipworthy.cli.init_search import CHILD, REMOTE
from shipworthy.cli.init_text import manifest_text
from shipworthy.manifest.schema import all_keys, json_schema
from shipworthy.manifest.tree import Value, read_tree
from shipworthy.standard import PROVIDERS

CASES = Path(__file__).parents[1] / "golden/manifest/cases"


def validator() -> Draft202012Validator:
    schema = json_schema(PROVIDERS)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def plain(value: Value) -> object:
    match value:
        case dict():
            return {key: plain(below) for key, below in value.items()}
        case list():
            return [plain(below) for below in value]
        case Decimal():
            return float(value)
        case _:
            return value


def objections(text: str) -> list[str]:
    tree = read_tree(text.encode(), "m.yaml")
    assert not tree.problems
    return [f"{error.json_path}: {error.message[:200]}" for error in validator().iter_errors(plain(tree.value))]


def case(name: str) -> str:
    return (CASES / f"{name}.txt").read_text(encoding="utf-8").partition("-" * 10)[0]


@pytest.mark.parametrize(
    "name",
    ["design_complete", "minimal", "root_region", "use_case_weighted", "budget_alert_at", "runaway", "alerts_webhook"],
)
def test_a_good_manifest_has_no_objection(name: str) -> None:
    """The whole contract of the design is in the schema, what is not built included."""
    assert not objections(case(name).replace("kind: local-child", "kind: llama-cpp"))


@pytest.mark.parametrize("found", [[CHILD], list(REMOTE)], ids=["nothing found", "everything found"])
def test_what_init_writes_has_no_objection(found: list[object]) -> None:
    assert not objections(manifest_text("demo", found))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    [
        "root_unknown_key", "budget_text", "provider_literal_secret", "provider_unknown_setting", "identity_algorithms",
        "server_values", "use_case_missing_keys", "use_case_strategy", "limits_values", "provider_boundary_values",
        "budget_alert_at_values", "budget_alert_at_many", "budget_on_exhausted_shape", "runaway_values",
        "provider_limits_values", "alerts_webhook_secret_literal",
    ],
)  # fmt: skip
def test_what_the_shapes_refuse_the_schema_refuses(name: str) -> None:
    assert objections(case(name))


def test_every_kind_of_provider_is_in_it() -> None:
    definitions = json_schema(PROVIDERS)["$defs"]
    assert {ref["$ref"].rpartition("/")[2] for ref in definitions["ProviderShape"]["oneOf"]} == set(PROVIDERS)
    assert "credentials" in definitions["openai"]["required"]


def test_all_keys_are_listed_once() -> None:
    """What the reference is generated from: every key of the contract, with its path."""
    keys = all_keys()
    assert len(keys) == len(set(keys))
    assert {
        "requirements.boundary.NAME.trains_on_data", "identity.issuers[].claims.tenant",
        "tenants.NAME.roles.NAME.each_end_user.usd", "use_cases.NAME.route.rules[].when", "guards.NAME.injection.retrieved",
        "telemetry.otlp.endpoint", "providers.NAME.timeouts.first_token_ms", "models.NAME.price.request_usd",
    } <= set(keys)  # fmt: skip
