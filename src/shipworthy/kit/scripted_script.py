"""From a received request to the plan of its answer: what both scripted providers, server and in-process, share."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from shipworthy.kit import scripted_answer
from shipworthy.kit.scripted_config import Line, ScriptedConfig
from shipworthy.kit.scripted_faults import claimed, meet, parse_marker
from shipworthy.kit.scripted_log import Entry, Log
from shipworthy.kit.scripted_plan import Plan, plan_chat, plan_embeddings, plan_error

CHAT, EMBEDDINGS = "/chat/completions", "/embeddings"
_MARKER = re.compile(r"\[\[fault:([^\]]{1,200})\]\]")


class Script:
    """The schedule at work: counts requests, meets faults, logs."""

    def __init__(self, config: ScriptedConfig | None = None) -> None:
        self.config = config or ScriptedConfig()
        self.log = Log()
        self._sayings = tuple(scripted_answer.Saying(said.contains, said.say) for said in self.config.answers)

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[Entry, Plan]:
        """Logs a request and plans its answer. ``path`` is the part after the base URL."""
        entry = self.log.begin(path, headers, body)
        plan = self._plan(entry, path, body)
        entry.reported = plan.reported
        return entry, plan

    def _plan(self, entry: Entry, path: str, body: bytes) -> Plan:
        if path not in (CHAT, EMBEDDINGS):
            return plan_error(404, f"There is nothing at {path[:100]}.")
        try:
            asked = scripted_answer.read(body)
            line = self._line(entry.number, asked)
            entry.fault = line.fault if line else ""
            plan = self._answer(path, asked, body, line)
        except (msgspec.MsgspecError, ValueError) as reason:
            return plan_error(400, f"The request cannot be read: {reason}"[:500])
        return meet(line, plan) if line else plan

    def _answer(self, path: str, asked: scripted_answer.Asked, body: bytes, line: Line | None) -> Plan:
        config = self.config
        if path == EMBEDDINGS:
            vectors = scripted_answer.embed(asked, config.embedding_dimensions)
            return plan_embeddings(vectors, config.pace, claimed(line, vectors.usage))
        answer = scripted_answer.chat(asked, body, self._sayings)
        return plan_chat(answer, bool(asked.stream), config.pace, claimed(line, answer.usage))

    def _line(self, number: int, asked: scripted_answer.Asked) -> Line | None:
        if self.config.allow_markers and (marker := _MARKER.search(asked.last_text)):
            return parse_marker(marker[1])
        return next((line for line in self.config.script if line.covers(number)), None)
