"""A GGUF's header is read within its bounds; whatever else the file is, the reader says so and nothing worse happens."""

import struct
from pathlib import Path

import pytest

from shipworthy.adapters.embedded.llama_errors import FileDamaged, FileUnusable, NotGguf
from shipworthy.adapters.embedded.llama_gguf import ITEMS_MAX, PAIRS_MAX, read_header


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, value: str | int | list[str] | list[int]) -> bytes:
    match value:
        case str():
            return text(key) + struct.pack("<I", 8) + text(value)
        case int():
            return text(key) + struct.pack("<II", 4, value)
        case _:
            strings = isinstance(value[0], str)
            items = b"".join(text(item) if isinstance(item, str) else struct.pack("<I", item) for item in value)
            return text(key) + struct.pack("<IIQ", 9, 8 if strings else 4, len(value)) + items


def gguf(*pairs: bytes, version: int = 3, count: int | None = None) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(pairs) if count is None else count) + b"".join(pairs)


MODEL = (
    pair("general.architecture", "llama"),
    pair("general.name", "Tiny"),
    pair("llama.context_length", 2048),
    pair("llama.block_count", 10),
    pair("llama.embedding_length", 512),
    pair("llama.attention.head_count", 8),
    pair("llama.attention.head_count_kv", 2),
    pair("tokenizer.ggml.tokens", ["a", "bc", "déf"]),
    pair("tokenizer.ggml.token_type", [1, 1, 3]),
    pair("tokenizer.chat_template", "{{ messages }}"),
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tmp_path / "tiny.gguf"


def test_it_reads_what_a_model_says_of_itself(model: Path) -> None:
    """Name, reach, chat template and the memory of one token: 16-bit keys and values of every layer."""
    model.write_bytes(gguf(*MODEL) + bytes(100))
    header = read_header(model)
    assert (header.name, header.architecture, header.context_tokens) == ("Tiny", "llama", 2048)
    assert header.has_chat_template
    assert not header.has_pooling
    assert header.weight_bytes == model.stat().st_size
    assert header.memory_bytes_per_token == 2 * 10 * 2 * (64 + 64)


def test_a_base_model_has_no_chat_template(model: Path) -> None:
    model.write_bytes(gguf(*MODEL[:-1]))
    assert not read_header(model).has_chat_template


def test_a_sliding_window_claims_no_memory(model: Path) -> None:
    """A model that might fit is never refused, so what isn't known isn't counted."""
    model.write_bytes(gguf(*MODEL, pair("llama.attention.sliding_window", 512)))
    assert read_header(model).memory_bytes_per_token == 0


def test_every_way_of_cutting_it_short_is_told(model: Path) -> None:
    """A file cut at any byte of its header is refused as ours to name, never by a stray exception."""
    whole = gguf(*MODEL)
    for size in range(len(whole)):
        model.write_bytes(whole[:size])
        with pytest.raises(FileDamaged if size >= 4 else NotGguf):
            read_header(model)


@pytest.mark.parametrize(
    "content",
    [
        gguf(*MODEL, version=1),
        gguf(*MODEL, version=142385934),
        gguf(*MODEL, count=PAIRS_MAX + 1),
        gguf(*MODEL, count=2**63),
        gguf(pair("general.name", "no architecture")),
        gguf(text("k") + struct.pack("<I", 99)),
        gguf(text("k") + struct.pack("<IIQ", 9, 8, ITEMS_MAX + 1)),
        gguf(text("k") + struct.pack("<IIQ", 9, 99, 1)),
        gguf(text("k") + struct.pack("<IIQ", 9, 9, 1) * 1 + struct.pack("<IQ", 9, 1) * 5000),
        gguf(struct.pack("<Q", 2**64 - 1) + b"key"),
    ],
    ids=["old", "nonsense", "pairs", "huge", "nameless", "type", "items", "itemtype", "nested", "keysize"],
)
def test_nonsense_is_damaged(model: Path, content: bytes) -> None:
    """Counts and lengths are foreign input: none of them is followed beyond its bound."""
    model.write_bytes(content)
    with pytest.raises(FileDamaged) as caught:
        read_header(model)
    assert str(model) in caught.value.message
    assert caught.value.hint


def test_another_kind_of_file_is_not_a_gguf(model: Path) -> None:
    model.write_bytes(b"PK\x03\x04 a zip")
    with pytest.raises(NotGguf, match=r"local\.not_gguf"):
        read_header(model)


def test_a_missing_file_and_a_directory_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(FileUnusable, match=r"local\.file"):
            read_header(path)
