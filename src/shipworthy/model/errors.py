"""Everything that can go wrong, and the two voices in which it is told.

    ShipworthyError
    ├── Refusal           a stage says no: code, message and hint for the client, detail for the log
    ├── ProviderFailure   one attempt at one provider failed: what kind, and whether another may be tried
    ├── StoreUnavailable  the store did not answer in time; whoever needed it refuses
    └── StartRefused      the server may not start as it is: what was wrong, where, what to do

A refusal's code is ``family.reason``; the family is the stage that refused. The catalogue below is closed: raising a code
that it does not hold is a programming error. HTTP statuses live in ``http/errors``, one line a code.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct


class Code(Struct, frozen=True):
    """One entry of the catalogue: what the client reads (``message`` is a format template) and what to do about it."""

    message: str
    hint: str


CODES: dict[str, Code] = {
    # server: refused before a pipeline exists for the request
    "server.not_found": Code(
        "There is nothing at {path}.", "The data plane serves /v1/chat/completions, /v1/embeddings and /v1/models."
    ),
    "server.method_not_allowed": Code("{method} is not allowed at {path}.", "See the reference of the HTTP interface."),
    "server.draining": Code(
        "The server is stopping and takes no new requests.", "Retry: another worker or server answers."
    ),
    "server.overloaded": Code(
        "The server already has {limit} requests in flight.", "Retry after the time in retry-after."
    ),
    "server.internal": Code(
        "The server failed; the request id finds the reason in its log.", "Tell the operator the request id."
    ),
    "server.header_invalid": Code(
        "The header {header} is invalid: {reason}.", "Correct the header and send the request again."
    ),
    "server.malformed": Code(  # answered in plain text with HTTP's own status, for it is no request of any dialect
        "What came is no HTTP/1.1 request, or could be read as two: {reason}.",
        "Look at what stands between the client and the server; the connection was closed.",
    ),
    "server.no_tls": Code(  # nobody reads it as an answer; logs and metrics do
        "No TLS came about with the client.",
        "The log says why: plain HTTP, a version before 1.2, a certificate that one side does not take.",
    ),
    # identify
    "identify.missing_credential": Code(
        "The request carries no credential.", "Send Authorization: Bearer TOKEN (a JWT or a service key sk-…)."
    ),
    "identify.conflicting_credentials": Code(
        "The request carries credentials that differ.", "Send exactly one of Authorization, x-api-key and api-key."
    ),
    "identify.malformed": Code(
        "The credential is not a token that can be read.",
        "Send a compact signed JWT or a service key sk-…; see `shipworthy token explain`.",
    ),
    "identify.algorithm_refused": Code(
        "The token's algorithm is not accepted.",
        "Sign with an algorithm that the issuer lists: RS256, PS256, ES256 or EdDSA.",
    ),
    "identify.unknown_issuer": Code(
        "The token's issuer is not one that this server trusts.",
        "Check `iss` against identity.issuers in the manifest.",
    ),
    "identify.unknown_key": Code(
        "The token is signed by a key that its issuer does not publish.",
        "Check `kid` against the issuer's JWKS; a new key is seen within a minute.",
    ),
    "identify.bad_signature": Code("The token's signature is not valid.", "Get a fresh token from the issuer."),
    "identify.expired": Code("The credential has expired.", "Get a fresh one."),
    "identify.not_yet_valid": Code("The token is not valid yet.", "Check the clock of the machine that issued it."),
    "identify.wrong_audience": Code(
        "The token is meant for another audience.", "Ask the issuer for a token with this server's audience."
    ),
    "identify.missing_claim": Code(
        "The token has no usable claim {claim}.", "See which claims are read under identity.issuers[].claims."
    ),
    "identify.issuer_unavailable": Code(
        "The issuer's keys cannot be fetched, so the token cannot be checked.",
        "Retry; if it persists the operator checks the issuer's JWKS.",
    ),
    "identify.unknown_tenant": Code(
        "The credential's tenant is not known here.", "Ask the operator to add the tenant to the manifest."
    ),
    "identify.key_unknown": Code(
        "The service key is not known.", "Check the key; a new one is made with `shipworthy key create`."
    ),
    "identify.key_revoked": Code("The service key was revoked.", "Ask for a new key."),
    "identify.keys_disabled": Code(
        "Service keys are not accepted here.", "Use a JWT, or set identity.service_keys: true."
    ),
    "identify.keys_unavailable": Code(
        "Service keys cannot be checked at the moment.",
        "Retry; the store is not reachable and the last answer is too old.",
    ),
    "identify.actor_invalid": Code(
        "The service may not act for this subject.",
        "Send a subject token of the same tenant, signed by a trusted issuer.",
    ),
    # decode
    "decode.too_large": Code(
        "The body is larger than {limit_bytes} bytes.", "Send less, or raise the limit for this server."
    ),
    "decode.no_room": Code(
        "The server has {limit_bytes} bytes of other requests in hand and takes no more at the moment.",
        "Retry after the time in retry-after.",
    ),
    "decode.timeout": Code("The body did not arrive in {limit_s} seconds.", "Send the body faster."),
    "decode.client_left": Code("The client left before the body was complete.", "Nothing was paid."),
    "decode.media_type": Code("The body must be application/json.", "Set content-type: application/json."),
    "decode.encoding": Code("The body's content-encoding is not supported.", "Send the body uncompressed."),
    "decode.not_utf8": Code("The body is not valid UTF-8.", "Encode the body as UTF-8."),
    "decode.not_json": Code("The body is not valid JSON: {reason}.", "Correct the JSON."),
    "decode.too_deep": Code("The body is nested deeper than {limit} levels.", "Send flatter JSON."),
    "decode.duplicate_key": Code(
        "An object in the body has the key {key} twice.", "Send each key once: readers disagree on which one counts."
    ),
    "decode.missing_field": Code("The field {field} is missing.", "Add it; see the reference of the HTTP interface."),
    "decode.wrong_type": Code("The field {field} must be {wanted}.", "Correct the field."),
    "decode.too_many": Code("The field {field} holds more than {limit} entries.", "Send fewer."),
    "decode.unsupported": Code("{feature} is not supported here.", "Leave it out."),
    # authorize
    "authorize.no_role": Code(
        "No role of the tenant matches the caller.",
        "Ask the tenant's administrator for a role; `shipworthy token explain` shows why none matched.",
    ),
    "authorize.unknown_use_case": Code(
        "The use case {use_case} does not exist or is not granted to the caller.",
        "GET /v1/models lists what the caller may name in `model`.",
    ),
    "authorize.wrong_ability": Code(
        "The use case {use_case} cannot {ability}.", "Name a use case whose models have that ability."
    ),
    "authorize.unknown_data_class": Code(
        "The data class {said} is not one of {known}.",
        "Send one of the manifest's data classes in x-shipworthy-data-class.",
    ),
    "authorize.data_class_lowered": Code(
        "x-shipworthy-data-class may raise the class {floor} of this use case, never lower it.",
        "Leave the header out, or name a higher class.",
    ),
    "authorize.clearance_too_low": Code(
        "The data class {data_class} is above the caller's clearance.", "Ask for a role with that clearance."
    ),
    "authorize.hosted_tool": Code(
        "The tool {tool} runs at the provider, which is egress and money that policy has not allowed.",
        "Use function tools that your own code runs.",
    ),
    "authorize.condition_failed": Code(
        "A policy rule could not be decided for this request.",
        "Tell the operator the request id; the rule's id is in the record.",
    ),
    "authorize.output_tokens": Code(
        "{asked} output tokens were asked for; the use case allows {limit}.",
        "Ask for at most {limit}, or leave it out.",
    ),
    "authorize.input_tokens": Code(
        "The input is up to {estimated} tokens; the use case allows {limit}.",
        "Send less, or raise tokens.input_max on the use case.",
    ),
    "authorize.choices": Code("{asked} choices were asked for; at most {limit} are allowed.", "Ask for fewer choices."),
    # reserve
    "reserve.budget_exhausted": Code(
        "The budget of {level} for this {period} does not cover this request.",
        "Wait for the next period, or ask the budget's owner to raise it. Do not retry.",
    ),
    "reserve.requests_limit": Code(
        "The limit of requests per minute of {level} is reached.", "Retry after the time in retry-after."
    ),
    "reserve.tokens_limit": Code(
        "The limit of tokens per minute of {level} is reached.", "Retry after the time in retry-after."
    ),
    "reserve.concurrent_limit": Code(
        "The limit of concurrent requests of {level} is reached.", "Retry when one of them has ended."
    ),
    "reserve.paused": Code(
        "This {what} is paused since {since}: {why}.",
        "A retry is refused again. An administrator sees the figures with `shipworthy cost paused` and lifts it with `shipworthy cost release`.",
    ),
    "reserve.store_unavailable": Code(
        "Budgets cannot be checked at the moment, so nothing is spent.", "Retry; the operator checks the store."
    ),
    "authorize.boundary": Code(
        "No provider's boundary admits the data class {data_class} for this use case.",
        "Use a lower data class if the data allows it, or ask for a model whose provider admits it.",
    ),
    "authorize.no_model": Code(
        "No model of the use case can serve this request: {why}.",
        "The record lists every candidate and why it was left.",
    ),
    # route
    "route.unavailable": Code(
        "Every model that may serve this request is failing at the moment.", "Retry after the time in retry-after."
    ),
    # call
    "call.failed": Code("No provider answered; the last said: {why}.", "Retry; the record lists every attempt."),
    "call.timeout": Code("No provider answered in time.", "Retry, or raise the provider's timeouts."),
    "call.rejected": Code(
        "The provider rejected the request: {why}.", "Correct the request: the reason above is the provider's."
    ),
    "call.cut": Code("The provider broke the stream off.", "What arrived was charged; retry if you need the rest."),
    # idempotency keys
    "idempotency.other_body": Code(
        "The Idempotency-Key was used before with another body.", "Use a new key for a new request."
    ),
    "idempotency.in_flight": Code("A request with this Idempotency-Key is still running.", "Wait for it, then retry."),
    # record
    "record.unavailable": Code(
        "The request cannot be recorded at the moment, so it is not served.", "Retry; the operator checks the store."
    ),
    # admin: the control plane
    "admin.forbidden": Code(
        "The caller is neither an administrator of a tenant nor an operator.",
        "Use a credential whose role says admin: true, or one in operators.groups.",
    ),
    "admin.other_tenant": Code(
        "The tenant {tenant} is not the caller's.",
        "Leave `tenant` out, or ask an operator: only they see every tenant.",
    ),
    "admin.operators_only": Code(
        "Only operators may {what}.", "Ask an operator of the deployment: their groups are under operators.groups."
    ),
    "admin.not_corrected": Code(
        "The exchange {id} is not corrected by ${usd}: {reason}.", "Nothing has changed; look at it with `audit show`."
    ),
    "admin.not_found": Code(
        "There is no {what} {id} that the caller may see.", "Check the id; what belongs to other tenants is not shown."
    ),
    "admin.invalid": Code("{name} is invalid: {reason}.", "Correct it; /admin/v1/openapi.json lists what may be said."),
    "admin.unreadable": Code(
        "The bodies of {id} cannot be opened: {reason}.", "Check that keys.file is the one that sealed them."
    ),
    "admin.store_unavailable": Code(
        "The record cannot be read at the moment.", "Retry; the operator checks the store with `shipworthy doctor`."
    ),
    "admin.cross_site": Code(
        "The form was sent from another site.", "Open the console itself and send the form from there."
    ),
}


class ShipworthyError(Exception):
    """The root: everything that Shipworthy raises on purpose."""


class Refusal(ShipworthyError):
    """A stage refuses the request; nothing more is paid.

    ``facts`` fill the catalogue's template and reach the client; ``detail`` reaches only the log and the record.
    ``retry_after_s`` is set when waiting helps; ``retryable`` False tells the official SDKs not to retry.
    ``considered`` is what policy had found out by then (identity.Considered), for the record.
    """

    __slots__ = ("code", "considered", "detail", "facts", "retry_after_s", "retryable")

    def __init__(
        self,
        code: str,
        *,
        detail: str = "",
        retry_after_s: float | None = None,
        retryable: bool | None = None,
        considered: object = None,
        **facts: str | int | float,
    ) -> None:
        assert code in CODES, f"unknown refusal code {code}"
        self.code = code
        self.facts = facts
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.retryable = retryable
        self.considered = considered
        super().__init__(code)

    @classmethod
    def of(cls, code: str, facts: Mapping[str, str | int | float], *, detail: str, considered: object) -> Refusal:
        """A refusal whose facts were collected beforehand."""
        refusal = cls(code, detail=detail, considered=considered)
        refusal.facts = dict(facts)
        return refusal

    @property
    def message(self) -> str:
        return CODES[self.code].message.format_map(self.facts)

    @property
    def hint(self) -> str:
        return CODES[self.code].hint.format_map(self.facts)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" + (f" ({self.detail})" if self.detail else "")


class FailureKind(StrEnum):
    """Why one attempt failed, as the circuit, the retry budget and the record name it."""

    CONNECT = "connect"  # no connection: nothing was sent
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    RATE_LIMITED = "rate_limited"  # 429
    SERVER_ERROR = "server_error"  # 5xx
    REJECTED = "rejected"  # 4xx that the same request would get everywhere
    UNAUTHORISED = "unauthorised"  # 401, 403: our credential is wrong
    BROKEN = "broken"  # reset, half a stream, garbled framing
    INVALID = "invalid"  # an answer that is not what the dialect promises: a lying provider
    CAPACITY = "capacity"  # our own bound on this provider is reached


RETRY_ELSEWHERE = frozenset(FailureKind) - {FailureKind.REJECTED}


class ProviderFailure(ShipworthyError):
    """One attempt failed. ``sent`` says whether the provider may have seen (and may bill) the request."""

    __slots__ = ("body", "detail", "kind", "retry_after_s", "sent", "status")

    def __init__(
        self,
        kind: FailureKind,
        detail: str,
        *,
        sent: bool,
        status: int | None = None,
        retry_after_s: float | None = None,
        body: bytes = b"",
    ) -> None:
        self.kind = kind
        self.detail = detail
        self.sent = sent
        self.status = status
        self.retry_after_s = retry_after_s
        self.body = body  # the provider's own error body, bounded; shown to the client only on REJECTED
        super().__init__(f"{kind}: {detail}")


class StoreUnavailable(ShipworthyError):
    """The store did not answer within its bound, or answered that it cannot (full disk, shutting down)."""


class StartRefused(ShipworthyError):
    """The process may not start, or a command may not run, as things are."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        self.code = code
        self.message = message
        self.hint = hint
        super().__init__(f"{code}: {message}" + (f" — {hint}" if hint else ""))
