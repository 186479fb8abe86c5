"""TLS of the people's listener: a certificate of the operator's, from files."""

from __future__ import annotations

import ssl
from pathlib import Path

from medveil.service.config import People
from wire.errors import Unavailable


def server_context(folder: Path, people: People) -> ssl.SSLContext | None:
    """The context that gateway.toml names; None for plain HTTP, which only a loopback address serves.

    Paths are taken from `folder` if they are relative. Raises Unavailable for files that are none.
    """
    if not people.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(folder / people.certificate, folder / people.key)
    except (OSError, ssl.SSLError):
        raise Unavailable("config.bad_certificate", file=people.certificate) from None
    return context
