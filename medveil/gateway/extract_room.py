"""Room for extracts that come: what of the disk they may take, of one issuer and in all.

Bytes are promised to an extract before the first of them is asked for, and counted until it is held or let go, so that
several that come at a time cannot together take what each of them alone would find free. An issuer learns by code that
its share is used up; of the disk and of the others' extracts it learns nothing.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from threading import Lock
from typing import NamedTuple
from weakref import WeakKeyDictionary

from medveil.gateway.extract_bytes import failed
from medveil.gateway.extract_delivery import ExtractOffer
from medveil.gateway.extract_wanted import answers, asked
from medveil.gateway.held_extracts import ever_held, held_folder, held_path
from medveil.gateway.organisation import Organisation
from privacy.copies.extracts import SUFFIX
from wire.errors import Refused, Unavailable

FLOOR = 1024**3
"""Bytes of the disk that an extract which comes leaves free."""

_BLOCK = 512

_Delivery = tuple[str, bytes]
"""Issuer and session: two issuers may choose the same session."""


class Promise(NamedTuple):
    """Bytes that are kept for an extract on its way. part: where they come to stand; ask: the request that it answers,
    if wanted."""

    issuer: str
    extract: bytes
    ask: bytes
    length: int
    wanted: bool
    part: Path


class Taken(NamedTuple):
    """Bytes that extracts take, promised ones too: of all issuers; of one, and of those that it sent unasked; and of
    those that all issuers sent unasked."""

    whole: int
    issuer: int
    unasked: int
    all_unasked: int


class ExtractRoom:
    """The room of one organisation, for all deliveries of its process. Make it with `room_of`."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._promises: dict[_Delivery, Promise] = {}

    def promise(self, recipient: Organisation, issuer: str, session: bytes, offer: ExtractOffer, part: Path) -> None:
        """Keep an offered extract's bytes for the delivery in `session`, until `let_go`. Call it in a thread.

        Raises Refused where the issuer's share, or that of all, is used up or it was not asked for; Unavailable where
        the disk has no room.
        """
        shares, wanted = recipient.extract_shares, _wanted(recipient, issuer, offer)
        with self._lock:
            delivery = issuer, session
            others = [one for name, one in tuple(self._promises.items()) if name != delivery and one.ask == offer.ask]
            wanted = wanted and all(one.extract == offer.extract for one in others)  # one answer to a request
            promise = Promise(issuer, offer.extract, offer.ask, offer.length, wanted, part)
            taken = self._taken(recipient, issuer, delivery)
            if not wanted and taken.unasked + offer.length > shares.unasked:
                raise Refused("gateway.extract_unasked", organisation=recipient.name, bytes=shares.unasked)
            # The rest is for what is asked.
            if not wanted and taken.all_unasked + offer.length > max(shares.unasked, shares.whole // 2):
                raise Refused("gateway.extracts_full", organisation=recipient.name)
            if taken.issuer + offer.length > shares.issuer:
                raise Refused("gateway.extract_share", organisation=recipient.name, bytes=shares.issuer)
            if taken.whole + offer.length > shares.whole:
                raise Refused("gateway.extracts_full", organisation=recipient.name)
            self._check_disk(promise, delivery)
            self._promises[delivery] = promise

    def let_go(self, issuer: str, session: bytes) -> None:
        """The delivery is over, whichever way."""
        self._promises.pop((issuer, session), None)

    def under_way(self) -> frozenset[bytes]:
        """The extracts that are on their way now."""
        return frozenset(promise.extract for promise in tuple(self._promises.values()))

    def taken(self, recipient: Organisation, issuer: str) -> Taken:
        """What is taken now. Call it in a thread. Raises Unavailable (disk)."""
        with self._lock:
            return self._taken(recipient, issuer)

    def _taken(self, recipient: Organisation, issuer: str, besides: _Delivery | None = None) -> Taken:
        promises = [one for name, one in tuple(self._promises.items()) if name != besides]
        coming = {one.extract.hex() for one in promises}
        parts = {one.part for one in promises}
        standing = {
            path: size
            for path, size in _files(held_folder(recipient))
            if path not in parts and path.name.removesuffix(SUFFIX) not in coming
        }
        came = {one.extract for one in asked(recipient)}
        held = [one for one in ever_held(recipient) if not one.deleted]
        sizes = [(one.issuer, standing.get(held_path(recipient, one.extract), 0), one.extract in came) for one in held]
        sizes += [(one.issuer, one.length, one.wanted) for one in promises]
        return Taken(
            sum(standing.values()) + sum(one.length for one in promises),
            sum(size for whose, size, _ in sizes if whose == issuer),
            sum(size for whose, size, wanted in sizes if whose == issuer and not wanted),
            sum(size for _, size, wanted in sizes if not wanted),
        )

    def _check_disk(self, promise: Promise, delivery: _Delivery) -> None:
        """Raises Unavailable: what was promised and is not on the disk yet is not free."""
        others = [one for name, one in tuple(self._promises.items()) if name != delivery]
        owed = sum(max(0, one.length - _allocated(one.part)) for one in (*others, promise))
        try:
            free = shutil.disk_usage(promise.part.parent).free
        except OSError as error:
            raise failed(promise.part.parent, error) from None
        if free - owed < FLOOR:
            raise Unavailable("gateway.extract_no_room", bytes=promise.length)


_rooms: WeakKeyDictionary[Organisation, ExtractRoom] = WeakKeyDictionary()


def room_of(organisation: Organisation) -> ExtractRoom:
    """The room for extracts of an organisation in this process."""
    return _rooms.setdefault(organisation, ExtractRoom())


def _wanted(recipient: Organisation, issuer: str, offer: ExtractOffer) -> bool:
    """Whether an offer answers a request of this organisation to that holder, which nothing else has answered."""
    return any(one.ask == offer.ask and answers(one, issuer, offer.dataset, offer.extract) for one in asked(recipient))


def _files(folder: Path) -> list[tuple[Path, int]]:
    found = []
    try:
        for entry in os.scandir(folder):
            try:
                found.append((Path(entry.path), entry.stat(follow_symlinks=False).st_size))
            except FileNotFoundError:  # it has just been given its name, or gone
                continue
    except OSError as error:
        raise failed(folder, error) from None
    return found


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * _BLOCK
    except OSError:
        return 0
