"""The book of limits: about which limits of one bill a hospital has answered one asking organisation.

Every answer to "is it within this limit?" is a bit of the amount, a no as well as a yes: about forty of them are the
amount itself. So a hospital answers an organisation about a few different limits of one bill, counted on disk before
the wallet is asked, and about the same limit as often as it likes.

The number is the hospital's own (`[bills] limits` of gateway.toml) and not a term of its grants: what leaks is the
bill's, whichever grant an answer is given under, and terms of two grants to one organisation would add up.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from medveil.gateway.organisation import Organisation
from wire.canonical import Wire, decode, encode
from wire.errors import Refused
from wire.identifiers import Handle, Name
from wire.money import LARGEST
from zkp.bill_limit import LimitRequest

_BOOK = "limits-answered"


class AnsweredLimits(Wire, frozen=True, tag="medveil.answered_limits"):
    """The limits of one bill that one organisation was answered about, in minor units, in order of asking. Private."""

    handle: Handle
    asker: Name
    limits: tuple[Annotated[int, msgspec.Meta(ge=0, le=LARGEST)], ...] = ()


def answered(hospital: Organisation, handle: bytes, asker: str) -> AnsweredLimits:
    """What `asker` was answered about the bill under `handle` so far."""
    try:
        return decode(AnsweredLimits, hospital.vault.document(_BOOK, _name(handle, asker)))
    except Refused:
        return AnsweredLimits(handle, asker)


def count_limit(hospital: Organisation, asker: str, request: LimitRequest) -> None:
    """Count the limit that `asker` asks about; on disk when this returns. One that it asked about before is free.

    Raises Refused once it was answered about as many others as the hospital answers. Nothing is awaited between
    reading the book and writing it: two requests at once are two.
    """
    book = answered(hospital, request.handle, asker)
    if request.limit in book.limits:
        return
    if len(book.limits) >= hospital.most_limits:
        raise Refused("gateway.too_many_limits", organisation=hospital.name, limits=hospital.most_limits)
    book = msgspec.structs.replace(book, limits=(*book.limits, request.limit))
    hospital.vault.put_document(_BOOK, _name(request.handle, asker), encode(book))


def _name(handle: bytes, asker: str) -> str:
    return f"{handle.hex()} {asker}"
