"""Reads a provider's payload and collects its deltas, by the same rule as requests: what is not named is text all the same.

Replies are read by msgspec: it keeps the last of two equal keys, as every client's parser does. An object that is not the
dialect's, or an error in a successful answer, becomes a ProviderFailure; nothing else is raised, whatever the bytes.
"""

from __future__ import annotations

import msgspec

from shipworthy.model.chat import Delta, DeltaKind, Event, Path
from shipworthy.model.dialects.flat import ID, UNSEALED, Flat, Sealed, says_something
from shipworthy.model.dialects.strict import Json, Object
from shipworthy.model.errors import FailureKind, ProviderFailure
from shipworthy.model.money import Usage

DETAIL_CHARS_MAX = 300
ERROR_BODY_BYTES_MAX = 4_096
INDEX_MAX = 1_024
"""Choices, calls and blocks of one answer; an index beyond it is a lie that would cost memory."""

DECODER = msgspec.json.Decoder()


class Hearing:
    """One payload while it is read."""

    __slots__ = ("deltas", "finish", "opaque")

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.finish: list[tuple[int, str]] = []
        self.opaque = False

    def text(
        self,
        choice: int,
        kind: DeltaKind,
        path: Path,
        value: Json,
        *,
        call: int = 0,
        call_id: str = "",
        name: str = "",
        repeat: bool = False,
    ) -> None:
        """A string, or whatever else stands in its place: then its leaves."""
        if isinstance(value, str):
            if value or name or call_id:
                self.deltas.append(Delta(choice, kind, value, path, call, call_id, name, False, repeat))
        elif value is not None:
            self.structured(choice, kind, path, value, call=call, call_id=call_id, name=name, repeat=repeat)

    def structured(
        self,
        choice: int,
        kind: DeltaKind,
        path: Path,
        value: Json,
        *,
        call: int = 0,
        call_id: str = "",
        name: str = "",
        repeat: bool = False,
        sealed: Sealed = UNSEALED,
    ) -> None:
        flat = Flat(sealed)
        flat.add(value)
        self.opaque = self.opaque or flat.sealed_seen
        if flat.lines or name:
            self.deltas.append(Delta(choice, kind, flat.text, path, call, call_id, name, True, repeat))

    def rest(self, choice: int, fields: Object, named: frozenset[str], path: Path) -> None:
        """Every field that the dialect has not ``named``, if it could carry text."""
        for key, value in fields.items():
            if key in named:
                continue
            if isinstance(value, str):
                if not (key.endswith("id") and ID.match(value)):
                    self.text(choice, DeltaKind.OTHER, (*path, key), value)
            elif says_something(value):
                self.structured(choice, DeltaKind.OTHER, (*path, key), value)

    def event(
        self, raw: bytes, name: str, usage: tuple[Usage | None, bool] = (None, False), *, done: bool = False
    ) -> Event:
        return Event(
            raw=raw,
            name=name,
            deltas=tuple(self.deltas),
            finish=tuple(self.finish),
            usage=usage[0],
            usage_refused=usage[1],
            opaque=self.opaque,
            done=done,
        )


def payload_object(payload: bytes) -> Object:
    """The JSON object that a provider sent. Raises ProviderFailure INVALID for anything else, an error object included."""
    try:
        value: Json = DECODER.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as reason:
        raise invalid(payload, f"the answer is not JSON: {reason}") from reason
    except RecursionError as reason:
        raise invalid(payload, "the answer is nested too deeply") from reason
    if not isinstance(value, dict):
        raise invalid(payload, "the answer is not a JSON object")
    error = value.get("error")
    if error is not None and error is not False:
        raise invalid(payload, f"the provider answered success with an error inside: {said_in(error)}")
    return value


def invalid(payload: bytes, detail: str) -> ProviderFailure:
    return ProviderFailure(
        FailureKind.INVALID, detail[:DETAIL_CHARS_MAX], sent=True, body=payload[:ERROR_BODY_BYTES_MAX]
    )


def said_in(error: Json) -> str:
    if isinstance(error, dict):
        words = [str(error[key]) for key in ("type", "code", "message") if isinstance(error.get(key), (str, int))]
        return " · ".join(words) or "without a message"
    return str(error)


def an_index(value: Json, payload: bytes, default: int = 0) -> int:
    """The index of a choice, call or block. Raises ProviderFailure INVALID for one that cannot be."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= INDEX_MAX:
        raise invalid(payload, "an index in the answer is not a small number")
    return value


def a_string(value: Json) -> str:
    return value if isinstance(value, str) else ""


def array_of_objects(value: Json, payload: bytes, what: str) -> list[Object]:
    """Raises ProviderFailure INVALID when it is anything else; null is empty."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise invalid(payload, f"{what} is not an array")
    objects = [entry for entry in value if isinstance(entry, dict)]
    if len(objects) != len(value):
        raise invalid(payload, f"{what} holds something that is no object")
    return objects
