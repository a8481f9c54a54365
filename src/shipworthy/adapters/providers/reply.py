"""A provider's answer as events, one at a time, as they come: a whole body is one event, a stream is many.

Nothing is read ahead: while nobody asks for the next event, bytes wait in the socket and then at the provider.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from shipworthy.adapters.providers import failures
from shipworthy.adapters.providers.transport import Answer
from shipworthy.model.chat import Event
from shipworthy.model.dialects.openai_chat import decode_event
from shipworthy.model.dialects.sse import Framed, SseSplitter
from shipworthy.model.errors import FailureKind, ProviderFailure

DONE = b"[DONE]"


class WholeReply:
    """Implements ``chat.Events``: the whole body as one event, done."""

    __slots__ = ("_answer", "_decode", "_over", "_secrets")

    def __init__(self, answer: Answer, decode: Callable[[bytes], Event], secrets: Sequence[str]) -> None:
        self._answer = answer
        self._decode = decode
        self._secrets = secrets
        self._over = False

    def __aiter__(self) -> WholeReply:
        return self

    async def __anext__(self) -> Event:
        if self._over:
            raise StopAsyncIteration
        self._over = True
        try:
            return self._decode(await read_whole(self._answer))
        except ProviderFailure as failure:
            self._answer.close()
            raise told(failure, self._answer, self._secrets) from failure
        except BaseException:
            self._answer.close()
            raise

    def ready(self) -> None:
        """One event, which is waited for."""

    async def aclose(self) -> None:
        self._over = True
        self._answer.close()


class StreamedReply:
    """Implements ``chat.Events`` over server-sent events, up to and with ``[DONE]``.

    A stream that ends without it is whole if every choice had finished: then the mark is made up. Else it is BROKEN.
    """

    __slots__ = ("_answer", "_choices", "_ended", "_finished", "_heard", "_over", "_secrets", "_splitter", "_waiting")

    def __init__(self, answer: Answer, choices: int, secrets: Sequence[str]) -> None:
        self._answer = answer
        self._choices = choices
        self._secrets = secrets
        self._splitter = SseSplitter()
        self._waiting: deque[Framed] = deque()
        self._finished: set[int] = set()
        self._heard = False  # an event came
        self._ended = False  # no more bytes will come
        self._over = False  # no more events will be given

    def __aiter__(self) -> StreamedReply:
        return self

    async def __anext__(self) -> Event:
        if self._over:
            raise StopAsyncIteration
        try:
            while not self._waiting:
                if self._ended:
                    return self._without_mark()
                await self._more()
        except BaseException as reason:  # cancelled: the provider sees it at once
            raise self._failed(reason) from reason
        return self._take()

    def ready(self) -> Event | None:
        return self._take() if self._waiting else None

    def _take(self) -> Event:
        name, payload = self._waiting.popleft()
        try:
            event = decode_event(payload, name)
            if event.done and not self._heard:
                raise ProviderFailure(FailureKind.INVALID, "the stream holds nothing but its end", sent=True)
        except BaseException as reason:
            raise self._failed(reason) from reason
        self._heard = True
        if event.finish:
            self._finished.update([choice for choice, _ in event.finish])
        if event.done:
            self._over = True
            self._waiting.clear()
            self._answer.finish()
        return event

    def _failed(self, reason: BaseException) -> BaseException:
        """Ends the answer; what is to be raised."""
        self._end()
        return told(reason, self._answer, self._secrets) if isinstance(reason, ProviderFailure) else reason

    async def _more(self) -> None:
        chunk = await self._answer.read()
        if chunk:
            self._waiting.extend(self._splitter.feed(chunk))
        else:
            self._ended = True
            self._waiting.extend(self._splitter.end())

    def _without_mark(self) -> Event:
        if len(self._finished) < self._choices:
            raise ProviderFailure(FailureKind.BROKEN, "the stream ended before its answer did", sent=True)
        self._over = True
        return Event(raw=DONE, done=True)

    def _end(self) -> None:
        self._over = True
        self._waiting.clear()
        self._answer.close()

    async def aclose(self) -> None:
        if not self._over:
            self._end()


async def read_whole(answer: Answer, bytes_max: int | None = None) -> bytes:
    """The body; with ``bytes_max`` at least that much of it, and the rest is left."""
    pieces: list[bytes] = []
    size = 0
    while piece := await answer.read():
        pieces.append(piece)
        size += len(piece)
        if bytes_max is not None and size >= bytes_max:
            break
    return b"".join(pieces)


def told(failure: ProviderFailure, answer: Answer, secrets: Sequence[str]) -> ProviderFailure:
    """``failure`` fit to be kept: with the status, the provider's request id, and no secret in it."""
    detail = failures.tidy(failure.detail, secrets, failures.MESSAGE_CHARS_MAX)
    return ProviderFailure(
        failure.kind,
        detail + failures.request_id(answer.header, secrets),
        sent=True,
        status=answer.status,
        body=failures.scrub(failure.body.decode(errors="replace"), secrets).encode(),
    )
