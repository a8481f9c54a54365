"""CEL expressions → conditions: compiled once, checked when linked, cached by the facts that they ask for.

Anything that goes wrong while one is decided raises: a rule that cannot be decided never counts as false.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from shipworthy.adapters.policy.cel_library import library
from shipworthy.adapters.policy.cel_tokens import flat_name, flatten
from shipworthy.model.conditions import FACTS, ConditionError, ConditionUndecided, FactType
from shipworthy.model.policy import Condition

if TYPE_CHECKING:
    from cel import Program

DECISIONS_MAX = 4096
EXPRESSION_CHARS_MAX = 2048

Facts = Mapping[str, object]


def compile_condition(expression: str, classes: Sequence[str]) -> Condition:
    """The condition that ``expression`` states; ``classes`` are the data classes, lowest first. Raises ConditionError."""
    if len(expression) > EXPRESSION_CHARS_MAX:
        raise ConditionError(
            "the condition is too long", said=f"{len(expression)} characters", wanted=f"at most {EXPRESSION_CHARS_MAX}"
        )
    flat = flatten(expression, classes)
    condition = _Compiled(_program(expression, flat.text), flat.facts)
    _try_out(condition, expression, len(classes))
    return condition


class _Compiled:
    """A program and the decisions it has made, up to a bound."""

    __slots__ = ("_decided", "_facts", "_names", "_program")

    def __init__(self, program: Program, facts: tuple[str, ...]) -> None:
        self._program = program
        self._facts = facts
        self._names = tuple(flat_name(fact) for fact in facts)
        self._decided: dict[tuple[object, ...], bool] = {}

    def __call__(self, facts: Facts) -> bool:
        try:
            key = tuple([facts[fact] for fact in self._facts])
        except KeyError as missing:
            raise ConditionUndecided(f"the fact {missing.args[0]} was not handed in") from None
        decided = self._decided.get(key)
        if decided is None:
            decided = self._decide(key)
            if len(self._decided) >= DECISIONS_MAX:
                self._decided.clear()
            self._decided[key] = decided
        return decided

    def _decide(self, key: tuple[object, ...]) -> bool:
        try:
            said = self._program.execute(dict(zip(self._names, key, strict=True)))
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as reason:  # a panic in the library is no Exception, and must refuse all the same
            raise ConditionUndecided(f"{type(reason).__name__}: {' '.join(str(reason).split())[:200]}") from reason
        if said is True or said is False:
            return said
        raise ConditionUndecided(f"it says {type(said).__name__}, not true or false")


def _program(expression: str, flat: str) -> Program:
    cel = library()
    try:
        cel.compile(expression)  # the author's own text, so that a syntax error points into it
        program: Program = cel.compile(flat)
    except ValueError as bad:
        where = next((line for line in str(bad).splitlines() if "ERROR" in line), str(bad))
        what = where.partition("Syntax error: ")[2].partition(" expecting ")[0] or "it cannot be parsed"
        raise ConditionError(
            f"not CEL: {what[:120]}", said=f"'{expression[:80]}'", wanted="an expression such as request.images > 0"
        ) from bad
    return program


_SAMPLES: dict[FactType, tuple[object, ...]] = {
    FactType.NUMBER: (0, 1, 1_000_000),
    FactType.TEXT: ("", "support", "x-1"),
    FactType.TRUTH: (False, True),
}


def _try_out(condition: _Compiled, expression: str, classes: int) -> None:
    """Decides a few made-up requests: an expression that fails on them, or says no truth, never comes into force."""
    samples = _SAMPLES | {FactType.CLASS: tuple(range(classes))}
    for round_ in range(max(3, classes)):
        facts: dict[str, object] = {}
        for name, fact in FACTS.items():
            values = fact.values or samples[fact.type]
            facts[name] = values[round_ % len(values)]
        try:
            condition(facts)
        except ConditionUndecided as undecided:
            untrue = "not true or false" in str(undecided)
            raise ConditionError(
                f"the condition cannot be decided: {undecided}", said=f"'{expression[:80]}'",
                wanted="an expression that is true or false for every request",
                hint="compare it with something" if untrue else "test a value before it is used: request.images > 0 && …",
            ) from undecided  # fmt: skip
