"""The console over a memory plane: its sessions, its pages, what they put on record, and what a hostile name can do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipworthy.console import door
from shipworthy.console.app import make_console
from shipworthy.console.session import COOKIE, SESSION_S, TOKEN_CHARS_MAX, seal, unseal
from shipworthy.console.waterfall import waterfall
from shipworthy.http.admin import make_admin
from shipworthy.kit.asgi import Answer, ask
from shipworthy.kit.clock import HandClock
from shipworthy.kit.memory_plane import TOKENS, MemoryPlane, memory_plane
from shipworthy.kit.rows import ARRIVED_UNIX_NS, MS, refused, row
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.exchange import Bodies
from shipworthy.model.op import Step
from shipworthy.model.route import Attempt

KEY = b"c" * 32
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


class Browser:
    """Keeps the cookie as a browser would; nothing more."""

    def __init__(self, memory: MemoryPlane) -> None:
        self.memory = memory
        self.app = make_admin(memory.plane, make_console(memory.plane))
        self.cookie = ""

    def get(self, target: str, **headers: str) -> Answer:
        return self.send("GET", target, b"", headers)

    def post(self, target: str, form: dict[str, str] | None = None, **headers: str) -> Answer:
        body = urlencode(form or {}).encode()
        return self.send("POST", target, body, {"content-type": "application/x-www-form-urlencoded", **headers})

    def send(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()} | {"host": "admin.example"}
        if self.cookie:
            named["cookie"] = self.cookie
        answer = asyncio.run(ask(self.app, method, target, named, body))
        for cookie in answer.cookies:
            self.cookie = "" if "Max-Age=0" in cookie else cookie.partition(";")[0]
        return answer

    def login(self, token: str) -> Answer:
        return self.post("/console/login", {"token": token})


@pytest.fixture
def browser() -> Browser:
    clock = HandClock(unix_s=ARRIVED_UNIX_NS // 10**9 + 60)
    return Browser(memory_plane(row(), refused(tenant="southwind", arrived_unix_ns=ARRIVED_UNIX_NS - MS), clock=clock))


def test_the_token_opens_a_session_in_a_cookie_that_scripts_and_other_sites_do_not_get(browser: Browser) -> None:
    answer = browser.login("northwind-admin")
    assert (answer.status, answer.headers["location"]) == (303, "/console/")
    cookie = answer.cookies[0].lower()
    assert all(word in cookie for word in ("httponly", "samesite=strict", "path=/console", f"max-age={SESSION_S}"))
    assert "northwind-admin" not in cookie
    page = browser.get("/console/")
    assert page.status == 200
    assert "northwind-admin" not in page.text


def test_without_a_session_there_is_only_the_login(browser: Browser) -> None:
    some = browser.memory.exchanges.rows[0].id
    for target in ("/console/", f"/console/exchanges/{some}"):
        answer = browser.get(target)
        assert (answer.status, answer.headers["location"]) == (303, "/console/login")
    assert browser.get("/console/live").status == 401
    assert browser.post(f"/console/exchanges/{some}/said").status == 303
    assert browser.memory.acts.acts == []
    assert "password" in browser.get("/console/login").text


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        ("forged", 401, "identify.malformed"),
        ("", 401, "identify.missing_credential"),
        ("northwind-agent", 403, "admin.forbidden"),
        ("x" * (TOKEN_CHARS_MAX + 1), 400, "admin.invalid"),
        ("x" * 20_000, 413, "decode.too_large"),
    ],
)
def test_a_login_that_fails_says_why_and_opens_nothing(browser: Browser, token: str, status: int, code: str) -> None:
    answer = browser.login(token)
    assert answer.status == status
    assert code in answer.text
    assert answer.cookies == ()


def test_a_pasted_header_is_understood(browser: Browser) -> None:
    assert browser.login("  Bearer operator \n").status == 303


def test_a_session_ends_by_itself_and_is_renewed_by_looking_not_by_the_script(browser: Browser) -> None:
    clock = browser.memory.plane.clock
    assert isinstance(clock, HandClock)
    browser.login("northwind-admin")
    clock.pass_s(SESSION_S - 1)
    assert browser.get("/console/").status == 200
    clock.pass_s(SESSION_S - 1)
    assert browser.get("/console/live").status == 200
    clock.pass_s(2)
    assert browser.get("/console/live").status == 401


def test_a_revoked_token_ends_the_session_at_once(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    browser.login("northwind-admin")
    monkeypatch.delitem(TOKENS, "northwind-admin")
    assert browser.get("/console/").status == 303


def test_logging_out_forgets(browser: Browser) -> None:
    browser.login("northwind-admin")
    answer = browser.post("/console/logout")
    assert answer.headers["location"] == "/console/login"
    assert browser.get("/console/").status == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
    ],
)
def test_no_other_site_posts_a_form(browser: Browser, headers: dict[str, str]) -> None:
    assert browser.post("/console/login", {"token": "operator"}, **headers).status == 403
    browser.login("operator")
    some = browser.memory.exchanges.rows[0].id
    assert browser.post(f"/console/exchanges/{some}/said", **headers).status == 403
    assert browser.post("/console/logout", **headers).status == 403
    assert "body.read" not in [act.act for act in browser.memory.acts.acts]


def test_a_cookie_that_was_changed_opens_nothing() -> None:
    cookie = seal(KEY, "token", 1_000)
    assert unseal(KEY, cookie, 1_000) == "token"
    assert unseal(KEY, cookie, 1_000 + SESSION_S) == ""
    assert unseal(b"d" * 32, cookie, 1_000) == ""
    for place in range(len(cookie)):
        changed = cookie[:place] + ("A" if cookie[place] != "A" else "B") + cookie[place + 1 :]
        assert unseal(KEY, changed, 1_000) == ""
    assert len(f"{COOKIE}={seal(KEY, 'x' * TOKEN_CHARS_MAX, 1_000)}") < 4_096


@given(st.text(max_size=200))
def test_no_cookie_breaks_the_session(text: str) -> None:
    assert unseal(KEY, text, 1_000) == ""


# ------------------------------------------------------------------------------------------------ pages


def test_an_administrator_sees_their_tenant_and_an_operator_every_one(browser: Browser) -> None:
    browser.login("northwind-admin")
    page = browser.get("/console/").text
    assert page.count("<tr data-id=") == 1
    assert "southwind" not in page
    assert browser.get("/console/?tenant=southwind").status == 403
    foreign = browser.memory.exchanges.rows[1].id
    assert browser.get(f"/console/exchanges/{foreign}").status == 404
    browser.login("operator")
    assert browser.get("/console/").text.count("<tr data-id=") == 2


def test_filters_and_pages(browser: Browser) -> None:
    browser.memory.exchanges.rows.extend(
        row(arrived_unix_ns=ARRIVED_UNIX_NS + n * MS, subject="bob") for n in range(60)
    )
    browser.login("northwind-admin")
    first = browser.get("/console/?principal=bob").text
    older = re.search(r'href="(/console/\?[^"]*cursor=[^"]*)"', first)
    assert older is not None
    second = browser.get(older[1].replace("&amp;", "&"))
    assert (first.count("<tr data-id="), second.text.count("<tr data-id=")) == (50, 10)
    assert "data-live" not in second.text
    assert browser.get("/console/?outcome=gone").status == 400
    assert browser.get("/console/?cursor=x").status == 400
    assert browser.get("/console/?principal=%00").status == 400


def test_the_script_gets_rows_only_when_they_changed(browser: Browser) -> None:
    browser.login("northwind-admin")
    first = browser.get("/console/live")
    assert browser.get("/console/live", if_none_match=first.headers["etag"]).status == 304
    browser.memory.exchanges.rows.append(row(arrived_unix_ns=ARRIVED_UNIX_NS + MS))
    assert browser.get("/console/live", if_none_match=first.headers["etag"]).status == 200


def test_every_look_is_on_record_and_watching_once_a_minute(browser: Browser) -> None:
    clock = browser.memory.plane.clock
    assert isinstance(clock, HandClock)
    browser.login("operator")
    some = browser.memory.exchanges.rows[0].id
    browser.get("/console/")
    for _ in range(5):
        browser.get("/console/live")
    browser.get("/console/live?outcome=served")
    clock.pass_s(61)
    browser.get("/console/live")
    browser.get(f"/console/exchanges/{some}")
    acts = [act.act for act in browser.memory.acts.acts]
    assert acts == ["exchanges.read", *["exchanges.watch"] * 3, "exchange.read"]
    assert browser.memory.acts.acts[1].facts["seconds"] == "60"


def test_what_was_said_is_shown_after_the_act(browser: Browser) -> None:
    some = browser.memory.exchanges.rows[0]
    browser.memory.exchanges.said[some.id] = Bodies(b"<b>question</b>", b"answer", True)
    browser.login("northwind-admin")
    assert browser.get(f"/console/exchanges/{some.id}/said").status == 405
    page = browser.post(f"/console/exchanges/{some.id}/said").text
    assert "&lt;b&gt;question&lt;/b&gt;" in page
    assert "only the beginning" in page
    assert browser.memory.acts.acts[-1].act == "body.read"


def test_a_store_that_is_away_is_a_page(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    browser.login("northwind-admin")

    async def away(*_: object) -> None:
        raise StoreUnavailable("at /secret/path")

    monkeypatch.setattr(browser.memory.exchanges, "page", away)
    answer = browser.get("/console/")
    assert answer.status == 503
    assert "/secret/path" not in answer.text
    assert browser.get("/console/live").status == 503


def test_identity_that_is_away_is_no_login_page(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    browser.login("northwind-admin")

    class Gone(dict[str, object]):
        def get(self, *_: object) -> object:
            raise Refusal("identify.keys_unavailable")

    monkeypatch.setattr("shipworthy.kit.memory_plane.TOKENS", Gone())
    assert browser.get("/console/").status == 503


# ------------------------------------------------------------------------------------------------ hostile names


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def elements(text: str) -> Elements:
    parser = Elements()
    parser.feed(text)
    return parser


def test_a_hostile_name_stays_text(browser: Browser) -> None:
    """Whatever a client calls itself: the page has the same elements as with an honest name, and none of its own."""
    names = (
        "tenant",
        "team",
        "subject",
        "actor",
        "use_case",
        "alias",
        "model",
        "provider",
        "session",
        "end_user",
        "key_id",
    )
    hostile = row(
        **dict.fromkeys(names, HOSTILE),
        refusal_code=HOSTILE,
        refusal_detail=HOSTILE,
        source=HOSTILE,
        dialect=HOSTILE,
        flags=(HOSTILE,),
        cut=(HOSTILE,),
        finish=(HOSTILE,),
        rules=(HOSTILE,),
        traceparent=HOSTILE,
        steps=(Step(HOSTILE, 0, MS, refused=HOSTILE),),
        attempts=(Attempt(0, HOSTILE, HOSTILE, HOSTILE, 0, MS, failure=HOSTILE, detail=HOSTILE),),
    )
    browser.memory.exchanges.rows.insert(0, hostile)
    browser.memory.exchanges.said[hostile.id] = Bodies(HOSTILE.encode(), HOSTILE.encode(), False)
    browser.login("operator")
    filtered = "/console/?" + urlencode({"principal": HOSTILE, "use_case": HOSTILE})
    pages = [
        browser.get(target) for target in ("/console/", "/console/live", filtered, f"/console/exchanges/{hostile.id}")
    ]
    pages.append(browser.post(f"/console/exchanges/{hostile.id}/said"))
    pages.append(browser.get("/console/exchanges/" + HOSTILE.replace("/", "")))
    pages.append(browser.get("/console/" + HOSTILE.replace("/", "").replace("{", "%7B")))
    for page in pages:
        found = elements(page.text)
        scripts = found.tags.count("script")
        assert scripts == page.text.count('<script src="/console/static/console.js" defer></script>')
        assert not [name for name, _ in found.attributes if name.startswith("on") or name == "style"]
        assert not [
            value for name, value in found.attributes if name == "src" and not str(value).startswith("/console/")
        ]
        assert "49" not in re.sub(r"[0-9a-f-]{36}|\d\d:\d\d:\d\d|[0-9.]{4,}", "", page.text) or "{{7*7}}" in page.text


# ------------------------------------------------------------------------------------------------ the waterfall


def test_the_waterfall_puts_attempts_below_their_call() -> None:
    fall = waterfall(row())
    assert [bar.label for bar in fall.bars] == [
        "identify", "decode", "reserve", "route", "call", "local", "small", "deliver", "settle", "record",
    ]  # fmt: skip
    assert [bar.state for bar in fall.bars if bar.kind == "attempt"] == ["failed", "ok"]
    assert [tick.label for tick in fall.ticks] == ["0", "500 ms", "1 s", "1.5 s"]
    assert fall.first_token == pytest.approx(34.6, abs=0.1)
    assert waterfall(refused()).bars[-1].state == "refused"


@given(
    st.lists(st.tuples(st.integers(-(10**6), 10**13), st.integers(0, 10**13)), max_size=6),
    st.lists(st.tuples(st.integers(0, 10**13), st.integers(0, 10**13)), max_size=3),
    st.integers(0, 10**13),
)
def test_whatever_a_row_says_every_bar_is_on_the_scale(
    steps: list[tuple[int, int]], attempts: list[tuple[int, int]], whole: int
) -> None:
    fall = waterfall(
        row(
            steps=tuple(Step("call", start, took) for start, took in steps),
            attempts=tuple(Attempt(n, "m", "p", "u", start, took) for n, (start, took) in enumerate(attempts)),
            duration_ns=whole,
        )
    )
    assert len(fall.bars) == len(steps) + len(attempts)
    for bar in fall.bars:
        assert 0 <= bar.left <= 100
        assert 0 < bar.width <= 100
        assert bar.left + bar.width <= 100.01
    assert len(fall.ticks) <= 7


def test_a_form_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "FORM_S_MAX", 0.05)

    class Dripping:
        async def stream(self) -> AsyncIterator[bytes]:
            yield b"token="
            await asyncio.Event().wait()

    async def scenario() -> None:
        await door._pasted(Dripping())  # type: ignore[arg-type]

    with pytest.raises(Refusal, match=r"decode\.timeout") as given_up:
        asyncio.run(scenario())
    assert door.status_of(given_up.value) == 408
