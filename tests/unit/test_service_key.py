"""The text of a service key: random, told from a typo without a look-up, proved without being kept."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from shipworthy.model import service_key
from shipworthy.model.service_key import ALPHABET, KEY_LETTERS, SECRET_LETTERS, mint, parse


def test_a_key_reads_back_and_has_enough_random_bits() -> None:
    key = mint()
    assert parse(key.reveal()) == key
    assert len(key.reveal()) == KEY_LETTERS
    assert SECRET_LETTERS * math.log2(len(ALPHABET)) >= 96
    assert mint().id != key.id


@given(st.integers(0, KEY_LETTERS - 1), st.sampled_from(ALPHABET))
def test_one_wrong_letter_is_told_without_a_lookup(place: int, letter: str) -> None:
    text = mint().reveal()
    changed = text[:place] + letter + text[place + 1 :]
    assert (parse(changed) is None) == (changed != text)


@given(st.text(max_size=2 * KEY_LETTERS))
def test_anything_else_is_no_key(text: str) -> None:
    assert parse(text) is None
    assert parse("sk-" + text) is None


def test_the_secret_does_not_print() -> None:
    key = mint()
    assert key.secret not in repr(key)
    assert key.secret not in f"{key}"


def test_the_proof_depends_on_the_pepper_the_id_and_the_secret() -> None:
    key, other = mint(), mint()
    proofs = {
        key.proof(b"p" * 32),
        key.proof(b"q" * 32),
        other.proof(b"p" * 32),
        service_key.SecretKey(other.id, key.secret).proof(b"p" * 32),
    }
    assert len(proofs) == 4
    assert all(len(proof) == 32 for proof in proofs)
