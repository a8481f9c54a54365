"""A whole server that speaks TLS: the official client, certificates that are renewed, and files that are wrong."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from tests.authority import Authority
from tests.conftest import StoreUrls
from tests.journey.deployment import Deployment, deployment, managed, said
from typer.testing import CliRunner

from shipworthy.cli.main import app
from shipworthy.kit.scripted_log import Ended

CHAT = "/v1/chat/completions"
SEEN_S_MAX = 15.0


def encrypted(client_ca: bool = False, metrics_port: int = 0) -> Any:
    """What ``tls`` does to a manifest: certificates for everything that listens, asked of the data plane's clients."""

    def edit(text: str) -> str:
        tls = "tls: {cert: {file: server.pem}, key: {file: server.key}"
        asked = ", client_ca: {file: people.pem}}, " if client_ca else "}, "
        text = text.replace("server: {", "server: {" + tls + asked).replace("admin: {", "admin: {" + tls + "}, ", 1)
        return text + (f"telemetry: {{prometheus: {{port: {metrics_port}, {tls}}}}}}}\n" if metrics_port else "")

    return edit


def await_true(true: Any, seconds: float = SEEN_S_MAX) -> None:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.1)
    assert true()


def shown(base: str, authority: Authority) -> bytes:
    """The certificate that whoever comes now is shown."""
    host, port = base.removeprefix("https://").split(":")
    context = authority.client()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((host, int(port)), timeout=5) as raw, context.wrap_socket(raw) as spoken:
        der = spoken.getpeercert(binary_form=True)
    assert der is not None
    return der


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("people"), "people")


@contextlib.contextmanager
def serving(
    folder: Path, store: StoreUrls, authority: Authority, people: Authority | None = None, **more: Any
) -> Iterator[Deployment]:
    issued = authority.issue()
    put(folder, issued.cert, issued.key)
    if people is not None:
        (folder / "people.pem").write_bytes(people.file.read_bytes())
    place, environ = managed(store.url, store.migrate_url)
    with deployment(folder, place, environ=environ, edit=encrypted(people is not None), **more) as running:
        yield running


def put(folder: Path, cert: Path, key: Path) -> None:
    (folder / "server.pem").write_bytes(cert.read_bytes())
    (folder / "server.key").write_bytes(key.read_bytes())


@pytest.fixture(scope="module")
def guarded(
    module_store: StoreUrls, tmp_path_factory: pytest.TempPathFactory, authority: Authority, people: Authority
) -> Iterator[Deployment]:
    """A server that asks its clients for certificates."""
    with serving(tmp_path_factory.mktemp("server"), module_store, authority, people) as running:
        yield running


def test_the_official_client_with_a_custom_authority_and_a_certificate(
    guarded: Deployment, authority: Authority, people: Authority
) -> None:
    """Whole answers and streams; nothing but the HTTP client's own settings changes."""
    assert guarded.base.startswith("https://")
    issued = people.issue("billing", host="billing.northwind.example")
    with httpx.Client(verify=issued.client(authority), trust_env=False, timeout=20) as http:
        client = openai.OpenAI(api_key=guarded.token(), base_url=f"{guarded.base}/v1", http_client=http)
        answer = client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "good morning"}])
        assert answer.choices[0].message.content == "This is a scripted answer. You said: good morning"
        pieces = client.chat.completions.create(
            model="chat", messages=[{"role": "user", "content": "one two"}], stream=True
        )
        assert "".join(p.choices[0].delta.content or "" for p in pieces).endswith("You said: one two")


def test_a_client_without_a_certificate_gets_nowhere(guarded: Deployment, authority: Authority) -> None:
    """Not even a token helps; the log and the metrics say what happened, and to whom."""
    with (
        httpx.Client(verify=authority.client(), trust_env=False, base_url=guarded.base) as http,
        pytest.raises(httpx.TransportError, match="certificate required"),
    ):
        http.get("/healthz")
    await_true(lambda: "the client showed no certificate" in guarded.log)
    [line] = [line for line in guarded.log.splitlines() if "the client showed no certificate" in line]
    assert '"code":"server.no_tls"' in line
    assert re.search(r'"peer":"127\.0\.0\.1:\d+"', line)


def test_a_refused_request_says_whose_certificate_it_came_with(
    guarded: Deployment, authority: Authority, people: Authority
) -> None:
    issued = people.issue("intruder", host="intruder.northwind.example")
    with httpx.Client(verify=issued.client(authority), trust_env=False, base_url=guarded.base) as http:
        assert http.post(CHAT, json=said("hi")).status_code == 401
    await_true(lambda: "(intruder.northwind.example)" in guarded.log)


def test_plain_http_is_not_served_there(guarded: Deployment) -> None:
    with (
        httpx.Client(trust_env=False, base_url=guarded.base.replace("https:", "http:")) as http,
        pytest.raises(httpx.TransportError),
    ):
        http.get("/healthz")
    await_true(lambda: "plain HTTP came where TLS is spoken" in guarded.log)


def test_the_control_plane_speaks_tls_too(guarded: Deployment, authority: Authority) -> None:
    """With its own ``admin.tls``, and here without asking for certificates."""
    assert guarded.admin.startswith("https://")
    headers = {"authorization": f"Bearer {guarded.token(groups=('admins',))}"}
    with httpx.Client(verify=authority.client(), trust_env=False, base_url=guarded.admin, headers=headers) as http:
        for _ in range(3):
            assert http.get("/admin/v1/keys").status_code == 200
        assert http.get("/console", follow_redirects=True).status_code == 200
        form = {"token": guarded.token(groups=("admins",))}
        signed_in = http.post("/console/login", data=form, headers={"origin": guarded.admin})
        assert signed_in.status_code == 303
        assert "secure" in signed_in.headers["set-cookie"].lower(), "the session never travels without TLS"
    with (
        httpx.Client(trust_env=False, base_url=guarded.admin.replace("https:", "http:")) as http,
        pytest.raises(httpx.TransportError),
    ):
        http.get("/console")


def test_prometheus_scrapes_over_tls(fresh_store: StoreUrls, tmp_path: Path, authority: Authority) -> None:
    """And sees when each certificate ends, and how many clients got nowhere."""
    issued = authority.issue(to_days=3)
    put(tmp_path, issued.cert, issued.key)
    store, environ = managed(fresh_store.url, fresh_store.migrate_url)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with deployment(tmp_path, store, environ=environ, edit=encrypted(metrics_port=port)) as running:
        with httpx.Client(trust_env=False) as http, pytest.raises(httpx.TransportError):
            http.get(running.base.replace("https:", "http:"))
        with httpx.Client(verify=authority.client(), trust_env=False) as http:

            def page() -> str:
                return http.get(f"https://127.0.0.1:{port}/metrics").text

            await_true(lambda: 'shipworthy_refused_before_identity_total{code="server.no_tls"} 1.0' in page())
            for bind in ("server", "admin", "prometheus"):
                found = re.search(f'certificate_ends_timestamp_seconds{{bind="{bind}".*?}} (.*)', page())
                assert found
                assert abs(float(found[1]) - time.time() - 3 * 86_400) < 600
        [line] = [line for line in running.log.splitlines() if '"bind":"server"' in line]
        assert '"level":"warning"' in line
        assert '"event":"certificate_shown"' in line


def test_a_client_that_leaves_ends_what_the_provider_does(
    fresh_store: StoreUrls, tmp_path: Path, authority: Authority
) -> None:
    with serving(tmp_path, fresh_store, authority) as running:
        headers = {"authorization": f"Bearer {running.token()}"}
        with httpx.Client(verify=authority.client(), trust_env=False, base_url=running.base, headers=headers) as http:
            with pytest.raises(httpx.TimeoutException):
                http.post(CHAT, json=said("[[fault:hang]]", "pair"), timeout=0.5)
            await_true(lambda: running.providers.first.script.log[-1].ended is Ended.CLIENT_LEFT)


def test_certificates_are_renewed_without_a_restart(
    fresh_store: StoreUrls, tmp_path: Path, authority: Authority, people: Authority
) -> None:
    """For those who come, on both planes; a connection that is open serves on; a bad file changes nothing."""
    other = Authority(tmp_path, "other")
    with serving(tmp_path, fresh_store, authority, people) as running:
        mine = people.issue("mine", host="mine").client(authority)
        with httpx.Client(
            verify=mine, trust_env=False, base_url=running.base, headers={"authorization": f"Bearer {running.token()}"}
        ) as kept:
            assert kept.post(CHAT, json=said("hi")).status_code == 200
            before = shown(running.admin, authority)

            (tmp_path / "server.pem").write_text("half a cert")
            await_true(lambda: "there is no certificate in it" in running.log)
            assert kept.get("/readyz").json()["status"] == "degraded"
            assert shown(running.admin, authority) == before

            ended = authority.issue("ended", from_days=-3, to_days=-1)
            put(tmp_path, ended.cert, ended.key)
            await_true(lambda: "the new certificate of server expired at" in running.log)
            assert shown(running.admin, authority) == before

            fresh = authority.issue("fresh")
            put(tmp_path, fresh.cert, fresh.key)
            await_true(lambda: shown(running.admin, authority) != before)
            assert kept.post(CHAT, json=said("hi")).status_code == 200
            with httpx.Client(verify=mine, trust_env=False, base_url=running.base) as new:
                assert new.get("/readyz").json()["status"] == "ready"

            (tmp_path / "people.pem").write_bytes(other.file.read_bytes())
            theirs = other.issue("theirs", host="theirs").client(authority)

            def let_in() -> bool:
                with contextlib.suppress(httpx.TransportError), httpx.Client(verify=theirs, trust_env=False) as new:
                    return new.get(running.base + "/readyz").status_code == 200
                return False

            await_true(let_in)
            with httpx.Client(verify=mine, trust_env=False) as new, pytest.raises(httpx.TransportError):
                new.get(running.base + "/readyz")
            assert running.log.count('"event":"certificate_shown"') >= 4
            key = fresh.key.read_text().splitlines()[1]
            assert key not in running.log


def test_a_worker_that_starts_again_shows_the_certificate_in_force(
    fresh_store: StoreUrls, tmp_path: Path, authority: Authority
) -> None:
    """Not the broken one that lies on the disk by then."""
    with serving(tmp_path, fresh_store, authority) as running:
        (tmp_path / "server.key").write_text("nonsense")
        await_true(lambda: "there is no private key in it" in running.log)
        [worker] = running.processes("worker")
        os.kill(worker, signal.SIGKILL)
        await_true(lambda: running.processes("worker") not in ([], [worker]))
        with httpx.Client(verify=authority.client(), trust_env=False, timeout=20) as http:
            assert http.get(running.base + "/healthz").status_code == 200


def test_tls_is_not_turned_on_or_off_while_the_server_runs(
    fresh_store: StoreUrls, tmp_path: Path, authority: Authority
) -> None:
    with serving(tmp_path, fresh_store, authority) as running:
        text = running.config.read_text()
        running.config.write_text(re.sub(r"admin: \{tls: \{.*?\}\}, ", "admin: {", text))
        await_true(lambda: "admin can't change while the server runs" in running.log)
        with httpx.Client(verify=authority.client(), trust_env=False) as http:
            assert http.get(running.admin + "/console", follow_redirects=True).status_code == 200


# ------------------------------------------------------------------------------------------- files that are wrong


def check(folder: Path) -> str:
    """Every problem, a line each."""
    output = CliRunner().invoke(app, ["check", "--json", "-c", str(folder / "shipworthy.yaml")]).output
    problems = json.loads(output)["problems"]
    return "".join(f"{p['severity']}: {p['path']}: {p['what']}; said {p['said']}; {p['hint']}\n" for p in problems)


@pytest.fixture
def described(tmp_path: Path, authority: Authority, people: Authority) -> Path:
    """A folder with a manifest that is whole."""
    from tests.journey.deployment import MANIFEST

    issued = authority.issue()
    put(tmp_path, issued.cert, issued.key)
    (tmp_path / "people.pem").write_bytes(people.file.read_bytes())
    (tmp_path / "provider.key").write_text("k")
    given = {"workers": 1, "drain": 5, "durability": "strict", "budget": 100, "store": "{path: s}"}
    text = MANIFEST.substitute(first="http://127.0.0.1:9/v1", second="http://127.0.0.1:9/v1", **given)
    (tmp_path / "shipworthy.yaml").write_text(encrypted(True)(text))
    return tmp_path


def test_good_files_pass(described: Path) -> None:
    assert check(described) == ""


def test_a_missing_file(described: Path) -> None:
    (described / "server.key").unlink()
    assert re.search(r"server\.tls\.key: .*server\.key cannot be read: No such file", check(described))


def test_a_key_of_another_certificate(described: Path, authority: Authority) -> None:
    (described / "server.key").write_bytes(authority.issue("another").key.read_bytes())
    assert "server.tls.key: the key does not belong to the certificate; said {file: server.key}" in check(described)


def test_a_chain_in_the_wrong_order(described: Path, authority: Authority) -> None:
    own = (described / "server.pem").read_bytes()
    (described / "server.pem").write_bytes(authority.file.read_bytes() + own)
    assert "server.tls.cert: the chain begins with another certificate" in check(described)


def test_an_encrypted_key(described: Path) -> None:
    key = load_pem_private_key((described / "server.key").read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (described / "server.key").write_bytes(locked)
    output = check(described)
    assert "server.tls.key: the key is encrypted" in output
    assert "openssl pkey" in output


def test_a_client_authority_that_is_none(described: Path, people: Authority) -> None:
    (described / "people.pem").write_bytes(people.issue("leaf", host="x").cert.read_bytes())
    assert "server.tls.client_ca: none of these certificates is an authority's" in check(described)


@pytest.mark.parametrize(
    ("to_days", "words"), [(-1, "the certificate expired on"), (3, "the certificate ends on"), (20, "")]
)
def test_an_end_that_is_near_or_past_is_a_warning(
    to_days: int, words: str, described: Path, authority: Authority
) -> None:
    """No refusal: a server that does not start is of no help to whoever must replace the file."""
    issued = authority.issue("near", from_days=-9, to_days=to_days)
    put(described, issued.cert, issued.key)
    output = check(described)
    assert f"warning: server.tls.cert: {words}" in output if words else output == ""


def test_a_certificate_written_into_the_manifest_is_not_shown(described: Path) -> None:
    """Nor its key: both are references only."""
    text = (described / "shipworthy.yaml").read_text()
    (described / "shipworthy.yaml").write_text(text.replace("{file: server.key}", "sk-literal", 1))
    output = check(described)
    assert "sk-literal" not in output
    assert "server.tls.key" in output
