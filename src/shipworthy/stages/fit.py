"""fit: the request within the use case's token caps. What was capped is said in the record and in a header."""

from __future__ import annotations

from shipworthy.model.chat import Request
from shipworthy.model.identity import Grant
from shipworthy.model.knowledge import Passages
from shipworthy.model.op import Op
from shipworthy.model.prompt import Fitted, Prompt
from shipworthy.model.route import Ability
from shipworthy.stages.estimate import ceiling_input


def output_cap(grant: Grant, request: Request) -> int:
    """What the client asked for (authorize has checked it), else the declared cap; never more than a model can give."""
    return min(request.output_tokens_asked or grant.use_case.tokens.output_max, grant.permitted.output_tokens_max)


def fit(op: Op, grant: Grant, request: Request, prompt: Prompt, passages: Passages) -> Fitted:
    """The stage. Only the output cap is laid over the client's bytes until prompts and passages exist."""
    cap = output_cap(grant, request)
    silent = request.output_tokens_asked is None and request.operation is Ability.CHAT
    return Fitted(
        output_tokens_max=cap,
        input_tokens=ceiling_input(request, grant.permitted) + prompt.tokens + passages.tokens,
        replace={},
        cut=(f"output capped at {cap} tokens, the use case's output_max: the client named no cap",) if silent else (),
    )
