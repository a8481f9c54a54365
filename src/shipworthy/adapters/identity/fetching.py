"""An issuer's keys from where it publishes them: by its JWKS address, or by discovery."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from shipworthy.adapters.identity.keys import KeySet, KeysInvalid, read_keys
from shipworthy.adapters.identity.reading import quoted, read_object
from shipworthy.adapters.identity.settings import IssuerSettings, insecure, loopback
from shipworthy.model.errors import Refusal

DISCOVERY_PATH = "/.well-known/openid-configuration"

Get = Callable[[str], Awaitable[bytes]]


class FetchFailed(Exception):
    """The document did not come, or is not one that may be used."""


async def fetch_keys(get: Get, settings: IssuerSettings) -> KeySet:
    """The keys that the issuer publishes now, by its JWKS address or by discovery. Raises FetchFailed."""
    uri = settings.jwks_uri or await discover(get, settings.issuer)
    if why := insecure(uri):
        raise FetchFailed(f"jwks_uri {quoted(uri)}: {why}")
    document = await get(uri)
    try:
        return read_keys(document)
    except KeysInvalid as invalid:
        raise FetchFailed(f"{uri}: {invalid}") from invalid


async def discover(get: Get, issuer: str) -> str:
    """The JWKS address in the issuer's discovery document (OpenID Connect Discovery §4), which must name the issuer."""
    url = issuer.rstrip("/") + DISCOVERY_PATH
    if why := insecure(url):
        raise FetchFailed(f"discovery at {quoted(url)}: {why}")
    try:
        document = read_object(await get(url), "discovery document")
    except Refusal as refusal:
        raise FetchFailed(f"{url}: {refusal.detail}") from refusal
    if document.get("issuer") != issuer:
        raise FetchFailed(f"{url} speaks for {quoted(document.get('issuer'))}, not for {issuer}")
    uri = document.get("jwks_uri")
    if not isinstance(uri, str):
        raise FetchFailed(f"{url} names no jwks_uri")
    if loopback(uri) and not loopback(url):
        raise FetchFailed(f"{url} leads to this machine, {quoted(uri)}")
    return uri
