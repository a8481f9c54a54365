"""What a rule may ask about a request: the one table of facts, and the error of a condition that asks something else.

The authorize stage hands these facts to a compiled ``Condition`` under exactly these names; documentation is generated from
the table.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from shipworthy.model.errors import ShipworthyError


class FactType(StrEnum):
    NUMBER = "number"
    TEXT = "text"
    TRUTH = "truth"
    CLASS = "class"  # a data class; compares with class.NAME


class Fact(Struct, frozen=True):
    """One fact that a condition may name. The value handed in is an int, a str, a bool, or a class's rank (int)."""

    type: FactType
    meaning: str
    values: tuple[str, ...] = ()  # all that it can be, when that is known


FACTS: dict[str, Fact] = {
    "request.data_class": Fact(
        FactType.CLASS, "the data class in force: the use case's, or what the header raised it to"
    ),
    "request.stream": Fact(FactType.TRUTH, "the client asked for a stream"),
    "request.images": Fact(FactType.NUMBER, "how many images the request carries"),
    "request.tokens": Fact(FactType.NUMBER, "about how many input tokens the request is, by its size"),
    "request.operation": Fact(FactType.TEXT, "what is asked for", ("chat", "embed")),
    "request.tools": Fact(FactType.NUMBER, "how many tools the request offers"),
    "principal.tenant": Fact(FactType.TEXT, "the caller's tenant"),
    "principal.team": Fact(FactType.TEXT, "the team of the caller's role"),
    "principal.subject": Fact(FactType.TEXT, "the person or service that asks"),
    "principal.actor": Fact(FactType.TEXT, "the service that acts for the subject, '' when none does"),
    "principal.role": Fact(FactType.TEXT, "the caller's role"),
    "principal.kind": Fact(FactType.TEXT, "what sort of caller it is", ("person", "service")),
    "use_case": Fact(FactType.TEXT, "the use case's name"),
}


class ConditionError(ShipworthyError):
    """A condition that cannot be compiled: what is wrong in it, what was wanted, and what to do."""

    def __init__(self, what: str, *, said: str, wanted: str, hint: str = "") -> None:
        self.what = what
        self.said = said
        self.wanted = wanted
        self.hint = hint
        super().__init__(f"{what}: {said}; wanted {wanted}")


class ConditionUndecided(ShipworthyError):
    """A condition could not be decided for these facts; whoever asked refuses."""
