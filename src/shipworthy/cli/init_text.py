"""The manifest that ``shipworthy init`` writes: short, commented, and accepted by ``shipworthy check``."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from shipworthy.cli.init_search import Found, FoundModel, taken_ports

SERVER_PORTS = (8080, 8081, 8082, 8083, 8084)

Named = tuple[str, Found, FoundModel]


def manifest_text(name: str, found: Sequence[Found]) -> str:
    """``shipworthy.yaml`` for what was found."""
    models = _named(found)
    chats = [model for model in models if not model[2].embeds]
    embeds = [model for model in models if model[2].embeds]
    parts = [
        _head(name, found),
        "providers:\n" + "".join(_provider(provider) for provider in found),
        "models:\n" + "".join(map(_model, models)),
        "use_cases:\n" + (_assistant(chats) if chats else "") + (_embeddings(embeds) if embeds else ""),
    ]
    return "\n".join(parts)


def slug(text: str, fallback: str = "model") -> str:
    """``text`` as a name that a manifest takes."""
    cleaned = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:48].strip("-._")
    return cleaned or fallback


def _named(found: Sequence[Found]) -> list[Named]:
    named: list[Named] = []
    taken: set[str] = set()
    for provider in found:
        for model in provider.models:
            base = slug(model.upstream.rsplit("/", 1)[-1])
            name = next(each for n in range(1, 1000) if (each := base if n == 1 else f"{base}-{n}") not in taken)
            taken.add(name)
            named.append((name, provider, model))
    return named


def _text(value: str) -> str:
    """Quoted for YAML: JSON's strings are YAML's."""
    return json.dumps(value, ensure_ascii=False)


def _name(name: str) -> str:
    """Quoted unless YAML can only read it as text."""
    plain = name[0].isalpha() and name not in ("true", "false", "null")
    return name if plain else _text(name)


def _head(name: str, found: Sequence[Found]) -> str:
    port = next(port for port in SERVER_PORTS if port not in taken_ports(found))
    target = "embeddings" if all(model.embeds for provider in found for model in provider.models) else "assistant"
    return f"""\
# Shipworthy's manifest: what this deployment must be. `shipworthy check` says whether it may be put in force.
shipworthy: 1
name: {_name(name)}
environment: development

requirements:                     # every line rules something out
  data_classes: [public, internal, confidential, restricted]
  boundary:                       # what a provider must promise before it sees a class, or one above it
    confidential: {{trains_on_data: false, retention_days_max: 0}}
    restricted: {{network: [private, local]}}
  audit: {{durability: strict, retention_days: 365, bodies: {{retention_days: 30, bytes_max: 262144}}}}

server: {{host: 127.0.0.1, port: {port}}}
admin: {{host: 127.0.0.1, port: 8090}}   # console and admin API

identity:
  service_keys: true              # shipworthy key create
  development_issuer: true        # shipworthy token mint; remove it where others can reach the server
  # issuers:                      # your identity provider
  #   - {{issuer: "https://login.example", audience: shipworthy, claims: {{tenant: org, groups: groups}}}}

tenants:
  main:
    budget: {{usd: 10, per: month, alert_at: [0.5, 0.8]}}   # no request is admitted beyond it
    teams: {{everyone: {{}}}}
    roles:                        # the first that matches and grants is taken
      developer: {{groups: [developers], team: everyone, use_cases: ["*"], admin: true}}
      backend: {{keys: true, team: everyone, use_cases: ["*"]}}
    aliases: {{gpt-4o: {target}}}   # a prototype keeps the model name that it has

operators: {{groups: [operators], tenant_claim_optional: true}}
"""


def _provider(provider: Found) -> str:
    settings = [f"kind: {provider.kind}"]
    if provider.base_url:
        settings.append(f"base_url: {_text(provider.base_url)}")
    if provider.variable:
        settings.append(f"credentials: {{env: {provider.variable}}}")
    if provider.kind == "llama-cpp":
        return (
            f"  {provider.name}: {{{', '.join(settings)}}}   # {provider.label}; path: FILE.gguf replaces the model\n"
        )
    if provider.local:
        settings.append("boundary: {network: local, trains_on_data: false, retention_days: 0}")
        return f"  {provider.name}: {{{', '.join(settings)}}}   # {provider.label}\n"
    lines = [
        f"  {provider.name}:                       # {provider.label}",
        *(f"    {setting}" for setting in settings),
    ]
    lines.append("    boundary: {network: public}   # state what your agreement promises: regions, trains_on_data, …")
    return "\n".join(lines) + "\n"


def _model(named: Named) -> str:
    name, provider, model = named
    keys = [f"provider: {provider.name}", f"upstream: {_text(model.upstream)}"]
    if model.embeds:
        keys.append("abilities: [embed]")
    keys.append(f"context_tokens_max: {model.context_tokens_max}")
    if not model.embeds:
        keys.append(f"output_tokens_max: {model.output_tokens_max}")
    lines = [f"  {_name(name)}:", *(f"    {key}" for key in keys)]
    if model.guessed:
        lines[-1 if model.embeds else -2] += "      # a careful guess: the server did not say"
    if provider.local:
        lines.append(
            "    price: {input_usd_per_mtok: 0, output_usd_per_mtok: 0}   # free is written down; yours may not be"
        )
    else:
        lines.append(
            "    # its price is in the table; price: {input_usd_per_mtok: …, output_usd_per_mtok: …} replaces it"
        )
    return "\n".join(lines) + "\n"


def _assistant(models: Sequence[Named]) -> str:
    context = min(model.context_tokens_max for _, _, model in models)
    output = min(1_000, *(model.output_tokens_max for _, _, model in models), context // 4)
    given = min(16_000, context - output)
    names = [name for name, _, _ in models]
    at_home = [name for name, provider, _ in models if provider.local]
    rules = ""
    if at_home and len(at_home) < len(names):
        rules = f"""
      rules:                      # CEL; the first that holds decides, and its id is in the record
        - {{id: stays-home, when: "request.data_class >= class.confidential", models: {json.dumps(at_home)}}}"""
    return f"""\
  assistant:                      # what a client names in `model`
    job: "Answer a colleague's question."
    owner: everyone
    data_class: internal          # absent = the most sensitive
    mode: enforce                 # observe: decide and record only
    tokens: {{input_max: {given}, output_max: {output}}}
    route:
      strategy: first             # first | weighted | cheapest | fastest | least-busy
      models: {json.dumps(names)}{rules}
    limits: {{requests_per_min: 60, concurrent: 8}}
"""


def _embeddings(models: Sequence[Named]) -> str:
    names = [name for name, _, _ in models]
    return f"""\
  embeddings:
    job: "Embed texts for search."
    owner: everyone
    data_class: internal
    route: {{models: {json.dumps(names)}}}
"""
