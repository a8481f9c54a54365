"""``providers`` and ``models`` → endpoints with their boundary, and models with a price."""

from __future__ import annotations

from collections.abc import Sequence

from shipworthy.manifest.linking import Linking
from shipworthy.manifest.problem import KeyPath
from shipworthy.manifest.shape_models import BoundaryShape, ModelShape, QuotaShape, TimeoutsShape
from shipworthy.model.money import Component, Price
from shipworthy.model.route import Ability, Boundary, Model, Network, Provider, Quota, Timeouts

PRICE_KEYS = {
    "input_usd_per_mtok": Component.INPUT,
    "output_usd_per_mtok": Component.OUTPUT,
    "cache_read_usd_per_mtok": Component.CACHE_READ,
    "cache_write_usd_per_mtok": Component.CACHE_WRITE,
    "reasoning_usd_per_mtok": Component.REASONING,
    "input_audio_usd_per_mtok": Component.INPUT_AUDIO,
    "output_audio_usd_per_mtok": Component.OUTPUT_AUDIO,
    "image_usd": Component.IMAGE,
    "request_usd": Component.REQUEST,
}


def link_providers(linking: Linking) -> dict[str, Provider]:
    """Every provider whose settings could be read."""
    linked = {}
    for name, shape in linking.manifest.providers.items():
        settings = linking.shaped.settings.get(name)
        if settings is None:
            continue  # its kind or its settings are problems already
        spec = linking.specs[shape.kind]
        boundary = _boundary(linking, ("providers", name, "boundary"), shape.boundary, spec.boundary)
        timeouts = _timeouts(linking, ("providers", name, "timeouts"), shape.timeouts)
        concurrent = shape.concurrent_max or spec.concurrent_max
        quota = _quota(shape.limits)
        linked[name] = Provider(name, shape.kind, boundary, timeouts, concurrent, settings, quota)
    return linked


def _quota(shape: QuotaShape) -> Quota | None:
    """None when no limit is stated."""
    quota = Quota(shape.requests_per_min or 0, shape.tokens_per_min or 0)
    return None if quota == Quota() else quota


def _boundary(linking: Linking, path: KeyPath, stated: BoundaryShape, natural: Boundary | None) -> Boundary:
    """What is stated, else what the kind promises by its nature, else the worst case."""
    base = natural or Boundary()
    home = (linking.manifest.region,) if natural is not None and linking.manifest.region else base.regions
    agreement = stated.agreement
    if agreement is not None and agreement.expires is not None and agreement.expires < linking.today.isoformat():
        what = f"the agreement {agreement.id} has expired and no longer counts"
        linking.tree.warn((*path, "agreement"), what, said=agreement.expires, hint="renew it, or leave it out")
    return Boundary(
        regions=tuple(stated.regions) if stated.regions is not None else home,
        network=Network(stated.network) if stated.network is not None else base.network,
        trains_on_data=base.trains_on_data if stated.trains_on_data is None else stated.trains_on_data,
        retention_days=base.retention_days if stated.retention_days is None else stated.retention_days,
        agreement_id=agreement.id if agreement else base.agreement_id,
        agreement_expires=(agreement.expires or "") if agreement else base.agreement_expires,
    )


def _timeouts(linking: Linking, path: KeyPath, shape: TimeoutsShape) -> Timeouts:
    default = Timeouts()
    total = shape.total_ms or default.total_ms
    timeouts = Timeouts(
        connect_ms=shape.connect_ms or min(default.connect_ms, total),
        first_token_ms=shape.first_token_ms or min(default.first_token_ms, total),
        total_ms=total,
    )
    for key in ("connect_ms", "first_token_ms"):
        if getattr(timeouts, key) > total:
            linking.tree.report(
                (*path, key), "longer than total_ms, so it would never be reached", wanted=f"at most {total}"
            )
    return timeouts


def link_models(linking: Linking, providers: dict[str, Provider]) -> dict[str, Model]:
    """Every model whose provider and price are known."""
    linked = {}
    for name, shape in linking.manifest.models.items():
        path: KeyPath = ("models", name)
        provider = providers.get(shape.provider)
        if provider is None:
            linking.unknown(
                (*path, "provider"), "provider", shape.provider, linking.shaped.names(("providers",)), ("providers",)
            )
        if shape.output_tokens_max > shape.context_tokens_max:
            wanted = f"at most {shape.context_tokens_max}, the model's context_tokens_max"
            linking.tree.report((*path, "output_tokens_max"), "more than the model's context holds", wanted=wanted)
        price = _price(linking, path, shape)
        if provider is not None and price is not None:
            linked[name] = _model(name, shape, provider, price, linking.specs[provider.kind].template_tokens)
    return linked


def _model(name: str, shape: ModelShape, provider: Provider, price: Price, template_tokens: int) -> Model:
    return Model(
        name=name,
        provider=provider,
        upstream=shape.upstream,
        abilities=frozenset(Ability(ability) for ability in shape.abilities),
        origin=shape.origin,
        modalities=frozenset(shape.modalities),
        context_tokens_max=shape.context_tokens_max,
        output_tokens_max=shape.output_tokens_max,
        price=price,
        chars_per_token=shape.chars_per_token,
        template_tokens=template_tokens,
    )


def _price(linking: Linking, path: KeyPath, shape: ModelShape) -> Price | None:
    """The manifest's price, else the table's; a model without one is refused."""
    if shape.price is not None:
        units = {PRICE_KEYS[key]: pico for key in PRICE_KEYS if isinstance(pico := getattr(shape.price, key), int)}
        return _complete(linking, (*path, "price"), Price(units, "manifest"), shape.abilities)
    provider = linking.manifest.providers.get(shape.provider)
    if provider is None:
        return None
    base_url = getattr(linking.shaped.settings.get(shape.provider), "base_url", "")  # by agreement: see specs
    found = linking.price_of(provider.kind, shape.upstream, base_url)
    if found is None:
        hint = "add price: {input_usd_per_mtok: …, output_usd_per_mtok: …}; a free model says so with 0"
        what = f"the model is unpriced: the price table does not know {shape.upstream} of {shape.provider}"
        linking.tree.report(path, what, said="no price", wanted="a price", hint=hint)
        return None
    return _complete(linking, path, found, shape.abilities)


def _complete(linking: Linking, path: KeyPath, price: Price, abilities: Sequence[str]) -> Price | None:
    """``price``, if it says what output costs: a model that chats has some, one that only embeds has none."""
    if Component.OUTPUT in price.unit_pico:
        return price
    if "chat" in abilities:
        what = "a model that chats needs a price for its output"
        linking.tree.report(path, what, wanted="output_usd_per_mtok: …", hint="a free model says so with 0")
        return None
    return Price(price.unit_pico | {Component.OUTPUT: 0}, price.source, price.effective)
