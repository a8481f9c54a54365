"""What must never stand in a file that git keeps."""

from __future__ import annotations

import re

import pytest

ITSELF = "tests/house/test_tracked_files.py"

PATHS = re.compile(r"(?<![\w.:/-])/(?:work/\w|root/\w|home/\w+/|Users/\w+|tmp/(?:briefs|bash_jobs))")
HOSTS = re.compile(r"(?i)\b(?:artifactory|nexus|devpi|pypi-mirror|goproxy|verdaccio)[\w.-]*\.\w+|index-url|extra-index")
CREDENTIALS = (
    re.compile(r"-----BEGIN (?:RSA |EC |OPENSSH |ENCRYPTED )?PRIVATE KEY-----\s*\n[A-Za-z0-9+/=\n]{64,}"),
    re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36}\b"),
    re.compile(
        r"\bsk-(?:proj-|ant-)?(?=[A-Za-z0-9_-]*\d)(?=[A-Za-z0-9_-]*[a-z])(?=[A-Za-z0-9_-]*[A-Z])[A-Za-z0-9_-]{40,}\b"
    ),
    re.compile(r"https?://[^/\s\"'<>{}$@]+:[^/\s\"'<>{}$@]+@(?!example|host|proxy|localhost|127\.)[\w.-]+"),
)
AUTHORSHIP = re.compile(
    r"(?i)co-authored-by|generated (?:with|by) (?:an? )?(?:ai|llm|claude|copilot|chatgpt|codex)|as an ai (?:language )?model"
    r"|\bclaude code\b|\bthis session\b|\bprevious session\b|\bsub-?agents?\b|\bthe brief says\b|\bmy instructions\b"
)
FICTION = {
    "tests/": "tests make up credentials to look for them in sinks",
}
MARKS = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
SIZE_MAX = 400_000


def found(tracked: dict[str, str], pattern: re.Pattern[str], beside: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{name}: {match[0][:60]!r}"
        for name, text in tracked.items()
        if name != ITSELF and not name.startswith(beside)
        for match in [pattern.search(text)]
        if match
    ]


def test_no_paths_of_a_machine(tracked: dict[str, str]) -> None:
    """The repository works wherever it is cloned: no file names a folder of somebody's machine."""
    allowed = ("tests/golden/", "tests/unit/", "tests/journey/", "tests/contract/")  # tests quote made-up paths
    assert found(tracked, PATHS, allowed) == []


def test_no_package_index(tracked: dict[str, str]) -> None:
    """Which index packages come from is the installer's to say."""
    assert found(tracked, HOSTS) == []


@pytest.mark.parametrize("pattern", CREDENTIALS, ids=lambda pattern: pattern.pattern[:24])
def test_no_credentials(tracked: dict[str, str], pattern: re.Pattern[str]) -> None:
    """Secrets stand in no file."""
    assert found(tracked, pattern, tuple(FICTION)) == []


def test_nothing_about_how_it_was_written(tracked: dict[str, str]) -> None:
    """Files say what the product is, not how or by whom a line came about."""
    assert found(tracked, AUTHORSHIP) == []


def test_nothing_is_left_for_later_in_the_code(tracked: dict[str, str]) -> None:
    """What is missing is an issue, or refused as not available; a mark in the code is neither."""
    assert found({name: text for name, text in tracked.items() if name.startswith("src/")}, MARKS) == []


def test_no_bulk(tracked: dict[str, str]) -> None:
    """What can be made again is not kept."""
    assert [name for name, text in tracked.items() if len(text) > SIZE_MAX] == []


def test_the_patterns_find_what_they_look_for() -> None:
    """Each rule above can fail."""
    assert PATHS.search("see /ro" + "ot/x")
    assert PATHS.search("cd /ho" + "me/ada/project")
    assert HOSTS.search("--index" + "-url https://x")
    assert CREDENTIALS[1].search("AKIA" + "A" * 16)
    assert CREDENTIALS[4].search("https://user:word" + "@db.firm.example")
    assert AUTHORSHIP.search("Co-Authored" + "-By: somebody")
