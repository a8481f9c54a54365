"""The content blocks of Anthropic messages, nested ones included."""

from __future__ import annotations

from shipworthy.model.chat import Origin, PartKind, Path
from shipworthy.model.dialects.flat import Sealed
from shipworthy.model.dialects.gather import Gather, an_array, an_object, wrong_type
from shipworthy.model.dialects.strict import Json, Object, words

SEALED: Sealed = {"data": True}
CIPHERED: Sealed = {"encrypted_content": True, "encrypted_stdout": True, "encrypted_index": True, "data": True}
TEXT = words("type text")
THINKING = words("type thinking signature")  # the provider checks the signature: no client's words fit in
REDACTED = words("type data")
CALL = words("type id name input")
RESULT = words("type tool_use_id content is_error")
SEARCH_RESULT = words("type source title content")
DOCUMENT = words("type source title context")


def read_content(
    said: Json,
    origin: Origin,
    turn: int,
    path: Path,
    gather: Gather,
    kind: PartKind = PartKind.TEXT,
    call_id: str = "",
) -> None:
    """A string or an array of blocks. ``kind`` and ``call_id`` are those of the tool result that it stands in."""
    if isinstance(said, str) or said is None:
        gather.text(kind, origin, turn, path, said, call_id=call_id)
        return
    if not isinstance(said, list):
        wrong_type(path, "a string or an array of blocks")
    for index, entry in enumerate(an_array(said, path, gather.limits.parts_max)):
        read_block(an_object(entry, (*path, index)), origin, turn, (*path, index), gather, kind, call_id)


def read_block(
    block: Object, origin: Origin, turn: int, path: Path, gather: Gather, kind: PartKind, call_id: str
) -> None:
    type_ = block.get("type")
    match type_:
        case "text":
            gather.text(kind, origin, turn, (*path, "text"), block.get("text"), call_id=call_id)
            gather.rest(block, TEXT, origin, turn, path)
        case "thinking":
            gather.text(PartKind.REASONING, origin, turn, (*path, "thinking"), block.get("thinking"))
            gather.rest(block, THINKING, origin, turn, path)
        case "redacted_thinking":
            gather.opaque(origin, turn, (*path, "data"), block.get("data"))
            gather.rest(block, REDACTED, origin, turn, path)
        case "image":
            media(block, PartKind.IMAGE, origin, turn, path, gather)
        case "document":
            document(block, origin, turn, path, gather, kind, call_id)
        case "search_result":
            for key in ("title", "source"):
                gather.text(PartKind.TEXT, Origin.RETRIEVED, turn, (*path, key), block.get(key))
            read_content(block.get("content"), Origin.RETRIEVED, turn, (*path, "content"), gather)
            gather.rest(block, SEARCH_RESULT, Origin.RETRIEVED, turn, path)
        case "tool_use" | "server_tool_use" | "mcp_tool_use":
            tool_use(block, origin, turn, path, gather)
        case "tool_result" | "mcp_tool_result":
            result_of = gather.id(Origin.TOOL, turn, (*path, "tool_use_id"), block.get("tool_use_id"))
            inner = block.get("content")
            read_content(inner, Origin.TOOL, turn, (*path, "content"), gather, PartKind.TOOL_RESULT, result_of)
            gather.rest(block, RESULT, Origin.TOOL, turn, path)
        case "container_upload":
            gather.structured(PartKind.FILE, origin, turn, path, block, scannable=False)
        case str() if type_.endswith("_tool_result"):
            hosted_result(block, turn, path, gather)
        case _:
            gather.structured(PartKind.OTHER, origin, turn, path, block, scannable=False)


def tool_use(block: Object, origin: Origin, turn: int, path: Path, gather: Gather) -> None:
    call_id = gather.id(origin, turn, (*path, "id"), block.get("id"))
    name = gather.called(origin, turn, (*path, "name"), block.get("name"))
    value = block.get("input")
    gather.structured(PartKind.TOOL_CALL, origin, turn, (*path, "input"), value, name=name, call_id=call_id)
    gather.rest(block, CALL, origin, turn, path)


def hosted_result(block: Object, turn: int, path: Path, gather: Gather) -> None:
    """What a tool that ran at the provider gave back: text, urls, and cipher text that only the provider reads."""
    call_id = gather.id(Origin.TOOL, turn, (*path, "tool_use_id"), block.get("tool_use_id"))
    gather.structured(
        PartKind.TOOL_RESULT,
        Origin.TOOL,
        turn,
        (*path, "content"),
        block.get("content"),
        call_id=call_id,
        sealed=CIPHERED,
    )
    gather.rest(block, RESULT, Origin.TOOL, turn, path)


def document(
    block: Object, origin: Origin, turn: int, path: Path, gather: Gather, kind: PartKind, call_id: str
) -> None:
    """Text that stands in the body is read as text; a PDF, an address or a stored file cannot be."""
    source = an_object(block.get("source"), (*path, "source"))
    match source.get("type"):
        case "text":
            gather.text(kind, origin, turn, (*path, "source", "data"), source.get("data"), call_id=call_id)
            gather.rest(source, words("type data media_type"), origin, turn, (*path, "source"))
        case "content":
            inner = source.get("content")
            read_content(inner, origin, turn, (*path, "source", "content"), gather, kind, call_id)
            gather.rest(source, words("type content"), origin, turn, (*path, "source"))
        case _:
            media(block, PartKind.FILE, origin, turn, path, gather)
            return
    for key in ("title", "context"):
        gather.text(kind, origin, turn, (*path, key), block.get(key), call_id=call_id)
    gather.rest(block, DOCUMENT, origin, turn, path)


def media(block: Object, kind: PartKind, origin: Origin, turn: int, path: Path, gather: Gather) -> None:
    source = block.get("source")
    media_type, name = "", block.get("title")
    if isinstance(source, dict) and isinstance(source.get("media_type"), str):
        media_type = str(source["media_type"])
    gather.structured(
        kind,
        origin,
        turn,
        path,
        block,
        name=name if isinstance(name, str) else "",
        media_type=media_type,
        sealed=SEALED,
        scannable=False,
    )
