"""One store, and one server over it, for all tests of a module: a start takes seconds, a test mostly milliseconds."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.authority import Authority
from tests.conftest import TEMPLATE, Postgres, StoreUrls
from tests.journey import edge
from tests.journey.deployment import Deployment, deployment, managed

from shipworthy.http.wire.tls import server_context
from shipworthy.manifest.certificates import Certificate
from shipworthy.manifest.deployment import Tls
from shipworthy.manifest.reference import Secret


@pytest.fixture(scope="module")
def module_store(postgres: Postgres) -> Iterator[StoreUrls]:
    """A migrated database of the module's own."""
    name = f"journey_{secrets.token_hex(4)}"
    yield postgres.create(name, TEMPLATE)
    postgres.drop(name)


@pytest.fixture(scope="module")
def server(module_store: StoreUrls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A server with one worker, over a managed store; a module may override it with one of its own making."""
    folder: Path = tmp_path_factory.mktemp("server")
    store, environ = managed(module_store.url, module_store.migrate_url)
    with deployment(folder, store, environ=environ) as running:
        yield running


@pytest.fixture(scope="session")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> edge.Spoken:
    """The data plane's own TLS, and a client that trusts it."""
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    issued = authority.issue()
    certificate = Certificate(Secret(issued.cert.read_text()), Secret(issued.key.read_text()))
    return edge.Spoken(server_context(Tls(certificate, None)), authority.client())


@pytest.fixture(params=["http", "https"])
def each_wire(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, spoken: edge.Spoken) -> None:
    """Each test once over plain HTTP and once over TLS."""
    monkeypatch.setattr(edge, "spoken", spoken if request.param == "https" else None)
