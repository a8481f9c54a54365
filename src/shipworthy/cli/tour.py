"""The demo's tour: real requests to the running server, each with the record that is kept of it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from shipworthy.bootstrap import control_plane, development_issuer, read_manifest
from shipworthy.control.audit import explain
from shipworthy.model.exchange import Row
from shipworthy.model.money import NANO_PER_USD
from shipworthy.model.observation import Observation
from shipworthy.model.op import uuid7
from shipworthy.model.reading import EVERY_TENANT
from shipworthy.ports import TokenWish
from shipworthy.process.supervisor import Supervisor

SPENDING_TRIES_MAX = 20
RECORD_WAIT_S = 5.0
LOG_WAIT_S = 3.0
LOG_TAIL_BYTES = 262_144
LEFT_TO_AUDIT_SHOW = {"Checks", "What was changed or is special", "How to find it elsewhere"}


class TourFailed(Exception):
    """A step did not go as the tour says: the demo ends with an error, never with a pretended success."""


class Tour:
    """Walks once from a question to a rescue; every line that it prints was said by the server."""

    def __init__(self, config: Path, supervisor: Supervisor, log: Path, *, bundled: bool) -> None:
        self._config = config
        self._supervisor = supervisor
        self._log = log
        self._bundled = bundled
        self._console = Console(highlight=False)

    async def walk(self) -> None:
        base = self._supervisor.address
        agent = self._token("northwind", "ada", ("support-agents",))
        analyst = self._token("southwind", "sam", ("analysts",))
        async with aiohttp.ClientSession(base) as self._http:
            await self._question(agent)
            await self._refusals(agent, analyst)
            await self._rescue(agent)
        self._where_to_look(base)

    async def _question(self, token: str) -> None:
        self._title("1 · A real question, answered")
        if self._bundled:
            self._say(
                "(the bundled model is a small [b]base[/b] model, prompted with a few examples: expect short, plain answers)"
            )
        status, body, request_id = await self._ask(token, "support", "What is the capital of Germany?")
        self._expect(status, 200, body)
        await self._show_record(request_id, outcome="served")

    async def _refusals(self, agent: str, analyst: str) -> None:
        self._title("2 · Three refusals")
        self._say("[b]A forged token[/b]: another subject was written into it after signing.")
        status, body, request_id = await self._ask(_forged(agent), "support", "Who am I?")
        self._expect(status, 401, body)
        await self._show_log(request_id)
        self._say("\n[b]A spent budget[/b]: southwind has $0.00001 a day.")
        for _ in range(SPENDING_TRIES_MAX):
            status, body, request_id = await self._ask(analyst, "support", "What is the chemical symbol for gold?")
            if status != 200:
                break
        self._expect(status, 429, body)
        await self._show_record(request_id, outcome="refused")
        self._say("\n[b]A boundary[/b]: the only model of this use case is overseas, and the data is confidential.")
        status, body, request_id = await self._ask(agent, "marketing", "A slogan for us?", data_class="confidential")
        self._expect(status, 403, body)
        await self._show_record(request_id, outcome="refused")

    async def _rescue(self, token: str) -> None:
        self._title("3 · A rescue: the first provider drops the connection, the next one answers")
        status, body, request_id = await self._ask(token, "rescue", "What language is spoken in Brazil?")
        self._expect(status, 200, body)
        row = await self._show_record(request_id, outcome="served")
        if not [attempt for attempt in row.attempts if attempt.failure]:
            raise TourFailed("the first provider was expected to fail, and it did not")

    def _where_to_look(self, base: str) -> None:
        token = self._token("northwind", "ada", ("support-agents",), ttl_s=12 * 3600)
        admin = self._token("northwind", "olga", ("demo-operators",), ttl_s=12 * 3600)
        self._title("4 · Where to look")
        self._say(
            f"console  {self._supervisor.admin_address}/console   (sign in with ADMIN_TOKEN: an operator sees every tenant)"
        )
        self._plain(f"record   {sys.argv[0]} audit show ID -c {self._config}")
        self._plain(f"cost     {sys.argv[0]} cost report --by use-case -c {self._config}\n")
        self._plain(f"export TOKEN={token}\nexport ADMIN_TOKEN={admin}\n")
        body = json.dumps({"model": "support", "messages": [{"role": "user", "content": "Who made Windows?"}]})
        self._plain(
            f'curl {base}/v1/chat/completions -H "authorization: Bearer $TOKEN" \\\n'
            f"  -H 'content-type: application/json' -d '{body}'\n"
        )
        self._plain(
            "import os; from openai import OpenAI    # pip install openai\n"
            f'client = OpenAI(base_url="{base}/v1", api_key=os.environ["TOKEN"])\n'
            'messages = [{"role": "user", "content": "Who made Windows?"}]\n'
            'reply = client.chat.completions.create(model="gpt-4o", messages=messages)\n'
            "print(reply.choices[0].message.content)"
        )

    # ------------------------------------------------------------------------------------------ asking and showing

    async def _ask(
        self, token: str, model: str, question: str, data_class: str = ""
    ) -> tuple[int, dict[str, Any], str]:
        """Sends one streamed request and prints the answer as it comes: status, error body ({} = none), request id."""
        headers = {"authorization": f"Bearer {token}"} | ({"x-shipworthy-data-class": data_class} if data_class else {})
        raised = f"  x-shipworthy-data-class: {data_class}" if data_class else ""
        self._say(f"[dim]POST /v1/chat/completions  model={model}{raised}[/dim]")
        self._say(f"[cyan]→ {escape(question)}[/cyan]")
        body = {"model": model, "stream": True, "temperature": 0, "messages": [{"role": "user", "content": question}]}
        async with self._http.post("/v1/chat/completions", json=body, headers=headers) as answer:
            request_id = answer.headers["x-shipworthy-request-id"]
            if answer.status != 200:
                said: dict[str, Any] = await answer.json()
                error = said["error"]
                self._say(f"[red]← {answer.status} {error['code']}[/red]  {escape(error['message'])}")
                self._say(f"  [yellow]hint[/yellow] {escape(error['hint'])}")
                return answer.status, said, request_id
            self._console.print("[green]← [/green]", end="")
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    for choice in json.loads(line[6:]).get("choices", []):
                        self._console.print(escape(choice["delta"].get("content") or ""), end="")
            self._console.print()
            return 200, {}, request_id

    async def _show_record(self, request_id: str, *, outcome: str) -> Row:
        """Prints the row behind a request, in plain words. Raises TourFailed when it is not there or says otherwise."""
        row = await self._row(UUID(request_id))
        if row is None or row.outcome.value != outcome:
            raise TourFailed(f"the record of {request_id} was expected to say {outcome}: {row and row.outcome.value}")
        lines = [
            f"[b]{escape(section.title)}[/b] · {escape(' '.join(section.sentences))}"
            for section in explain(row)
            if section.title not in LEFT_TO_AUDIT_SHOW
        ]
        used = f"{row.usage.input} in, {row.usage.output} out" if row.usage else "none"
        lines.append(
            f"[dim]tokens {used} · cost ${row.charged_nano / NANO_PER_USD:.9f} · shipworthy audit show {row.id}[/dim]"
        )
        self._console.print(
            Panel("\n".join(lines), title=f"record {request_id}", title_align="left", border_style="dim")
        )
        return row

    async def _row(self, exchange_id: UUID) -> Row | None:
        deadline = time.monotonic() + RECORD_WAIT_S
        async with control_plane(self._config, _silent) as plane:
            while True:
                row = await plane.exchanges.get(EVERY_TENANT, exchange_id)
                if row is not None or time.monotonic() > deadline:
                    return row
                await asyncio.sleep(0.05)

    async def _show_log(self, request_id: str) -> None:
        """A request without a sender leaves no row: a line in the bounded security log, and a counter."""
        deadline = time.monotonic() + LOG_WAIT_S
        while not (found := self._logged(request_id)):
            if time.monotonic() > deadline:
                raise TourFailed(f"the security log does not mention {request_id}")
            await asyncio.sleep(0.05)
        text = "No sender is known, so there is no row: a counter, and this line of the security log.\n" + found[-1]
        self._console.print(
            Panel(escape(text), title=f"security log {request_id}", title_align="left", border_style="dim")
        )

    def _logged(self, request_id: str) -> list[str]:
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - LOG_TAIL_BYTES))
            return [line for line in log.read().decode("utf-8", "replace").splitlines() if request_id in line]

    def _expect(self, status: int, wanted: int, body: dict[str, Any]) -> None:
        if status != wanted:
            raise TourFailed(f"expected {wanted}, got {status}: {body}")

    def _token(self, tenant: str, subject: str, groups: tuple[str, ...], ttl_s: int = 3600) -> str:
        issuer = development_issuer(read_manifest(self._config))
        assert issuer is not None
        wish = TokenWish(tenant=tenant, subject=subject, groups=groups, ttl_s=ttl_s)
        return issuer.mint(wish, uuid7(time.time_ns()), time.time_ns())

    def _title(self, title: str) -> None:
        self._console.print()
        self._console.rule(f"[b]{title}[/b]", align="left")

    def _say(self, text: str) -> None:
        self._console.print(text)

    def _plain(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


def _forged(token: str) -> str:
    """``token`` with another subject under the old signature."""
    head, payload, signature = token.split(".")
    claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    claims["sub"] = "someone-else"
    forged = urlsafe_b64encode(json.dumps(claims, separators=(",", ":")).encode()).rstrip(b"=").decode()
    return f"{head}.{forged}.{signature}"


def _silent(_: Observation) -> None:
    return
