"""A recorded exchange told in plain words: who asked, what policy said, why this model, what it cost, where time went.

For whoever is woken at night: each section answers one question, in whole sentences, from the row alone. What the row does
not know is said, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from shipworthy.control.wording import article, counted, lasting, listed, moment, usd, usd_per_million
from shipworthy.model.correction import Correction
from shipworthy.model.errors import CODES
from shipworthy.model.exchange import Outcome, Row
from shipworthy.model.money import Basis, ChargeLine, Component
from shipworthy.model.route import Attempt, Candidate, Strategy

BASIS_WORDS = {
    Basis.REPORTED: "as the provider reported",
    Basis.COUNTED: "as counted here, because the provider reported nothing",
    Basis.CEILING: "the most it can have been, because nothing better is known",
    Basis.FREE: "free of charge",
}
FAILURE_WORDS = {
    "connect": "no connection could be made",
    "first_token_timeout": "its first token did not come in time",
    "total_timeout": "it was not done in time",
    "rate_limited": "the provider turned it away for going too fast",
    "server_error": "the provider failed",
    "rejected": "the provider rejected the request itself",
    "unauthorised": "the provider did not accept our credential",
    "broken": "the connection or its framing broke",
    "invalid": "the answer was not what the dialect promises",
    "capacity": "this provider already had as many requests as it may have at once",
}
FLAG_WORDS = {
    "usage_counted": "The provider reported no usage, so tokens were counted here.",
    "drained": "The client had left; the rest of the answer was read from the provider to settle exactly.",
    "presumed": "The worker died before it could record this; the sweeper wrote the row and presumed the hold as spent.",
    "body_truncated": "The bodies were longer than their cap and are kept only in part.",
    "mode_observed": "The use case only observes: what policy would have refused was recorded and let through.",
    "overrun": "More was used than was held.",
    "downgraded": "A budget had no room for the dearest model, so only the models could serve that it names to go on with.",
    "usage_ceiling": "Nothing is known of what was used, so the most it can have been was charged.",
    "usage_refused": "The provider reported usage that cannot be true; it was not believed.",
    "usage_implausible": "The provider reported no output although text arrived.",
    "client_left": "The client left before the end.",
    "record_late": "It was committed later than its client waited for: the client was told that it could not be recorded.",
    "record_incomplete": "A defect kept the row's details from being made; the log names it. What was charged is all here.",
    "replay_of": "The request repeats an earlier one by its Idempotency-Key, and got that one's stored answer.",
    "opaque_content": "Part of the content cannot be read here (audio, images, encrypted reasoning).",
}
STEP_SHARE_PERCENT_MIN = 5


class Section(Struct, frozen=True):
    """One question about an exchange and the sentences that answer it."""

    title: str
    sentences: tuple[str, ...]


def explain(row: Row, corrections: Sequence[Correction] = ()) -> tuple[Section, ...]:
    """The whole decision in sentences, most needed first. Sections with nothing to say are left out."""
    told = (
        Section("In short", tuple(_in_short(row))),
        Section("Who asked", tuple(_who(row))),
        Section("What policy said", tuple(_policy(row))),
        Section(_model_question(row), tuple(_models(row))),
        Section("What was tried", tuple(_attempts(row))),
        Section("Money", (*_money(row), *_corrected(row, corrections))),
        Section("Time", tuple(_time(row))),
        Section("Checks", tuple(_checks(row))),
        Section("What was changed or is special", tuple(_special(row))),
        Section("How to find it elsewhere", tuple(_elsewhere(row))),
    )
    return tuple(section for section in told if section.sentences)


# ------------------------------------------------------------------------------------------------ in short


def _in_short(row: Row) -> Iterator[str]:
    asked = f"{_sender(row)} asked {_target(row)} at {moment(row.arrived_unix_ns)}"
    model = f"the model {row.model}" if row.model else "no model"
    match row.outcome:
        case Outcome.SERVED if row.source == "replay":
            yield f"{asked} with an Idempotency-Key already used and got the stored answer again, without charge."
        case Outcome.SERVED:
            spent = f"in {lasting(row.duration_ns)}, for ${usd(row.charged_nano)}"
            yield f"{asked} and was answered by {model} {spent}."
            yield from _rescue(row)
        case Outcome.REFUSED:
            yield f"{asked} and was refused: {row.refusal_code}."
        case Outcome.CUT:
            yield f"{asked}; the answer of {model} broke off after {lasting(row.duration_ns)}."
        case Outcome.FAILED:
            yield f"{asked} and got no answer: {row.refusal_code or 'the server failed'}."
        case Outcome.ABANDONED:
            yield f"{asked} and left before the answer was complete, after {lasting(row.duration_ns)}."
    if row.refusal_code:
        yield from _refusal(row)


def _rescue(row: Row) -> Iterator[str]:
    failed = [attempt.model for attempt in row.attempts if attempt.failure]
    if failed:
        yield f"It took {counted(len(row.attempts), 'attempt')}: {listed(failed)} failed first."


def _refusal(row: Row) -> Iterator[str]:
    stage = row.refusal_code.partition(".")[0]
    code = CODES.get(row.refusal_code)
    facts = _Facts(use_case=row.use_case or row.alias, data_class=row.data_class)
    said = row.refusal_detail or (code.message.format_map(facts) if code else "nothing more is recorded")
    yield f"The stage `{stage}` said: {_ended(said)}"
    if code is None:
        yield f"The code {row.refusal_code} is not in this version's catalogue; it was written by another one."
    else:
        yield f"What the client was told to do: {code.hint.format_map(facts)}"
    if row.outcome is Outcome.REFUSED and not row.attempts:
        yield "Nothing was asked of a provider."


class _Facts(dict[str, str]):
    """Facts of a refusal that the row keeps by name; the others are left open in the words."""

    def __missing__(self, key: str) -> str:
        return "…"


# ------------------------------------------------------------------------------------------------ who


def _who(row: Row) -> Iterator[str]:
    proof = f"the service key {row.key_id}" if row.key_id else f"a token of {row.issuer}" if row.issuer else ""
    subject = f"It was {row.subject or 'an unnamed subject'} of the tenant {row.tenant}"
    yield f"{subject}, proved by {proof}." if proof else f"{subject}; the row names no proof."
    if row.actor:
        yield f"{row.actor} acted for {row.subject}; both were verified."
    if row.end_user:
        yield f"The caller asserted the end user {row.end_user}: unverified, used for limits and accounting only."
    if row.session:
        yield f"It belongs to the session {row.session}."


def _policy(row: Row) -> Iterator[str]:
    if not row.role:
        yield "No role was granted: the request ended before, or no role of the tenant matched."
    else:
        yield (
            f"The role {row.role} of the team {row.team or '(none)'} matched, with clearance up to "
            f"{row.clearance or '(none)'}."
        )
    if row.alias:
        yield f"The client named {row.alias}, which is an alias for the use case {row.use_case or '(none)'}."
    elif row.use_case:
        yield f"The client named the use case {row.use_case}."
    if row.data_class:
        yield f"The data was handled as {row.data_class}."
    if row.mode == "enforce":
        yield "The use case enforces every decision."
    elif row.mode:
        yield f"The use case is in the mode {row.mode}: only identity, isolation and money caps are enforced."
    if row.rules:
        yield f"Rules that decided, in order: {listed(row.rules)}."


# ------------------------------------------------------------------------------------------------ models


def _model_question(row: Row) -> str:
    return f"Why {row.model}" if row.model else "Why no model"


def _models(row: Row) -> Iterator[str]:
    if not row.candidates:
        if row.outcome is not Outcome.SERVED:
            yield "It ended before models were considered."
        return
    taken = [candidate.model for candidate in row.candidates if candidate.taken]
    if row.strategy and taken:
        yield f"By the strategy {row.strategy} the order was {', then '.join(taken)}."
    yield from (_candidate(candidate, row.strategy) for candidate in row.candidates)


def _candidate(candidate: Candidate, strategy: str) -> str:
    reason = candidate.reason.removeprefix(f"{strategy}: ") or "no reason was recorded"
    if candidate.taken and strategy != Strategy.FIRST:
        reason = f"{reason}, at {candidate.score:g}"  # of `first` it is only the place
    verb = "taken" if candidate.taken else "left"
    return f"{candidate.model} at {candidate.provider} was {verb}: {_ended(reason)}"


def _attempts(row: Row) -> Iterator[str]:
    for attempt in row.attempts:
        yield _attempt(attempt)
    if row.source and row.source not in ("model", "replay"):
        yield f"The answer came from {article(row.source)} source, not from a model."


def _attempt(attempt: Attempt) -> str:
    begin = f"{attempt.model} ({attempt.upstream} at {attempt.provider}), begun {lasting(attempt.started_ns)} in"
    status = f", status {attempt.status}" if attempt.status else ""
    if not attempt.failure:
        first = f"sent its first token after {lasting(attempt.first_token_ns)} and " if attempt.first_token_ns else ""
        return f"{begin}, {first}ended after {lasting(attempt.duration_ns)}{status}."
    why = FAILURE_WORDS.get(attempt.failure, attempt.failure)
    said = f" Details: {_ended(attempt.detail)}" if attempt.detail else ""
    billed = (
        "The provider may have seen and billed it" if attempt.sent else "Nothing was sent, so nothing can be billed"
    )
    return f"{begin}, failed after {lasting(attempt.duration_ns)}: {why} ({attempt.failure}{status}).{said} {billed}."


# ------------------------------------------------------------------------------------------------ money


def _money(row: Row) -> Iterator[str]:
    if not (row.estimated_nano or row.held_nano or row.charged_nano or row.charge_lines):
        yield "Nothing was estimated, held or charged."
        return
    yield (
        f"It could cost ${usd(row.estimated_nano)} at most; ${usd(row.held_nano)} was held; "
        f"${usd(row.charged_nano)} was charged."
    )
    if row.overrun_nano:
        beyond = "used beyond the hold, charged in full, and felt by the next admission"
        yield f"${usd(row.overrun_nano)} of it is overrun: {beyond}."
    for line in row.charge_lines:
        yield _charge_line(line)
    explained = sum(line.amount_nano for line in row.charge_lines)
    if explained != row.charged_nano:
        yield f"The lines come to ${usd(explained)}, which is not what was charged: report this as a defect."
    if row.lease_id is not None:
        yield f"The money came from the worker's lease {row.lease_id}."


def _corrected(row: Row, corrections: Sequence[Correction]) -> Iterator[str]:
    for each in corrections:
        source = f" ({each.source})" if each.source else ""
        amount = f"took ${usd(-each.nano)} off" if each.nano < 0 else f"added ${usd(each.nano)} to"
        yield f"On {moment(each.at_unix_ns)} {each.actor} {amount} what the row says: {_ended(each.reason + source)}"
    if corrections:
        comes_to = row.charged_nano + sum(each.nano for each in corrections)
        yield f"With {counted(len(corrections), 'correction')} it comes to ${usd(comes_to)}."


def _charge_line(line: ChargeLine) -> str:
    unit = line.component.value.replace("_", " ")
    if line.component in (Component.REQUEST, Component.IMAGE):
        price = f"${usd_per_million(line.unit_price_pico)} per million"
    else:
        price = f"${usd_per_million(line.unit_price_pico)} per million tokens"
    return (
        f"{line.model}: {line.quantity:,} {unit} at {price} = ${usd(line.amount_nano)}, "
        f"{BASIS_WORDS.get(line.basis, line.basis)}."
    )


# ------------------------------------------------------------------------------------------------ time


def _time(row: Row) -> Iterator[str]:
    first = f"; the first token came after {lasting(row.first_token_ns)}" if row.first_token_ns else ""
    yield f"It took {lasting(row.duration_ns)} in all{first}."
    if not row.steps:
        return
    longest = max(row.steps, key=lambda step: step.duration_ns)
    if row.duration_ns:
        share = 100 * longest.duration_ns / row.duration_ns
        if share >= STEP_SHARE_PERCENT_MIN:
            yield f"The longest step was {longest.stage}, with {min(share, 100):.0f} % of the time."
    yield "By step: " + ", ".join(f"{step.stage} {lasting(step.duration_ns)}" for step in row.steps) + "."


# ------------------------------------------------------------------------------------------------ checks and the rest


def _checks(row: Row) -> Iterator[str]:
    if not row.receipts:
        yield "There are no receipts: the request ended before any check had its turn."
    for receipt in row.receipts:
        detail = f": {_ended(receipt.detail)}" if receipt.detail else "."
        match receipt.status:
            case "ran":
                yield f"In {receipt.stage}, {receipt.check} ran{detail}"
            case "not_configured":
                yield f"In {receipt.stage}, nothing is configured for {receipt.check}{detail}"
            case other:
                yield f"In {receipt.stage}, {receipt.check} is {other}{detail}"
    if row.passage_ids:
        yield f"{counted(len(row.passage_ids), 'passage')} went into the prompt: {listed(row.passage_ids)}."


def _special(row: Row) -> Iterator[str]:
    yield from (_ended(cut[:1].upper() + cut[1:]) for cut in row.cut)
    for flag in row.flags:
        name, _, of = flag.partition(":")
        yield FLAG_WORDS.get(name, f"Flagged: {flag}.") + (f" That is {of}." if of else "")
    if row.finish and any(reason not in ("stop", "end_turn", "tool_calls", "tool_use") for reason in row.finish):
        yield f"The model stopped because of: {listed(row.finish)}."


def _elsewhere(row: Row) -> Iterator[str]:
    yield f"The id is {row.id}; the environment is {row.environment}{f' in {row.region}' if row.region else ''}."
    if row.traceparent:
        yield f"Its trace is {row.traceparent}."
    if row.manifest_digest:
        release = f", the release {row.release_digest[:12]}" if row.release_digest else ""
        yield f"In force was the manifest {row.manifest_digest[:12]}{release}."


def _sender(row: Row) -> str:
    who = row.subject or "An unnamed sender"
    return f"{who}, by way of {row.actor}," if row.actor else who


def _target(row: Row) -> str:
    return (
        f"the use case {row.use_case}" if row.use_case else f"for {row.alias}" if row.alias else "for something unnamed"
    )


def _ended(text: str) -> str:
    """``text`` as a sentence of its own."""
    tidy = text.strip()
    return tidy if tidy.endswith((".", "!", "?")) else tidy + "."
