"""Listening sockets, bound by the supervisor and inherited: a respawned worker finds its clients waiting. And how many
sockets a process may have.
"""

from __future__ import annotations

import errno
import resource
import socket

from shipworthy.manifest.deployment import Bind
from shipworthy.model.errors import StartRefused

BACKLOG = 2048
FILES_WANTED = 16_384
"""A worker's 4,000 clients, a connection to a provider for each, and room; Debian gives 1,024 unless asked for more."""


def bind(where: Bind) -> socket.socket:
    """A listening socket at ``where``. Raises StartRefused, naming who to ask."""
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((where.host, where.port))
        listener.listen(BACKLOG)
    except OSError as reason:
        listener.close()
        why = "another process listens there" if reason.errno == errno.EADDRINUSE else (reason.strerror or str(reason))
        raise StartRefused(
            "server.bind",
            f"cannot listen on {where.host}:{where.port}: {why}",
            "stop that process (ss -ltnp shows it), or choose another port in the manifest",
        ) from reason
    listener.setblocking(False)
    return listener


def raise_file_limit() -> int:
    """How many files this process may open, from now on as many as it wants or is allowed to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft == resource.RLIM_INFINITY or soft >= allowed:
        return allowed
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed
