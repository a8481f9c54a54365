"""Promise: a migration that has landed never changes. A store that was migrated by it refuses one with another checksum.

``landed_migrations.txt`` names them as ``sha256sum`` does. A migration joins it when its release lands; no line changes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def test_no_landed_migration_has_changed(root: Path) -> None:
    """Promise: what was applied somewhere stays as it was applied; whatever is to change gets a migration of its own."""
    folder = root / "src/shipworthy/adapters/store/migrations"
    landed = [line.split() for line in (root / "tests/house/landed_migrations.txt").read_text().splitlines()]
    assert len(landed) >= 19
    for checksum, name in landed:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == checksum, f"{name} has landed: add another"
    newer = sorted(path.name for path in folder.glob("*.sql") if path.name not in {name for _, name in landed})
    assert all(name > landed[-1][1] for name in newer), f"{newer}: a new migration comes after those that have landed"
