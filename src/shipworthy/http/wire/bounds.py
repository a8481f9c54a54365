"""What one connection may take: bytes, time and places. Read when needed, so that a test may shorten them."""

from __future__ import annotations

HEAD_SECONDS_MAX = 10.0
HEAD_BYTES_MAX = 65_536
HEADERS_MAX = 256
"""Of one head: each costs far more memory than its bytes."""
KEEP_ALIVE_S = 75.0
"""How long a connection may wait for its next request; longer than common proxies keep theirs."""
UNREAD_SECONDS_MAX = 60.0
"""How long an answer may wait for its reader while the buffers are full."""
REFUSED_SECONDS_MAX = 5.0
"""How long the rest of a body is read away after its answer, so that the answer reaches a client that is still sending."""
FRAMING_BYTES_MAX = 16
"""What a chunked body may need beside each of its own bytes; beyond the head's bytes it is no framing but something else."""
HELD_BYTES_MAX = 65_536
"""What a connection may have sent and nobody asked for yet; beyond it no more is read from it."""
REQUESTS_AHEAD_MAX = 64
"""Requests sent before the answer to an earlier one; whoever sends more is answered these and closed."""
CONNECTIONS_MAX = 4_000
HANDSHAKE_SECONDS_MAX = 10.0
"""How long a client may take to agree on TLS, whatever it sends meanwhile."""
HANDSHAKES_MAX = 500
"""At once; whoever comes then takes the place of the one that has been at it for longest."""
FILES_EACH = 3
"""Of a process's files, how many a connection must leave for its provider, the store, and the next one's refusal."""
