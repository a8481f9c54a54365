"""settle: hold → charge lines. What was used, how that is known, and what went beyond the hold.

Usage reported by the provider, else counted from what passed, else the ceiling that was held; every line says which.
An attempt that failed is charged what its provider may bill all the same (``Attempt.usage``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec.structs import replace

from shipworthy.model.exchange import Received
from shipworthy.model.identity import Grant
from shipworthy.model.ledger import Charge, Estimate, Hold
from shipworthy.model.money import Basis, ChargeLine, Usage
from shipworthy.model.op import Op
from shipworthy.model.route import Attempt, Model


def settle(op: Op, hold: Hold, grant: Grant, attempts: Sequence[Attempt], received: Received) -> Charge:
    """The stage: lines for every attempt, in order."""
    lines: list[ChargeLine] = []
    tokens = 0
    for attempt in attempts:
        model = grant.permitted.by_name[attempt.model]
        usage = used(model, hold.estimate, received) if attempt.first_token_ns else attempt.usage
        if usage is not None:
            lines.extend(model.price.lines(usage, model.name, attempt.number))
            tokens += usage.input + usage.output
    amount_nano = sum([line.amount_nano for line in lines])
    return Charge(tuple(lines), amount_nano, max(0, amount_nano - hold.estimate.amount_nano), tokens)


def used(model: Model, estimate: Estimate, received: Received) -> Usage:
    """What the attempt that answered used: as reported, else counted; what nobody here can count is the ceiling.

    A reply that broke off may have reported only its beginning: then what was counted is the floor.
    """
    reported = received.usage
    if reported is not None and received.done:
        return reported
    output = math.ceil(received.text_chars / model.chars_per_token)
    if not estimate.countable and reported is None:
        return Usage(input=estimate.input_tokens, output=output, basis=Basis.CEILING)
    counted = Usage(input=estimate.input_expected, output=output, basis=Basis.COUNTED)
    if reported is None:
        return counted
    return replace(reported, output=max(reported.output, output), basis=Basis.COUNTED)
