"""The text of a CEL expression as tokens, and the same text with dotted facts made flat and classes made ranks.

Why rewrite: the library converts nested values on every evaluation (14 µs and more); flat scalars cost 1 µs. And it finds an
unknown name only when it evaluates; here it is found when the manifest is linked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from shipworthy.manifest.problem import did_you_mean, one_of
from shipworthy.model.conditions import FACTS, ConditionError, FactType

TOKENS_MAX = 256
DEPTH_MAX = 16
FLAT = "fact_"

FUNCTIONS = frozenset({"size", "int", "double", "string"})
METHODS = frozenset({"startsWith", "endsWith", "contains", "matches", "size"})

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
      |(?P<string>[rR]?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
      |(?P<number>0[xX][0-9a-fA-F]+u?|\d+\.\d+(?:[eE][-+]?\d+)?|\d+(?:[eE][-+]?\d+)?u?)
      |(?P<name>[A-Za-z_]\w*)
      |(?P<mark>==|!=|<=|>=|&&|\|\||[-+*/%<>!?:.,()\[\]])""",
    re.VERBOSE | re.DOTALL,
)
_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">="})


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the expression; ``fact`` names the fact or class that it stands for."""

    kind: str  # string | number | name | mark
    text: str
    fact: str = ""


@dataclass(frozen=True, slots=True)
class Flat:
    """The expression as the library gets it, and the facts that it asks for."""

    text: str
    facts: tuple[str, ...]


def flatten(expression: str, classes: Sequence[str]) -> Flat:
    """``expression`` over flat names. Raises ConditionError for anything that no fact, class or function answers."""
    tokens = list(_named(_tokens(expression), classes))
    _compared(tokens, classes)
    text, facts = [], []
    for token in tokens:
        if token.fact.startswith("class."):
            text.append(str(classes.index(token.fact.removeprefix("class."))))
        elif token.fact:
            text.append(flat_name(token.fact))
            facts.append(token.fact)
        else:
            text.append(token.text)
    return Flat(" ".join(text), tuple(dict.fromkeys(facts)))


def flat_name(fact: str) -> str:
    return FLAT + fact.replace(".", "_")


def known_names(classes: Iterable[str]) -> list[str]:
    """Everything that an expression may name."""
    return [*FACTS, *(f"class.{name}" for name in classes)]


def _tokens(expression: str) -> list[Token]:
    tokens: list[Token] = []
    at = depth = 0
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        if match is None:
            raise ConditionError(
                "the condition holds something that is not read here", said=f"'{expression[at : at + 20]}'",
                wanted="comparisons of facts, joined by && and ||",
            )  # fmt: skip
        at = match.end()
        if match.lastgroup == "space":
            continue
        tokens.append(Token(match.lastgroup or "", match.group()))
        depth += (match.group() in "([") - (match.group() in ")]")
        if len(tokens) > TOKENS_MAX or depth > DEPTH_MAX:
            raise ConditionError(
                "the condition is too long or too deep", said=f"'{expression[:60]}…'",
                wanted=f"at most {TOKENS_MAX} words and {DEPTH_MAX} levels", hint="split it into several rules",
            )  # fmt: skip
    return tokens


def _named(tokens: list[Token], classes: Sequence[str]) -> Iterable[Token]:
    """The tokens with chains of names resolved to facts and classes."""
    index = 0
    while index < len(tokens):
        token = tokens[index]
        if token.kind != "name" or token.text in ("true", "false", "in"):
            yield token
            index += 1
            continue
        called = index + 1 < len(tokens) and tokens[index + 1].text == "("
        if index and tokens[index - 1].text == ".":
            _check_method(token.text, called)
            yield token
            index += 1
        elif called:
            _check_function(token.text)
            yield token
            index += 1
        else:
            chain = _chain(tokens, index)
            fact = _resolve(chain, classes)
            yield Token("name", fact, fact)
            index += 2 * fact.count(".") + 1


def _chain(tokens: list[Token], index: int) -> list[str]:
    """``a.b.c`` from here, without a method call at its end."""
    chain = [tokens[index].text]
    while index + 2 < len(tokens) and tokens[index + 1].text == "." and tokens[index + 2].kind == "name":
        if index + 3 < len(tokens) and tokens[index + 3].text == "(":
            break
        chain.append(tokens[index + 2].text)
        index += 2
    return chain


def _resolve(chain: list[str], classes: Sequence[str]) -> str:
    said = ".".join(chain)
    known = known_names(classes)
    if said in known:
        return said
    what = "no data class has this name" if chain[0] == "class" else "no fact has this name"
    wanted = [name for name in known if name.startswith(f"{chain[0]}.")] or known
    raise ConditionError(what, said=f"'{said}'", wanted=one_of(wanted), hint=did_you_mean(said, known))


def _check_method(name: str, called: bool) -> None:
    if not called or name not in METHODS:
        hint = "for several values write: fact in ['a', 'b']" if name in ("exists", "all", "map", "filter") else ""
        raise ConditionError(
            "facts have no such part",
            said=f"'.{name}'",
            wanted=one_of(sorted(METHODS)),
            hint=hint or did_you_mean(name, METHODS),
        )


def _check_function(name: str) -> None:
    if name not in FUNCTIONS:
        raise ConditionError(
            "no such function", said=f"'{name}'", wanted=one_of(sorted(FUNCTIONS)), hint=did_you_mean(name, FUNCTIONS)
        )


def _compared(tokens: list[Token], classes: Sequence[str]) -> None:
    """Refuses what CEL would quietly find unequal: a class beside a text, a text beside a number, a value that never is."""
    for index, token in enumerate(tokens):
        if not 0 < index < len(tokens) - 1:
            continue
        left, right = tokens[index - 1], tokens[index + 1]
        if token.text in _COMPARISONS:
            part_follows = index + 2 < len(tokens) and tokens[index + 2].text == "."
            _comparable(left, right, classes)
            if not part_follows:
                _comparable(right, left, classes)
        elif token.text == "in" and right.text == "[":
            for member in tokens[index + 2 :]:
                if member.text == "]":
                    break
                _comparable(left, member, classes)


def _comparable(token: Token, other: Token, classes: Sequence[str]) -> None:
    fact = token.fact
    if fact not in FACTS:
        return
    known = FACTS[fact]
    literal = other.kind in ("string", "number") or other.text in ("true", "false")
    if not literal:
        return
    fits = {FactType.TEXT: other.kind == "string", FactType.NUMBER: other.kind == "number", FactType.CLASS: False}
    if not fits.get(known.type, other.text in ("true", "false")):
        wanted = {
            FactType.TEXT: "a text in quotes", FactType.NUMBER: "a number", FactType.TRUTH: "true or false",
            FactType.CLASS: one_of([f"class.{name}" for name in classes]),
        }[known.type]  # fmt: skip
        raise ConditionError(f"{fact} is never compared with such a value", said=other.text, wanted=wanted)
    value = other.text.strip("'\"")
    if known.values and value not in known.values:
        raise ConditionError(
            f"{fact} is never this",
            said=other.text,
            wanted=one_of(known.values),
            hint=did_you_mean(value, known.values),
        )
