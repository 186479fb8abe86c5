"""Shares of the disk that extracts which others made may take, held ones and those on their way together."""

from __future__ import annotations

from typing import NamedTuple

GIB = 1024**3


class ExtractShares(NamedTuple):
    """Bytes. whole: of all issuers' together; issuer: of one's; unasked: of what one sends without a request, 0 for
    nothing. One extract has 64 GiB at most (`extract_delivery.LARGEST`)."""

    whole: int = 128 * GIB
    issuer: int = 64 * GIB
    unasked: int = 8 * GIB
