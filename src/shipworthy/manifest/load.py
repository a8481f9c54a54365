"""Reads a manifest: files → ``Loaded``, or ``ManifestRefused`` with every problem.

The only place that reads the environment. Called again for a reload: nothing is kept between calls.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

from shipworthy.manifest.deployment import Deployment
from shipworthy.manifest.files import Files, Texts
from shipworthy.manifest.link import link
from shipworthy.manifest.linking import Compile, Linking, PriceOf
from shipworthy.manifest.problem import ManifestRefused, Problem, Severity
from shipworthy.manifest.reading import read
from shipworthy.manifest.reference import Resolver
from shipworthy.manifest.shaping import shape
from shipworthy.manifest.specs import Spec
from shipworthy.manifest.tree import Value
from shipworthy.model.policy import Snapshot


@dataclass(frozen=True, slots=True)
class Loaded:
    """A manifest that may be put in force. ``files`` make it up: the manifest, tenants' files and folder, secrets' files;
    ``texts`` is what they held, so that another process can be given the same."""

    snapshot: Snapshot
    deployment: Deployment
    warnings: tuple[Problem, ...]
    files: tuple[Path, ...]
    texts: Texts = field(repr=False)


def environment() -> Mapping[str, str]:
    """The process's environment, as it is now."""
    return dict(os.environ)


def load(
    path: Path, environ: Mapping[str, str] | None, specs: Mapping[str, Spec[object]], compile_condition: Compile,
    price_of: PriceOf, *, require_references: bool = True, today: date | None = None, given: Texts | None = None,
) -> Loaded:  # fmt: skip
    """The manifest at ``path``, linked. Raises ManifestRefused with all problems at once.

    ``environ`` None = the process's own. Without ``require_references`` unset references are empty: for checks only.
    ``given`` is what the files held when the manifest was put in force; None = what they hold now.
    """
    environ = environment() if environ is None else environ
    source = Files(given)
    text = read(path, source)
    resolver = Resolver(path.absolute().parent, environ, require=require_references, source=source)
    tree = text.tree
    digest = digest_of(tree.value)
    linked = None
    if tree.value:
        shaped = shape(tree, specs, resolver)
        if shaped.manifest is not None:
            today = today or datetime.now(UTC).date()
            linking = Linking(shaped.manifest, shaped, tree, specs, compile_condition, price_of, today)
            linked = link(linking, resolver.folder, digest)
    problems = in_order(tree.problems, text.names)
    if linked is None or any(problem.severity is Severity.PROBLEM for problem in problems):
        raise ManifestRefused(problems)
    snapshot, deployment = linked
    files = tuple(dict.fromkeys((*text.files, *resolver.files)))
    return Loaded(snapshot, deployment, tuple(problems), files, source.texts)


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that make up the manifest at ``path``, as far as they can be read; ``Loaded.files`` adds secrets' files."""
    return read(path).files


def in_order(problems: list[Problem], names: tuple[str, ...]) -> list[Problem]:
    """By file in reading order, then by line; each once."""
    return sorted(dict.fromkeys(problems), key=lambda p: (names.index(p.file) if p.file in names else -1, p.line))


def digest_of(value: Value) -> str:
    """sha256 of everything that the manifest says, as hex: references are in it, the values they stand for are not."""
    canonical = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_decimal)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def _decimal(value: object) -> str:
    assert isinstance(value, Decimal)
    return str(value.normalize())
