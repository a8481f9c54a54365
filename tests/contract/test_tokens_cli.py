"""``shipworthy token``: what is minted is trusted, what is explained is what a request would meet, and nothing leaks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from shipworthy.cli import token as verb
from shipworthy.kit.issuer import Fault, LocalIssuer

MANIFEST = """
shipworthy: 1
name: northwind
environment: ENVIRONMENT
store: {path: store}
keys: {file: own/keys}
identity:
  development_issuer: DEVELOPMENT
  issuers:
    - issuer: "ISSUER"
      audience: [shipworthy]
      algorithms: [EdDSA, ES256]
      claims: {groups: roles.of}
      tenants: [northwind]
tenants:
  northwind:
    teams: {support: {}}
    roles:
      agent: {groups: [support-agents], team: support, use_cases: [support], clearance: internal}
      boss: {groups: [bosses], team: support, use_cases: ["*"], clearance: internal}
  contoso: {teams: {all: {}}, roles: {agent: {groups: [support-agents], team: all, use_cases: [support]}}}
operators: {groups: [platform-ops], tenant_claim_optional: true}
providers:
  house:
    kind: openai-compatible
    base_url: "http://10.0.0.5:8000/v1"
    boundary: {regions: [eu], network: private, trains_on_data: false, retention_days: 0}
models:
  local:
    provider: house
    upstream: qwen3-8b
    origin: open-weight
    context_tokens_max: 32000
    output_tokens_max: 4000
    price: {input_usd_per_mtok: 0.02, output_usd_per_mtok: 0.08}
use_cases:
  support:
    {job: answer, owner: support, data_class: internal, tokens: {input_max: 1000, output_max: 100}, route: {models: [local]}}
  contracts:
    {job: read, owner: support, data_class: restricted, tokens: {input_max: 1000, output_max: 100}, route: {models: [local]}}
"""


@pytest.fixture(scope="module")
def issuer() -> Iterator[LocalIssuer]:
    with LocalIssuer() as local:
        local.add_key("EdDSA")
        yield local


class Desk:
    """The verbs over a manifest in a folder of its own."""

    def __init__(self, folder: Path, issuer: str) -> None:
        self.folder = folder
        self.issuer = issuer
        self.write("development", "true")
        self.app = typer.Typer()
        self.app.callback()(lambda: None)
        verb.register(self.app)

    def write(self, environment: str, development: str) -> None:
        said = MANIFEST.replace("ISSUER", self.issuer).replace("ENVIRONMENT", environment)
        (self.folder / "shipworthy.yaml").write_text(said.replace("DEVELOPMENT", development))

    def run(self, *said: str, stdin: str = "") -> Result:
        config = ["-c", str(self.folder / "shipworthy.yaml")]
        return CliRunner().invoke(self.app, ["token", said[0], *config, *said[1:]], input=stdin, catch_exceptions=False)

    def minted(self, *said: str) -> str:
        result = self.run("mint", "--tenant", "northwind", "--subject", "ada", *said)
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    def explained(self, token: str) -> dict[str, Any]:
        result = self.run("explain", "--json", "--", token)
        answer = json.loads(result.stdout)
        assert result.exit_code == (0 if answer["verdict"] == "trusted" else 1)
        assert token.rpartition(".")[2][:24] not in result.output or "." not in token
        assert isinstance(answer, dict)
        return answer


@pytest.fixture
def desk(tmp_path: Path, issuer: LocalIssuer) -> Desk:
    issuer.fault = Fault.NONE
    return Desk(tmp_path, issuer.issuer)


def granted(answer: dict[str, Any]) -> dict[str, str]:
    return {one["use_case"]: one["code"] or one["role"] for one in answer["use_cases"]}


def test_what_is_minted_is_trusted(desk: Desk) -> None:
    answer = desk.explained(desk.minted("--groups", "support-agents, extra", "--clearance", "internal", "--ttl", "30m"))
    assert answer["verdict"] == "trusted"
    principal = answer["reading"]["principal"]
    assert (principal["groups"], principal["clearance"]) == (["support-agents", "extra"], "internal")
    claims = answer["reading"]["claims"]
    assert claims["exp"] - claims["iat"] == 1800
    assert granted(answer) == {"support": "agent", "contracts": "authorize.unknown_use_case"}


def test_a_grant_that_stops_at_the_clearance(desk: Desk) -> None:
    answer = desk.explained(desk.minted("--groups", "bosses"))
    assert granted(answer) == {"support": "boss", "contracts": "authorize.clearance_too_low"}
    answer = desk.explained(desk.minted("--groups", "bosses", "--clearance", "public"))
    assert granted(answer)["support"] == "authorize.clearance_too_low"


def test_nobodys_groups(desk: Desk) -> None:
    answer = desk.explained(desk.minted())
    assert set(granted(answer).values()) == {"authorize.no_role"}
    assert "none of its groups [support-agents]" in answer["use_cases"][0]["reasons"][0]


def test_the_mint_says_what_it_could_not_do(desk: Desk) -> None:
    result = desk.run("mint", "--tenant", "northwind", "--subject", "ada", "--groups", "typo", "--json")
    said = json.loads(result.stdout)
    assert said["warnings"] == ["no role of northwind names the group typo"]
    assert said["recorded"] is False
    assert "not on record" in result.stderr and said["token"] not in result.stderr


@pytest.mark.parametrize(
    ("said", "code", "word"),
    [
        (["--tenant", "northwnd", "--subject", "a"], 1, "did you mean northwind?"),
        (["--tenant", "northwind", "--subject", "a", "--clearance", "top"], 1, "is not in the manifest"),
        (["--tenant", "northwind", "--subject", ""], 1, "no name"),
        (["--tenant", "northwind", "--subject", "a\x1b[2J"], 1, "no name"),
        (["--tenant", "northwind", "--subject", "a", "--groups", "x" * 300], 1, "no name"),
        (["--tenant", "northwind", "--subject", "a", "--ttl", "31d"], 1, "30 days"),
        (["--tenant", "northwind", "--subject", "a", "--ttl", "0s"], 2, "no duration"),
        (["--tenant", "northwind", "--subject", "a", "--ttl", "forever"], 2, "no duration"),
        (["--subject", "a"], 2, "tenant"),
    ],
)
def test_wishes_that_are_not_granted(desk: Desk, said: list[str], code: int, word: str) -> None:
    result = desk.run("mint", *said)
    assert result.exit_code == code
    assert word in result.output
    assert result.stdout == ""
    assert "\x1b[2J" not in result.output


def test_no_development_issuer_no_mint(desk: Desk) -> None:
    desk.write("development", "false")
    result = desk.run("mint", "--tenant", "northwind", "--subject", "ada")
    assert result.exit_code == 1 and "no development issuer" in result.output
    assert not (desk.folder / "own").exists()


def test_no_mint_in_production(desk: Desk) -> None:
    desk.write("production", "true")
    result = desk.run("mint", "--tenant", "northwind", "--subject", "ada")
    assert result.exit_code == 1 and "production" in result.output
    assert not (desk.folder / "own").exists()


def test_an_issuers_token_is_explained_with_its_published_keys(desk: Desk, issuer: LocalIssuer) -> None:
    more = {"roles": {"of": ["support-agents"]}}
    answer = desk.explained(issuer.token(more=more))
    assert answer["verdict"] == "trusted"
    assert granted(answer)["support"] == "agent"
    expired = desk.explained(issuer.token(ttl_s=-3600, more=more | {"iat": None}))
    assert (expired["verdict"], expired["rule"]["code"]) == ("refused", "identify.expired")
    assert granted(expired)["support"] == "agent"
    foreign = desk.explained(issuer.token(tenant="contoso", more=more))
    assert foreign["rule"]["code"] == "identify.unknown_tenant"
    assert foreign["rule"]["name"] == "claims"
    nobody = desk.explained(desk.minted().replace(".", "x.", 1))
    assert nobody["rule"]["name"] == "reading"


def test_an_issuer_out_of_reach_leaves_the_signature_unchecked(desk: Desk, issuer: LocalIssuer) -> None:
    issuer.fault = Fault.OUTAGE
    answer = desk.explained(issuer.token(more={"roles": {"of": ["support-agents"]}}))
    assert answer["verdict"] == "unchecked"
    results = {check["name"]: check["result"] for check in answer["reading"]["checks"]}
    assert (results["key"], results["signature"], results["time"]) == ("unchecked", "unchecked", "passed")
    assert "503" in answer["rule"]["said"]


def test_an_operators_token_is_for_the_control_plane(desk: Desk, issuer: LocalIssuer) -> None:
    answer = desk.explained(desk.minted("--groups", "platform-ops"))
    assert answer["reading"]["principal"]["operator"] is True
    bound = desk.explained(issuer.token(more={"roles": {"of": ["platform-ops"]}}))
    assert bound["reading"]["principal"]["operator"] is False


def test_the_token_may_come_from_a_file_or_standard_input(desk: Desk) -> None:
    token = desk.minted("--groups", "support-agents")
    (desk.folder / "token").write_text(f"\n Bearer {token}\n")
    for result in (desk.run("explain", "--file", str(desk.folder / "token")), desk.run("explain", "-", stdin=token)):
        assert result.exit_code == 0
        assert "granted by role agent" in result.stdout
        assert token.rpartition(".")[2][:24] not in result.output
    assert desk.run("explain").exit_code == 2
    assert desk.run("explain", "x", "--file", "y").exit_code == 2
    assert desk.run("explain", "--file", str(desk.folder / "none")).exit_code == 2


def test_a_terminal_obeys_nothing_that_a_token_says(desk: Desk, issuer: LocalIssuer) -> None:
    evil = {"sub": "\x1b[2Jada", "\x1b[31mname": "\x1b]0;title\x07", "roles": {"of": ["\u202egroup"]}}
    result = desk.run("explain", "--", issuer.token(more=evil))
    assert result.exit_code == 1
    assert not any(letter in result.output for letter in "\x1b\x07\u202e")


def test_no_token_at_all(desk: Desk) -> None:
    assert desk.explained("nonsense")["rule"]["code"] == "identify.malformed"
    result = desk.run("explain", "sk-something")
    assert result.exit_code == 1 and "shipworthy key list" in result.output
