"""The process in which llama.cpp runs: `python -m shipworthy.adapters.embedded.llama_child`, never started by hand.

Why a process of its own? A model file is foreign input to a large native parser, a model can eat the machine, and loading
one holds Python's lock for seconds. Here all of that can only end this process, and it ends with its parent whatever
that dies of: the kernel itself signals the end of the pipe that the parent holds, lock or no lock.

It reads one Order as a line of JSON from standard input (so the key is on no command line and in no environment), answers
with one Report as a line of JSON on standard output, and then serves llama.cpp's own HTTP on the loopback.
"""

from __future__ import annotations

import fcntl
import os
import resource
import select
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from msgspec import Struct, json

ORDER_BYTES_MAX = 1 << 20
LINE_SECONDS_MAX = 30.0
PARENT_LOOK_SECONDS = 0.5
HTTP_SECONDS_MAX = 120  # without a byte from or to the gateway
OOM_SCORE = 500  # of 1,000: when memory ends, this process goes before the gateway and its database
ERRORS_ONLY = 1  # llama.cpp's verbosity; from 2 up its log quotes requests
PROC = Path("/proc")


class Order(Struct, frozen=True):
    """What the parent wants served, and how."""

    parent: int
    model: str
    alias: str
    api_key: str
    port: int  # 0: the kernel chooses
    context_tokens: int  # of one request
    parallel: int
    threads: int
    output_tokens_max: int
    memory_bytes: int  # the least that it needs
    chat_template: str  # empty: the model's own
    stop: tuple[str, ...]
    embeddings: bool
    mean_pooling: bool  # of embeddings, for a model that names no pooling itself
    share_prefixes: bool


class Report(Struct, frozen=True):
    """What came of it: a port, or what is missing."""

    port: int = 0
    missing: str = ""
    memory_available: int = 0  # set when it is too little


def main() -> int:
    """Serve one order until the parent is gone; 3 when it can't be served (the reason is reported or on stderr)."""
    answer = _own_standard_output()
    order = json.decode(sys.stdin.buffer.readline(ORDER_BYTES_MAX), type=Order)
    _end_with(order.parent)
    _be_modest()
    try:
        llama = import_module("xllamacpp")
    except ImportError as error:
        return _give_up(answer, Report(missing=f"llama.cpp (xllamacpp: {error})"))
    if (short := _memory_short(order.memory_bytes, llama)) is not None:
        return _give_up(answer, Report(memory_available=short))
    params = llama.CommonParams()
    _set_model(params, order)
    _set_listener(params, order)
    if order.mean_pooling:
        params.pooling_type = llama.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    try:
        server = llama.Server(params)
    except RuntimeError:
        return 3  # llama.cpp has written why to stderr
    port = int(str(server.listening_address).rpartition(":")[2])
    os.write(answer, json.encode(Report(port=port)) + b"\n")
    while os.getppid() == order.parent:
        time.sleep(PARENT_LOOK_SECONDS)
    return 0


def _own_standard_output() -> int:
    # Whatever native code prints must not look like a Report.
    answer = os.dup(1)
    os.dup2(2, 1)
    return answer


def _end_with(parent: int) -> None:
    """Let the kernel end this process when the parent's end of standard input closes.

    PR_SET_PDEATHSIG would do it when the *thread* that started us ends, which may be long before the process does; a
    thread of ours would wait for Python's lock, which loading a model holds. SIGIO's default action needs neither.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO, signal.SIGTERM})
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    closed, _, _ = select.select([0], [], [], 0)
    if closed or os.getppid() != parent:  # it went before the alarm was set
        os._exit(0)


def _be_modest() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold prompts
    try:
        (PROC / "self/oom_score_adj").write_text(str(OOM_SCORE))
    except OSError:
        return  # no /proc, or not ours to set: the default order it is


def _give_up(answer: int, report: Report) -> int:
    os.write(answer, json.encode(report) + b"\n")
    return 3


def _memory_short(needed: int, llama: ModuleType) -> int | None:
    """The bytes available when they are fewer than needed; None when it may fit, or a GPU may take it."""
    kinds = llama.ggml_backend_dev_type
    gpus = (kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)
    if any(device["type"] in gpus for device in llama.get_device_info()):
        return None
    available = [size for size in (_available(), _ceiling()) if size is not None]
    return min(available) if available and min(available) < needed else None


def _available() -> int | None:
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _ceiling() -> int | None:
    try:
        said = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return None
    return int(said) if said.isdecimal() else None


# Any: xllamacpp ships no types, and its parameters are attributes of a native object.
def _set_model(params: Any, order: Order) -> None:
    params.model.path = order.model
    params.model_alias = {order.alias}  # else answers would name the file's path
    params.n_ctx = order.context_tokens * order.parallel
    params.n_parallel = order.parallel
    params.cpuparams.n_threads = order.threads
    params.cpuparams_batch.n_threads = order.threads
    params.n_predict = order.output_tokens_max
    params.fit_params = False  # loads the model twice to measure it
    params.embedding = order.embeddings
    params.cache_prompt = order.share_prefixes
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.verbosity = ERRORS_ONLY
    if order.chat_template:
        params.chat_template = order.chat_template
    if order.stop:
        params.antiprompt = list(order.stop)  # what a request without a `stop` of its own gets


def _set_listener(params: Any, order: Order) -> None:
    params.hostnames = ["127.0.0.1"]
    params.port = order.port
    params.api_keys = [order.api_key]
    params.timeout_read = HTTP_SECONDS_MAX
    params.timeout_write = HTTP_SECONDS_MAX
    params.cors_origins = params.cors_methods = params.cors_headers = ""
    params.cors_credentials = False
    params.ui = False
    params.endpoint_slots = False  # shows prompts
    params.endpoint_props = False
    params.endpoint_metrics = False


if __name__ == "__main__":
    status = main()
    # llama.cpp's threads are not joined: nothing of this process is worth waiting for.
    sys.stderr.flush()
    os._exit(status)
