"""Metrics of real processes in one directory: added up, bounded, and whole after kill -9."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from shipworthy.adapters.telemetry.families import DURATION_S, SpreadHistogram
from shipworthy.adapters.telemetry.metrics import FILE_BYTES, WRITE_EVERY_S, Metrics, exposition, forget
from shipworthy.model.errors import StartRefused
from shipworthy.model.observation import (
    AttemptFailed,
    CircuitChanged,
    Ended,
    Observation,
    Refused,
    TelemetryDegraded,
)

PROCESS = """
import sys, time
from pathlib import Path
from shipworthy.adapters.telemetry.metrics import Metrics
from shipworthy.model.observation import CircuitChanged, Ended
metrics = Metrics(Path(sys.argv[1]), sys.argv[2])
for _ in range(int(sys.argv[3])):
    metrics(Ended("0193", "northwind", "support", "small", "served", "", 1850.0, 640.0, 12, 3, 500_000_000, 0))
if sys.argv[4] == "stay":
    metrics.write_through()
metrics(CircuitChanged("openai", "small", "open", "5 failures"))
metrics.in_flight(int(sys.argv[3]))
print("ready", flush=True)
while sys.argv[4] == "stay":
    metrics(Ended("0193", "northwind", "busy", "small", "served", "", 1.0, 0.0, 0, 0, 0, 0))
"""


def start(directory: Path, process_id: str, exchanges: int, then: str = "end") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, str(directory), process_id, str(exchanges), then]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str], how: signal.Signals | None = None) -> None:
    if how is not None:
        process.send_signal(how)
    process.wait(10)
    process.stdout.close()


def samples(directory: Path, name: str) -> dict[str, float]:
    """Samples of one name, by their labels as written."""
    found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", exposition(directory).decode(), re.MULTILINE)
    return {labels: float(value) for labels, value in found}


def until(holds: Callable[[], object], within_s: float = 10.0) -> bool:
    last_s = time.monotonic() + within_s
    while not holds() and time.monotonic() < last_s:
        time.sleep(0.02)
    return bool(holds())


def served(directory: Path, use_case: str = "support") -> float:
    labels = f'code="",model="small",outcome="served",tenant="northwind",use_case="{use_case}"'
    return samples(directory, "shipworthy_exchanges_total").get(labels, 0.0)


def test_processes_add_up_and_the_dead_keep_their_counters(tmp_path):
    """Two processes at once, one ends by itself, one by kill -9 in the middle of counting."""
    first, second = start(tmp_path, "aa", 3), start(tmp_path, "bb", 4, "stay")
    end(first)
    assert served(tmp_path) == 7
    assert samples(tmp_path, "shipworthy_charged_usd_total") == {
        'model="small",tenant="northwind",use_case="support"': pytest.approx(3.5)
    }
    assert samples(tmp_path, "shipworthy_in_flight") == {"": 7}
    assert until(lambda: served(tmp_path, "busy"))
    end(second, signal.SIGKILL)
    busy = served(tmp_path, "busy")
    for dead in ("aa", "bb"):
        forget(tmp_path, dead)
    assert served(tmp_path) == 7
    assert served(tmp_path, "busy") == busy
    assert samples(tmp_path, "shipworthy_first_token_seconds_bucket")['le="0.7",model="small",use_case="support"'] == 7
    assert samples(tmp_path, "shipworthy_first_token_seconds_bucket")['le="0.5",model="small",use_case="support"'] == 0
    assert samples(tmp_path, "shipworthy_in_flight") == {}
    assert samples(tmp_path, "shipworthy_circuit_state") == {}
    forget(tmp_path, "aa")
    assert served(tmp_path) == 7


def test_what_ended_is_written_within_a_tick_whoever_asks(metrics, tmp_path, monkeypatch):
    """Counted in memory, and no longer than WRITE_EVERY_S: a kill loses nothing older."""
    now_s = [1_000.0]
    monkeypatch.setattr("shipworthy.adapters.telemetry.metrics.time.monotonic", lambda: now_s[0])
    ended = Ended("0193", "northwind", "support", "small", "served", "", 1850.0, 640.0, 12, 3, 500_000_000, 7)
    for _ in range(4):
        metrics(ended)
    assert served(tmp_path) == 1
    now_s[0] += WRITE_EVERY_S
    metrics(ended)
    assert served(tmp_path) == 5
    metrics(ended)
    metrics.write_through()
    metrics.write_through()
    assert served(tmp_path) == 6
    who = 'model="small",tenant="northwind",use_case="support"'
    assert samples(tmp_path, "shipworthy_tokens_total") == {f'kind="input",{who}': 72, f'kind="output",{who}': 18}
    assert samples(tmp_path, "shipworthy_overrun_usd_total") == {who: pytest.approx(42e-9)}
    assert samples(tmp_path, "shipworthy_exchange_duration_seconds_sum") == {
        'model="small",use_case="support"': pytest.approx(6 * 1.85)
    }


def test_what_ended_counts_as_one_by_one(metrics, tmp_path):
    """Values fall into the buckets that prometheus-client itself would choose, on the bounds too."""
    direct = SpreadHistogram("direct", "", buckets=DURATION_S, registry=CollectorRegistry())
    for duration_s in (0.0, *DURATION_S, *(bound + 1e-9 for bound in DURATION_S), 1e9):
        direct.observe(duration_s)
        metrics(Ended("0193", "t", "u", "m", "served", "", duration_s * 1_000, 0, 0, 0, 0, 0))
    metrics.write_through()
    (family,) = direct.collect()
    alike = samples(tmp_path, "shipworthy_exchange_duration_seconds_bucket")
    for sample in family.samples:
        if sample.name == "direct_bucket":
            assert alike[f'le="{sample.labels["le"]}",model="m",use_case="u"'] == sample.value


def test_the_end_of_the_process_writes_what_waits(tmp_path):
    end(start(tmp_path, "aa", 3))
    assert served(tmp_path) == 3


def test_any_number_of_respawned_processes_leaves_a_bounded_number_of_files(tmp_path):
    for n in range(5):
        end(start(tmp_path, f"p{n}", 1), signal.SIGKILL)
        forget(tmp_path, f"p{n}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["counter_gone.db", "histogram_gone.db"]
    assert served(tmp_path) == 5


def test_a_file_that_a_killed_process_left_half_made_hides_no_other(tmp_path):
    end(start(tmp_path, "aa", 2))
    (tmp_path / "counter_bb.db").write_bytes(b"")
    (tmp_path / "histogram_cc.db").write_bytes(b"\xff" * 64)
    (tmp_path / "counter_dd.db").write_bytes(
        (100).to_bytes(4, "little") + b"\0" * 4 + (2).to_bytes(4, "little") + b"{]" + b" " * 90
    )
    assert served(tmp_path) == 2
    for dead in ("bb", "cc", "dd"):
        forget(tmp_path, dead)
    assert served(tmp_path) == 2


@pytest.fixture
def metrics(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "elsewhere")  # put back afterwards
    return Metrics(tmp_path, "unit")


def test_every_observation_is_counted_somewhere(metrics, tmp_path):
    for kind in get_args(Observation):
        before = exposition(tmp_path)
        values = {"str": "said", "int": 1, "float": 1.5, "bool": False}
        metrics(kind(*(values[str(kind.__annotations__[name])] for name in kind.__struct_fields__)))
        assert exposition(tmp_path) != before, kind
    families = list(text_string_to_metric_families(exposition(tmp_path).decode()))
    assert len(families) >= 15
    assert all(family.name.startswith("shipworthy_") and family.documentation for family in families)


def test_circuits_show_their_state(metrics, tmp_path):
    for state, value in (("open", 2), ("half-open", 1), ("closed", 0)):
        metrics(CircuitChanged("openai", "small", state, ""))
        assert samples(tmp_path, "shipworthy_circuit_state") == {'model="small",provider="openai"': value}


@pytest.mark.parametrize("code", ["authorize.unknown_use_case", "authorize.no_role"])
def test_names_of_the_clients_choice_are_no_labels(metrics, tmp_path, code):
    """Until policy has looked a use case up, its name is a text that a client made up."""
    for n in range(50):
        metrics(Ended("0193", "northwind", f"made up {n}", "", "refused", code, 1, 0, 0, 0, 0, 0))
    metrics.write_through()
    (labels,) = samples(tmp_path, "shipworthy_exchanges_total")
    assert 'use_case="unknown"' in labels


def test_label_sets_are_bounded_and_no_file_ever_grows(metrics, tmp_path):
    """However many names come: a bounded number of series, the rest under ``other``, in the allocated space."""
    rounds = 1_300
    for n in range(rounds):
        name = f"{n:04}" + "ü" * 100
        metrics(Ended("0193", name, name, name, "served", "", 10, 10, 1, 1, 1, 1))
        metrics(AttemptFailed("0193", name, name, name, 0, ""))
        metrics(Refused("0193", name, "", ""))
        metrics(CircuitChanged(name, name, "open", ""))
    metrics.write_through()
    exchanges = samples(tmp_path, "shipworthy_exchanges_total")
    assert len(exchanges) == 1_001
    assert sum(exchanges.values()) == rounds
    assert exchanges['code="other",model="other",outcome="other",tenant="other",use_case="other"'] == rounds - 1_000
    assert len(samples(tmp_path, "shipworthy_first_token_seconds_count")) == 201
    for kind, size in FILE_BYTES.items():
        assert (tmp_path / f"{kind}_unit.db").stat().st_size == size


def test_a_credential_in_a_name_is_no_label(metrics, tmp_path):
    metrics(
        Ended("0193", "northwind", "sk-0123456789abcdef-secret", "m", "refused", "reserve.unpriced", 1, 0, 0, 0, 0, 0)
    )
    assert "secret" not in exposition(tmp_path).decode()


def test_files_are_really_allocated(metrics, tmp_path):
    """A sparse file on a full disk would kill the process with SIGBUS at its first write."""
    for kind, size in FILE_BYTES.items():
        assert (tmp_path / f"{kind}_unit.db").stat().st_blocks * 512 >= size


def test_no_space_refuses_the_start_and_says_where(tmp_path, monkeypatch):
    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StartRefused, match=r"need 6 MiB in .*No space left"):
        Metrics(tmp_path, "unit")


def test_the_loop_is_watched_and_losses_are_counted(metrics, tmp_path):
    lost = [3]

    async def watched() -> None:
        metrics.count_dropped("log", lambda: lost[0])
        watching = asyncio.create_task(metrics.watch_loop())
        await asyncio.sleep(0.05)
        time.sleep(0.6)  # somebody blocks the loop
        await asyncio.sleep(0.1)
        lost[0] = 5
        await asyncio.sleep(0.4)
        watching.cancel()

    asyncio.run(watched())
    metrics(TelemetryDegraded("traces", "down", 2))
    assert samples(tmp_path, "shipworthy_loop_lag_seconds_sum")[""] > 0.3
    late = samples(tmp_path, "shipworthy_loop_lag_seconds_bucket")
    assert late['le="+Inf"'] - late['le="0.1"'] > 15, "a stall weighs as much as it lasts"
    assert samples(tmp_path, "shipworthy_telemetry_dropped_total") == {'sink="log"': 5, 'sink="traces"': 2}
