"""Exports are read by their headings, exactly and bounded; a line that cannot be read is named, never skipped."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipworthy.control import usage_file
from shipworthy.control.usage_file import Theirs, UnreadableUsage, UsageFile, instant_of, read_usage
from shipworthy.control.usage_formats import Column, columns_said
from shipworthy.control.usage_names import Named, resolve
from shipworthy.model.errors import Refusal

DAY = date(2026, 11, 21)
ANTHROPIC = (
    "usage_date_utc,model_version,api_key,workspace,usage_type,context_window,usage_input_tokens_no_cache,"
    "usage_input_tokens_cache_write_5m,usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,"
    "usage_output_tokens,web_search_count,inference_geo,speed"
)
OPENAI = (
    "start_time,end_time,start_time_iso,end_time_iso,project_id,num_model_requests,user_id,api_key_id,model,batch,"
    "service_tier,input_tokens,output_tokens,input_cached_tokens,input_audio_tokens,output_audio_tokens"
)
OPENAI_COST = (
    "start_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,quantity,line_item,project_id"
)
FOCUS = "BilledCost,BillingCurrency,ChargeCategory,ChargePeriodStart,ChargePeriodEnd,x_SkuMeterName,ConsumedQuantity"


def read(text: str | bytes, said: Mapping[Column, str] | None = None, mark: str = "") -> UsageFile:
    raw = text.encode() if isinstance(text, str) else text
    return read_usage(io.BytesIO(raw), "usage.csv", said or {}, mark)


def refusal(text: str | bytes, said: Mapping[Column, str] | None = None) -> str:
    with pytest.raises(Refusal) as refused:
        read(text, said)
    assert refused.value.code == "admin.invalid"
    return refused.value.message


def test_anthropics_usage() -> None:
    """Its input is counted in parts, which are added up; cached is what was read from the cache."""
    found = read(
        f"{ANTHROPIC}\r\n"
        "2026-11-21,claude-haiku-4-5-20251001,key,Default,standard,≤ 200k,100,20,3,4000,50,0,not_available,\r\n"
        "2026-11-21,claude-haiku-4-5-20251001,other,Default,standard,≤ 200k,1,0,0,0,2,0,not_available,\r\n"
    )
    assert found.layout.format == "Anthropic usage"
    assert found.groups == {
        (DAY, "claude-haiku-4-5-20251001"): Theirs(input_tokens=4_124, cached_tokens=4_000, output_tokens=52)
    }
    assert not found.has(Column.REQUESTS)
    assert not found.has(Column.COST)


def test_anthropics_cost() -> None:
    found = read(
        "usage_date_utc,model,workspace,api_key,usage_type,context_window,token_type,cost_usd,list_price_usd,cost_type\n"
        "2026-11-21,Claude Haiku 4.5,Default,k,message,≤ 200k,input_no_cache,0.05,0.05,token\n"
        "2026-11-21,Claude Haiku 4.5,Default,k,message,≤ 200k,output,0.0200000001,0.02,token\n"
    )
    assert found.groups == {(DAY, "Claude Haiku 4.5"): Theirs(cost_usd=Decimal("0.0700000001"))}


def test_openais_usage() -> None:
    """Minutes and keys are added up, printed floats are whole numbers, and minutes without usage are no lines."""
    found = read(
        f"{OPENAI}\n"
        "1795219200,1795219260,,,proj,3.0,,key,gpt-4.1-mini-2025-04-14,False,default,4212.0,1673,1280,7,0\n"
        "1795219200,1795219260,,,proj,1.0,,key_2,gpt-4.1-mini-2025-04-14,False,default,10,2,0,0,5\n"
        "1795305600,1795305660,,,,,,,,,,,,,,\n"
    )
    assert found.groups == {
        (DAY, "gpt-4.1-mini-2025-04-14"): Theirs(
            requests=4, input_tokens=4_229, cached_tokens=1_280, output_tokens=1_680
        )
    }
    assert (found.first, found.last, found.empty, found.lines) == (DAY, date(2026, 11, 22), 1, 3)


def test_openais_cost() -> None:
    found = read(
        f"{OPENAI_COST}\n"
        '1795219200,1795305600,,,0.003835980000000000000000000000,usd,,"gpt-4.1-mini-2025-04-14, input",proj\n'
        '1795219200,1795305600,,,1.2e-05,usd,,"gpt-4.1-mini-2025-04-14, output",proj\n'
    )
    assert found.groups == {(DAY, "gpt-4.1-mini-2025-04-14"): Theirs(cost_usd=Decimal("0.00384798"))}


def test_focus() -> None:
    """Only usage counts: what a tax or a credit comes to is told apart."""
    found = read(
        f"{FOCUS}\n"
        "0.25,USD,Usage,2026-11-21T00:00:00Z,2026-11-22T00:00:00Z,gpt 4.1 mini Inp glbl Tokens,625\n"
        "0.05,USD,Tax,2026-11-21T00:00:00Z,2026-11-22T00:00:00Z,VAT,1\n"
    )
    assert found.groups == {(DAY, "gpt 4.1 mini Inp glbl Tokens"): Theirs(cost_usd=Decimal("0.25"))}
    assert (found.left_out, found.left_out_usd) == (1, Decimal("0.05"))


def test_the_plain_form_in_every_dress() -> None:
    """A byte order mark, CRLF, quoted commas, thousands, other delimiters: the same figures."""
    expected = {(DAY, "a, b"): Theirs(requests=1_000, input_tokens=5, output_tokens=7, cost_usd=Decimal("1234.5"))}
    head = ("Date", "Model", "Requests", "Input tokens", "Output tokens", "Cost (USD)")
    line = ("2026-11-21", '"a, b"', '"1,000"', "5", "7", '"$1,234.50"')
    assert read(f"\ufeff{','.join(head)}\r\n{','.join(line)}\r\n").groups == expected
    assert read(f"{chr(9).join(head)}\n{chr(9).join(line)}").groups == expected
    semicolons = f"{';'.join(head)}\n{';'.join(line)}\n".replace('"1,000"', "1.000").replace('"$1,234.50"', "1.234,50")
    assert read(semicolons, mark=",").groups == expected
    with pytest.raises(UnreadableUsage, match="--decimal"):
        read(semicolons)
    assert read(f"{','.join(head)}\n\n{','.join(line)}\n\n,,,,,\n").lines == 1


def test_columns_may_be_said() -> None:
    said = columns_said("date=When, model=SKU,cost_usd=Total")
    found = read("When,SKU,Total,Noise\n2026-11-21 23:59:59,x,3,?\n", said)
    assert found.groups == {(DAY, "x"): Theirs(cost_usd=Decimal(3))}
    for wrong in ("date", "colour=x", "=x"):
        with pytest.raises(Refusal):
            columns_said(wrong)
    assert "no heading 'Then'" in refusal("When,SKU,Total\n", {Column.DATE: "Then"})


def test_lines_that_name_our_exchanges() -> None:
    one = UUID("019a8c2e-7b41-7d3a-9c05-3f2b1a0e9d48")
    found = read(
        f"date,model,input_tokens,client_request_id\n2026-11-21,x,5,{one}\n2026-11-21,x,7,{one}\n2026-11-21,x,9,\n"
    )
    assert [each.figures.input_tokens for each in found.requests[one]] == [5, 7]
    assert found.groups[DAY, "x"].input_tokens == 21


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2026-13-01,x,1,1,1", "no date"),
        ("21/11/2026,x,1,1,1", "no date"),
        ("99999999999,x,1,1,1", "no time in seconds"),
        ("2026-11-21,x,1", "3 fields where the heading has 5"),
        ("2026-11-21,x,1,1,1,1", "6 fields"),
        ("2026-11-21,x,one,1,1", "requests: 'one' is no number"),
        ("2026-11-21,x,1.5,1,1", "requests: '1.5' is no whole number"),
        ("2026-11-21,x,-1,1,1", "requests: '-1' is no whole number"),
        ("2026-11-21,,1,1,1", "no model"),
        ("2026-11-21,x,1,1,$", "cost_usd"),
        ('2026-11-21,"x"y,1,1,1', "expected after"),
        (f"2026-11-21,{'x' * 5_000},1,1,1", "a field is 5000 letters long"),
        (f"2026-11-21,{'x' * 70_000},1,1,1", "longer than"),
    ],
)
def test_a_bad_line_is_named(line: str, reason: str) -> None:
    """With its number, whatever stands before it; and nothing of the file is used."""
    text = f'date,model,requests,input_tokens,cost_usd\n2026-11-21,"two\nlines",1,1,1\n{line}\n'
    with pytest.raises(UnreadableUsage) as unreadable:
        read(text)
    assert unreadable.value.count >= 1
    assert unreadable.value.bad[0].line == 4
    assert reason in unreadable.value.bad[0].reason


def test_many_bad_lines_are_counted() -> None:
    with pytest.raises(UnreadableUsage) as unreadable:
        read("date,model,requests\n" + "x,y,z\n" * 500)
    assert (unreadable.value.count, len(unreadable.value.bad)) == (500, usage_file.BAD_LINES_SHOWN)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "it is empty"),
        (b"date,model,requests\n", None),
        ("date,model\n2026-11-21,x\n", "no column for a figure"),
        ("model,requests\nx,1\n", "no column for date"),
        ("date,model,requests,Requests\n", "twice"),
        ("date,model,requests\n2026-11-21,x,1\n".encode("utf-16"), "UTF-16"),
        (b"date,model,requests\n2026-11-21,\xff,1\n", "not UTF-8"),
        (b"PK\x03\x04\x00\x00", "no column"),
        ("start_time,end_time,num_model_requests,input_tokens,model\n1795219200,1795824000,1,1,x\n", "more than a day"),
        (f"{FOCUS}\n1,EUR,Usage,2026-11-21T00:00:00Z,2026-11-22T00:00:00Z,x,1\n", "only USD"),
    ],
)
def test_files_that_are_no_export(text: str | bytes, reason: str | None) -> None:
    if reason is None:
        assert read(text).groups == {}
    else:
        assert reason in refusal(text)


def test_files_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes, lines, groups and exchanges: each has its named maximum."""
    lines = "".join(f"2026-11-21,m{n},1,{UUID(int=n)}\n" for n in range(30))
    text = f"date,model,requests,exchange_id\n{lines}"
    for name, most in (("FILE_BYTES_MAX", 400), ("LINES_MAX", 29), ("GROUPS_MAX", 29), ("EXCHANGES_MAX", 29)):
        with monkeypatch.context() as patched:
            patched.setattr(usage_file, name, most)
            assert str(most) in refusal(text)
    assert read(text).lines == 30


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for text in (raw, b"date,model,requests,cost_usd\n" + raw):
        with suppress(Refusal):
            assert read(text).lines >= 0


@pytest.mark.parametrize(
    ("said", "day"),
    [
        ("2026-11-21", "2026-11-21"),
        ("2026-11-21T23:30:00-02:00", "2026-11-22"),
        ("2026-11-21T00:30:00+02:00", "2026-11-20"),
        ("2026-11-21 08:00:00 UTC", "2026-11-21"),
        ("20261121", "2026-11-21"),
        ("1795219200", "2026-11-21"),
    ],
)
def test_days_are_utc(said: str, day: str) -> None:
    assert instant_of(said).date().isoformat() == day


@pytest.mark.parametrize(
    ("theirs", "ours", "said", "named"),
    [
        ("gpt-4.1-mini", ["gpt-4.1-mini", "gpt-4.1"], {}, Named("gpt-4.1-mini")),
        ("gpt-4.1-mini-2025-04-14", ["gpt-4.1-mini", "gpt-4.1"], {}, Named("gpt-4.1-mini", "by its dated snapshot")),
        ("claude-haiku-4-5-20251001", ["claude-haiku-4-5"], {}, Named("claude-haiku-4-5", "by its dated snapshot")),
        ("gpt-4-0613", ["gpt-4"], {}, Named("gpt-4", "by its dated snapshot")),
        ("gpt-4o", ["gpt-4o-2024-08-06"], {}, Named("gpt-4o-2024-08-06", "by its dated snapshot")),
        ("Claude Haiku 4.5", ["claude-haiku-4-5"], {}, Named("claude-haiku-4-5", "by its spelling")),
        ("Claude Haiku 4.5", ["claude-haiku-4-5-20251001"], {}, Named("claude-haiku-4-5-20251001", "by its dated snapshot")),
        ("gpt-4o-mini", ["gpt-4o"], {}, Named("gpt-4o-mini", "none of ours")),
        ("gpt-4.1-mini-2025-04-14", ["gpt-4.1"], {}, Named("gpt-4.1-mini-2025-04-14", "none of ours")),
        ("SKU 7", ["gpt-4o"], {"SKU 7": "gpt-4o"}, Named("gpt-4o", "as said")),
    ],
)  # fmt: skip
def test_names_are_matched_only_where_one_can_be_meant(
    theirs: str, ours: list[str], said: dict[str, str], named: Named
) -> None:
    assert resolve([theirs], ours, said) == {theirs: named}


def test_two_that_may_be_meant_are_said() -> None:
    (named,) = resolve(["gpt-4o"], ["gpt-4o-2024-05-13", "gpt-4o-2024-08-06"], {}).values()
    assert named.upstream == "gpt-4o"
    assert "gpt-4o-2024-05-13 or gpt-4o-2024-08-06" in named.how
