"""The development issuer: a key for its owner alone, trusted by its own deployment and no other, and not in production."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from shipworthy.adapters.identity.development import FILE_NAME, DevelopmentIssuer, open_development_issuer
from shipworthy.adapters.identity.settings import IdentitySettings
from shipworthy.adapters.identity.verifier import JwtVerifier
from shipworthy.kit.clock import HandClock
from shipworthy.model.errors import Refusal, StartRefused
from shipworthy.model.identity import Principal
from shipworthy.model.op import Op
from shipworthy.ports import TokenWish

WISH = TokenWish(tenant="northwind", subject="ada", groups=("agents",), clearance="internal", actor="bot", ttl_s=60)
CLOCK = HandClock()


def mint(issuer: DevelopmentIssuer) -> str:
    return issuer.mint(WISH, UUID(int=1), CLOCK.unix_ns())


def verify(issuer: DevelopmentIssuer, token: str, clock: HandClock = CLOCK) -> Principal:
    settings, keys = issuer.trusted
    verifier = JwtVerifier(IdentitySettings(issuers=(settings,)), {settings.issuer: keys})
    return asyncio.run(verifier.verify(Op.for_request(clock, lambda _: None), token))


def test_a_minted_token_says_what_was_wished(tmp_path: Path) -> None:
    issuer = open_development_issuer(tmp_path, "northwind", "development")
    principal = verify(issuer, mint(issuer))
    assert (principal.tenant, principal.subject, principal.groups) == ("northwind", "ada", ("agents",))
    assert (principal.clearance, principal.actor, principal.issuer) == (
        "internal",
        "bot",
        "urn:shipworthy:development:northwind",
    )


def test_the_key_stays_and_a_new_file_ends_old_tokens(tmp_path: Path) -> None:
    token = mint(open_development_issuer(tmp_path, "northwind", "development"))
    assert verify(open_development_issuer(tmp_path, "northwind", "development"), token).subject == "ada"
    (tmp_path / FILE_NAME).unlink()
    with pytest.raises(Refusal) as caught:
        verify(open_development_issuer(tmp_path, "northwind", "development"), token)
    assert caught.value.code == "identify.unknown_key"


def test_another_deployments_tokens_are_a_strangers(tmp_path: Path) -> None:
    here = open_development_issuer(tmp_path, "northwind", "development")
    there = open_development_issuer(tmp_path, "contoso", "development")
    with pytest.raises(Refusal) as caught:
        verify(here, mint(there))
    assert caught.value.code == "identify.unknown_issuer"


def test_a_minted_token_ends(tmp_path: Path) -> None:
    issuer = open_development_issuer(tmp_path, "northwind", "development")
    later = HandClock()
    later.pass_s(60 + 30)
    with pytest.raises(Refusal) as caught:
        verify(issuer, mint(issuer), later)
    assert caught.value.code == "identify.expired"


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        open_development_issuer(tmp_path / "keys", "northwind", "development")
    finally:
        os.umask(old)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "keys" / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / "keys") == [FILE_NAME]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    open_development_issuer(tmp_path, "northwind", "development")
    (tmp_path / FILE_NAME).chmod(mode)
    with pytest.raises(StartRefused, match="chmod 600"):
        open_development_issuer(tmp_path, "northwind", "development")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"kty":"OKP"}',
        '{"kty":"oct","k":"AA"}',
        '{"crv":"Ed25519","x":"AA","kty":"OKP","d":"AA"}',
    ],
)
def test_a_file_that_holds_no_key_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    (tmp_path / FILE_NAME).chmod(0o600)
    with pytest.raises(StartRefused, match="no key"):
        open_development_issuer(tmp_path, "northwind", "development")


def test_a_public_half_alone_signs_nothing(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    open_development_issuer(tmp_path, "northwind", "development")
    members = json.loads(path.read_text())
    del members["d"]
    path.write_text(json.dumps(members))
    with pytest.raises(StartRefused, match="no private"):
        open_development_issuer(tmp_path, "northwind", "development")


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartRefused, match="cannot be"):
        open_development_issuer(tmp_path / "file", "northwind", "development")


@pytest.mark.parametrize("environment", ["production", "Production", "prod", "live"])
def test_production_refuses_it_unless_asked_by_name(tmp_path: Path, environment: str) -> None:
    with pytest.raises(StartRefused, match="the environment is"):
        open_development_issuer(tmp_path, "northwind", environment)
    assert not (tmp_path / FILE_NAME).exists()
    open_development_issuer(tmp_path, "northwind", environment, in_production=True)


BEGIN = """
import sys; from pathlib import Path
from shipworthy.adapters.identity.development import open_development_issuer
print(open_development_issuer(Path(sys.argv[1]), "northwind", "development").keys.keys.keys[0].kid)
"""


def test_processes_that_begin_at_once_agree_on_one_key(tmp_path: Path) -> None:
    begun = [
        subprocess.Popen([sys.executable, "-c", BEGIN, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    said = {process.communicate(timeout=60)[0] for process in begun}
    assert len(said) == 1 and len(said.pop()) > 20
    assert os.listdir(tmp_path) == [FILE_NAME]
