"""A provider's answer as events, one at a time, as they come: a whole body is one event, a stream is many.

Nothing is read ahead: while nobody asks for the next event, bytes wait in the socket and then at the provider.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from shipworthy.adapters.providers import failures
from shipworthy.adapters.providers.transport import Answer
from shipworthy.model.chat import Event, Take
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

    async def each(self, take: Take) -> bool:
        async for event in self:
            take((event,))
        return False

    async def aclose(self) -> None:
        self._over = True
        self._answer.close()


class StreamedReply:
    """Implements ``chat.Events`` over server-sent events, up to and with ``[DONE]``.

    A stream that ends without it is whole if every choice had finished: then the mark is made up. Else it is BROKEN.
    """

    __slots__ = (
        "_answer", "_choices", "_ended", "_finished", "_heard", "_over", "_secrets", "_splitter", "_take", "_trouble",
        "_waiting",
    )  # fmt: skip

    def __init__(self, answer: Answer, choices: int, secrets: Sequence[str]) -> None:
        self._answer = answer
        self._choices = choices
        self._secrets = secrets
        self._splitter = SseSplitter()
        self._take: Take | None = None  # while somebody waits for more than one
        self._waiting: deque[Event] = deque()  # came with one that was asked for alone
        self._trouble: BaseException | None = None  # to be raised behind what came before it
        self._finished: set[int] = set()
        self._heard = False  # an event came
        self._ended = False  # no more bytes will come
        self._over = False  # no more events will come

    def __aiter__(self) -> StreamedReply:
        return self

    async def __anext__(self) -> Event:
        if not self._waiting:
            await self._more()
        if not self._waiting:
            raise StopAsyncIteration
        return self._waiting.popleft()

    async def each(self, take: Take) -> bool:
        if self._waiting:
            waiting = tuple(self._waiting)
            self._waiting.clear()
            if not take(waiting):
                return not self._over or self._trouble is not None
        self._take = take
        try:
            return await self._more()
        finally:
            self._take = None  # it knows us: let it go, or the collector has to

    def _give(self, events: Sequence[Event]) -> bool:
        if self._take is not None:
            return self._take(events)
        self._waiting.extend(events)
        return False

    async def _more(self) -> bool:
        """Lets events come until whoever takes them wants no more for now; whether there may be more."""
        try:
            while not self._over and self._trouble is None:
                if self._ended:
                    self._give((self._mark(),))
                elif await self._answer.pour(self._came):
                    break
                else:
                    self._ended = True
                    if not self._given(self._splitter.end()):
                        break
            if self._trouble is not None and not self._waiting:
                raise self._trouble
        except BaseException as reason:  # cancelled: the provider sees it at once
            raise self._failed(reason) from reason
        return not self._over

    def _came(self, piece: bytes) -> bool:
        """Bytes came. Whether more are wanted; if not, why is known here."""
        try:
            framed = self._splitter.feed(piece)
        except ProviderFailure as failure:
            self._trouble = failure
            return False
        return self._given(framed)

    def _given(self, framed: Sequence[Framed]) -> bool:
        """Gives the events of what was ``framed``, up to the first that is none. Whether more are wanted."""
        events: list[Event] = []
        try:
            for name, payload in framed:
                event = decode_event(payload, name)
                if event.finish:
                    self._finished.update([choice for choice, _ in event.finish])
                if event.done:
                    self._end_said(first=not events and not self._heard)
                    events.append(event)
                    break
                events.append(event)
        except Exception as reason:  # noqa: BLE001 - whatever it is, it is raised where events are waited for
            self._trouble = reason
        if not events:
            return self._trouble is None
        self._heard = True
        try:
            wanted = self._give(events)
        except Exception as reason:  # noqa: BLE001 - the same
            self._trouble, wanted = reason, False
        return wanted and not self._over and self._trouble is None

    def _end_said(self, *, first: bool) -> None:
        if first:
            raise ProviderFailure(FailureKind.INVALID, "the stream holds nothing but its end", sent=True)
        self._over = True
        self._answer.finish()

    def _mark(self) -> Event:
        """The end that was not said. Raises ProviderFailure where it is none."""
        if len(self._finished) < self._choices:
            raise ProviderFailure(FailureKind.BROKEN, "the stream ended before its answer did", sent=True)
        self._over = True
        return Event(raw=DONE, done=True)

    def _failed(self, reason: BaseException) -> BaseException:
        """Ends the answer; what is to be raised."""
        self._end()
        return told(reason, self._answer, self._secrets) if isinstance(reason, ProviderFailure) else reason

    def _end(self) -> None:
        self._over = True
        self._trouble = None
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
