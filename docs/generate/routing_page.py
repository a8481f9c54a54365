"""routing.md: strategies, circuits, retries and deadlines, with the figures that the code uses."""

from __future__ import annotations

from markdown import code, paragraphs, table

from shipworthy.manifest.specs import Spec
from shipworthy.model import circuit
from shipworthy.model.fleet import BUCKET_RATIO, BUCKETS, HALF_LIFE_NS, MEAN_WEIGHT
from shipworthy.model.route import Strategy, Timeouts
from shipworthy.stages.call import HEAD_EVENTS_MAX
from shipworthy.stages.estimate import IMAGE_TOKENS_MAX, MESSAGE_TOKENS
from shipworthy.stages.route import EXPLORE_ONE_IN

FORMULAS = {
    Strategy.FIRST: ("the manifest's order", "place in the route"),
    Strategy.WEIGHTED: (
        "drawing without replacement with the manifest's weights, seeded by the request's id, so that the record can repeat it",
        "`u^(1/weight)`, `u` uniform in 0–1; greatest first; without a weight: 1",
    ),
    Strategy.CHEAPEST: (
        "the expected cost of this request",
        "`expected input × input price + expected output × output price`, in USD; expected input is characters ÷ "
        "`chars_per_token` and a few tokens a message; expected output is the model's mean so far (exponential, weight "
        f"{MEAN_WEIGHT:g} for the newest), until one is known the output cap, and never more than it",
    ),
    Strategy.FASTEST: (
        "the median time to first token, as this worker saw it lately",
        f"median over {BUCKETS} buckets a factor of {BUCKET_RATIO:g} apart, in ms; a sample's weight halves every "
        f"{HALF_LIFE_NS // circuit.SECOND_NS} s. A model without a sample counts as 0 and comes first. One request in "
        f"{EXPLORE_ONE_IN} begins with one of the others, drawn evenly, so that a model that was slow can show that it recovered",
    ),
    Strategy.LEAST_BUSY: (
        "how much of its provider's capacity is taken",
        "requests in flight from this worker ÷ `concurrent_max` of the provider",
    ),
}


def page() -> str:
    assert set(FORMULAS) == set(Strategy)
    rows = [(code(name), *words) for name, words in FORMULAS.items()]
    return paragraphs(_intro(), table(("strategy", "first is the best by", "score in the record"), rows), _rest())


def _intro() -> str:
    return """
# Routing

Two stages choose. **authorize** decides which models of the use case may see the request at all: ability, modality, size,
the deciding [rule](conditions.md), and the provider's boundary against the data class. **route** orders those by the use
case's strategy and leaves out models whose circuit is open, and those that the money held is not for. **call** then tries them in that order until one gives a first
delta; afterwards nothing is retried.

Every model of the use case is in the record as a candidate: taken, with the strategy's score, or left, with the reason.

## Strategies

Lower scores come first unless said otherwise; ties keep the manifest's order.
"""


def _rest() -> str:
    s, c = circuit.SECOND_NS, circuit
    t = Timeouts()
    return f"""
What is learned (times, lengths, circuits) belongs to one worker process, outlives reloads, and is lost when it ends.

## Circuits

One a model. It **opens** when, of the last {c.WINDOW_OUTCOMES_MAX} outcomes that are at most {c.WINDOW_NS // s} s old, at least
{c.OPEN_AFTER_FAILURES} failed and they are {c.OPEN_AT_RATIO:.0%} or more; or at once when the provider sends `retry-after`. It stays
open for {c.OPEN_FIRST_NS // s} s, or for as long as `retry-after` says, at most {c.OPEN_LONGEST_NS // s} s. Then it is
**half-open**: one request at a time is let through as a probe; {c.CLOSE_AFTER_PROBES} that succeed close it, one that fails opens it
for twice as long as before, at most {c.OPEN_LONGEST_NS // s} s.

`rejected` and `capacity` say nothing about the provider's health and are not counted, nor is a request that the client gave up.
When every permitted model's circuit is open the request is refused with [`route.unavailable`](errors.md#routeunavailable) and
the shortest wait.

## Retries

Retries are a share of traffic, not a count: each request earns {c.RETRY_SHARE:g} of a retry, {c.RETRY_FLOOR_PER_S:g} a second are always
earned, at most {c.RETRY_BALANCE_MAX:g} are saved. So when every provider fails, the load upstream stays below
{1 + c.RETRY_SHARE:g} times the traffic (and {c.RETRY_FLOOR_PER_S:g} a second), where a retry count would multiply it.

A further attempt is made for every failure but `rejected` ([the list](errors.md#failures-of-providers)), while the client is there
and the hold covers it: a failed attempt that the provider may bill stays charged, so the
hold is raised first, and where the budget does not allow that the request ends with `reserve.budget_exhausted`.

## Deadlines

| what | manifest | default |
| --- | --- | --- |
| connection and TLS | `providers.NAME.timeouts.connect_ms` | {t.connect_ms:,} ms |
| first token of an attempt that streams | `providers.NAME.timeouts.first_token_ms` | {t.first_token_ms:,} ms |
| an attempt, to the last byte; a whole answer has no other | `providers.NAME.timeouts.total_ms` | {t.total_ms:,} ms |
| requests at a provider at once, per worker | `providers.NAME.concurrent_max` | {Spec.__dataclass_fields__["concurrent_max"].default} |

Events without content may come before the first delta, at most {HEAD_EVENTS_MAX}.

## The estimate

What is held before anything is paid for is a ceiling, so that no request can cost more than was checked:

- input tokens ≤ bytes of the body without inline media + {MESSAGE_TOKENS} for each part + {IMAGE_TOKENS_MAX:,} for each image
  (a token is never shorter than a byte of UTF-8); sound, files and media that only the provider knows may fill the model's
  whole `context_tokens_max`;
- output tokens ≤ what the client asked for, else `tokens.output_max`, never more than the model's `output_tokens_max`, and the
  bytes of a `prediction`, × `n`;
- the amount is that at the dearest component on each side, at the dearest model that is permitted for this request; a
  model that costs nothing holds nothing.

Where the budget of a level has no room for that and names models in `on_exhausted`, the estimate is made again for those of
them that are permitted, and all levels are asked again. What is held then is for these only: the others are candidates that
were left, `budget of LEVEL exhausted`, and the row has the flag `downgraded:LEVEL`. A cap is never passed, and a limit is no
reason to downgrade.

Once the order is known the hold is trimmed to what one attempt can cost at the dearest model *in it*. What was drawn from a lease
is given back at once; what was reserved straight in the store stays until settlement,
because giving it back would cost a round trip.

Settlement charges what the provider reports; else what was counted; else this ceiling. Each charge line says which.
"""
