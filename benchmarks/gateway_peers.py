"""The peers: which versions, how each gets an environment of its own, and how it is started. Nothing else knows them.

None gets more to do than to authenticate one key, where it knows keys, and to forward: no store, no budgets, no record.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway_python import Python
from gateway_target import Sender, Target, await_answer
from processes import cores, end_group, family, free_port, memory_mb, on_cores
from upstream import PACED_MODEL, WHOLE_MODEL

NGINX = "nginx"  # as Debian has it now
FERROGW = ("ferrogw==1.5.10",)
PORTKEY = {
    "@portkey-ai/gateway": "1.15.2",
    "hono": "4.9.7",
    "@hono/node-server": "1.13.8",
}  # with later ones streams fail
LITELLM = ("litellm[proxy]==1.105.0", "opentelemetry-sdk==1.45.2")  # without the second it retries an import a request
KEY = "sk-benchmark-0123456789abcdef0123456789abcdef"
INSTALL_S_MAX = 600.0
BEARER: Sender = {"authorization": f"Bearer {KEY}"}


class NotInstalled(Exception):
    """A peer that cannot be had here; in words."""


@dataclass(frozen=True)
class Launch:
    """What to run, and how to ask it."""

    argv: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)
    path: str = "/v1/chat/completions"
    sender: Sender = field(default_factory=lambda: BEARER)


@dataclass(frozen=True)
class Peer:
    """``install`` fills an empty folder, for a Python; ``launch`` gets that folder, its own port and the upstream's."""

    name: str
    pins: str
    install: Callable[[Path, Python], None]
    launch: Callable[[Path, int, int], Launch]
    version: Callable[[Path], str]


def _run(argv: Sequence[str], where: Path) -> str:
    """Its output. NotInstalled when it fails, or is not there."""
    try:
        done = subprocess.run(argv, cwd=where, capture_output=True, text=True, timeout=INSTALL_S_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired) as failed:
        raise NotInstalled(f"{argv[0]}: {failed}") from failed
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise NotInstalled(f"{Path(argv[0]).name} {argv[1]}: {lines[-1][:200] if lines else 'failed'}")
    return done.stdout + done.stderr


def _pip(pins: Sequence[str]) -> Callable[[Path, Python], None]:
    def install(folder: Path, python: Python) -> None:
        _run([str(python.at), "-m", "venv", "--without-pip", str(folder / "env")], folder)
        pip = [sys.executable, "-m", "pip", "--python", str(folder / "env/bin/python")]
        _run([*pip, "install", "-q", "--disable-pip-version-check", *pins], folder)

    return install


def _first_pin(pins: Sequence[str]) -> Callable[[Path], str]:
    return lambda folder: pins[0].partition("==")[2]


def _npm_portkey(folder: Path, _: Python) -> None:
    wanted = {
        "private": True,
        "dependencies": PORTKEY,
        "overrides": {name: PORTKEY[name] for name in list(PORTKEY)[1:]},
    }
    (folder / "package.json").write_text(json.dumps(wanted))
    _run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"], folder)


def _deb_nginx(folder: Path, _: Python) -> None:
    """The package's files, unpacked; nothing of the system is touched."""
    try:
        _run(["apt-get", "download", NGINX], folder)
    except NotInstalled:
        _run(["apt-get", "update"], folder)
        _run(["apt-get", "download", NGINX], folder)
    for package in folder.glob("*.deb"):
        _run(["dpkg", "-x", str(package), str(folder / "root")], folder)


NGINX_CONF = """\
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_buffer_size 64k;
  {temporary}
  upstream mock {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""


def _nginx(folder: Path, port: int, upstream: int) -> Launch:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    conf = folder / "nginx.conf"
    conf.write_text(NGINX_CONF.format(folder=folder, temporary=temporary, port=port, upstream=upstream))
    return Launch(
        [str(folder / "root/usr/sbin/nginx"), "-p", str(folder), "-c", str(conf), "-e", str(folder / "error.log")]
    )


def _nginx_version(folder: Path) -> str:
    return _run([str(folder / "root/usr/sbin/nginx"), "-v"], folder).strip().partition("/")[2]


def _ferrogw(folder: Path, port: int, upstream: int) -> Launch:
    settings = {
        "PORT": str(port),
        "MASTER_KEY": KEY,
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream}",
        "RATE_LIMIT_RPS": "1000000",
        "RATE_LIMIT_BURST": "1000000",
        "LOG_LEVEL": "error",
    }
    return Launch([str(folder / "env/bin/ferrogw"), "serve"], settings)


def _portkey(folder: Path, port: int, upstream: int) -> Launch:
    start = folder / "node_modules/@portkey-ai/gateway/build/start-server.js"
    place = f"http://127.0.0.1:{upstream}/v1"
    sender = {**BEARER, "x-portkey-provider": "openai", "x-portkey-custom-host": place}
    return Launch(["node", str(start), f"--port={port}", "--headless"], {"NODE_ENV": "production"}, sender=sender)


LITELLM_YAML = """\
model_list:
{models}
general_settings: {{master_key: {key}}}
litellm_settings: {{telemetry: false, num_retries: 0, request_timeout: 120}}
"""
LITELLM_MODEL = "  - {{model_name: {name}, litellm_params: {{model: openai/{name}, api_base: {base}, api_key: {key}}}}}"


def _litellm(folder: Path, port: int, upstream: int) -> Launch:
    base = f"http://127.0.0.1:{upstream}/v1"
    models = "\n".join(LITELLM_MODEL.format(name=name, base=base, key=KEY) for name in (WHOLE_MODEL, PACED_MODEL))
    config = folder / "litellm.yaml"
    config.write_text(LITELLM_YAML.format(models=models, key=KEY))
    argv = [str(folder / "env/bin/litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    return Launch([*argv, "--num_workers", "1"], {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"})


PEERS = (
    Peer("nginx", NGINX, _deb_nginx, _nginx, _nginx_version),
    Peer("ferrogw", repr(FERROGW), _pip(FERROGW), _ferrogw, _first_pin(FERROGW)),
    Peer("portkey", repr(PORTKEY), _npm_portkey, _portkey, lambda folder: PORTKEY["@portkey-ai/gateway"]),
    Peer("litellm", repr(LITELLM), _pip(LITELLM), _litellm, _first_pin(LITELLM)),
)


def installed(peer: Peer, cache: Path, python: Python) -> Path:
    """The folder of that peer with these pins, filled if it was not yet. NotInstalled says why it cannot be."""
    folder = cache / f"{peer.name}-{hashlib.sha256((peer.pins + python.words).encode()).hexdigest()[:12]}"
    done = folder / "installed"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o755)
        peer.install(folder, python)
        done.touch()
    return folder


@contextmanager
def running(peer: Peer, folder: Path, upstream_port: int) -> Iterator[Target]:
    """The peer on the gateway's core, up and idle. Only what it needs of our environment reaches it."""
    port = free_port()
    launch = peer.launch(folder, port, upstream_port)
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", **launch.environ}
    with (folder / "log").open("wb") as log, on_cores(cores()[0]):
        began = time.perf_counter()
        process = subprocess.Popen(
            launch.argv, cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}{launch.path}"
    target = Target(peer.name, peer.version(folder), url, [launch.sender], lambda: family(process.pid))
    try:
        asked = target.requests(WHOLE_MODEL, stream=False)
        start_s = await_answer(asked, lambda: process.poll() is None) - began
        yield replace(target, start_s=start_s, idle_mb=memory_mb(target.core()))
    finally:
        end_group(process)
