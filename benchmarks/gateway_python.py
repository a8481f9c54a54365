"""On which Python the gateways that are written in it run: one and the same for all of them.

How a Python was built is worth a fifth of what runs on it. Distributions and images build theirs with all optimisations,
version managers mostly do not; so it is the distribution's, if that is here in our version, and the tables say which.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

MINOR = f"3.{sys.version_info.minor}"
DISTRIBUTION = "/usr/bin"


@dataclass(frozen=True)
class Python:
    """``at`` is its program; ``words`` are its version, and whose build it is."""

    at: Path
    words: str


def chosen(asked: Path | None = None) -> Python:
    """The one that was asked for, else the distribution's, else the one that runs this. SystemExit for another version."""
    found = asked or shutil.which(f"python{MINOR}", path=DISTRIBUTION) or sys.executable
    at = Path(found).absolute()
    version = subprocess.check_output(
        [at, "-c", "import platform; print(platform.python_version())"], text=True
    ).strip()
    if not version.startswith(f"{MINOR}."):
        raise SystemExit(f"{at} is Python {version}; what is installed here is for {MINOR}")
    if asked is not None:
        whose = "the build that was asked for"
    else:
        whose = "the distribution's build" if str(at.parent) == DISTRIBUTION else "the build that runs the script"
    return Python(at, f"{version} ({whose})")


def environment(python: Python, folder: Path) -> Path:
    """The program of an environment in ``folder``, an empty one, over that Python, which finds all that ours finds."""
    subprocess.run([python.at, "-m", "venv", "--without-pip", folder], check=True)
    packages = folder / "lib" / f"python{MINOR}" / "site-packages"
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return folder / "bin/python"
