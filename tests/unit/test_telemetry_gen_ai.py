"""A row's trace: names, family and times as the row says, and nothing of what was said."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from shipworthy.adapters.telemetry.gen_ai import SPANS_MAX, VALUE_CHARS_MAX, Kind, is_sampled, trace_of
from shipworthy.kit.rows import MS, refused, row
from shipworthy.model.exchange import Outcome
from shipworthy.model.money import Basis, Usage
from shipworthy.model.op import Step

TRACE, CALLER = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331


def test_the_callers_trace_is_continued():
    trace = trace_of(row())
    assert trace.trace_id == TRACE
    assert trace.spans[0].parent_id == CALLER
    assert {span.parent_id for span in trace.spans[1:]} == {trace.spans[0].span_id}
    assert len({span.span_id for span in trace.spans}) == len(trace.spans)


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "garbage",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE:032x}-{'0' * 16}-01",
        f"ff-{TRACE:032x}-{CALLER:016x}-01",
    ],
)
def test_without_a_usable_context_the_trace_has_the_exchanges_own_id(traceparent):
    one = row(traceparent=traceparent)
    trace = trace_of(one)
    assert trace.trace_id == one.id.int
    assert trace.spans[0].parent_id == 0
    assert is_sampled(traceparent)


def test_who_does_not_sample_is_respected():
    assert is_sampled(f"00-{TRACE:032x}-{CALLER:016x}-03")
    assert not is_sampled(f"00-{TRACE:032x}-{CALLER:016x}-00")
    assert not is_sampled(f"00-{TRACE:032x}-{CALLER:016x}-02")


def test_times_are_the_rows():
    one = row()
    spans = {span.name: span for span in trace_of(one).spans}
    root = spans["exchange support"]
    assert (root.start_ns, root.end_ns) == (one.arrived_unix_ns, one.arrived_unix_ns + one.duration_ns)
    assert (spans["reserve"].start_ns, spans["reserve"].end_ns) == (
        one.arrived_unix_ns + 2 * MS,
        one.arrived_unix_ns + 5 * MS,
    )
    answered = spans["chat gpt-4.1-mini"]
    assert (answered.start_ns, answered.end_ns) == (one.arrived_unix_ns + 21 * MS, one.arrived_unix_ns + 1_836 * MS)


def test_attempts_carry_the_genai_names_and_the_usage_once():
    spans = trace_of(row(usage=Usage(input=1_200, output=300, cache_read=800, reasoning=50))).spans
    clients = [span for span in spans if span.kind is Kind.CLIENT]
    assert [span.name for span in clients] == ["chat qwen3-8b", "chat gpt-4.1-mini"]
    failed, answered = clients
    assert failed.failed
    assert failed.attributes["error.type"] == "connect"
    assert "gen_ai.usage.input_tokens" not in failed.attributes
    assert answered.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4.1-mini",
        "gen_ai.request.stream": True,
        "gen_ai.conversation.id": "s-1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.619,
        "gen_ai.usage.input_tokens": 1_200,
        "gen_ai.usage.output_tokens": 300,
        "gen_ai.usage.cache_read.input_tokens": 800,
        "gen_ai.usage.reasoning.output_tokens": 50,
        "http.response.status_code": 200,
        "shipworthy.attempt": 1,
        "shipworthy.attempt_charged_nano": 960_000,
        "shipworthy.exchange_id": answered.attributes["shipworthy.exchange_id"],
        "shipworthy.model": "small",
        "shipworthy.usage_basis": "reported",
    }
    carrying = [span for span in spans if any(name.startswith("gen_ai.usage") for name in span.attributes)]
    assert carrying == [answered]


def test_an_attempt_that_failed_and_may_be_billed_says_so():
    one = row()
    billed = replace(one.attempts[0], usage=Usage(input=900, basis=Basis.COUNTED))
    spans = trace_of(row(attempts=(billed, one.attempts[1]))).spans
    attributes = next(span.attributes for span in spans if span.name == "chat qwen3-8b")
    assert (attributes["gen_ai.usage.input_tokens"], attributes["shipworthy.usage_basis"]) == (900, "counted")


def test_the_root_says_what_it_cost_and_how_it_ended():
    attributes = trace_of(row()).spans[0].attributes
    assert attributes["shipworthy.charged_nano"] == 960_000
    assert attributes["shipworthy.cost_usd"] == pytest.approx(0.00096)
    assert attributes["shipworthy.outcome"] == "served"
    assert attributes["shipworthy.data_class"] == "internal"
    assert attributes["gen_ai.conversation.id"] == "s-1"
    assert "error.type" not in attributes


def test_a_refusal_is_told_and_is_no_error_of_ours():
    spans = trace_of(refused()).spans
    assert spans[0].attributes["error.type"] == "reserve.budget_exhausted"
    assert spans[0].attributes["shipworthy.code"] == "reserve.budget_exhausted"
    assert not any(span.failed for span in spans)


@pytest.mark.parametrize("outcome", [Outcome.CUT, Outcome.FAILED])
def test_what_we_or_a_provider_broke_is_an_error(outcome):
    root = trace_of(row(outcome=outcome)).spans[0]
    assert root.failed
    assert root.attributes["error.type"] == outcome.value


def test_no_content_no_detail_and_no_person_leaves():
    canary = "canary-7f3a"
    one = row(
        subject=canary,
        actor=canary,
        end_user=canary,
        refusal_detail=canary,
        cut=(canary,),
        rules=(canary,),
        issuer=canary,
        key_id=canary,
    )
    one = replace(one, attempts=tuple(replace(attempt, detail=canary) for attempt in one.attempts))
    assert canary not in repr(trace_of(one))


def test_a_name_that_policy_never_found_is_no_span_name():
    unknown = refused("authorize.unknown_use_case", use_case="whatever the client said", mode="")
    assert trace_of(unknown).spans[0].name == "exchange"


def test_texts_of_the_clients_choice_are_bounded_and_redacted():
    attributes = trace_of(row(session="sk-0123456789abcdef-secret " + "s" * 10_000)).spans[0].attributes
    said = attributes["gen_ai.conversation.id"]
    assert isinstance(said, str)
    assert len(said) == VALUE_CHARS_MAX
    assert "secret" not in said


def test_the_number_of_spans_is_bounded():
    trace = trace_of(row(steps=tuple(Step("deliver", n, 1) for n in range(200))))
    assert len(trace.spans) == SPANS_MAX
    assert trace.spans[0].attributes["shipworthy.spans_left_out"] == 203 - SPANS_MAX


def test_embeddings_have_their_own_operation():
    names = [span.name for span in trace_of(row(operation="embed")).spans]
    assert "embeddings gpt-4.1-mini" in names
