"""ports.md: what the inside needs from the outside, and the path of a request as a value."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from typing import Any

from markdown import code, first_line, paragraphs, prose, table

from shipworthy import pipeline, ports

INTRO = """
# Ports

A port is a Protocol that the inside names and an adapter implements: `src/shipworthy/ports/`. Adapters know the world and nothing
of each other; `bootstrap` joins the two. A port's contract is a suite in `tests/contract` that runs over every implementation,
the fakes in `shipworthy.kit` included: an adapter of yours is right when it passes the same suite.
"""


def protocols() -> dict[str, Any]:
    return {
        name: found
        for name, found in vars(ports).items()
        if inspect.isclass(found)
        and found.__module__.startswith(ports.__name__)
        and getattr(found, "_is_protocol", False)
    }


def page() -> str:
    parts = [INTRO]
    for name, port in protocols().items():
        parts += [f"## {name}", first_line(port.__doc__) if _own_doc(port) else "", _methods(port)]
    return paragraphs(*parts, _stages())


def _own_doc(port: Any) -> bool:
    return bool(port.__doc__) and not port.__doc__.startswith("Base class for protocol classes")


def _methods(port: Any) -> str:
    source = ast.parse(inspect.getsource(port))
    rows = []
    for node in ast.walk(source):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            asked = ", ".join(
                argument.arg for argument in [*node.args.args, *node.args.kwonlyargs] if argument.arg != "self"
            )
            waits = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
            returns = ast.unparse(node.returns) if node.returns else "None"
            rows.append((code(f"{waits}{node.name}({asked}) → {returns}"), prose(ast.get_docstring(node))))
    return table(("method", "promise"), rows)


def _stages() -> str:
    fields = ports.Stages.__annotations__
    rows = [(code(name), code(_plain(str(said))), ", ".join(_parts_with(name))) for name, said in fields.items()]
    return paragraphs(
        "## Stages",
        "The path of a request as a frozen value of callables, in the order of `pipeline.admit`, `deliver` and `close`. A test replaces one field.",
        table(("stage", "signature", "runs in"), rows),
    )


def _plain(said: str) -> str:
    """``Callable[[Op, Grant], Awaitable[Hold]]`` → ``async (Op, Grant) → Hold``."""
    taken, _, given = said.removeprefix("Callable[[").removesuffix("]").rpartition("], ")
    waits = given.startswith("Awaitable[")
    given = given.replace("Awaitable[None] | None", "None") if waits else given
    return f"{'async ' if waits else ''}({taken}) → {given.removeprefix('Awaitable[').removesuffix(']') if waits else given}"


def _parts_with(stage: str) -> Iterator[str]:
    for part in (pipeline.admit, pipeline.deliver, pipeline.close):
        if f"stages.{stage}(" in inspect.getsource(part):
            yield part.__name__
