"""What benchmarks/gateway.py concludes: no wrong answer passes for a fast one, no request equals another, goals add up."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
URL = "http://127.0.0.1:8080/v1/chat/completions"


@pytest.fixture(scope="module", autouse=True)
def rooms() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def test_the_upstream_says_what_the_facts_say() -> None:
    """601 bytes, or 31 events."""
    import upstream

    assert len(upstream.BODY) == 601
    assert upstream.BURST.count(b"data: ") == upstream.EVENTS == 31


def test_a_wrong_answer_is_found() -> None:
    """Cut, emptied, of another text, with an event too few or too many: each is wrong, the real ones are not."""
    from load import wrong_with
    from upstream import ANSWER, BODY, STREAM

    events = b"".join(STREAM)
    assert not wrong_with(BODY, stream=False)
    assert not wrong_with(events.replace(b"[DONE]\n\n\r\n0\r\n\r\n", b"[DONE]\n\n"), stream=True)
    for body in (b"", b"{}", BODY[:-1], BODY.replace(b"lazy", b"busy"), BODY + b" " * 5_000, ANSWER.encode()):
        assert wrong_with(body, stream=False)
    for stream in (
        b"",
        b"".join(STREAM[:-1]),
        b"".join(STREAM[:2]),
        b"".join([STREAM[1], *STREAM]),
        events[: len(events) // 3],
    ):
        assert wrong_with(stream, stream=True)


def test_no_request_equals_another() -> None:
    """Every text and token is met, and each body is as long as it is said to be."""
    from load import BODY_BYTES, Requests

    senders = [{"authorization": f"Bearer {n}"} for n in range(5)]
    made = list(islice(Requests(URL, senders, "small", stream=True), 500))
    heads, bodies = zip(*(request.split(b"\r\n\r\n") for request in made), strict=True)
    assert len(set(bodies)) == 500
    assert len({body[-200:] for body in bodies}) > 32
    assert len(set(heads)) == 5
    assert {len(body) for body in bodies} == {BODY_BYTES}


def a_report(relaxed: float, ferrogw: float, errors: dict[str, int]) -> Any:
    from gateway_report import FERROGW, RELAXED, UPSTREAM, Report, Subject
    from gateway_rounds import Sample, Seen, Shape

    def seen(target: str, per_second: float, kind: str, concurrency: int) -> Seen:
        samples = [
            Sample(each, 1e6 / each, 2e6 / each, 1.0, 1e5 / each, 1.0, 50.0, 100, {"PostgreSQL": 7.0}, errors)
            for each in (per_second / 10, per_second, per_second * 10)
        ]
        return Seen(target, Shape(kind, concurrency), samples)

    figures = {UPSTREAM: 50_000.0, RELAXED: relaxed, FERROGW: ferrogw}
    shapes = [(kind, concurrency) for kind in ("whole", "burst", "paced") for concurrency in (1, 32)]
    return Report(
        "3", 2, 3, 1.0, True, 0.1, 100.0, [Subject(name, "1", 0.5, 40.0) for name in figures], {"litellm": "no such thing"},
        [seen(name, figure, *shape) for name, figure in figures.items() for shape in shapes], {},
    )  # fmt: skip


def test_goals_are_reached_or_not() -> None:
    """By medians of rounds; what was not measured is not reached."""
    goals = {goal.words: goal for goal in a_report(3_000, 2_000, {}).goals()}
    assert goals["requests/s at 32, of ferrogw's"].seen == 1.5
    assert goals["requests/s at 32, of ferrogw's"].met
    assert not goals["burst streams/s at 32, of ferrogw's"].met
    assert goals["CPU a paced stream at 32, of ferrogw's"].met
    assert goals["p99 at 32, of its p50"].seen == 2
    assert not goals["requests/s at 32, of litellm's"].met
    assert not {goal.words: goal for goal in a_report(2_000, 2_000, {}).goals()}["requests/s at 32, of ferrogw's"].met


def test_tables_tell_what_is_missing_and_what_is_wrong(tmp_path: Path) -> None:
    """And are put between their markers, nowhere else."""
    from gateway_report import RELAXED
    from gateway_table import BEGIN, END, page, write

    report = a_report(3_000, 2_000, {"status 500": 2})
    assert report.wrong(RELAXED) == 2 * 3 * 6
    assert "Not measured: litellm (no such thing)" in page(report)
    assert "| 36 |" in page(report)
    place = tmp_path / "page.md"
    place.write_text(f"before\n{BEGIN}old\n{END}after\n")
    write(report, place)
    said = place.read_text()
    assert said.startswith(f"before\n{BEGIN}Python 3, 2 cores")
    assert said.endswith(f"{END}after\n")
    assert "old" not in said
    place.write_text("no markers")
    with pytest.raises(SystemExit):
        write(report, place)


def test_the_picture_is_well_formed(tmp_path: Path) -> None:
    """A dot a target and panel, each within the picture, and a word for whoever hears it."""
    from gateway_plot import draw

    draw(a_report(3_000, 2_000, {}), tmp_path / "speed.svg")
    picture = ElementTree.fromstring((tmp_path / "speed.svg").read_text())
    dots = list(picture.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(dots) == 3 + 2 + 2 + 3
    _, _, width, height = map(float, picture.attrib["viewBox"].split())
    assert all(0 < float(dot.attrib["cx"]) < width and 0 < float(dot.attrib["cy"]) < height for dot in dots)
