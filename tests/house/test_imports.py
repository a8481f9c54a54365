"""What an import costs, told by what it brings in: a measured time would depend on the machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "aiohttp", "cel", "cryptography", "genai_prices", "httpx2", "jinja2", "joserfc", "opentelemetry", "prometheus_client",
    "prompt_toolkit", "psycopg", "pydantic", "rich", "ruamel", "starlette", "uvicorn", "uvloop",
}  # fmt: skip
TYPERS_OWN = {"pydantic"}  # typer loads it where it is installed, for parameters of its types
SERVE = "sys.argv = ['shipworthy', 'serve']\nimport shipworthy.process.forking as forking\nforking.start = sys.exit\n"
MANIFEST = {"pydantic", "ruamel"}
WORKER = MANIFEST | {"cryptography", "joserfc", "prometheus_client", "psycopg", "uvloop"}
CONTROL = {"jinja2", "starlette", "uvicorn"}
LOADED = {
    "before another process loads beside it": (
        f"import sys\n{SERVE}import shipworthy.__main__ as m\nm.run()",
        set(),
    ),
    "before PostgreSQL starts": ("import shipworthy.process.supervisor", MANIFEST),
    "before workers are forked": ("from shipworthy.process.forking import load\nload()", WORKER),
    "by the control plane": ("import shipworthy.process.control", WORKER - {"prometheus_client"} | CONTROL),
    "for a price": (
        "from shipworthy.standard import price_of\nassert price_of('openai', 'gpt-4.1')",
        MANIFEST | {"genai_prices"},
    ),
    "for a condition": (
        "from shipworthy.standard import compile_condition as c\nc('true', ['public'])",
        MANIFEST | {"cel"},
    ),
}
"""A start → what runs in it, and which of the heavy libraries it may load."""


def loaded(statement: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after ``statement``."""
    code = "import atexit, sys\natexit.register(lambda: print('\\n'.join(sys.modules), file=sys.stderr))\n" + statement
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
    assert not loaded(ran) & (HEAVY - TYPERS_OWN - {"rich"} if words.count(" ") else HEAVY - {"rich"})


def test_the_model_is_light() -> None:
    """The nouns, the ports and the pipeline load msgspec and nothing heavier."""
    assert not loaded("import shipworthy.pipeline, shipworthy.stages.route, shipworthy.control.audit") & HEAVY


@pytest.mark.parametrize("when", LOADED)
def test_a_start_loads_what_it_needs_by_then(when: str) -> None:
    """Ready within a second, warm: a library that nobody needs yet is not in the way of what somebody waits for."""
    ran, allowed = LOADED[when]
    assert loaded(ran) & HEAVY == allowed
