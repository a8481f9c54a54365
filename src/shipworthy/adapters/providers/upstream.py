"""A provider that speaks OpenAI's dialect over HTTP: encode, send, check the head, read events."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from shipworthy.adapters.providers import failures
from shipworthy.adapters.providers.http import Endpoint, HttpTransport
from shipworthy.adapters.providers.reply import StreamedReply, WholeReply, read_whole
from shipworthy.adapters.providers.settings import HttpConfig
from shipworthy.adapters.providers.transport import Answer, Transport
from shipworthy.model.chat import Events, PartKind, Request
from shipworthy.model.dialects import openai_chat, openai_embeddings
from shipworthy.model.errors import FailureKind, ProviderFailure
from shipworthy.model.op import Op
from shipworthy.model.prompt import Fitted
from shipworthy.model.route import Ability, Model

PATHS = {Ability.CHAT: "/chat/completions", Ability.EMBED: "/embeddings"}
DECODE = {Ability.CHAT: openai_chat.decode_reply, Ability.EMBED: openai_embeddings.decode_reply}
ERROR_READ_BYTES_MAX = failures.ERROR_BODY_BYTES_MAX + 4_096  # a secret that the cut would halve is still found whole
NANOS = 1_000_000_000


class HttpUpstream:
    """Implements ``ports.Upstream``. Connections are kept; the call stage keeps deadlines and ``concurrent_max``."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: HttpConfig,
        *,
        secrets: tuple[str, ...] = (),
        default_stop: tuple[str, ...] = (),
        images: bool = True,
        transport: Transport | None = None,
    ) -> None:
        self._transport = transport or HttpTransport(endpoint, tuple(PATHS.values()))
        self._settings = settings
        self._secrets = secrets
        self._default_stop = default_stop
        self._images = images

    async def open(self, op: Op, model: Model, request: Request, fitted: Fitted) -> Events:
        answer = await self._transport.post(
            PATHS[request.operation],
            self.encode(model, request, fitted),
            traceparent=op.traceparent,
            request_id=op.id_text,
            stream=request.stream,
        )
        try:
            await self._check(op, answer, request)
        except ProviderFailure:
            answer.close()
            raise
        except BaseException:  # cancelled while an error's body was read
            answer.close()
            raise
        if request.stream:
            return StreamedReply(answer, request.choices, self._secrets)
        return WholeReply(answer, DECODE[request.operation], self._secrets)

    async def close(self) -> None:
        """Ends every connection; what runs on them fails."""
        await self._transport.close()

    def encode(self, model: Model, request: Request, fitted: Fitted) -> bytes:
        """The bytes that are sent. Raises ProviderFailure REJECTED for what this provider cannot read."""
        if request.operation is Ability.EMBED:
            return openai_embeddings.upstream_body(request, fitted, model.upstream)
        if not self._images and any(part.kind is PartKind.IMAGE for part in request.parts):
            raise ProviderFailure(FailureKind.REJECTED, f"the model {model.name} reads no images", sent=False)
        if self._default_stop:
            fitted = with_stop(request, fitted, self._default_stop)
        settings = self._settings
        return openai_chat.upstream_body(
            request, fitted, model.upstream, ask_usage=settings.ask_usage, cap_field=settings.output_cap_field
        )

    async def _check(self, op: Op, answer: Answer, request: Request) -> None:
        """Returns when the head promises what was asked for. Raises ProviderFailure otherwise."""
        status, said = answer.status, answer.header("content-type")
        if status == 200 and content_is(said, stream=request.stream):
            return
        try:
            body = await read_whole(answer, ERROR_READ_BYTES_MAX)
        except ProviderFailure:
            body = b""  # the status alone decides
        unix_s = op.clock.unix_ns() / NANOS
        if status != 200:
            raise failures.refused(status, answer.header, body, unix_s=unix_s, secrets=self._secrets)
        wanted = "an event stream" if request.stream else "JSON"
        got = failures.tidy(said, self._secrets, 80) or "no content-type"
        raise failures.invalid(f"{got} came instead of {wanted}", answer.header, secrets=self._secrets, body=body)


def content_is(content_type: str, *, stream: bool) -> bool:
    """Whether the content-type is what was asked for. Servers that name none are believed until their body shows better."""
    essence = content_type.partition(";")[0].strip().lower()
    if stream:
        return essence in ("text/event-stream", "")
    return essence in ("application/json", "") or (essence.startswith("application/") and essence.endswith("+json"))


def with_stop(request: Request, fitted: Fitted, stops: tuple[str, ...]) -> Fitted:
    """``fitted`` with ``stops`` added to the request's own."""
    raw = fitted.replace.get("stop") or bytes(request.fields.get("stop", b"null"))
    try:
        own = msgspec.json.decode(raw, type=str | list[str] | None)
    except msgspec.ValidationError:
        return fitted  # what stands there is for the provider to reject
    asked = [own] if isinstance(own, str) else own or []
    together = msgspec.json.encode(asked + [stop for stop in stops if stop not in asked])
    return replace(fitted, replace={**fitted.replace, "stop": together})
