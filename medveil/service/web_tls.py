"""TLS of the people's listener: a certificate of the operator's, from files."""

from __future__ import annotations

import ssl
from pathlib import Path

from medveil.network.certificates import ServerContext
from medveil.service.home.config import People
from wire.errors import Unavailable


def server_context(folder: Path, people: People) -> ServerContext | None:
    """The context that gateway.toml names; None for plain HTTP, which only a loopback address serves.

    It counts handshakes that fail.

    Paths are taken from `folder` if they are relative. Raises Unavailable for files that are none.
    """
    if not people.certificate:
        return None
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")  # of TLS 1.2; those of 1.3 are all like that
    try:
        context.load_cert_chain(folder / people.certificate, folder / people.key)
    except (OSError, ssl.SSLError):
        raise Unavailable("config.bad_certificate", file=people.certificate) from None
    return context
