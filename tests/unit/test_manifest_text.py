"""Whatever bytes are called a manifest: a few clear problems, in bounded time, and never an exception."""

from __future__ import annotations

import time
from decimal import Decimal

import pytest

from shipworthy.manifest.tree import FILE_BYTES_MAX, Tree, read_tree

HOSTILE = {
    "10 MB": b"a: " + b"x" * (10 << 20),
    "not UTF-8": b"a: 1\nb: \xff\xfe",
    "NUL": b"a: \x00",
    "escape codes": b"a: \x1b[2J",
    "flow sequences, deep": b"a: " + b"[" * 100_000,
    "flow mappings, deep": b"a: " + b"{b: " * 100_000,
    "block sequences, deep": b"a:\n" + b"- " * 100_000 + b"x",
    "block mappings, deep": b"".join(b" " * n + b"a:\n" for n in range(1_200)),
    "keys that are keys": b"? " * 50_000,
    "anchors, doubling": b"".join(
        b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 2) if n else b"x") for n in range(40)
    ),
    "an anchor in itself": b"a: &a {b: *a}",
    "many anchors": b"".join(b"a%d: &x%d y\n" % (n, n) for n in range(20_000)) + b"x: [\n",
    "a tag": b"a: !!python/object/apply:os.system ['true']",
    "a tag on a mapping": b"!!map {a: 1}",
    "a directive": b"%TAG ! tag:evil,2000:\n---\na: !x 1",
    "a YAML of the future": b"%YAML 9.9\n---\na: 1",
    "a huge number": b"a: " + b"9" * 500_000,
    "a huge exponent": b"a: 1e999999999",
    "many documents": b"---\na: 1\n" * 1_000,
    "a long key": b"k" * 5_000 + b": 1",
    "merge": b"a: &a {b: 1}\nc: {<<: *a}",
    "a mapping as key": b"{a: 1}: 2",
    "colons": b":" * 100_000,
    "quotes, open": b'a: "' + b"x\n" * 50_000,
    "only a byte order mark": b"\xef\xbb\xbf",
    "UTF-16": "a: 1".encode("utf-16"),
}  # fmt: skip


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_a_problem_or_a_value(content: bytes) -> None:
    began = time.monotonic()
    tree = read_tree(content, "m.yaml")
    assert time.monotonic() - began < 10
    for problem in tree.problems:
        assert problem.file == "m.yaml"
        assert 1 <= problem.line <= content.count(b"\n") + 2
        assert len(str(problem)) < 1_000
    assert tree.problems or tree.value


def value_of(text: str) -> object:
    tree = read_tree(text.encode(), "m.yaml")
    assert not tree.problems
    return tree.value


def test_values_are_what_yaml_12_says() -> None:
    """No `no` is false, no date is a date, and no fraction is rounded."""
    assert value_of(
        "a: no\nb: 2027-06-30\nc: 0.1\nd: 010\ne: 1_000\nf: ~\ng: 'true'\nh: True\n"
        "i: 1e3\nj: 0x10\nk: .inf\nl: 12:30\nm: -5\n"
    ) == {
        "a": "no", "b": "2027-06-30", "c": Decimal("0.1"), "d": 10, "e": "1_000", "f": None, "g": "true", "h": True,
        "i": Decimal("1e3"), "j": "0x10", "k": ".inf", "l": "12:30", "m": -5,
    }  # fmt: skip
    assert str(value_of("a: 0.10")) == "{'a': Decimal('0.10')}"
    assert value_of("on: 1\n2: 2\nnull: 3\n") == {"on": 1, "2": 2, "null": 3}


def test_windows_line_ends_and_byte_order_mark() -> None:
    tree = read_tree(b"\xef\xbb\xbfa: 1\r\nb:\r\n  c: 2\r\n", "m.yaml")
    assert tree.value == {"a": 1, "b": {"c": 2}}
    assert tree.mark(("b", "c")).line == 3


def test_aliases_are_copies() -> None:
    """Dropping what is wrong in one use of an anchor leaves the others whole."""
    tree = read_tree(b"a: &x {b: [1, 2]}\nc: *x\n", "m.yaml")
    tree.drop(("a", "b", 0))
    assert tree.value == {"a": {"b": [2]}, "c": {"b": [1, 2]}}


def test_what_follows_a_dropped_item_keeps_its_place() -> None:
    tree = read_tree(b"a:\n  - x: 1\n  - x: 2\n  - x: 3\n", "m.yaml")
    tree.drop(("a", 0))
    assert tree.value == {"a": [{"x": 2}, {"x": 3}]}
    mark = tree.mark(("a", 1, "x"))
    assert (mark.line, mark.path) == (4, ("a", 2, "x"))
    assert ("a", 2) not in tree.marks


def test_a_place_that_is_not_written_has_the_line_around_it() -> None:
    tree: Tree = read_tree(b"a:\n  b: 1\n", "m.yaml")
    mark = tree.mark(("a", "c", "d"))
    assert (mark.line, mark.path) == (1, ("a", "c", "d"))


def test_the_bound_on_size_is_exact() -> None:
    fits = b"a: '" + b"x" * (FILE_BYTES_MAX - 5) + b"'"
    assert len(fits) == FILE_BYTES_MAX
    assert not read_tree(fits, "m.yaml").problems
    assert "too large" in read_tree(fits + b"\n", "m.yaml").problems[0].what
