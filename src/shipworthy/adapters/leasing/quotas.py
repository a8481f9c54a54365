"""A provider's own limits, kept before it has to say 429: sliding minutes over all workers, on leases like every limit.

The windows belong to no tenant: they stand in the store under a name that no tenant can have.
"""

from __future__ import annotations

from shipworthy.adapters.leasing.ledger import LeasedLedger
from shipworthy.model.errors import FailureKind, ProviderFailure, Refusal, StoreUnavailable
from shipworthy.model.ledger import Charge, Claim, Estimate, Hold
from shipworthy.model.op import Op
from shipworthy.model.route import Provider, Quota

PROVIDERS = "@providers"
NO_BUDGET = -1


class ProviderQuotas:
    """ports.Quotas, over the leases of one worker."""

    def __init__(self, ledger: LeasedLedger) -> None:
        self._ledger = ledger
        self._claims: dict[tuple[str, Quota], tuple[Claim]] = {}  # as many as the manifests in force named

    async def take(self, op: Op, provider: Provider, tokens: int) -> Hold | None:
        if provider.limits is None:
            return None
        try:
            return await self._ledger.share(
                op, PROVIDERS, self._claim(provider.name, provider.limits), Estimate(tokens, 0, 0)
            )
        except Refusal as refused:
            limit = refused.code.removeprefix("reserve.").removesuffix("_limit")
            said = f"the limit of {limit} a minute that the manifest sets for provider {provider.name} is reached"
            raise ProviderFailure(
                FailureKind.CAPACITY, said, sent=False, retry_after_s=refused.retry_after_s
            ) from refused
        except StoreUnavailable as away:
            raise Refusal("reserve.store_unavailable", detail=str(away), retry_after_s=5) from away

    def used(self, taken: Hold, tokens: int, *, sent: bool) -> None:
        if taken.purse is not None:
            taken.purse.settle(taken, Charge((), 0, 0, tokens), counts=sent)

    def _claim(self, name: str, limits: Quota) -> tuple[Claim]:
        """Always the same tuple for the same limits: it names the path."""
        claims = self._claims.get((name, limits))
        if claims is None:
            claim = Claim(
                f"provider={name}", NO_BUDGET, "", None, None, limits.requests_per_min, limits.tokens_per_min, 0
            )
            claims = self._claims[name, limits] = (claim,)
        return claims
