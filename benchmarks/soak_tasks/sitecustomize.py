"""Tells how many asyncio tasks this process has: on PYTHONPATH it writes the number into SOAK_TASKS's folder each second.

The product does not count them; a thread of a few microseconds a second does not change what is measured.
"""

import asyncio.tasks
import contextlib
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path


def _tasks() -> int:
    """All that are not done. Python 3.12 renames the set; where it changes while it is copied, the next second will do."""
    renamed: Iterable[asyncio.Task[object]] = getattr(asyncio.tasks, "_scheduled_tasks", ())
    known: Iterable[asyncio.Task[object]] = getattr(asyncio.tasks, "_all_tasks", renamed)
    return sum(not task.done() for task in list(known))


def _tell(place: Path) -> None:
    while True:
        time.sleep(1.0)
        with contextlib.suppress(OSError, RuntimeError):
            new = place.with_suffix(".new")
            new.write_text(str(_tasks()))
            new.replace(place)


_folder = os.environ.get("SOAK_TASKS")
if _folder:
    threading.Thread(target=_tell, args=(Path(_folder) / str(os.getpid()),), daemon=True).start()
