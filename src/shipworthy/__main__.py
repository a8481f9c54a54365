"""``python -m shipworthy``, and the command ``shipworthy``."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shipworthy.process.forking import Started

INTERRUPTED = 128 + signal.SIGINT


def run() -> None:
    """The command line. Ctrl-C while it is still loading ends it at once, without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    started = _started()
    from shipworthy.cli.main import app

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        app(prog_name="shipworthy", obj=started)
    except KeyboardInterrupt:  # before the command line's own answer to it is in place
        sys.exit(INTERRUPTED)
    finally:
        if started is not None:
            started.end()


def _started() -> Started | None:
    """What takes longest of `serve`, begun before the command line is loaded: it loads beside it, on another core."""
    if sys.argv[1:2] != ["serve"]:
        return None
    from shipworthy.process.forking import start

    with contextlib.suppress(OSError):  # the server says so, if it finds none to be had either
        return start()
    return None


if __name__ == "__main__":
    run()
