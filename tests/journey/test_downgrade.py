"""A spent budget goes on with the model that it names, on a real server: answers are paid for or free, no cap is passed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import StoreUrls
from tests.journey.deployment import Deployment, deployment, managed

CAP_NANO = 2_200_000
"""The ceiling of one request at `one` is 500 × $4 a million tokens, and a few hundred bytes: two do not fit."""
MODEL = """
models:
  home: {provider: first, upstream: up-home, price: {input_usd_per_mtok: 0, output_usd_per_mtok: 0}}
"""
USE_CASE = """
use_cases:
  thrifty:
    job: Answer.
    owner: support
    data_class: internal
    tokens: {input_max: 4000, output_max: 500}
    route: {models: [one, home]}
    budget: {usd: "0.0022", per: month, on_exhausted: {models: [home]}}
"""
ASKED = {"model": "thrifty", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def server(module_store: StoreUrls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("downgrade")
    store, environ = managed(module_store.url, module_store.migrate_url)
    edit = lambda text: text.replace("\nmodels:\n", MODEL).replace("\nuse_cases:\n", USE_CASE)  # noqa: E731
    with deployment(folder, store, environ=environ, edit=edit) as running:
        yield running


def test_a_spent_budget_goes_on_with_what_is_free(server: Deployment) -> None:
    """Nobody is refused, the dear model serves while it fits, and the row says why it was left."""
    with server.client() as client:
        answers = [client.post("/v1/chat/completions", json=ASKED) for _ in range(20)]
    assert [answer.status_code for answer in answers] == [200] * 20
    served = [answer.headers["x-shipworthy-model"] for answer in answers]
    assert served == sorted(served, reverse=True), "once there is no room it stays so"
    assert set(served) == {"one", "home"}
    rows = server.rows("use_case = 'thrifty'")
    assert 0 < sum(row["charged_nano"] for row in rows) <= CAP_NANO
    for row in rows:
        flags, candidates = row["flags"], {each["model"]: each for each in row["candidates"]}
        if row["model"] == "one":
            assert "downgraded:use_case=thrifty" not in flags
            assert row["held_nano"] == row["estimated_nano"] > 0
        else:
            assert "downgraded:use_case=thrifty" in flags
            assert (row["estimated_nano"], row["held_nano"], row["charged_nano"]) == (0, 0, 0)
            assert candidates["one"]["reason"] == "budget of use_case=thrifty exhausted"
