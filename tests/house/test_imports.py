"""What an import costs, told by what it brings in: a measured time would depend on the machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "aiohttp", "cel", "genai_prices", "jinja2", "opentelemetry", "prometheus_client", "psycopg", "pydantic", "starlette",
    "uvicorn",
}  # fmt: skip


def loaded(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after ``statement``."""
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return {name.partition(".")[0] for name in ran.stderr.split()}


def test_importing_the_package_is_free() -> None:
    """`import shipworthy` loads no library at all."""
    assert not loaded("import shipworthy") & (HEAVY | {"msgspec", "typer", "rich"})


@pytest.mark.parametrize("words", ["--help", "serve --help", "token mint --help", "--version"])
def test_help_is_light(words: str) -> None:
    """`shipworthy --help` loads neither psycopg nor starlette, nor anything else that serves (style: habits)."""
    ran = f"import sys; sys.argv = ['shipworthy', *{words.split()!r}]\nfrom shipworthy.cli.main import app\n"
    ran += "try:\n    app()\nexcept SystemExit as ended:\n    assert not ended.code, ended.code"
    typers_own = {"pydantic"}  # typer loads it where it is installed, for parameters of its types
    assert not loaded(ran) & (HEAVY - typers_own if words.count(" ") else HEAVY)


def test_the_model_is_light() -> None:
    """The nouns, the ports and the pipeline load msgspec and nothing heavier."""
    assert not loaded("import shipworthy.pipeline, shipworthy.stages.route, shipworthy.control.audit") & HEAVY
