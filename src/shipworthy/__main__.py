"""``python -m shipworthy``, and the command ``shipworthy``."""

import signal
import sys

INTERRUPTED = 128 + signal.SIGINT


def run() -> None:
    """The command line. Ctrl-C while it is still loading ends it at once, without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from shipworthy.cli.main import app

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        app(prog_name="shipworthy")
    except KeyboardInterrupt:  # before the command line's own answer to it is in place
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    run()
