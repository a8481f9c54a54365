"""Is money exact on many workers, whatever is killed? Real processes, one PostgreSQL, a provider with a log of its own.

``python benchmarks/money.py`` plays every scene and prints the table that docs/explanation/how-money-stays-exact.md quotes;
``--write-docs`` writes it there. README.md beside this file says what the scenes are.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from money_fire import FULL
from money_ground import Database
from money_scene import Scene, play
from money_table import PAGE, as_json, table, write


def scenes(clients: int) -> dict[str, Scene]:
    calm = Scene("calm", "strict", clients, cap_usd=9.0, latency_s=(1.0, 4.0), quiet_s=12.0)
    fire = Scene(
        "fire", "strict", clients, cap_usd=14.0, latency_s=(0.2, 1.5), quiet_s=75.0,
        lies_percent=5, leave_share=1 / 3, script=FULL,
    )  # fmt: skip
    return {f"{scene.name}-{scene.mode}": scene for scene in (calm, calm.under("relaxed"), fire, fire.under("relaxed"))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", choices=[*scenes(1), "all"], default="all")
    parser.add_argument("--clients", type=int, default=2_000)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="of each server")
    parser.add_argument("--cap-usd", type=float, help="the tenant's budget; the others are shares of it")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write-docs", action="store_true", help=f"put the table into {PAGE.name}")
    parser.add_argument("--keep", action="store_true", help="leave logs and manifests where they are")
    asked = parser.parse_args()
    wanted = [scene for name, scene in scenes(asked.clients).items() if asked.scene in (name, "all")]
    base = Path(tempfile.mkdtemp(prefix="money-"))
    base.chmod(0o755)  # PostgreSQL's own account enters it
    ended = []
    try:
        database = Database(base)
        try:
            for scene in wanted:
                if asked.cap_usd:
                    scene = scene.worth(asked.cap_usd)
                ended.append(play(scene, base, database, asked.servers, asked.workers))
                print(ended[-1].story(), flush=True)
        finally:
            database.stop()
    finally:
        if asked.keep:
            print(f"kept: {base}")
        else:
            shutil.rmtree(base, ignore_errors=True)
    print(table(ended))
    if asked.json:
        asked.json.write_text(as_json(ended))
    if asked.write_docs:
        write(ended)
    return 1 if any(end.wrong for end in ended) else 0


if __name__ == "__main__":
    sys.exit(main())
