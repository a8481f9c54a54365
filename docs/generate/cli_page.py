"""cli.md: every verb, argument and option."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

import typer
from markdown import code, paragraphs, prose, table

from shipworthy.cli.main import app
from shipworthy.cli.options import EXIT_PROBLEM, EXIT_USAGE

INTRO = f"""
# Command line

Options stand after the verb. `-c/--config PATH` names the manifest (default `shipworthy.yaml` in the working directory);
`--json` prints one JSON value on standard output and nothing else. Results go to standard output; progress, warnings and
errors to standard error.

| exit code | meaning |
| --- | --- |
| 0 | done, and fine |
| {EXIT_PROBLEM} | done, and a problem was found; or it could not be done, and the reason is on standard error |
| {EXIT_USAGE} | the command itself was wrong |

Commands that read or change the record (`key`, `cost`, `audit`, `token mint`) work beside a running server or a managed
store. Whoever can read the manifest's secrets is an operator there; every such read and act is recorded as `cli:ACCOUNT`.
"""


def page() -> str:
    command = typer.main.get_command(app)
    return paragraphs(INTRO, *_sections(command, "shipworthy"))


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:  # typer brings its own copy of click, untyped here
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")


def _sections(root: Any, path: str) -> Iterator[str]:
    for where, command in commands(root, path):
        level = "##" if where.count(" ") < 2 else "###"
        yield f"{level} {where}"
        yield prose(command.help)
        named = [parameter for parameter in command.params if not parameter.hidden]
        if not getattr(command, "commands", None):
            yield f"```console\n$ {where}{_usage(named)}\n```"
        if named:
            yield table(("option", "default", "meaning"), [_row(parameter) for parameter in named])


def _usage(parameters: list[Any]) -> str:
    words = ""
    for parameter in parameters:
        if not _is_option(parameter):
            shown = (parameter.metavar or parameter.name.upper()).strip("[]")
            words += f" {shown}" if parameter.required else f" [{shown}]"
        elif parameter.required:
            words += f" {parameter.opts[-1]} {parameter.name.upper()}"
    return words + " [OPTIONS]" if any(_is_option(each) and not each.required for each in parameters) else words


def _is_option(parameter: Any) -> bool:
    return bool(parameter.opts[0].startswith("-"))


def _row(parameter: Any) -> tuple[str, str, str]:
    if _is_option(parameter):
        value = "" if parameter.is_flag else f" {_choices(parameter) or parameter.name.upper()}"
        name = code(", ".join(parameter.opts) + value)
    else:
        name = code((parameter.metavar or parameter.name.upper()).strip("[]"))
    default = parameter.default.value if isinstance(parameter.default, Enum) else parameter.default
    shown = "**required**" if parameter.required else "" if default in (None, "", False) else code(default)
    return name, shown, prose(parameter.help)


def _choices(parameter: Any) -> str:
    return "|".join(type(parameter.default)) if isinstance(parameter.default, Enum) else ""
