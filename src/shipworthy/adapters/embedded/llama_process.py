"""One run of the child program: started, listened to without ever waiting, and ended. No threads, so forking stays safe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from typing import IO

from msgspec import DecodeError, json

from shipworthy.adapters.embedded.llama_child import Order, Report

LAST_LINES_MAX = 12
LINE_BYTES_MAX = 400  # of a line that is kept
REPORT_BYTES_MAX = 65_536
READS_PER_LISTEN_MAX = 64
READ_BYTES = 65_536
END_SECONDS_MAX = 2.0
PROGRAM = ("-P", "-m", "shipworthy.adapters.embedded.llama_child")  # -P: nothing is imported from the working directory

# A process that reads foreign files gets none of the server's secrets: only what Python and GPU libraries need.
KEPT = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE",
    "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
)  # fmt: skip


class LlamaProcess:
    """A living or ended child; ``report`` is what it said, ``last_lines`` the end of its stderr."""

    def __init__(self, order: Order) -> None:
        self.report: Report | None = None
        self._lines: deque[str] = deque(maxlen=LAST_LINES_MAX)
        self._line = b""
        self._answer = b""
        self._process = subprocess.Popen(
            [sys.executable, *PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name in KEPT},
            start_new_session=True,  # Ctrl-C is for the server, which then ends the child in its own order
        )
        for stream in (self._stdout, self._stderr):
            os.set_blocking(stream.fileno(), False)
        try:
            self._stdin.write(json.encode(order) + b"\n")
            self._stdin.flush()  # and kept open: its closing is what tells the child that we are gone
        except BrokenPipeError:
            return  # it died at once; listen() tells how

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def last_lines(self) -> tuple[str, ...]:
        return tuple(self._lines)

    @property
    def _stdin(self) -> IO[bytes]:
        return _there(self._process.stdin)

    @property
    def _stdout(self) -> IO[bytes]:
        return _there(self._process.stdout)

    @property
    def _stderr(self) -> IO[bytes]:
        return _there(self._process.stderr)

    def listen(self) -> int | None:
        """Take in what the child has written; its exit status once it has ended, negative for a signal."""
        status = self._process.poll()  # before reading: what it wrote before its end is then all there
        for _ in range(READS_PER_LISTEN_MAX):
            if not self._read_errors() and not self._read_answer():
                break
        return status

    def end(self) -> None:
        """End the child and bury it; it has nothing to save, so it isn't given long."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(END_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for stream in (self._stdin, self._stdout, self._stderr):
            try:
                stream.close()
            except BrokenPipeError:  # an order that it never read
                continue

    def _read_errors(self) -> bool:
        block = _read(self._stderr)
        *whole, rest = (self._line + block).split(b"\n")
        self._line = rest[:LINE_BYTES_MAX]
        self._lines.extend(line[:LINE_BYTES_MAX].decode("utf-8", "replace") for line in whole if line.strip())
        return bool(block)

    def _read_answer(self) -> bool:
        block = _read(self._stdout)
        self._answer = (self._answer + block)[:REPORT_BYTES_MAX]
        line, found, _ = self._answer.partition(b"\n")
        if found and self.report is None:
            try:
                self.report = json.decode(line, type=Report)
            except DecodeError as error:
                self._lines.append(f"the child's report can't be read: {error}")
        return bool(block)


def _there(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # all three are pipes
    return stream


def _read(stream: IO[bytes]) -> bytes:
    try:
        return os.read(stream.fileno(), READ_BYTES)
    except BlockingIOError:
        return b""
