"""``python -m shipworthy``, and the command ``shipworthy``."""

import signal


def run() -> None:
    """The command line. Ctrl-C while it is still loading ends it at once, without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from shipworthy.cli.main import app

    signal.signal(signal.SIGINT, signal.default_int_handler)
    app(prog_name="shipworthy")


if __name__ == "__main__":
    run()
