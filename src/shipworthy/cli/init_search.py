"""What is here to be used: providers' keys in the environment, and model servers that listen on this machine.

Nothing leaves the machine: keys are only seen to exist, and only loopback is asked, with bounds on time and bytes.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PROBE_TIMEOUT_S = 0.2
PROBE_TOTAL_S_MAX = 1.0
PROBE_BYTES_MAX = 1_048_576
MODELS_PER_SERVER_MAX = 4
UPSTREAM_CHARS_MAX = 200


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model that can be had. Context and output bounds are what is known, or a careful guess."""

    upstream: str
    context_tokens_max: int
    output_tokens_max: int
    embeds: bool = False
    guessed: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A provider that can be used. ``variable`` names the environment variable of its key, "" = none is needed."""

    name: str
    label: str
    kind: str
    base_url: str = ""
    variable: str = ""
    local: bool = False
    models: tuple[FoundModel, ...] = field(default=())
    port: int = 0


def _remote(name: str, label: str, variable: str, base_url: str, upstream: str, context: int, output: int) -> Found:
    kind = "openai-compatible" if base_url else "openai"
    return Found(name, label, kind, base_url, variable, models=(FoundModel(upstream, context, output),))


REMOTE = (
    _remote("openai", "OpenAI", "OPENAI_API_KEY", "", "gpt-4.1-mini", 128_000, 16_000),
    _remote(
        "anthropic", "Anthropic", "ANTHROPIC_API_KEY", "https://api.anthropic.com/v1", "claude-haiku-4-5", 200_000, 16_000
    ),
    _remote(
        "gemini", "Google Gemini", "GEMINI_API_KEY", "https://generativelanguage.googleapis.com/v1beta/openai",
        "gemini-2.5-flash", 200_000, 16_000,
    ),
    _remote("mistral", "Mistral", "MISTRAL_API_KEY", "https://api.mistral.ai/v1", "mistral-small-latest", 32_000, 8_000),
    _remote("groq", "Groq", "GROQ_API_KEY", "https://api.groq.com/openai/v1", "llama-3.3-70b-versatile", 128_000, 8_000),
    _remote("deepseek", "DeepSeek", "DEEPSEEK_API_KEY", "https://api.deepseek.com/v1", "deepseek-chat", 64_000, 8_000),
    _remote(
        "together", "Together AI", "TOGETHER_API_KEY", "https://api.together.xyz/v1",
        "meta-llama/Llama-3.3-70B-Instruct-Turbo", 128_000, 8_000,
    ),
    _remote(
        "openrouter", "OpenRouter", "OPENROUTER_API_KEY", "https://openrouter.ai/api/v1",
        "openai/gpt-4.1-mini", 128_000, 16_000,
    ),
    _remote("xai", "xAI", "XAI_API_KEY", "https://api.x.ai/v1", "grok-3-mini", 128_000, 8_000),
)  # fmt: skip
"""Providers with an address in OpenAI's dialect, and a small model that the price table knows."""

LOCAL = (
    ("ollama", "Ollama", 11434, "/api/tags"),
    ("vllm", "vLLM", 8000, "/v1/models"),
    ("llama-server", "llama.cpp's server", 8080, "/v1/models"),
    ("lm-studio", "LM Studio", 1234, "/v1/models"),
)

CHILD = Found(
    "local", "a small model on this machine", "llama-cpp", local=True,
    models=(FoundModel("gemma-3-270m-base", 4_096, 512),),
)  # fmt: skip
"""What is used when nothing else is here: Shipworthy's own child process."""


def search(environ: Mapping[str, str]) -> list[Found]:
    """Every provider that can be used here, remote ones first."""
    found = [remote for remote in REMOTE if environ.get(remote.variable, "").strip()]
    answers = _ask_all()
    for name, label, port, path in LOCAL:
        models = _models(answers.get(name), ollama=path == "/api/tags")
        if models:
            base_url = f"http://127.0.0.1:{port}/v1"
            found.append(Found(name, label, "openai-compatible", base_url, local=True, models=tuple(models), port=port))
    return found


def _ask_all() -> dict[str, object]:
    """What the local servers answer. Whoever drips for longer is left behind, to end with the process."""
    answers: dict[str, object] = {}

    def note(name: str, port: int, path: str) -> None:
        answers[name] = ask(port, path)

    asking = [threading.Thread(target=note, args=(name, port, path), daemon=True) for name, _, port, path in LOCAL]
    for thread in asking:
        thread.start()
    deadline = time.monotonic() + PROBE_TOTAL_S_MAX
    for thread in asking:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(answers)


def ask(port: int, path: str) -> object:
    """The JSON that a server on this machine's ``port`` answers; None when it does not, or says anything else."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_TIMEOUT_S)
    deadline = time.monotonic() + PROBE_TOTAL_S_MAX
    try:
        connection.request("GET", path, headers={"accept": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            return None
        body = b""
        while piece := response.read1(65_536):
            body += piece
            if len(body) > PROBE_BYTES_MAX or time.monotonic() > deadline:
                return None
        return json.loads(body)
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None  # nobody there, or somebody who is no model server: either way nothing was found
    finally:
        connection.close()


def _models(answer: object, *, ollama: bool) -> list[FoundModel]:
    """The models that a server lists, those that chat first."""
    entries = answer.get("models" if ollama else "data") if isinstance(answer, dict) else None
    found = [_model(entry, ollama=ollama) for entry in entries] if isinstance(entries, list) else []
    known = {model.upstream: model for model in found if model is not None}
    return sorted(known.values(), key=lambda model: model.embeds)[:MODELS_PER_SERVER_MAX]


def _model(entry: object, *, ollama: bool) -> FoundModel | None:
    if not isinstance(entry, dict):
        return None
    upstream = entry.get("name" if ollama else "id")
    if not isinstance(upstream, str) or not upstream.isprintable() or not 0 < len(upstream) <= UPSTREAM_CHARS_MAX:
        return None
    said = entry.get("max_model_len")  # vLLM says it
    known = isinstance(said, int) and not isinstance(said, bool) and 256 <= said <= 10_000_000
    context = said if known and isinstance(said, int) else 4_096
    return FoundModel(upstream, context, min(2_048, context // 4), "embed" in upstream.lower(), guessed=not known)


def taken_ports(found: Iterable[Found]) -> set[int]:
    """Ports that local servers already listen on."""
    return {provider.port for provider in found if provider.port}
