"""What telemetry costs before it is used: nothing heavy is imported until a sink that needs it is made."""

from __future__ import annotations

import subprocess
import sys

HEAVY = "('prometheus_client', 'opentelemetry', 'google.protobuf', 'requests')"


def test_importing_every_module_that_bootstrap_names_loads_no_library():
    said = f"""
import sys
from shipworthy.adapters.telemetry import fanout, gen_ai, logs, metrics, spans
from shipworthy.http import metrics_page
heavy = [name for name in sys.modules if name.startswith({HEAVY})]
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", said], check=True, timeout=60)
