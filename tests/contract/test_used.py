"""The record as a provider counts it: one suite over memory and PostgreSQL, up to the last nano-dollar corrected."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

import pytest
from msgspec import structs

from shipworthy.adapters.store.acts import StoreActs
from shipworthy.adapters.store.batch import BatchWriter
from shipworthy.adapters.store.books import StoreBooks
from shipworthy.adapters.store.corrections import StoreCorrections
from shipworthy.adapters.store.exchanges import StoreExchanges
from shipworthy.adapters.store.keyring import Kek, Keyring
from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.adapters.store.vault import Vault
from shipworthy.control.reconcile import names_of, usage_report
from shipworthy.control.usage_apply import AppliedReport, ApplyAsked, apply_usage
from shipworthy.control.usage_compare import UsageAsked, UsageReport
from shipworthy.control.usage_file import read_usage
from shipworthy.control.wording import usd
from shipworthy.kit.builders import an_op
from shipworthy.kit.memory_books import MemoryBooks, MemoryCorrections
from shipworthy.kit.memory_plane import a_snapshot
from shipworthy.kit.memory_record import MemoryActs, MemoryExchanges
from shipworthy.kit.rows import row
from shipworthy.model.exchange import Outcome, Row
from shipworthy.model.money import Basis, ChargeLine, Component, Price, Usage
from shipworthy.model.reading import EVERY_TENANT, Authority, By, CostAsked
from shipworthy.model.route import Attempt
from shipworthy.ports import AdminRecorder, Books, Corrections, Entry, Exchanges

KEYRING = Keyring((Kek("k-test", b"k" * 32),), b"p" * 32)
DAY_NS = 86_400 * 10**9
FIRST_NS = 1_795_219_200 * 10**9  # 2026-11-21
FIRST = date(2026, 11, 21)
UPSTREAMS = ("gpt-4.1-mini", "gpt-4.1", "claude-haiku-4-5")
PRICE = Price({Component.INPUT: 37_500, Component.CACHE_READ: 9_375, Component.OUTPUT: 1_600_001}, "test")
OLGA = Authority("olga", EVERY_TENANT)


@dataclass
class Desk:
    """The ports, and how a row comes in."""

    exchanges: Exchanges
    corrections: Corrections
    books: Books
    acts: AdminRecorder
    put: Callable[[Row], None]

    async def compare(self, provider: str, *lines: str) -> UsageReport:
        asked = UsageAsked(provider=provider)
        return await usage_report(an_op(), self.books, self.acts, a_snapshot(), OLGA, an_export(*lines), asked)

    async def apply(self, provider: str, *lines: str) -> AppliedReport:
        asked, file = UsageAsked(provider=provider), an_export(*lines)
        names = await names_of(self.books, a_snapshot(), file, asked)
        why = ApplyAsked(reason="their log", source="")
        ports = (self.exchanges, self.corrections, self.acts)
        return await apply_usage(an_op(), *ports, a_snapshot(), OLGA, file, names, asked, why)


def an_export(*lines: str):
    return read_usage(io.BytesIO("\n".join(lines).encode()), "usage.csv", {})


@pytest.fixture(params=["memory", "store"])
def play(request: pytest.FixtureRequest) -> Callable[[Callable[[Desk], Awaitable[None]]], None]:
    url = request.getfixturevalue("fresh_store").url if request.param == "store" else ""

    async def in_memory(story: Callable[[Desk], Awaitable[None]]) -> None:
        exchanges, acts = MemoryExchanges(), MemoryActs()
        corrections = MemoryCorrections(exchanges, acts)
        books = MemoryBooks(exchanges, corrections)
        await story(Desk(exchanges, corrections, books, acts, exchanges.rows.append))

    async def in_store(story: Callable[[Desk], Awaitable[None]]) -> None:
        async with Store(url) as store:
            vault = Vault(KEYRING)
            writer = BatchWriter(store.conninfo(StoreRole.RECORDER), vault)

            def put(each: Row) -> None:
                assert writer.write([Entry(each, None, None, None)]) == {each.id}

            try:
                exchanges = StoreExchanges(store, vault)
                await story(Desk(exchanges, StoreCorrections(store), StoreBooks(store), StoreActs(store), put))
            finally:
                writer.disconnect()

    def run(story: Callable[[Desk], Awaitable[None]]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(90):
                await (in_store if url else in_memory)(story)

        asyncio.run(bounded())

    return run


def an_exchange(draw: random.Random, number: int) -> Row:
    """Some attempts at two providers, the last of which may have answered; each charged for what it used."""
    attempts, lines = [], list[ChargeLine]()
    count = draw.randrange(1, 4)
    for place in range(count):
        answers = place == count - 1 and draw.random() < 0.8
        billed = answers or draw.random() < 0.4
        attempts.append(
            Attempt(
                place, "small", draw.choice(("openai", "house")), draw.choice(UPSTREAMS), draw.randrange(10**10), 5,
                first_token_ns=9 if answers else 0, failure="" if answers else "broken",
            )
        )  # fmt: skip
        if billed:
            read = draw.randrange(5_000)
            used = Usage(
                input=read, output=draw.randrange(5_000), cache_read=draw.randrange(read + 1),
                basis=draw.choice(list(Basis)[:3]),
            )  # fmt: skip
            lines += PRICE.lines(used, "small", place)
    at_ns = FIRST_NS + draw.randrange(-5, 3 * DAY_NS // 10**9) * 10**9 + number
    charged = sum(line.amount_nano for line in lines)
    return row(arrived_unix_ns=at_ns, attempts=tuple(attempts), charge_lines=tuple(lines), charged_nano=charged)


def a_presumed(at_ns: int, nano: int) -> Row:
    line = ChargeLine(0, "", Component.REQUEST, 1, nano * 1_000, nano, Basis.CEILING)
    return row(
        arrived_unix_ns=at_ns, attempts=(), charge_lines=(line,), charged_nano=nano, flags=("presumed",),
        outcome=Outcome.FAILED, model="", provider="",
    )  # fmt: skip


def test_used_is_what_the_attempts_were_charged(play) -> None:
    """By the UTC day on which each attempt began, not its exchange; of one provider; the presumed apart."""

    async def scene(desk: Desk) -> None:
        draw = random.Random(7)
        rows = [an_exchange(draw, number) for number in range(80)]
        rows += [a_presumed(FIRST_NS + number * DAY_NS, 1_000 + number) for number in range(3)]
        for each in rows:
            desk.put(each)
        exchanges = MemoryExchanges(*rows)
        mirror = MemoryBooks(exchanges, MemoryCorrections(exchanges, MemoryActs()))
        for provider in ("openai", "house", "nobody"):
            for first, last in ((FIRST, FIRST), (FIRST, FIRST + timedelta(days=1)), (FIRST, FIRST + timedelta(days=9))):
                found = await desk.books.used(provider, first, last)
                assert list(found) == list(await mirror.used(provider, first, last))
                assert await desk.books.presumed(first, last) == await mirror.presumed(first, last)
        everything = [
            each
            for provider in ("openai", "house")
            for each in await desk.books.used(provider, FIRST - timedelta(days=9), FIRST + timedelta(days=9))
        ]
        charged = sum(each.charged_nano for each in rows if "presumed" not in each.flags)
        assert sum(each.nano for each in everything) == charged

    play(scene)


def their_log(rows: list[Row], draw: random.Random, cost: bool) -> list[str]:
    """What the provider counted of each request of ours, which is now and then something else."""
    lines = []
    for each in rows:
        tokens = [draw.randrange(4_000), draw.randrange(4_000)]
        cached = draw.randrange(tokens[0] + 1)
        price = PRICE.lines(Usage(input=tokens[0], output=tokens[1], cache_read=cached), "small", 0)
        cells = [
            str(FIRST),
            UPSTREAMS[0] + "-2025-04-14",
            "1",
            str(tokens[0]),
            str(cached),
            str(tokens[1]),
            str(each.id),
        ]
        if cost:
            cells.append(usd(sum(line.amount_nano for line in price)))
        lines.append(",".join(cells))
    head = "date,model,requests,input_tokens,cached_tokens,output_tokens,exchange_id" + (",cost_usd" if cost else "")
    return [head, *lines]


@pytest.mark.parametrize("cost", [False, True])
def test_a_log_that_names_our_exchanges_ends_every_difference(play, cost: bool) -> None:
    """After it was applied, rows + corrections are what the provider counted, to the token and the nano-dollar."""

    async def scene(desk: Desk) -> None:
        draw = random.Random(11)
        answered = Attempt(0, "small", "openai", UPSTREAMS[0], 0, 5, first_token_ns=9)
        rows = []
        for number in range(20):
            used = Usage(input=draw.randrange(1, 4_000), output=draw.randrange(1, 4_000), cache_read=draw.randrange(1))
            lines = PRICE.lines(used, "small", 0)
            charged = sum(line.amount_nano for line in lines)
            rows.append(
                row(
                    arrived_unix_ns=FIRST_NS + number, attempts=(answered,), charge_lines=lines, charged_nano=charged,
                    overrun_nano=0,
                )
            )  # fmt: skip
        if cost:
            rows += [a_presumed(FIRST_NS + 10**9 + number, 10**8) for number in range(5)]
        for each in rows:
            desk.put(each)
        log = their_log(rows, draw, cost)
        asked = CostAsked(by=By.TENANT, since_unix_ns=FIRST_NS, until_unix_ns=FIRST_NS + DAY_NS)
        assert not (await desk.compare("openai", *log)).agree
        done = await desk.apply("openai", *log)
        if not cost:  # what no row of ours has used has no price here: the manifest names none
            unpriced = {each.exchange_id for each in done.not_applied}
            assert done.failed == len(unpriced)
            log = [line for line in log if not any(str(each) in line for each in unpriced)]
            for each in rows:
                if each.id in unpriced:
                    assert await desk.corrections.of(EVERY_TENANT, [each.id]) == []
        else:
            assert done.failed == 0
            found = await desk.compare("openai", *log)
            assert found.agree, [line for line in found.lines if not line.agrees]
            assert found.presumed_exchanges == 0
            theirs = sum((Decimal(line.rpartition(",")[2]) for line in log[1:]), Decimal(0))
            comes_to = sum(each.charged_nano for each in rows) + done.nano
            assert usd(comes_to) == f"{theirs:.9f}"
            for by in By:
                lines = await desk.exchanges.cost(EVERY_TENANT, structs.replace(asked, by=by))
                assert sum(line.charged_nano for line in lines) == comes_to
                assert sum(line.corrected_nano for line in lines) == done.nano
                assert sum(line.exchanges for line in lines) == len(rows)
        again = await desk.apply("openai", *log)
        assert (again.corrected, again.nano, again.agreed) == (0, 0, len(log) - 1)

    play(scene)
