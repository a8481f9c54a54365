"""http.md: routes, headers, streams and bounds of both planes."""

from __future__ import annotations

from collections.abc import Sequence

from markdown import code, paragraphs, prose, table

from shipworthy.adapters.store.repeats import RepeatBounds
from shipworthy.console.app import Console
from shipworthy.http import admin, body, edge, headers, sink
from shipworthy.http.admin_openapi import SAID, Endpoint, KeyWanted
from shipworthy.http.wire import bounds
from shipworthy.model.chat import Dialect
from shipworthy.model.dialects.strict import LIMITS
from shipworthy.model.reading import PAGE_ROWS_MAX
from shipworthy.stages.authorize import CHOICES_MAX

DIALECTS = {
    Dialect.OPENAI_CHAT: "Chat completions, as OpenAI's. `model` names a use case or an alias.",
    Dialect.OPENAI_EMBEDDINGS: "Embeddings, as OpenAI's; for use cases whose models can embed.",
    Dialect.OPENAI_RESPONSES: "Responses, as OpenAI's.",
    Dialect.ANTHROPIC_MESSAGES: "Messages, as Anthropic's.",
}
READS = {
    "/v1/models": "Use cases and aliases that the caller may name in `model`.",
    "/v1/models/{name}": "One of them.",
    "/healthz": '200 `{"status": "alive"}` while the process lives. No credential.',
    "/readyz": "200 when requests may come, 503 when not; the body says why. `degraded` with 200: a bad reload is refused and the "
    "last good manifest serves, or an issuer's keys come from the cache. No credential.",
}
REQUEST_HEADERS = {
    "authorization": "`Bearer TOKEN`: a JWT, or a service key `sk-…`",
    "x-api-key": "the same credential, where Anthropic's clients put it",
    "api-key": "the same credential, where Azure's clients put it. Two of the three that differ are refused",
    "x-shipworthy-subject-token": "a second JWT: the person for whom the service acts (RFC 8693). Both must be granted the use case",
    "x-shipworthy-data-class": "the data class of this request; may raise the use case's, never lower it",
    "x-shipworthy-session": "groups exchanges in the record and in traces",
    "idempotency-key": "a repeat with the same key, principal, route and body gets the stored answer, uncharged, for "
    f"{RepeatBounds().kept_s / 3600:.0f} hours. Another body: 422; "
    "while the first still runs: 409",
    "traceparent": "W3C trace context: the exchange becomes part of that trace",
    "content-type": "must be `application/json`",
    "content-encoding": "must be absent or `identity`",
    "content-length": "checked against the bound before the body is read",
}
ANSWER_HEADERS = {
    "x-shipworthy-request-id": "the exchange's id: `shipworthy audit show ID`. On every answer, refusals too",
    "x-shipworthy-use-case": "which use case it was",
    "x-shipworthy-model": "which model answered",
    "x-shipworthy-source": "`model`, or `replay` for a stored answer",
    "x-shipworthy-output-tokens-max": "the cap on output that was in force",
    "x-shipworthy-release": "digest of the prompt's release; absent while none is configured",
    "x-shipworthy-cost-usd": "what it cost, to the nano-dollar; not on streams: there in the record",
    "x-shipworthy-replay-of": "on a replay: the id of the first exchange",
    "x-ratelimit-limit-requests": "the tightest limit of requests per minute that counts for the caller",
    "x-ratelimit-remaining-requests": "what is left of it",
    "x-ratelimit-reset-requests": "when it is whole again, such as `12.500s`",
    "x-ratelimit-limit-tokens": "the tightest limit of tokens per minute",
    "x-ratelimit-remaining-tokens": "what is left of it",
    "x-ratelimit-reset-tokens": "when it is whole again",
    "retry-after": "on refusals where waiting helps: whole seconds",
    "x-should-retry": "`false` where the official SDKs would retry in vain",
    "www-authenticate": "`Bearer`, with a 401",
    "content-type": "`application/json`, or `text/event-stream; charset=utf-8`",
    "cache-control": "streams: `no-cache, no-transform`; the control plane: `no-store`",
    "x-accel-buffering": "`no` on streams, so that proxies pass them on as they come",
    "server": "`shipworthy`",
}

INTRO = """
# HTTP

Two planes, two binds, two kinds of process. The **data plane** (`server`) carries requests to models and nothing else. The
**control plane** (`admin`) has the admin API and the console. Metrics have a third bind
([metrics and logs](metrics-and-logs.md)). Anything that is not listed here is 404; refusals are in [errors](errors.md).

## Data plane
"""

BODIES = """
### Bodies

Bodies are strict JSON: UTF-8, no duplicate keys, no NaN. Fields that this version does not know pass
through untouched. Within one dialect the client's bytes are spliced, not rebuilt: only `model` and the caps change.
Usage is always asked of the provider, and withheld from a stream whose client did not ask for it.

A client that names no cap on output gets the use case's `tokens.output_max`, and is told so by
`x-shipworthy-output-tokens-max`; one that asks for more is refused. Tools that the provider would run itself
(`web_search_options` and the like) are egress and money, and refused.

### Streams

`"stream": true` answers server-sent events, one `data:` line each, ended by `data: [DONE]`. The status is sent with the
first delta, so that a failure before it still has a status, and another model is tried. After it nothing is retried: a
stream that breaks ends with an error object instead of `[DONE]`.
"""

LEAVING = """
### Clients that leave

What has not reached a provider is cancelled at once. What has is read on, unseen, for at most the use case's
`on_disconnect.drain_seconds`, so that usage is exact; then it is cut and counted. The outcome is `abandoned`.
"""


def page() -> str:
    parts = [
        INTRO,
        table(("route", "answers"), _routes()),
        "### Request headers",
        "No other header is identity, and no header decides who the peer is.",
        table(("header", "meaning"), [(code(name), words) for name, words in REQUEST_HEADERS.items()]),
        "### Answer headers",
        table(("header", "meaning"), [(code(name), words) for name, words in ANSWER_HEADERS.items()]),
        BODIES,
        f"While the first token takes longer than {sink.KEEPALIVE_S:g} s, the stream is opened with status 200 and gets an SSE comment "
        f"(`: waiting for the first token`) each {sink.KEEPALIVE_S:g} s; a refusal after that is an error event.",
        LEAVING,
        "### Bounds",
        table(("what", "at most", "beyond it"), _bounds()),
        _control(),
    ]
    return paragraphs(*parts)


def _routes() -> list[tuple[str, str]]:
    served = [(f"`POST {path}`", DIALECTS[dialect]) for path, dialect in edge.ROUTES.items()]
    reads = [(f"`GET {path}`", words) for path, words in READS.items()]
    assert {path for path in READS if "{" not in path} == set(edge.READS)
    later = ", ".join(DIALECTS[each].partition(".")[0] for each in Dialect if each not in edge.ROUTES.values())
    return [
        *served,
        *reads,
        ("not yet", f"{later}: decoded and tested, not served in this version; rerank, batches, files"),
    ]


def _bounds() -> Sequence[tuple[str, str, str]]:
    return (
        ("connections of a worker", f"{bounds.CONNECTIONS_MAX:,}", "closed at once"),
        ("requests in flight at a worker", f"{edge.IN_FLIGHT_MAX:,}", "`server.overloaded`"),
        (
            "head of a request",
            f"{bounds.HEAD_BYTES_MAX:,} bytes, {bounds.HEADERS_MAX} fields, {bounds.HEAD_SECONDS_MAX:g} s",
            "431, 408",
        ),
        ("requests sent ahead of an answer", f"{bounds.REQUESTS_AHEAD_MAX}", "400, when all before are answered"),
        ("waiting for the next request", f"{bounds.KEEP_ALIVE_S:g} s", "closed"),
        ("waiting for a client to read its answer", f"{bounds.UNREAD_SECONDS_MAX:g} s", "closed"),
        ("a credential", f"{headers.CREDENTIAL_CHARS_MAX:,} characters", "`server.header_invalid`"),
        (
            "data class, session, Idempotency-Key",
            f"{headers.HEADER_CHARS_MAX} printable ASCII",
            "`server.header_invalid`",
        ),
        (
            "body",
            f"{body.BODY_BYTES_MAX >> 20} MiB, {body.BODY_SECONDS_MAX:g} s",
            "`decode.too_large`, `decode.timeout`",
        ),
        (
            "memory for the bodies that one worker has in hand",
            f"{body.BODIES_BYTES_MAX >> 20} MiB, {body.TENANT_SHARE:.0%} of it for one of several tenants; a body counts for "
            f"{body.IN_MEMORY} times its size, {body.REQUEST_BYTES >> 10} KiB at least",
            "`decode.no_room`",
        ),
        ("nesting of a body", f"{LIMITS.depth_max} levels", "`decode.too_deep`"),
        ("values in a body", f"{LIMITS.values_max:,}", "`decode.too_many`"),
        ("messages", f"{LIMITS.messages_max:,}", "`decode.too_many`"),
        ("tools", f"{LIMITS.tools_max:,}", "`decode.too_many`"),
        ("texts of an embeddings request", f"{LIMITS.inputs_max:,}", "`decode.too_many`"),
        ("choices (`n`)", f"{CHOICES_MAX}", "`authorize.choices`"),
    )


def _control() -> str:
    rows = [
        (
            f"`{each.method} {each.path}`",
            each.summary,
            ", ".join(map(code, each.query)) or _body_of(each),
            code(each.answer.__name__),
        )
        for each in admin.ENDPOINTS
    ]
    said = [(code(name), prose(words) + _values(schema)) for name, (schema, words) in SAID.items()]
    assert Console.__doc__
    return paragraphs(
        "## Control plane",
        "Authenticated as the data plane is. An administrator (`admin: true` on the role) sees and does what is of the own tenant; an "
        "operator all of it. Every read of exchanges, bodies, cost and keys is recorded as an act. Refusals are "
        '`{"error": {"code", "message", "hint", "request_id"}}`.',
        table(("endpoint", "answers", "query or body", "shape"), rows),
        "`GET /admin/v1/openapi.json` is the OpenAPI 3.1 document, made from the same table; every answer is tested against it.",
        table(("parameter", "meaning"), said),
        f"A parameter that is not known, or is there twice, is refused. Lists are pages of at most {PAGE_ROWS_MAX}, newest first; `next` of a "
        "page is the `cursor` of the one after it, and pages stay stable while others are recorded.",
        f"The body of `POST /admin/v1/keys` ({code(KeyWanted.__name__)}): {', '.join(map(code, KeyWanted.__struct_fields__))}; at most "
        f"{admin.BODY_BYTES_MAX:,} bytes.",
        "`/console/` is the console: the exchanges live, one exchange as a waterfall of its steps with the decision in plain words, and "
        "what was said in it. Sign in with a token or a service key of an administrator or operator. It only reads.",
    )


def _body_of(endpoint: Endpoint) -> str:
    return code(endpoint.body.__name__) if endpoint.body else ""


def _values(schema: dict[str, object]) -> str:
    values = schema.get("enum")
    shown = f" One of {', '.join(code(value) for value in values)}." if isinstance(values, list) else ""
    return f"{shown} Without: {code(schema['default'])}." if "default" in schema else shown
