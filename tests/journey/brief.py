"""A server whose bounds of time are over soon: the constants are changed in every process of it, as it starts."""

from __future__ import annotations

from pathlib import Path

BOUNDS = {
    "shipworthy.http.wire.bounds": {"HEAD_SECONDS_MAX": 1.5, "UNREAD_SECONDS_MAX": 1.5, "REFUSED_SECONDS_MAX": 1.0},
    "shipworthy.process.supervisor": {"EARLIER_S": 2.0},
    "shipworthy.http.body": {"BODY_SECONDS_MAX": 1.5},
    "shipworthy.http.edge": {"KEEPALIVE_S": 0.3, "LOOK_S": 0.02},
    "shipworthy.http.sink": {"KEEPALIVE_S": 0.3},
}

RUN_TWICE = "'shipworthy.process.forking' found in sys.modules"
"""What Python says of a module that is run and that the supervisor's own had loaded here before."""


def brief(folder: Path) -> dict[str, str]:
    """The environment of such a server. Python imports ``sitecustomize`` before anything else."""
    lines = ["import importlib, warnings", f"warnings.filterwarnings('ignore', message={RUN_TWICE!r})"]
    for module, bounds in BOUNDS.items():
        lines.append(f"module = importlib.import_module({module!r})")
        for name, seconds in bounds.items():
            lines.append(f"assert isinstance(module.{name}, float); module.{name} = {seconds}")
    (folder / "sitecustomize.py").write_text("\n".join(lines) + "\n")
    return {"PYTHONPATH": str(folder)}
