"""What no source does, whoever wrote it: read the environment, unpickle, evaluate, go silent."""

from __future__ import annotations

import ast
import re
from typing import Any

ENVIRONMENT = {
    "manifest/load.py": "the one place that reads it",
    "adapters/telemetry/metrics.py": "prometheus-client takes its directory from nowhere else; the file says why",
    "adapters/embedded/llama_process.py": "a child inherits named variables only; the file filters them",
}
UNSAFE = {"pickle", "cPickle", "dill", "shelve", "marshal", "cloudpickle", "joblib"}
EVALUATES = {"eval", "exec", "compile", "__import__"}
FIRST_LINE_CHARS_MAX = 125


def test_the_environment_has_one_reader(sources: Any) -> None:
    """Settings come from the manifest: what reads the environment behind its back is named here (design §3)."""
    readers = set()
    for source in sources:
        for node in ast.walk(source.tree):
            match node:
                case ast.Attribute(ast.Name("os"), "environ" | "environb" | "getenv" | "putenv"):
                    readers.add(source.name)
                case ast.ImportFrom("os", names):
                    assert not {alias.name for alias in names} & {"environ", "getenv"}, source.name
    assert readers == set(ENVIRONMENT)


def test_nothing_is_unpickled(sources: Any) -> None:
    """No format that runs what it reads: a stored byte is never code."""
    for source in sources:
        assert not {name.partition(".")[0] for name in source.imports()} & UNSAFE, source.name


def test_nothing_is_evaluated(sources: Any) -> None:
    """No text becomes Python."""
    for source in sources:
        called = {
            node.func.id
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & EVALUATES, source.name


def test_no_shell(sources: Any) -> None:
    """Commands are lists of words: nothing is quoted wrongly, nothing is injected."""
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                assert isinstance(node.value, ast.Constant), source.name
                assert node.value.value is False, source.name
            if isinstance(node, ast.Attribute) and node.attr in ("system", "popen"):
                assert not (isinstance(node.value, ast.Name) and node.value.id == "os"), source.name


def test_every_module_says_what_it_is(sources: Any) -> None:
    """A module's first line is its contract in domain words (style: habits)."""
    for source in sources:
        if source.text.strip():
            said = ast.get_docstring(source.tree, clean=False) or ""
            assert said.splitlines()[:1] and said.splitlines()[0].strip(), source.name


def test_docstrings_begin_at_once(sources: Any) -> None:
    """A docstring's first line is a line: not blank, not beyond what a tooltip shows."""
    for source in sources:
        for dotted, node in source.definitions():
            said = ast.get_docstring(node, clean=False)
            if said is not None:
                first = said.split("\n", 1)[0].strip()
                assert first, f"{source.name}:{dotted}"
                assert len(first) <= FIRST_LINE_CHARS_MAX, f"{source.name}:{dotted}"


def test_ports_say_what_they_promise(sources: Any) -> None:
    """Every method of a port that says nothing by its name alone has its contract, errors included (style 3)."""
    silent = {
        dotted
        for source in sources
        if source.name.startswith("ports/")
        for dotted, node in source.definitions()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not ast.get_docstring(node)
        and not node.name.startswith("__")
    }
    plain = {"KeyStore", "AdminRecorder", "Sink", "Exchanges"}  # find, list, act, open, get: as they say
    assert {dotted for dotted in silent if dotted.partition(".")[0] not in plain} == set()


def test_broad_excepts_have_reasons(sources: Any) -> None:
    """`except Exception` swallows what nobody foresaw: each one says why it may (style: what separates the houses)."""
    for source in sources:
        lines = source.text.splitlines()
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ExceptHandler) and _broad(node):
                raises_again = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                reason = REASON.search(lines[node.lineno - 1])
                assert raises_again or reason or _passes_on(node), f"{source.name}:{node.lineno}"


REASON = re.compile(r"# (?:noqa: BLE001\W+)?(?!noqa)\w+\W+\w+")


def _broad(node: ast.ExceptHandler) -> bool:
    return node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))


def _passes_on(node: ast.ExceptHandler) -> bool:
    """Whether the handler hands the exception itself to somebody."""
    return node.name is not None and any(
        isinstance(inner, ast.Call)
        and any(isinstance(argument, ast.Name) and argument.id == node.name for argument in inner.args)
        for inner in ast.walk(node)
    )
