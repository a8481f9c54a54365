"""Listening sockets, bound by the supervisor and inherited: a respawned worker finds its clients waiting."""

from __future__ import annotations

import errno
import socket

from shipworthy.manifest.deployment import Bind
from shipworthy.model.errors import StartRefused

BACKLOG = 2048


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
