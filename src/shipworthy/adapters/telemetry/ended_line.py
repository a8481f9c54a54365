"""The line that every exchange ends with, byte for byte as ``json_line`` writes it, at a tenth of the price.

Of its twelve fields five are texts that come again and again, so they are redacted, bounded and escaped once, and found
again by what they were. What is unusual (long texts, an id that is none, a figure that JSON has no number for) is left to
``json_line``; a property test holds the two to the same bytes.
"""

from __future__ import annotations

from functools import lru_cache

from shipworthy.adapters.telemetry.levels import Level
from shipworthy.adapters.telemetry.redaction import is_exchange_id, redact
from shipworthy.adapters.telemetry.rendering import LEVEL_NAMES, quoted, rfc3339
from shipworthy.model.observation import Ended

KINDS_MAX = 1_024
"""Combinations of texts that are remembered; the one that was not used for longest gives way."""
KIND_CHARS_MAX = 512
"""All texts of a combination: a client may name a use case of its own choice, and no memory is to be filled by that."""
FIGURE_MAX = 1e15
"""Milliseconds; beyond it, and for what is no number, ``json_line`` decides."""


class EndedLine:
    """``line`` writes one, or says b"" where it leaves that to ``json_line``."""

    __slots__ = ("_around",)

    def __init__(self, process: str) -> None:
        @lru_cache(KINDS_MAX)
        def around(level: Level, tenant: str, use_case: str, model: str, outcome: str, code: str) -> tuple[str, str]:
            """What stands before the exchange's id, and between it and the figures."""
            before = (
                f'","level":{quoted(LEVEL_NAMES[level])},"process":{quoted(process)},"event":"ended","exchange_id":"'
            )
            texts = {"tenant": tenant, "use_case": use_case, "model": model, "outcome": outcome, "code": code}
            said = ",".join(f'"{name}":{quoted(redact(text))}' for name, text in texts.items())
            return before, f'",{said},"duration_ms":'

        self._around = around

    def line(self, unix_ns: int, level: Level, e: Ended) -> bytes:
        tenant, use_case, model, outcome, code = e.tenant, e.use_case, e.model, e.outcome, e.code
        length = len(tenant) + len(use_case) + len(model) + len(outcome) + len(code)
        usual = 0 <= e.duration_ms < FIGURE_MAX and 0 <= e.first_token_ms < FIGURE_MAX
        if length > KIND_CHARS_MAX or not usual or not is_exchange_id(e.exchange_id):
            return b""
        before, after = self._around(level, tenant, use_case, model, outcome, code)
        return (
            f'{{"ts":"{rfc3339(unix_ns)}{before}{e.exchange_id}{after}{e.duration_ms!r},"first_token_ms":'
            f'{e.first_token_ms!r},"input_tokens":{e.input_tokens},"output_tokens":{e.output_tokens},'
            f'"charged_nano":{e.charged_nano},"overrun_nano":{e.overrun_nano}}}\n'
        ).encode("ascii")
