"""What waits for the recorder's writer is made ahead: one batch at most, beside the writer only, never used when stale."""

from __future__ import annotations

from msgspec import structs

from shipworthy.adapters.store.keyring import Kek, Keyring
from shipworthy.adapters.store.sheets import sheet, sheet_ahead
from shipworthy.adapters.store.vault import Vault
from shipworthy.adapters.store.waiting import Item, RecorderBounds, Waiting
from shipworthy.kit.builders import a_row, an_op
from shipworthy.model.exchange import Bodies
from shipworthy.ports import Entry

TENANT = "northwind"


def an_entry(request: bytes = b"asked") -> Entry:
    return Entry(a_row(an_op(), TENANT), Bodies(request, b"said", False), None, None)


def a_vault() -> Vault:
    return Vault(Keyring((Kek("k", bytes(32)),), bytes(32)))


def keep(vault: Vault, entry: Entry) -> None:
    vault.keep(TENANT, entry.row.subject, vault.unwrap(TENANT, vault.draw(TENANT, 1)))


def filled(bounds: RecorderBounds, items: list[Item]) -> Waiting:
    """A line in which the first item is being written, and the others wait."""
    line = Waiting(structs.replace(bounds, batch_entries_max=1, gather_ms=0.0))
    line.put(items[0], "")
    assert line.take() == items[:1]
    line._bounds = bounds
    for item in items[1:]:
        line.put(item, "")
    return line


def given(line: Waiting) -> list[Item]:
    found = []
    while line._has_next():
        found.append(line.next_ahead())
    return [item for item in found if item is not None]


def test_at_most_one_batch_is_made_ahead_and_each_entry_once() -> None:
    """Memory: what is made ahead is as bounded as the batch that it will be."""
    items = [Item(an_entry(), None) for _ in range(8)]
    line = filled(RecorderBounds(batch_entries_max=4, gather_ms=0.0), items)
    assert given(line) == items[1:5]
    line.written(items[:1])
    assert line.take() == items[1:5]
    assert given(line) == items[5:]


def test_bytes_end_it_as_they_end_a_batch() -> None:
    """What was made ahead is the batch to come, never a part of the one after."""
    items = [Item(an_entry(b"x" * 50_000), None) for _ in range(5)]
    line = filled(RecorderBounds(batch_bytes_max=130_000, gather_ms=0.0), items)
    assert given(line) == items[1:3]
    assert line.take() == items[1:3]


def test_nothing_is_made_ahead_while_the_writer_is_idle() -> None:
    """An idle writer takes what comes at once: nobody would gain."""
    line = Waiting(RecorderBounds())
    line.put(Item(an_entry(), None), "")
    assert not line._has_next()


def test_the_end_of_the_writer_ends_what_is_beside_it() -> None:
    """A drained worker leaves no thread behind."""
    line = Waiting(RecorderBounds())
    line.end()
    assert line.next_ahead() is None


def test_what_changed_since_is_made_again() -> None:
    """A row that has become late says so, and a body is never stored under a key that went out of use meanwhile."""
    entry, vault = an_entry(), a_vault()
    keep(vault, entry)
    key = vault.cached(TENANT, entry.row.subject)
    made = sheet(entry, key)
    item = Item(entry, None)
    assert made.stands(entry, key)
    item.late = True
    late = item.entry()
    assert late is not None and "record_late" in late.row.flags
    assert not made.stands(late, key)
    keep(vault, entry)
    assert not made.stands(entry, vault.cached(TENANT, entry.row.subject))


def test_a_key_that_only_the_store_has_is_left_to_the_writer() -> None:
    """Whoever works ahead asks the store nothing."""
    entry, vault = an_entry(), a_vault()
    assert sheet_ahead(entry, vault) is None
    keep(vault, entry)
    made = sheet_ahead(entry, vault)
    assert made is not None
    assert [part for part, _ in made.parts] == ["request", "reply"]
    assert sheet_ahead(structs.replace(entry, bodies=None), a_vault()) is not None
