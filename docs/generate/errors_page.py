"""errors.md: every code that a client, a start or a command can be refused with."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

from markdown import code, first_line, paragraphs, table

import shipworthy
from shipworthy.http.errors import ANTHROPIC_TYPES, OPENAI_TYPES, STATUSES, WAITING_IS_FUTILE, reason_of
from shipworthy.model.errors import CODES, RETRY_ELSEWHERE, FailureKind

FAMILIES = {
    "server": "Refused before a pipeline exists for the request. No row is kept; a line of the security log is.",
    "identify": "Who asks is not proved. No row is kept: nobody is known whose it would be. A counter and a line of the bounded "
    "security log name code, detail and peer.",
    "decode": "The body is not what its dialect allows. The sender is known, so a row is kept; nothing was reserved.",
    "authorize": "Policy does not grant it. The row holds every rule and candidate that was looked at. In a use case with "
    "`mode: observe`, `clearance_too_low` and `boundary` are recorded as `observed:CODE` and not enforced.",
    "idempotency": "The stage dedupe, about an `Idempotency-Key` that was used before.",
    "reserve": "Money or limits do not cover it. Enforced in every mode. Nothing was asked of a provider.",
    "route": "No permitted model may be tried at the moment.",
    "call": "Providers were asked, and none gave an answer that could be used. The row lists every attempt.",
    "record": "The exchange cannot be recorded, so it is not served.",
    "admin": "The control plane: admin API, console and the commands that read the record.",
}
KINDS = {
    FailureKind.CONNECT: "no connection could be made; nothing was sent",
    FailureKind.FIRST_TOKEN_TIMEOUT: "no first token within `timeouts.first_token_ms`",
    FailureKind.TOTAL_TIMEOUT: "not done within `timeouts.total_ms`",
    FailureKind.RATE_LIMITED: "status 429 or 529; its `retry-after` opens the circuit for that long",
    FailureKind.SERVER_ERROR: "status 5xx, 408, 409 or 425",
    FailureKind.REJECTED: "another 4xx: the request itself is at fault, and would be everywhere",
    FailureKind.UNAUTHORISED: "status 401, 402, 403 or 407: our credential or account there is at fault",
    FailureKind.BROKEN: "the connection was reset, or the stream ended half-way",
    FailureKind.INVALID: "an answer that the dialect does not allow: broken JSON, an error inside a 200, a redirect, 404",
    FailureKind.CAPACITY: "our own bound, `concurrent_max`, is reached; nothing was sent",
}
INTRO = """
# Errors

A refusal has two voices. The client reads a **code**, a **message** and a **hint**; the log and the record also hold a
**detail** that may name internals. The code is `family.reason`, and the family is the stage that refused. Codes are a
contract: they do not change within a version of the manifest.

Before the first byte a refusal is an HTTP status with the error shape of the dialect that was asked in:

```json
{"error": {"message": "The monthly budget …", "type": "insufficient_quota", "code": "reserve.budget_exhausted",
           "param": null, "hint": "Wait for the next period, …"}}
```

Once a stream has begun the status is spent: the same object is the stream's last event. Every answer carries
`x-shipworthy-request-id`; `shipworthy audit show ID` tells the whole decision.

Headers on refusals: `retry-after` in seconds where waiting helps; `x-should-retry: false` where the official SDKs would
retry in vain; `www-authenticate: Bearer` with a 401.
"""


def page() -> str:
    parts = [INTRO, "## All codes", table(("code", "status", "OpenAI `type`"), map(_row, CODES))]
    for family, meaning in FAMILIES.items():
        parts += [f"## {family}", meaning]
        parts += [_entry(name) for name in CODES if name.startswith(f"{family}.")]
    missing = {name.partition(".")[0] for name in CODES} - set(FAMILIES)
    assert not missing, f"families without words: {missing}"
    return paragraphs(*parts, _kinds(), _starts())


def _row(name: str) -> tuple[str, ...]:
    return f"[`{name}`](#{_anchor(name)})", f"{STATUSES[name]} {reason_of(STATUSES[name])}", code(_openai_type(name))


def _anchor(name: str) -> str:
    return name.replace(".", "").replace(" ", "-")


def _openai_type(name: str) -> str:
    ours = STATUSES[name] >= HTTPStatus.INTERNAL_SERVER_ERROR
    return OPENAI_TYPES.get(name) or ("server_error" if ours else "invalid_request_error")


def _entry(name: str) -> str:
    status = STATUSES[name]
    anthropic = ANTHROPIC_TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    retry = "\n\nWaiting is futile: it carries `x-should-retry: false`." if name in WAITING_IS_FUTILE else ""
    return (
        f"### `{name}`\n\n**{status} {reason_of(status)}** · type `{_openai_type(name)}` (OpenAI), `{anthropic}` (Anthropic)\n\n"
        f"> {_blanks(CODES[name].message)}\n\nWhat to do: {_blanks(CODES[name].hint)}{retry}"
    )


def _blanks(template: str) -> str:
    return template.replace("{", "*").replace("}", "*").replace("[", "\\[")


def _kinds() -> str:
    assert set(KINDS) == set(FailureKind)
    rows = [(code(kind.value), meaning, "yes" if kind in RETRY_ELSEWHERE else "no") for kind, meaning in KINDS.items()]
    return paragraphs(
        "## Failures of providers",
        "Each attempt in a row that did not serve has one of these as its `failure`. A provider's message reaches the client only "
        "for `rejected`; credentials are blotted out of it first.",
        table(("failure", "meaning", "another model is tried"), rows),
    )


def _starts() -> str:
    rows = sorted(set(_start_refusals()))
    return paragraphs(
        "## Refused starts and commands",
        "A command that cannot do its work says `code: message` and a hint on standard error, and ends with exit code 1.",
        table(("code", "says"), rows),
    )


def _start_refusals() -> Iterator[tuple[str, str]]:
    """Codes of StartRefused and its kinds, as the sources raise them; what is filled in at run time is …"""
    for path in sorted(Path(shipworthy.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                yield from _class_code(node)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
                at = {"StartRefused": 0, "Rule": 1}.get(node.func.id)
                if at is not None and (said := _text(node.args[at])) and "." in said and "…" not in said:
                    yield code(said), _text(node.args[at + 1])


def _class_code(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for line in node.body:
        match line:
            case ast.Assign(targets=[ast.Name("CODE")], value=ast.Constant(said)):
                yield code(said), first_line(ast.get_docstring(node))
            case ast.AnnAssign(target=ast.Name("CODE"), value=ast.Constant(said)):
                yield code(said), first_line(ast.get_docstring(node))


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.replace("{}", "…")
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + _text(node.right)
    return "…"
