"""conditions.md: what a rule's ``when`` may ask."""

from __future__ import annotations

from markdown import code, paragraphs, prose, table

from shipworthy.adapters.policy.cel import DECISIONS_MAX, EXPRESSION_CHARS_MAX
from shipworthy.adapters.policy.cel_tokens import DEPTH_MAX, FUNCTIONS, METHODS, TOKENS_MAX
from shipworthy.model.conditions import FACTS, FactType

TYPES = {
    FactType.NUMBER: "number",
    FactType.TEXT: "text",
    FactType.TRUTH: "true or false",
    FactType.CLASS: "data class: compare with `class.NAME`",
}

INTRO = """
# Conditions

`use_cases.NAME.route.rules[].when` is an expression in [CEL](https://cel.dev), the language of Kubernetes admission rules.
Rules are tried in order; the first whose condition holds decides which models may serve, and its id is in the record as
`rule:ID`. When none holds, every model of the route may.

```yaml
route:
  models: [small, local]
  rules:
    - {id: stays-home, when: 'request.data_class >= class.confidential', models: [local]}
    - {id: pictures,   when: 'request.images > 0 && principal.kind == "person"', models: [small]}
```
"""

RULES = f"""
## What may be written

- Operators: `== != < <= > >= && || ! + - * / % in ?:` and parentheses; lists such as `['a', 'b']` after `in`.
- Functions: {", ".join(code(f"{name}(…)") for name in sorted(FUNCTIONS))}.
- Methods of texts: {", ".join(code(f".{name}(…)") for name in sorted(METHODS))}.
- At most {EXPRESSION_CHARS_MAX} characters, {TOKENS_MAX} words and {DEPTH_MAX} levels of parentheses.

Data classes are ranks: `class.confidential` is one of the manifest's `data_classes`, and `request.data_class >=
class.confidential` means that class or one above it.

## When it is checked

When the manifest is linked, every condition is parsed, its names are looked up (with *did you mean*), and it is decided for
a few made-up requests: one that cannot be decided, or that is not true or false, is a problem with a line. A comparison that
can never hold (a text with a number, a value that the fact never has) is a problem too.

At run time a condition that cannot be decided all the same refuses the request with
[`authorize.condition_failed`](errors.md#authorizecondition_failed): it never counts as false. Decisions are remembered by the
facts that the condition asks for, at most {DECISIONS_MAX:,} of them.
"""


def page() -> str:
    rows = [
        (
            code(name),
            TYPES[fact.type] + (f": {' or '.join(code(v) for v in fact.values)}" if fact.values else ""),
            prose(fact.meaning),
        )
        for name, fact in FACTS.items()
    ]
    return paragraphs(INTRO, "## Facts", table(("fact", "type", "meaning"), rows), RULES)
