"""A GGUF's own account of itself: read from its header, with bounds, before any process is started for it.

Why read it ourselves? A wrong file is told apart from a dying process, the framing follows from whether there is a chat
template, and whether the model fits in memory is known before it pushes other programs out. The layout is the GGUF
specification's: magic, version, two counts, then key-value pairs; the tensors behind them are llama.cpp's business.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from shipworthy.adapters.embedded.llama_errors import FETCH_AGAIN, FileDamaged, FileUnusable, NotGguf

MAGIC = b"GGUF"
VERSIONS = (2, 3)
PAIRS_MAX = 10_000
ITEMS_MAX = 16_000_000  # of one array: several times the largest vocabulary
KEY_BYTES_MAX = 1 << 16
SKIPPED_DEPTH_MAX = 4  # arrays within arrays

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")

Value = int | float | bool | str | None  # None: an array, which is stepped over


@dataclass(frozen=True)
class GgufHeader:
    """What matters of a header: the model's name and reach, whether it can chat, and its least need of memory."""

    name: str
    architecture: str
    context_tokens: int  # 0: not said
    has_chat_template: bool
    has_pooling: bool  # says how its embeddings are made
    weight_bytes: int  # of this file; a split model's other files come on top
    memory_bytes_per_token: int  # of context; 0 where it can't be known to be needed in full


def read_header(path: Path) -> GgufHeader:
    """The header of the GGUF at ``path``; FileUnusable, NotGguf or FileDamaged when there is none."""
    try:
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise NotGguf(
                    f"{path} isn't a GGUF: it doesn't begin with {MAGIC.decode()}.",
                    "Name a model file in the GGUF format.",
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                pairs = _Reader(content).pairs()
                return _header(pairs, path, len(content))
    except OSError as error:
        raise FileUnusable(
            f"{path} can't be read: {error.strerror or error}.",
            "Name an existing GGUF file that this account may read.",
        ) from error
    except (struct.error, IndexError, ValueError) as error:
        # Every way of running off the end or reading nonsense lands here: the file contradicts its own lengths.
        raise FileDamaged(f"{path} begins as a GGUF, but its header can't be read: {error}.", FETCH_AGAIN) from error


class _Reader:
    """Steps through the pairs; every length is held against what is left of the file."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._at = len(MAGIC)

    def pairs(self) -> dict[str, Value]:
        version = self._number(_U32)
        if version not in VERSIONS:
            raise ValueError(f"version {version}, and this server reads {VERSIONS}")
        self._number(_U64)  # tensors
        count = self._number(_U64)
        if count > PAIRS_MAX:
            raise ValueError(f"{count} entries, more than {PAIRS_MAX}")
        found: dict[str, Value] = {}
        for _ in range(count):
            key = self._string(KEY_BYTES_MAX)
            found[key] = self._value(self._number(_U32))
        return found

    def _number(self, layout: struct.Struct) -> int:
        (number,) = layout.unpack_from(self._content, self._at)
        self._at += layout.size
        return int(number)

    def _step(self, size: int) -> int:
        start = self._at
        if size > len(self._content) - start:
            raise ValueError("it ends early")
        self._at += size
        return start

    def _string(self, size_max: int) -> str:
        size = self._number(_U64)
        if size > size_max:
            raise ValueError(f"a text of {size} bytes")
        start = self._step(size)
        return self._content[start : start + size].decode("utf-8", "replace")

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string(len(self._content))
        if kind == _ARRAY:
            self._skip_array(1)
            return None
        layout = struct.Struct(_SCALARS[kind] if kind in _SCALARS else _unknown(kind))
        value: int | float | bool = layout.unpack_from(self._content, self._step(layout.size))[0]
        return value

    def _skip_array(self, depth: int) -> None:
        kind, count = self._number(_U32), self._number(_U64)
        if count > ITEMS_MAX or depth > SKIPPED_DEPTH_MAX:
            raise ValueError(f"an array of {count} items at depth {depth}")
        if kind == _STRING:
            self._skip_strings(count)
        elif kind == _ARRAY:
            for _ in range(count):
                self._skip_array(depth + 1)
        else:
            self._step(count * struct.calcsize(_SCALARS[kind] if kind in _SCALARS else _unknown(kind)))

    def _skip_strings(self, count: int) -> None:
        # A vocabulary has 262,144 of them: the loop is kept bare, and running off the end raises.
        content, at, size_of, end = self._content, self._at, _U64.unpack_from, len(self._content)
        for _ in range(count):
            at += 8 + size_of(content, at)[0]
            if at > end:
                raise ValueError("it ends early")
        self._at = at


def _unknown(kind: int) -> str:
    raise ValueError(f"a value of the unknown type {kind}")


def _header(pairs: dict[str, Value], path: Path, size: int) -> GgufHeader:
    architecture = pairs.get("general.architecture")
    if not isinstance(architecture, str):
        raise ValueError("it names no architecture")
    name = pairs.get("general.name")
    template = pairs.get("tokenizer.chat_template")
    return GgufHeader(
        name=name if isinstance(name, str) and name else path.stem,
        architecture=architecture,
        context_tokens=_count(pairs, f"{architecture}.context_length"),
        has_chat_template=isinstance(template, str) and bool(template.strip()),
        has_pooling=f"{architecture}.pooling_type" in pairs,
        weight_bytes=size,
        memory_bytes_per_token=_memory_bytes_per_token(pairs, architecture),
    )


def _memory_bytes_per_token(pairs: dict[str, Value], architecture: str) -> int:
    # Keys and values in 16 bits, for every layer. A sliding window or heads that differ by layer need less than that,
    # so for them nothing is claimed: a model that might fit is never refused.
    if pairs.get(f"{architecture}.attention.sliding_window"):
        return 0
    layers = _count(pairs, f"{architecture}.block_count")
    heads = _count(pairs, f"{architecture}.attention.head_count_kv")
    key = _count(pairs, f"{architecture}.attention.key_length")
    value = _count(pairs, f"{architecture}.attention.value_length")
    width, all_heads = (
        _count(pairs, f"{architecture}.embedding_length"),
        _count(pairs, f"{architecture}.attention.head_count"),
    )
    fallback = width // all_heads if all_heads else 0
    return 2 * layers * heads * ((key or fallback) + (value or fallback))


def _count(pairs: dict[str, Value], key: str) -> int:
    value = pairs.get(key)
    return value if isinstance(value, int) and value > 0 else 0
