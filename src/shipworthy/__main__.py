"""``python -m shipworthy``."""

from shipworthy.cli.main import app

app(prog_name="shipworthy")
