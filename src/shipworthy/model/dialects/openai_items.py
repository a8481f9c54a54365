"""The items of the Responses dialect: messages, calls and their outputs, reasoning, references, tools offered on the way."""

from __future__ import annotations

from shipworthy.model.chat import Origin, PartKind, Path
from shipworthy.model.dialects.flat import Sealed
from shipworthy.model.dialects.gather import OUTSIDE, Gather, an_array, an_object, wrong_type
from shipworthy.model.dialects.strict import Json, Object, words

ORIGINS = {
    "system": Origin.SYSTEM,
    "developer": Origin.SYSTEM,
    "user": Origin.USER,
    "assistant": Origin.MODEL,
    "tool": Origin.TOOL,
}
MEDIA = {"input_image": PartKind.IMAGE, "input_file": PartKind.FILE, "input_audio": PartKind.AUDIO}
SEALED: Sealed = {"image_url": False, "file_data": True, "data": True}
CIPHERED: Sealed = {"encrypted_content": True, "result": True, "image_url": False}
CLIENT_RUN = words("function custom local_shell computer computer_use_preview apply_patch")
CALLS = words("type id call_id name arguments input status")
OUTPUTS = words("type id call_id output status")
MESSAGE = words("type role content id status phase")
REASONING = words("type id summary content encrypted_content status")
SECRETS: Sealed = {"authorization": True, "headers": True}


def read_item(item: Object, turn: int, path: Path, gather: Gather) -> None:
    kind = item.get("type", "message" if "role" in item else "item_reference")
    match kind:
        case "message":
            read_message(item, turn, path, gather)
        case "function_call" | "custom_tool_call":
            call(item, turn, path, gather)
        case "function_call_output" | "custom_tool_call_output":
            output(item, turn, path, gather)
        case "reasoning":
            reasoning(item, turn, path, gather)
        case "compaction":
            gather.opaque(Origin.MODEL, turn, (*path, "encrypted_content"), item.get("encrypted_content"))
            gather.rest(item, words("type id encrypted_content"), Origin.MODEL, turn, path)
        case "item_reference" | None:
            gather.structured(PartKind.OPAQUE, Origin.USER, turn, path, item, scannable=False)
        case "file_search_call":
            found = item.get("results")
            if found is not None:
                gather.structured(PartKind.TEXT, Origin.RETRIEVED, turn, (*path, "results"), found)
            rest = {key: value for key, value in item.items() if key != "results"}
            gather.structured(PartKind.TOOL_CALL, Origin.MODEL, turn, path, rest)
        case "additional_tools" | "tool_search_output" | "mcp_list_tools":
            if item.get("tools") is not None:
                gather.offered |= offered_tools(item["tools"], turn, (*path, "tools"), gather, listed=str(kind))
            gather.rest(item, words("type tools id status execution role"), Origin.TOOL, turn, path)
        case "mcp_approval_response":
            gather.structured(PartKind.OTHER, Origin.USER, turn, path, item)
        case str() if kind.endswith("_output"):
            gather.structured(PartKind.TOOL_RESULT, Origin.TOOL, turn, path, item, sealed=CIPHERED)
        case str() if kind.endswith("_call") or kind in ("program", "mcp_approval_request"):
            gather.structured(PartKind.TOOL_CALL, Origin.MODEL, turn, path, item, sealed=CIPHERED)
        case _:
            gather.structured(PartKind.OTHER, Origin.USER, turn, path, item, scannable=False)


def read_message(item: Object, turn: int, path: Path, gather: Gather) -> None:
    role = item.get("role")
    if not isinstance(role, str):
        wrong_type((*path, "role"), "a string")
    origin = ORIGINS.get(role)
    if origin is None:
        origin = Origin.USER
        gather.other(origin, turn, (*path, "role"), role)
    content(item.get("content"), PartKind.TEXT, origin, turn, (*path, "content"), gather)
    gather.rest(item, MESSAGE, origin, turn, path)


def content(
    said: Json, kind: PartKind, origin: Origin, turn: int, path: Path, gather: Gather, call_id: str = ""
) -> None:
    if isinstance(said, str) or said is None:
        gather.text(kind, origin, turn, path, said, call_id=call_id)
        return
    if not isinstance(said, list):
        wrong_type(path, "a string or an array of parts")
    for index, entry in enumerate(an_array(said, path, gather.limits.parts_max)):
        at = (*path, index)
        part = an_object(entry, at)
        type_ = part.get("type")
        match type_:
            case "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text":
                gather.text(kind, origin, turn, (*at, "text"), part.get("text"), call_id=call_id)
                gather.rest(part, words("type text"), origin, turn, at)
            case "refusal":
                gather.text(kind, origin, turn, (*at, "refusal"), part.get("refusal"), call_id=call_id)
                gather.rest(part, words("type refusal"), origin, turn, at)
            case "input_image" | "input_file" | "input_audio":
                media(part, MEDIA[type_], origin, turn, at, gather, call_id)
            case _:
                gather.structured(PartKind.OTHER, origin, turn, at, part, scannable=False, call_id=call_id)


def media(part: Object, kind: PartKind, origin: Origin, turn: int, path: Path, gather: Gather, call_id: str) -> None:
    name = part.get("filename")
    gather.structured(
        kind,
        origin,
        turn,
        path,
        part,
        name=name if isinstance(name, str) else "",
        call_id=call_id,
        media_type=type_of(part),
        sealed=SEALED,
        scannable=False,
    )


def type_of(part: Object) -> str:
    for key in ("image_url", "file_data"):
        value = part.get(key)
        if isinstance(value, str) and value.startswith("data:"):
            return value[5:200].partition(",")[0].partition(";")[0]
    sound = part.get("input_audio")
    if isinstance(sound, dict) and isinstance(sound.get("format"), str):
        return f"audio/{sound['format']}"
    return ""


def call(item: Object, turn: int, path: Path, gather: Gather) -> None:
    call_id = gather.id(Origin.MODEL, turn, (*path, "call_id"), item.get("call_id"))
    name = gather.called(Origin.MODEL, turn, (*path, "name"), item.get("name"))
    for key in ("arguments", "input"):
        gather.text(
            PartKind.TOOL_CALL, Origin.MODEL, turn, (*path, key), item.get(key), name=name, call_id=call_id
        )  # fmt: skip
    gather.rest(item, CALLS, Origin.MODEL, turn, path)


def output(item: Object, turn: int, path: Path, gather: Gather) -> None:
    call_id = gather.id(Origin.TOOL, turn, (*path, "call_id"), item.get("call_id"))
    content(item.get("output"), PartKind.TOOL_RESULT, Origin.TOOL, turn, (*path, "output"), gather, call_id)
    gather.rest(item, OUTPUTS, Origin.TOOL, turn, path)


def reasoning(item: Object, turn: int, path: Path, gather: Gather) -> None:
    for key in ("summary", "content"):
        content(item.get(key), PartKind.REASONING, Origin.MODEL, turn, (*path, key), gather)
    if item.get("encrypted_content"):
        gather.opaque(Origin.MODEL, turn, (*path, "encrypted_content"), item["encrypted_content"])
    gather.rest(item, REASONING, Origin.MODEL, turn, path)


def offered_tools(said: Json, turn: int, path: Path, gather: Gather, listed: str = "") -> frozenset[str]:
    """Definitions of tools, with the tools themselves; returns their names. ``listed`` ones were offered before."""
    names: set[str] = set()
    for index, entry in enumerate(an_array(said, path, gather.limits.tools_max)):
        at = (*path, index)
        tool = an_object(entry, at)
        kind = tool.get("type", "function")
        name = next((str(tool[key]) for key in ("name", "server_label") if isinstance(tool.get(key), str)), str(kind))
        names.add(name)
        if kind == "namespace" and isinstance(tool.get("tools"), list):
            names |= offered_tools(tool["tools"], turn, (*at, "tools"), gather)
            tool = {key: value for key, value in tool.items() if key != "tools"}
        elif listed != "mcp_list_tools":
            gather.tool(name, is_hosted(tool), at)
        gather.structured(PartKind.DEFINITION, Origin.SYSTEM, turn, at, tool, name=name, sealed=SECRETS)
    return frozenset(names)


def is_hosted(tool: Object) -> bool:
    kind = tool.get("type", "function")
    if kind == "shell":
        environment = tool.get("environment")
        return not (isinstance(environment, dict) and environment.get("type") == "local")
    if kind == "tool_search":
        return tool.get("execution") != "client"
    return str(kind) not in CLIENT_RUN  # it may be anything


def read_prompt(prompt: Object, gather: Gather) -> None:
    """A prompt that the provider has stored cannot be read; the variables that fill it can."""
    known = {key: value for key, value in prompt.items() if key != "variables"}
    gather.structured(PartKind.OPAQUE, Origin.SYSTEM, OUTSIDE, ("prompt",), known, scannable=False)
    variables = prompt.get("variables")
    if variables is None:
        return
    for key, value in an_object(variables, ("prompt", "variables")).items():
        at: Path = ("prompt", "variables", key)
        if isinstance(value, dict) and str(value.get("type")) in MEDIA:
            media(value, MEDIA[str(value["type"])], Origin.USER, OUTSIDE, at, gather, "")
        elif isinstance(value, str):
            gather.text(PartKind.TEXT, Origin.USER, OUTSIDE, at, value)
        elif value is not None:
            gather.structured(PartKind.TEXT, Origin.USER, OUTSIDE, at, value)
