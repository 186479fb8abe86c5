"""Ports that a gateway of this machine can be given for good: free, and not among those that the system hands out."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Iterator

from wire.errors import Unavailable

# Linux gives outgoing connections ports from 32768 on, other systems from 49152 on (RFC 6335, section 6): a port above
# may be somebody's by the time its gateway starts.
FIRST, LAST = 20_000, 32_767
_ATTEMPTS = 1000


@contextlib.contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """`count` different ports of `localhost`, held until the block ends. Raises Unavailable if they cannot be found."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        for _ in range(_ATTEMPTS):
            if len(ports) == count:
                break
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("localhost", FIRST + secrets.randbelow(LAST - FIRST + 1)))
                ports.append(int(probe.getsockname()[1]))
        else:
            raise Unavailable("local.no_ports", first=FIRST, last=LAST)
        yield ports
