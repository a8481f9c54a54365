"""A dead model is started again, on the same port with the same key, later and later, and not for ever."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from shipworthy.adapters.embedded import llama
from shipworthy.adapters.embedded.llama_child import Order, Report
from shipworthy.adapters.embedded.llama_errors import ChildDied, ExtraMissing, LoadTimeout, MemoryShort
from shipworthy.adapters.embedded.llama_gguf import GgufHeader

HEADER = GgufHeader("Tiny", "llama", 2048, False, False, 1000, 10)


class FakeProcess:
    """A child whose life the test decides."""

    born: list["FakeProcess"]

    def __init__(self, order: Order) -> None:
        self.order = order
        self.report: Report | None = None
        self.status: int | None = None
        self.last_lines = ("its last line",)
        self.pid = 1000 + len(self.born)
        self.ended = False
        self.born.append(self)
        if len(self.born) == 1:
            self.report = Report(port=4242)

    def listen(self) -> int | None:
        return self.status

    def end(self) -> None:
        self.ended = True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def born(monkeypatch: pytest.MonkeyPatch) -> list[FakeProcess]:
    FakeProcess.born = []
    monkeypatch.setattr(llama, "LlamaProcess", FakeProcess)
    monkeypatch.setattr(llama, "read_header", lambda path: HEADER)
    return FakeProcess.born


@pytest.fixture
def child(born: list[FakeProcess], clock: Clock) -> llama.LlamaChild:
    settings = llama.LlamaSettings(path=Path("/models/tiny.gguf"), context_tokens=9999)
    return llama.LlamaChild(settings, progress=lambda line: None, clock=clock)


def test_start_tells_where_the_model_answers(child: llama.LlamaChild, born: list[FakeProcess]) -> None:
    endpoint = child.start()
    assert endpoint.base_url == "http://127.0.0.1:4242/v1"
    assert endpoint.upstream_model == "tiny"
    assert (endpoint.framing, endpoint.default_stop) == ("few-shot", ("\n",))
    assert endpoint.context_tokens == 2048  # never more than the model was trained for
    assert endpoint.api_key not in repr(endpoint)
    assert born[0].order.memory_bytes == 1000 + 10 * 2048 * 2


def test_a_model_with_a_chat_template_keeps_it(
    child: llama.LlamaChild, born: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama, "read_header", lambda path: replace(HEADER, has_chat_template=True, has_pooling=True))
    endpoint = child.start()
    assert (endpoint.framing, endpoint.default_stop) == ("chat", ())
    assert (born[0].order.chat_template, born[0].order.stop, born[0].order.mean_pooling) == ("", (), False)


@pytest.mark.parametrize("wrong", [{"parallel": 0}, {"parallel": 65}, {"context_tokens": 1}, {"output_tokens_max": 0}])
def test_settings_have_bounds(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        llama.LlamaSettings(**wrong)  # type: ignore[arg-type]


def test_a_dead_child_comes_back_with_the_same_port_and_key(
    child: llama.LlamaChild, born: list[FakeProcess], clock: Clock
) -> None:
    child.start()
    born[0].status = -9
    state = child.poll()
    assert (state.phase, state.pid, state.deaths) == ("waiting", None, 1)
    assert isinstance(state.reason, ChildDied)
    assert born[0].ended
    clock.now += llama.BACKOFF_SECONDS_FIRST
    assert child.poll().phase == "loading"
    assert (born[1].order.port, born[1].order.api_key) == (4242, born[0].order.api_key)
    born[1].report = Report(port=4242)
    assert child.poll().phase == "ready"


def test_restarts_come_later_and_later_and_end(child: llama.LlamaChild, born: list[FakeProcess], clock: Clock) -> None:
    child.start()
    waits: list[float] = []
    born[0].status = 3
    while child.poll().phase != "failed":
        began = clock.now
        while child.poll().phase == "waiting":
            clock.now += 0.01
        waits.append(clock.now - began)
        born[-1].status = 3
    assert len(born) == llama.DEATHS_MAX
    assert all(later >= earlier - 0.02 for earlier, later in pairwise(waits))
    assert waits[0] == pytest.approx(llama.BACKOFF_SECONDS_FIRST, abs=0.05)
    assert waits[-1] == pytest.approx(llama.BACKOFF_SECONDS_MAX, abs=0.05)
    clock.now += 1000
    assert child.poll().phase == "failed"
    child.restart()
    assert child.poll().phase == "loading"
    assert child.poll().deaths == 0


def test_steady_service_forgives(child: llama.LlamaChild, born: list[FakeProcess], clock: Clock) -> None:
    child.start()
    for _ in range(llama.DEATHS_MAX + 5):
        clock.now += llama.STEADY_SECONDS
        born[-1].status = -9
        assert child.poll().deaths == 1
        clock.now += llama.BACKOFF_SECONDS_FIRST
        child.poll()
        born[-1].report = Report(port=4242)
        assert child.poll().phase == "ready"


@pytest.mark.parametrize(
    ("report", "kind"),
    [
        (Report(missing="llama.cpp"), ExtraMissing),
        (Report(memory_available=5), MemoryShort),
        (None, ChildDied),
    ],
)
def test_a_first_start_that_fails_raises_and_leaves_nothing(
    child: llama.LlamaChild, born: list[FakeProcess], monkeypatch: pytest.MonkeyPatch, report: Report | None, kind: type
) -> None:
    def listen(process: FakeProcess) -> int:
        process.report = report
        return 3

    monkeypatch.setattr(FakeProcess, "listen", listen)
    with pytest.raises(kind):
        child.start()
    assert len(born) == 1
    assert born[0].ended
    assert child.poll().phase == "stopped"


def test_a_load_that_takes_too_long_is_given_up(
    born: list[FakeProcess], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama, "START_LOOK_SECONDS", 0)
    monkeypatch.setattr(FakeProcess, "listen", lambda process: setattr(process, "report", None))
    told: list[str] = []
    settings = llama.LlamaSettings(path=Path("/models/tiny.gguf"), load_seconds_max=5)
    with pytest.raises(LoadTimeout):
        llama.LlamaChild(settings, progress=told.append, clock=clock).start()
    assert born[0].ended
    assert told == ["Loading tiny: 2 s", "Loading tiny: 4 s"]
