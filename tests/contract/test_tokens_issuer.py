"""Tokens against a real issuer over HTTP: discovery, rotation, outages, and issuers that answer badly.

Promises: a key that was published before its use is never refused; a withdrawn key stops counting within the stated time; an
issuer that is away is served from the cache for the stated age; nobody makes us hammer an issuer.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from shipworthy.adapters.identity.issuers import Issuers
from shipworthy.adapters.identity.settings import IdentitySettings, IssuerSettings, KeyTimes
from shipworthy.adapters.identity.verifier import JwtVerifier
from shipworthy.kit.clock import HandClock
from shipworthy.kit.issuer import Fault, LocalIssuer
from shipworthy.kit.signing import SigningKey
from shipworthy.model.errors import Refusal
from shipworthy.model.observation import IssuerDegraded, Observation
from shipworthy.model.op import Clock, Op, SystemClock

ALL = ("RS256", "PS256", "ES256", "EdDSA")
QUICK = KeyTimes(refresh_s=0.1, seek_interval_s=0.05, fetch_timeout_s=0.5, stale_s=60)
STILL = KeyTimes(refresh_s=3600, seek_interval_s=10, fetch_timeout_s=0.5, stale_s=60)
"""No refresh in the background but the first: what happens is what a token caused."""


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with LocalIssuer() as local:
        local.add_key("EdDSA")
        yield local


class House:
    """The issuers of one process, with everything that they said."""

    def __init__(self, issuers: Issuers, verifier: JwtVerifier, clock: Clock, said: list[Observation]) -> None:
        self.issuers = issuers
        self.verifier = verifier
        self.clock = clock
        self.said = said

    async def code(self, token: str) -> str:
        try:
            await self.verifier.verify(Op.for_request(self.clock, self.said.append), token)
        except Refusal as refusal:
            return refusal.code
        return "accepted"

    def degraded(self) -> list[IssuerDegraded]:
        return [one for one in self.said if isinstance(one, IssuerDegraded)]


def settings(local: LocalIssuer, *, discovery: bool = False) -> IdentitySettings:
    uri = "" if discovery else local.jwks_uri
    issuer = IssuerSettings(issuer=local.issuer, audiences=("shipworthy",), algorithms=ALL, jwks_uri=uri)
    return IdentitySettings(issuers=(issuer,))


@asynccontextmanager
async def house(
    identity: IdentitySettings, times: KeyTimes = QUICK, clock: Clock | None = None
) -> AsyncIterator[House]:
    said: list[Observation] = []
    clock = clock or SystemClock()
    issuers = Issuers(clock, said.append, times)
    try:
        yield House(issuers, issuers.adopt(identity), clock, said)
    finally:
        await issuers.aclose()


async def within(seconds: float, holds: Callable[[], Awaitable[bool]]) -> bool:
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        if await holds():
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.mark.parametrize("discovery", [False, True], ids=["jwks_uri", "discovery"])
def test_every_algorithm_over_http(issuer: LocalIssuer, discovery: bool) -> None:
    async def scene() -> None:
        for algorithm in ALL:
            issuer.add_key(algorithm)  # type: ignore[arg-type]
        async with house(settings(issuer, discovery=discovery)) as here:
            for key in issuer.keys.values():
                assert await here.code(issuer.token(key=key)) == "accepted"
            assert not here.degraded()
            assert here.issuers.degraded() == ()

    asyncio.run(scene())


def test_discovery_must_name_the_issuer_itself(issuer: LocalIssuer) -> None:
    async def scene() -> None:
        issuer.speaks_for = issuer.issuer + "/other"
        async with house(settings(issuer, discovery=True)) as here:
            assert await here.code(issuer.token()) == "identify.issuer_unavailable"
            assert "speaks for" in here.degraded()[0].reason

    asyncio.run(scene())


@pytest.mark.parametrize(
    "named",
    ["http://192.0.2.7/keys", "ftp://127.0.0.1/keys", "file:///etc/passwd", "/keys", "", "http://u:p@127.0.0.1/keys"],
)
def test_discovery_may_not_lead_to_plain_http_elsewhere(issuer: LocalIssuer, named: str) -> None:
    async def scene() -> None:
        issuer.jwks_named = named or "javascript:"
        async with house(settings(issuer, discovery=True)) as here:
            assert await here.code(issuer.token()) == "identify.issuer_unavailable"
            assert issuer.asked == 0

    asyncio.run(scene())


def test_plain_http_is_for_loopback_only() -> None:
    async def scene() -> None:
        identity = IdentitySettings(issuers=(IssuerSettings(issuer="http://login.example", audiences=("a",)),))
        async with house(identity) as here:
            missing = await here.issuers.first_keys()
            assert "plain http" in missing[0]

    asyncio.run(scene())


def self_signed(folder: Path) -> ssl.SSLContext:
    """A server's TLS with a certificate for 127.0.0.1 that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(
        certificate.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem")
    return context


@pytest.mark.parametrize("vouched", [False, True], ids=["unknown authority", "trusted by the machine"])
def test_keys_come_from_a_server_that_somebody_vouches_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vouched: bool
) -> None:
    """TLS is verified; the same server is trusted once its certificate is among the authorities."""
    with LocalIssuer(tls=self_signed(tmp_path)) as secure:
        secure.add_key("EdDSA")

        async def scene() -> None:
            async with house(settings(secure)) as here:
                code = await here.code(secure.token())
                assert code == ("accepted" if vouched else "identify.issuer_unavailable")
                assert vouched or "Certificate" in here.degraded()[0].reason

        if vouched:
            context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
            monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", context)
        asyncio.run(scene())


FAULTS = {
    Fault.OUTAGE: "answered 503",
    Fault.DOWN: "Server",
    Fault.SLOW: "Timeout",
    Fault.GARBAGE: "not JSON",
    Fault.HALF: "Payload",
    Fault.OVERSIZED: "larger than",
    Fault.COMPRESSED: "compressed",
    Fault.REDIRECT_AWAY: "another host",
    Fault.REDIRECT_LOOP: "redirects",
}


@pytest.mark.parametrize(("fault", "said"), FAULTS.items(), ids=[fault.value for fault in FAULTS])
def test_an_issuer_that_never_answered_well(issuer: LocalIssuer, fault: Fault, said: str) -> None:
    async def scene() -> None:
        issuer.fault = fault
        async with house(settings(issuer)) as here:
            assert await here.code(issuer.token()) == "identify.issuer_unavailable"
            assert said in here.degraded()[0].reason
            issuer.fault = Fault.NONE
            assert await within(5, lambda: accepted(here, issuer.token()))

    asyncio.run(scene())


async def accepted(here: House, token: str) -> bool:
    return await here.code(token) == "accepted"


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.value for fault in FAULTS])
def test_an_outage_is_served_from_the_cache(issuer: LocalIssuer, fault: Fault) -> None:
    async def scene() -> None:
        async with house(settings(issuer)) as here:
            assert await here.code(issuer.token()) == "accepted"
            issuer.fault = fault
            assert await within(5, lambda: said_degraded(here))
            assert await here.code(issuer.token(subject="new")) == "accepted"
            assert here.issuers.degraded()
            stranger = SigningKey("EdDSA", "stranger")
            assert await here.code(issuer.token(key=stranger)) == "identify.issuer_unavailable"

    asyncio.run(scene())


async def said_degraded(here: House) -> bool:
    return bool(here.degraded())


def test_redirects_within_the_host_are_followed(issuer: LocalIssuer) -> None:
    async def scene() -> None:
        issuer.fault = Fault.REDIRECT_HERE
        async with house(settings(issuer)) as here:
            assert await here.code(issuer.token()) == "accepted"

    asyncio.run(scene())


def test_the_cache_ends_with_its_stated_age(issuer: LocalIssuer) -> None:
    async def scene() -> None:
        clock = HandClock(1_800_000_000)
        issuer.clock = clock
        async with house(settings(issuer), STILL, clock) as here:
            token = issuer.token()
            assert await here.code(token) == "accepted"
            issuer.fault = Fault.OUTAGE
            clock.pass_s(59.9)
            assert await here.code(token) == "accepted"
            clock.pass_s(0.2)
            assert await here.code(token) == "identify.issuer_unavailable"
            assert await here.code(issuer.token(subject="new")) == "identify.issuer_unavailable"
            assert here.degraded()[-1].age_s == pytest.approx(60.1)
            issuer.fault = Fault.NONE
            clock.pass_s(10)
            assert await here.code(token) == "accepted"

    asyncio.run(scene())


def test_a_wall_clock_that_jumps_does_not_age_the_keys(issuer: LocalIssuer) -> None:
    async def scene() -> None:
        clock = HandClock(1_800_000_000)
        issuer.clock = clock
        async with house(settings(issuer), STILL, clock) as here:
            token = issuer.token(ttl_s=10_000_000, more={"iat": None})
            assert await here.code(token) == "accepted"
            issuer.fault = Fault.OUTAGE
            for jump in (1_000_000, -3_000_000):
                clock.jump_s(jump)
                assert await here.code(token) == "accepted"

    asyncio.run(scene())


def test_random_key_ids_cause_one_fetch_per_interval_and_stall_nobody(issuer: LocalIssuer) -> None:
    async def scene() -> None:
        clock = HandClock(1_800_000_000)
        issuer.clock = clock
        stranger = SigningKey("EdDSA", "stranger")
        async with house(settings(issuer), STILL, clock) as here:
            good = issuer.token()
            assert await here.code(good) == "accepted"
            assert issuer.asked == 1
            clock.pass_s(11)
            issuer.fault, issuer.slow_s = Fault.SLOW, 0.3
            crowd = [
                asyncio.ensure_future(here.code(stranger.sign({"iss": issuer.issuer}, {"kid": f"k{n}"})))
                for n in range(500)
            ]
            await asyncio.sleep(0.05)
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await here.code(issuer.token(subject="fresh")) == "accepted"
            assert loop.time() - began < 0.1
            assert set(await asyncio.gather(*crowd)) == {"identify.unknown_key"}
            assert issuer.asked == 2
            for n in range(200):
                assert (
                    await here.code(stranger.sign({"iss": issuer.issuer}, {"kid": f"m{n}"})) == "identify.unknown_key"
                )
            assert issuer.asked == 2
            clock.pass_s(11)
            await here.code(stranger.sign({"iss": issuer.issuer}, {"kid": "again"}))
            assert issuer.asked == 3

    asyncio.run(scene())


def test_a_known_key_under_another_algorithm_is_no_reason_to_fetch(issuer: LocalIssuer) -> None:
    async def scene() -> None:
        async with house(settings(issuer), STILL) as here:
            key = issuer.add_key("RS256")
            assert await here.code(issuer.token()) == "accepted"
            asked = issuer.asked
            assert await here.code(key.sign({"iss": issuer.issuer}, {"alg": "PS256"})) == "identify.algorithm_refused"
            assert issuer.asked == asked

    asyncio.run(scene())


def test_one_waiter_that_gives_up_does_not_take_the_fetch_with_it(issuer: LocalIssuer) -> None:
    async def scene() -> None:
        issuer.fault, issuer.slow_s = Fault.SLOW, 0.2
        async with house(settings(issuer), STILL) as here:
            token = issuer.token()
            waiting = [asyncio.ensure_future(here.code(token)) for _ in range(3)]
            await asyncio.sleep(0.05)
            waiting[0].cancel()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert isinstance(results[0], asyncio.CancelledError)
            assert results[1:] == ["accepted", "accepted"]
            assert issuer.asked == 1

    asyncio.run(scene())


def test_rotation_under_load_refuses_no_valid_request(issuer: LocalIssuer) -> None:
    """Keys are published before use, for longer than a refresh takes; then every token is accepted at every moment."""

    async def scene() -> None:
        codes: list[str] = []
        signing = next(iter(issuer.keys.values()))
        async with house(settings(issuer)) as here:

            async def load() -> None:
                number = 0
                while not done.is_set():
                    number += 1
                    codes.append(await here.code(issuer.token(subject=f"s{number}", key=signing)))
                    await asyncio.sleep(0)

            done = asyncio.Event()
            assert await here.code(issuer.token()) == "accepted"
            running = [asyncio.ensure_future(load()) for _ in range(4)]
            for turn in range(5):
                added = issuer.add_key(("EdDSA", "ES256", "RS256")[turn % 3])  # type: ignore[arg-type]
                await asyncio.sleep(QUICK.refresh_s * 1.1 + QUICK.fetch_timeout_s)
                signing = added
            done.set()
            await asyncio.gather(*running)
        assert set(codes) == {"accepted"}
        assert len(codes) > len(running)

    asyncio.run(scene())


def test_a_withdrawn_key_stops_counting_within_a_refresh(issuer: LocalIssuer) -> None:
    """Tokens that were verified and cached end with their key, too."""

    async def scene() -> None:
        async with house(settings(issuer)) as here:
            old = next(iter(issuer.keys.values()))
            token = issuer.token(key=old)
            assert await here.code(token) == "accepted"
            issuer.add_key("ES256")
            assert old.kid is not None
            issuer.remove_key(old.kid)

            async def refused() -> bool:
                return await here.code(token) == "identify.unknown_key"

            bound = QUICK.refresh_s * 1.1 + QUICK.fetch_timeout_s
            assert await within(bound, refused)
            assert await here.code(issuer.token()) == "accepted"

    asyncio.run(scene())


def test_an_issuer_that_withdraws_every_key_trusts_nobody(issuer: LocalIssuer) -> None:
    async def scene() -> None:
        async with house(settings(issuer)) as here:
            token = issuer.token()
            assert await here.code(token) == "accepted"
            issuer.keys = {}

            async def refused() -> bool:
                return await here.code(token) == "identify.unknown_key"

            assert await within(2, refused)
            assert "no usable key" in here.degraded()[-1].reason

    asyncio.run(scene())


def test_a_reload_keeps_the_keys_and_forgets_who_is_no_longer_named(issuer: LocalIssuer) -> None:
    async def scene() -> None:
        async with house(settings(issuer), STILL) as here:
            token = issuer.token()
            assert await here.code(token) == "accepted"
            before = here.verifier
            here.verifier = here.issuers.adopt(settings(issuer))
            assert await here.code(token) == "accepted"
            assert issuer.asked == 1
            here.verifier = here.issuers.adopt(IdentitySettings(issuers=()))
            assert await here.code(token) == "identify.unknown_issuer"
            here.verifier = before
            assert await here.code(token) == "accepted"

    asyncio.run(scene())


def test_first_keys_names_the_issuers_that_are_not_there(issuer: LocalIssuer) -> None:
    async def scene() -> None:
        async with house(settings(issuer), STILL) as here:
            assert await here.issuers.first_keys() == ()
        issuer.fault = Fault.OUTAGE
        async with house(settings(issuer), STILL) as here:
            assert "503" in (await here.issuers.first_keys())[0]

    asyncio.run(scene())


def test_nothing_is_left_running(issuer: LocalIssuer) -> None:
    async def scene() -> None:
        issuer.fault, issuer.slow_s = Fault.SLOW, 5
        async with house(settings(issuer)) as here:
            waiting = asyncio.ensure_future(here.code(issuer.token()))
            await asyncio.sleep(0.05)
            waiting.cancel()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scene())
