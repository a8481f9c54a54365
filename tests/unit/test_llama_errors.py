"""What llama.cpp says when it dies becomes an error that names the cause and what to do."""

import signal

import pytest

from shipworthy.adapters.embedded import llama_errors as errors
from shipworthy.model.errors import StartRefused


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("E srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 1", errors.PortTaken),
        ("tensor 'x' data is not within the file bounds, model is corrupted", errors.FileDamaged),
        ("ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 9", errors.MemoryShort),
        ("unknown model architecture: 'zork'", errors.FileUnusable),
        ("gguf_init_from_reader: failed to read key-value pairs", errors.FileDamaged),
        ("something new", errors.ChildDied),
    ],
)
def test_known_last_words_name_the_cause(line: str, kind: type[errors.LocalModelError]) -> None:
    said = errors.death("m.gguf", 3, ("before", line), loading=True)
    assert type(said) is kind
    assert isinstance(said, StartRefused)
    assert line in said.message
    assert said.hint


def test_a_kill_while_loading_is_memory_and_later_is_a_kill() -> None:
    """The kernel's out-of-memory killer leaves no words; once the model served, a kill is just told."""
    assert isinstance(errors.death("m", -signal.SIGKILL, (), loading=True), errors.MemoryShort)
    later = errors.death("m", -signal.SIGKILL, (), loading=False)
    assert isinstance(later, errors.ChildDied)
    assert "SIGKILL" in later.message
    assert "(it said nothing)" in later.message


def test_a_missing_extra_names_the_command() -> None:
    assert "pip install 'shipworthy[local]'" in errors.ExtraMissing("llama.cpp").hint


def test_every_code_is_in_the_tree_above() -> None:
    kinds = errors.LocalModelError.__subclasses__()
    assert len({kind.CODE for kind in kinds}) == len(kinds) == 10
    assert errors.__doc__ is not None
    for kind in kinds:
        assert f"{kind.__name__}  " in errors.__doc__
        assert f" {kind.CODE}" in errors.__doc__
