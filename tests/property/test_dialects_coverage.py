"""Promise: what was not scanned cannot be expressed: a marker in any string of a body is in a part, or on the list below."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shipworthy.model.chat import Request
from shipworthy.model.dialects import anthropic_messages, openai_chat, openai_embeddings, openai_responses
from shipworthy.model.errors import Refusal

GOLDENS = Path(__file__).parent.parent / "golden" / "dialects"
MARKER = "walrus marker, 4711"
DIALECTS = {
    "openai-chat": openai_chat,
    "openai-responses": openai_responses,
    "openai-embeddings": openai_embeddings,
    "anthropic-messages": anthropic_messages,
}

UNREAD = {
    # The reviewed list. How the path ends: why no model ever reads it.
    "/model": "names the use case; replaced before it leaves",
    "/user": "the provider's book-keeping; an asserted end user, bounded",
    "/metadata/user_id": "the provider's book-keeping; an asserted end user, bounded",
    "/metadata/team": "stored beside the request, never shown to a model",
    "/signature": "checked by the provider: no client's words fit in",
}
SEALED = {
    # Not text: the part that holds it says that it cannot be scanned, and counts its bytes.
    "/file_data": "media in base64",
    "/data": "media in base64, or cipher text",
    "/result": "an image in base64",
    "/encrypted_content": "cipher text of the provider",
    "/authorization": "a credential for a hosted tool",
    "/headers/x": "a credential for a hosted tool",
}


def string_leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from string_leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from string_leaves(inner, (*path, index))


def planted(body: Any, path: tuple[Any, ...]) -> Any:
    copy = json.loads(json.dumps(body))
    holder = copy
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = MARKER
    return copy


def request_goldens() -> list[Path]:
    good = []
    for path in sorted(GOLDENS.glob("*/*.golden")):
        given, _, expected = path.read_text().partition("\n----\n")
        if given.startswith("request ") and not expected.startswith('{"refused'):
            good.append(path)
    return good


def is_unread(path: tuple[Any, ...], request: Request) -> bool:
    pointer = "".join(f"/{step}" for step in path)
    if pointer.endswith(tuple(SEALED)):
        holders = [part for part in request.parts if part.path == path[: len(part.path)]]
        return any(not part.scannable and part.bytes_inline >= len(MARKER) for part in holders)
    return pointer.endswith(tuple(UNREAD))


@pytest.mark.parametrize("path", request_goldens(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_marker_in_any_string_is_in_some_part(path: Path) -> None:
    dialect = DIALECTS[path.parent.name]
    body = json.loads(path.read_text().partition("\n----\n")[0].partition("\n")[2])
    for leaf in string_leaves(body):
        try:
            request = dialect.decode_request(json.dumps(planted(body, leaf)).encode())
        except Refusal:
            continue  # refused is not sent
        if not any(MARKER in part.text for part in request.parts):
            assert is_unread(leaf, request), f"the text at {leaf} reaches the provider unseen"


def test_the_goldens_that_are_planted_into_are_many_and_of_every_dialect() -> None:
    names = {path.parent.name for path in request_goldens()}
    assert names == set(DIALECTS)
    assert len(request_goldens()) >= 25


@pytest.mark.parametrize("dialect", ["openai-chat", "openai-responses", "anthropic-messages"])
def test_a_field_nobody_knows_is_a_part_wherever_it_stands(dialect: str) -> None:
    """What a provider adds tomorrow is scanned today: a new key in any object of a body."""
    for path in request_goldens():
        if path.parent.name != dialect:
            continue
        body = json.loads(path.read_text().partition("\n----\n")[0].partition("\n")[2])
        for holder in objects(body):
            if (holder == ("metadata",) and dialect == "openai-chat") or holder[-1:] == ("headers",):
                continue  # on the reviewed list
            copy = json.loads(json.dumps(body))
            inner = copy
            for step in holder:
                inner = inner[step]
            inner["field_of_tomorrow"] = MARKER
            request = DIALECTS[dialect].decode_request(json.dumps(copy).encode())
            assert any(MARKER in part.text for part in request.parts), (path.stem, holder)


def objects(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        yield path
        for key, inner in value.items():
            yield from objects(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from objects(inner, (*path, index))
