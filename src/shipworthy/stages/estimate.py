"""How much a request can use at most, and how much it is expected to use.

The ceiling needs no tokenizer: a token is never shorter than a byte of UTF-8, so the request's bytes are a ceiling for its
tokens; inline media are taken out: images are counted by a ceiling each, and what no count of bytes bounds (sound, files,
media that only the provider knows) by the whole context of the model. It is priced at the dearest *permitted* model.
"""

from __future__ import annotations

from collections.abc import Sequence

from shipworthy.model.chat import Request
from shipworthy.model.ledger import Estimate
from shipworthy.model.money import Basis, Usage, round_to_nano
from shipworthy.model.route import Ability, Lineup, Model

IMAGE_TOKENS_MAX = 40_000
"""The dearest published price of one image is ~37,000 tokens (gpt-4o-mini, high detail, 2048 × 2048)."""
MESSAGE_TOKENS = 8
"""What a chat template adds around a message at most, in tokens, beyond the JSON's own punctuation."""

LINES_MAX = 9
"""An attempt has at most this many charge lines, each rounded up by less than a nano-USD."""


def ceiling_input(request: Request, models: Lineup) -> int:
    """None of ``models`` can count more input tokens than this."""
    content = request.content
    seen = len(request.body) + MESSAGE_TOKENS * (1 + len(request.parts)) + models.template_tokens
    if content.images:
        seen += IMAGE_TOKENS_MAX * content.images
    if content.unbounded:
        seen += content.unbounded * models.context_tokens_max
    return seen - content.bytes_inline


def expected_input(request: Request, model: Model) -> int:
    """Input tokens by the model's calibrated ratio: for choosing and for counting, never for holding."""
    characters = request.content.characters
    return int(characters / model.chars_per_token) + 4 * (1 + len(request.parts)) + model.template_tokens


def ceiling_output(request: Request, output_tokens_max: int) -> int:
    """The cap for each answer; a prediction that turns out wrong is billed as output too, whatever the cap."""
    if request.operation is Ability.EMBED:
        return 0
    predicted = request.fields.get("prediction")
    return (output_tokens_max + (len(bytes(predicted)) if predicted else 0)) * request.choices


def estimate(request: Request, models: Lineup, output_tokens_max: int) -> Estimate:
    """The hold for ``request`` at the dearest of ``models``."""
    input_tokens = ceiling_input(request, models)
    return Estimate(
        input_tokens=input_tokens,
        output_tokens=ceiling_output(request, output_tokens_max),
        amount_nano=dearest_cost(request, input_tokens, output_tokens_max, models),
        input_expected=max([expected_input(request, model) for model in models]),
        countable=request.content.countable,
    )


def dearest_cost(request: Request, input_tokens: int, output_tokens_max: int, models: Sequence[Model]) -> int:
    """Nano-USD that one attempt at any of ``models`` can cost at most: none is asked for more than it can give."""
    images, dearest = request.content.images, 0
    for model in models:
        output = ceiling_output(request, min(output_tokens_max, model.output_tokens_max))
        dearest = max(dearest, ceiling_cost(model, input_tokens, output, images))
    return dearest


def ceiling_cost(model: Model, input_tokens: int, output_tokens: int, images: int) -> int:
    """Nano-USD if every token were of the dearest component that the model prices on its side."""
    price = model.price
    tokens = price.dearest_input * input_tokens + price.dearest_output * output_tokens
    most = tokens + price.per_request + (price.per_image * images if images else 0)
    return round_to_nano(most) + LINES_MAX if most else 0  # what is free is served also when the budget is spent


def expected_cost(model: Model, request: Request, output_tokens: float) -> int:
    """Nano-USD that this request will probably cost at ``model``: what the strategy *cheapest* compares."""
    usage = Usage(input=expected_input(request, model), output=int(output_tokens), basis=Basis.COUNTED)
    return sum(line.amount_nano for line in model.price.lines(usage, model.name, 0))
