"""The console in a real Chromium: it updates itself, opens a waterfall, works by keyboard, runs nothing of a client's."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import uvicorn
from msgspec import Struct

from shipworthy.console.app import make_console
from shipworthy.http.admin import make_admin
from shipworthy.kit.memory_plane import MemoryPlane, memory_plane
from shipworthy.kit.rows import ARRIVED_UNIX_NS, MS, refused, row

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install -e '.[test]'")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1360,950"
)
HOSTILE = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>"
WAIT_S = 15

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="no Chromium here: apt-get install chromium chromium-driver"
    ),
]


class Console(Struct, frozen=True):
    """A running console and a browser before it."""

    url: str
    memory: MemoryPlane
    driver: object

    def find(self, css: str) -> list[object]:
        return self.driver.find_elements("css selector", css)

    def one(self, css: str) -> object:
        self.until(lambda: bool(self.find(css)))
        return self.find(css)[0]

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline, self.driver.page_source
            time.sleep(0.05)

    def login(self, token: str = "operator") -> None:
        self.driver.get(f"{self.url}/console/")
        self.one("#token").send_keys(token)
        self.one("button.loud").click()
        self.one("#rows tr")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(30)
    yield driver
    driver.quit()


@pytest.fixture
def console(driver: object) -> Iterator[Console]:
    memory = memory_plane(row(), refused(arrived_unix_ns=ARRIVED_UNIX_NS - MS, subject="bob"))
    app = make_admin(memory.plane, make_console(memory.plane))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    driver.execute_cdp_cmd("Network.clearBrowserCookies", {})  # a cookie is a host's, whatever the port
    yield Console(f"http://127.0.0.1:{listener.getsockname()[1]}", memory, driver)
    driver.get("about:blank")
    server.should_exit = True
    thread.join(10)
    listener.close()
    complaints = [entry["message"] for entry in driver.get_log("browser") if "401" not in entry["message"]]
    assert complaints == [], "the console of the browser stays empty: no error, nothing blocked by policy"


def subjects(console: Console) -> list[str]:
    """At one moment: the rows may be replaced while a driver walks over them."""
    script = "return [...document.querySelectorAll('#rows td.who span:first-child')].map((name) => name.textContent)"
    return list(console.driver.execute_script(script))


def test_the_list_shows_rows_and_updates_itself(console: Console) -> None:
    console.login()
    assert subjects(console) == ["alice", "bob"]
    console.driver.execute_script("window.same = document.querySelector('#rows tr')")
    console.memory.exchanges.rows.append(row(arrived_unix_ns=ARRIVED_UNIX_NS + MS, subject="carol"))
    console.until(lambda: subjects(console) == ["carol", "alice", "bob"])
    assert console.one("#rows tr").get_attribute("class").split()[-1] == "fresh"
    assert console.one("#news").get_attribute("textContent") == "1 new exchange"
    late = row(arrived_unix_ns=ARRIVED_UNIX_NS - 2 * MS, subject="dora")  # arrived before the others, ended after them
    console.memory.exchanges.rows.append(late)
    console.until(lambda: subjects(console) == ["carol", "alice", "bob", "dora"])


def test_it_can_be_paused(console: Console) -> None:
    console.login()
    console.one("#live").click()
    console.until(lambda: console.one("#live").text == "Paused")
    console.memory.exchanges.rows.append(row(arrived_unix_ns=ARRIVED_UNIX_NS + MS, subject="carol"))
    time.sleep(2.5)
    assert subjects(console) == ["alice", "bob"]
    console.one("#live").click()
    console.until(lambda: subjects(console) == ["carol", "alice", "bob"])


def test_a_row_opens_the_waterfall(console: Console) -> None:
    console.login()
    console.find("#rows tr")[0].click()  # anywhere in the row
    console.until(lambda: "/console/exchanges/" in console.driver.current_url)
    assert "alice asked the use case support" in console.one("h1").text
    bars = console.find(".fall tbody tr")
    assert [bar.find_element("css selector", "th").text for bar in bars][:5] == [
        "identify", "decode", "reserve", "route", "call",
    ]  # fmt: skip
    widths = [bar.find_element("css selector", "rect").rect["width"] for bar in bars]
    assert all(width > 0 for width in widths)
    assert max(widths) > 200


def test_it_works_by_keyboard(console: Console) -> None:
    console.login("northwind-admin")
    console.one("body").send_keys("j")
    focused = console.driver.switch_to.active_element
    assert focused.get_attribute("href").endswith(str(console.memory.exchanges.rows[0].id))
    focused.send_keys("j")
    focused = console.driver.switch_to.active_element
    assert focused.get_attribute("href").endswith(str(console.memory.exchanges.rows[1].id))
    console.memory.exchanges.rows.append(row(arrived_unix_ns=ARRIVED_UNIX_NS + MS, subject="carol"))
    console.until(lambda: len(subjects(console)) == 3)
    assert console.driver.switch_to.active_element == focused, "an update leaves the focus where it is"
    focused.send_keys("\ue007")
    console.until(lambda: "reserve.budget_exhausted" in console.one("h1").text)


def test_a_hostile_name_runs_nothing(console: Console) -> None:
    """The XSS canary stays inert: on the page, in the update, in the filters, in one exchange and in its bodies."""
    console.login()
    hostile = row(
        arrived_unix_ns=ARRIVED_UNIX_NS + MS,
        subject=HOSTILE,
        use_case=HOSTILE,
        model=HOSTILE,
        tenant=HOSTILE,
        session=HOSTILE,
    )
    console.memory.exchanges.rows.append(hostile)
    console.until(lambda: HOSTILE in subjects(console))
    field = console.one("input[name=principal]")
    field.send_keys(HOSTILE)
    field.submit()
    console.until(lambda: "principal=" in console.driver.current_url)
    assert subjects(console) == [HOSTILE]
    assert console.one("input[name=principal]").get_attribute("value") == HOSTILE
    console.one("#rows .when a").click()
    console.one(".fall")
    assert HOSTILE in console.one("h1").text
    console.one(".bodies button").click()
    console.until(lambda: console.one("h1").text == "What was said")
    assert "pwned" not in console.driver.title
    assert (
        console.driver.execute_script("return document.querySelectorAll('img[src=x], script:not([src])').length") == 0
    )


def test_policy_stops_what_escaping_might_miss(console: Console) -> None:
    """Even a script that got into the page does not run."""
    console.login()
    console.driver.execute_script(
        "const s = document.createElement('script'); s.textContent = \"document.title = 'pwned'\"; document.body.append(s)"
    )
    assert console.driver.title != "pwned"
    blocked = [entry["message"] for entry in console.driver.get_log("browser")]
    assert any("Content Security Policy" in message for message in blocked)


def test_the_session_is_no_business_of_scripts_and_ends_with_signing_out(console: Console) -> None:
    console.login()
    assert console.driver.execute_script("return document.cookie") == ""
    assert "operator" not in console.driver.current_url
    console.one("header form button").click()
    console.one("#token")
    console.driver.get(f"{console.url}/console/")
    assert console.driver.current_url.endswith("/console/login")


def test_when_the_session_ends_the_page_goes_to_the_login(console: Console) -> None:
    console.login()
    console.driver.delete_all_cookies()
    console.until(lambda: console.driver.current_url.endswith("/console/login"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(console: Console, scheme: str) -> None:
    """Contrast of WCAG AA (4.5) for text and its secondary colour on the page."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    console.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    console.login()
    paper = colour(console, "body", "backgroundColor")
    assert (luminance(paper) > 0.5) == (scheme == "light")
    for css in ("body", ".outcome.served", ".outcome.refused", ".when .faint", "th", ".top .who", "button.quiet"):
        assert contrast(colour(console, css, "color"), paper) >= 4.5, css
    console.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def colour(console: Console, css: str, property_: str) -> tuple[float, ...]:
    script = f"return getComputedStyle(document.querySelector('{css}')).{property_}"
    said = str(console.driver.execute_script(script))
    return tuple(float(part) for part in said[said.index("(") + 1 : -1].split(",")[:3])


def luminance(rgb: tuple[float, ...]) -> float:
    linear = [(part / 255 / 12.92) if part / 255 <= 0.04045 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
