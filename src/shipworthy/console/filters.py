"""What the console's list is filtered by: the query of its URL, bounded, and the links that keep it."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from shipworthy.model.errors import Refusal
from shipworthy.model.exchange import Outcome
from shipworthy.model.reading import Place, Wanted

VALUE_CHARS_MAX = 256
NAMES = ("tenant", "use_case", "model", "principal", "outcome", "code")


def wanted_of(params: QueryParams) -> Wanted:
    """The filters; what is blank asks for nothing in particular. Raises Refusal admin.invalid."""
    said = {name: params.get(name, "").strip() for name in NAMES}
    for name, value in said.items():
        if len(value) > VALUE_CHARS_MAX or "\0" in value:
            raise Refusal("admin.invalid", name=name, reason=f"at most {VALUE_CHARS_MAX} letters are wanted, no NUL")
    if said["outcome"] not in ("", *Outcome):
        raise Refusal("admin.invalid", name="outcome", reason=f"wanted is one of {', '.join(Outcome)}")
    return Wanted(
        tenant=said["tenant"],
        use_case=said["use_case"],
        model=said["model"],
        principal=said["principal"],
        outcome=said["outcome"],
        code=said["code"],
    )


def place_of(params: QueryParams) -> Place | None:
    """From where to go on. Raises Refusal admin.invalid."""
    cursor = params.get("cursor", "")
    try:
        return Place.at(cursor) if cursor else None
    except ValueError as wrong:
        raise Refusal("admin.invalid", name="cursor", reason="it is not one that this page gave") from wrong


def link(path: str, wanted: Wanted, **more: str) -> str:
    """``path`` with the filters in force."""
    query = urlencode(wanted.said() | more)
    return f"{path}?{query}" if query else path
