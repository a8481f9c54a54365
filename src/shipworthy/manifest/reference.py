"""How a manifest refers to what must not stand in it: ``{env: NAME}`` and ``{file: PATH}``, and paths beside the manifest.

References are resolved while shapes are validated, by the ``Resolver`` in pydantic's validation context, so that a missing
variable is a problem with a line like any other.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from shipworthy.manifest.files import Files

SECRET_BYTES_MAX = 65_536
PLACEHOLDER = "http://unset.invalid"  # passes wherever a text or an address is wanted
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")

REFERENCE_SCHEMA: JsonSchemaValue = {
    "description": "A reference, never the value itself: {env: NAME} or {file: PATH}.",
    "oneOf": [
        {
            "type": "object",
            "properties": {key: {"type": "string", "minLength": 1}},
            "required": [key],
            "additionalProperties": False,
        }
        for key in ("env", "file")
    ],
}


def wrong(kind: str, message: str, *, wanted: str, hint: str = "", said: str | None = None) -> PydanticCustomError:
    """A validation error that already knows what was wanted, what to do, and (``said``) how to quote the value safely."""
    context = {"wanted": wanted, "hint": hint} | ({} if said is None else {"said": said})
    return PydanticCustomError(kind, message, context)


class Resolver:
    """What references mean in one load: the manifest's folder and the environment that was handed in.

    With ``require`` False an unset reference resolves to ``PLACEHOLDER``, for checks on machines without the secrets.
    ``files`` collects what was read, so that a watcher sees a rotated secret.
    """

    def __init__(
        self, folder: Path, environ: Mapping[str, str], *, require: bool = True, source: Files | None = None
    ) -> None:
        self.folder = folder
        self.environ = environ
        self.require = require
        self.files: list[Path] = []
        self._source = source or Files()

    def path(self, said: str) -> Path:
        """``said`` relative to the manifest's folder."""
        return (self.folder / Path(said).expanduser()).absolute()

    def text(self, key: str, name: str) -> str:
        """The value that ``{key: name}`` stands for, without a trailing line break. Raises a validation error."""
        said = f"{{{key}: {name}}}"
        if key == "env":
            value = self.environ.get(name)
            if value is None and self.require:
                raise wrong(
                    "unset", f"the environment variable {name} is not set", wanted="a variable that is set",
                    hint=f"export {name}=… before the start, or refer to a file: {{file: PATH}}", said=said,
                )  # fmt: skip
            if value == "" and self.require:
                raise wrong(
                    "unset",
                    f"the environment variable {name} is empty",
                    wanted="a value",
                    hint=f"export {name}=…",
                    said=said,
                )
            return value or PLACEHOLDER
        return self._content(name, said)

    def _content(self, name: str, said: str) -> str:
        path = self.path(name)
        try:
            content = self._source.content(path, SECRET_BYTES_MAX)
        except OSError as reason:
            if not self.require:
                return PLACEHOLDER
            why = reason.strerror or type(reason).__name__
            raise wrong(
                "unreadable",
                f"{path} cannot be read: {why}",
                wanted="a readable file",
                hint="check path and mode",
                said=said,
            ) from reason
        self.files.append(path)
        if len(content) > SECRET_BYTES_MAX:
            raise wrong("too_large", f"{path} is too large", wanted=f"at most {SECRET_BYTES_MAX} bytes", said=said)
        try:
            value = content.decode().rstrip("\r\n")
        except UnicodeDecodeError as reason:
            raise wrong("not_text", f"{path} is not UTF-8 text", wanted="UTF-8 text", said=said) from reason
        if not value and self.require:
            raise wrong("unset", f"{path} is empty", wanted="a value", said=said)
        return value


def resolver_of(info: ValidationInfo) -> Resolver:
    """The resolver of the running load."""
    context = info.context
    assert isinstance(context, Resolver), "shapes are validated with a Resolver as context"
    return context


def _reference(value: object) -> tuple[str, str]:
    """The one key and name of a reference. Raises a validation error that never quotes a literal."""
    if isinstance(value, dict) and len(value) == 1:
        key, name = next(iter(value.items()))
        if key == "env" and isinstance(name, str):
            if not _ENV_NAME.fullmatch(name):
                raise wrong(
                    "bad_reference", "not a name that an environment variable can have", wanted="{env: NAME}",
                    hint="a name is letters, digits and _; the value itself must not stand here",
                    said="{env: …} (not shown)",
                )  # fmt: skip
            return key, name
        if key == "file" and isinstance(name, str) and name and "\0" not in name and len(name) < 4096:
            return key, name
    raise wrong(
        "literal_secret", "a secret stands here literally, or not as a reference", wanted="{env: NAME} or {file: PATH}",
        hint="put the value into the environment or a file, and refer to it", said="a value (not shown)",
    )  # fmt: skip


class Secret:
    """A value that never prints: repr, str, format, JSON and pickle show or refuse; ``reveal`` is the only way to it.

    As a field of a shape it is written ``{env: NAME}`` or ``{file: PATH}``.
    """

    __slots__ = ("_value", "reference")

    def __init__(self, value: str, reference: str = "") -> None:
        self._value = value
        self.reference = reference  # "env NAME" | "file PATH": may be shown

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self.reference})"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        same = hmac.compare_digest(self._value.encode(), other._value.encode())
        return same and self.reference == other.reference

    def __hash__(self) -> int:
        return hash(self.reference)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            cls._resolve, serialization=core_schema.plain_serializer_function_ser_schema(repr)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return dict(REFERENCE_SCHEMA)

    @classmethod
    def _resolve(cls, value: object, info: core_schema.ValidationInfo) -> Secret:
        if isinstance(value, Secret):
            return value
        key, name = _reference(value)
        return cls(resolver_of(info).text(key, name), f"{key} {name}")


def _referred(value: object, info: ValidationInfo) -> object:
    if isinstance(value, dict):
        key, name = _reference(value)
        return resolver_of(info).text(key, name)
    return value


def _concealed(value: object) -> object:
    """Text becomes a secret at once, so that no problem quotes it; a reference is resolved like any other."""
    return Secret(value, "written in the manifest") if isinstance(value, str) else value


def _beside(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str) or not value or "\0" in value or len(value) > 4096:
        raise wrong("bad_path", "not a path", wanted="a path, relative to the manifest's folder")
    return resolver_of(info).path(value)


Referable = Annotated[
    str, BeforeValidator(_referred), WithJsonSchema({"anyOf": [{"type": "string"}, dict(REFERENCE_SCHEMA)]})
]
"""Text that is no secret, literally or by reference (an endpoint)."""

Concealed = Annotated[
    Secret, BeforeValidator(_concealed), WithJsonSchema({"anyOf": [{"type": "string"}, dict(REFERENCE_SCHEMA)]})
]
"""Text that never prints, literally or by reference: an address to which whoever knows it may post."""

Beside = Annotated[Path, BeforeValidator(_beside), WithJsonSchema({"type": "string", "minLength": 1})]
"""A path; relative ones are beside the manifest. It need not exist."""
