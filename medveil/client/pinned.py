"""The trust file that the caller pinned, and what is believed by it: receipts, and changes of members handed over.

A client believes no gateway, its own neither. What is on the ledger it believes by a receipt: the envelope's own
signature, and a head that enough of the members cosigned whom the pinned trust file names. When members or keys have
changed since, the gateway is asked for the handovers; each counts only if as many members as were needed before it
stand behind it (`ledger.handovers`), so that the gateway can hide a change but never invent one.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from medveil.client.exchange import Exchange, Work
from wire.errors import DecodeError, MedveilError, QuorumNotMet, Refused, VerificationError

if TYPE_CHECKING:
    from ledger.receipts import ProvenValue, Receipt
    from medveil.client.line import Line
    from wire.checkpoint import TrustFile

MOST_ROUNDS = 1000
"""Most answers that one search for handovers reads."""


class _Handovers(msgspec.Struct, frozen=True):
    handovers: Annotated[tuple[str, ...], msgspec.Meta(max_length=1000)]


class Pinned:
    """A trust file in use. trust: None if the caller pinned none. file: where to keep what it grew by, or None."""

    def __init__(self, trust: TrustFile | None, file: Path | None = None) -> None:
        self._trust = trust
        self._file = file
        self._growing = threading.Lock()

    def needed(self) -> TrustFile:
        """The trust file as it is now. Raises Refused if there is none."""
        if self._trust is None:
            raise Refused("client.no_trust")
        return self._trust

    def grow(self, handovers: list[ProvenValue]) -> TrustFile:
        """Extend it by what `handovers` prove. Raises VerificationError, QuorumNotMet; Unavailable (disk)."""
        from ledger.handovers import extend
        from wire.checkpoint import write_trust

        with self._growing:  # threads, or tasks that verify at once
            before = self.needed()
            self._trust = extend(before, handovers)
            if self._file is not None and self._trust != before:
                write_trust(self._file, self._trust)
            return self._trust


def believe(line: Line, evidence: Sequence[Receipt | ProvenValue]) -> Exchange[TrustFile]:
    """Verify receipts and proven values by the pinned trust file, following changes of members if need be; returns it
    as it is then.

    Raises VerificationError or QuorumNotMet for one that does not hold, Refused without a trust file.
    """
    while True:
        trust = line.pinned.needed()
        try:
            yield Work(partial(_verify, evidence, trust))
        except (VerificationError, QuorumNotMet) as error:
            try:
                followed = yield from follow_members(line)
            except MedveilError:
                followed = False  # what does not hold does not hold
            if not followed:
                raise error
        else:
            return trust


def _verify(evidence: Sequence[Receipt | ProvenValue], trust: TrustFile) -> None:
    from ledger.receipts import Receipt, verify_receipt, verify_value

    for one in evidence:
        if isinstance(one, Receipt):
            verify_receipt(one, trust)
        else:
            verify_value(one, trust)


def follow_members(line: Line) -> Exchange[bool]:
    """Ask for changes of members since the newest that is pinned; returns whether there were any.

    Raises VerificationError or QuorumNotMet for one that does not hold.
    """
    from medveil.client.line import fetch, get

    grown = False
    for _ in range(MOST_ROUNDS):
        known = line.pinned.needed().latest.from_height
        page = yield from fetch(line, get("members", "handovers", after=known), _Handovers)
        if not page.handovers:
            break
        found = [proven_of(text) for text in page.handovers]
        trust = yield Work(partial(line.pinned.grow, found))
        if trust.latest.from_height <= known:
            break
        grown = True
    return grown


def every_handover(line: Line) -> Exchange[tuple[ProvenValue, ...]]:
    """All changes of members since genesis, as the gateway shows them: for somebody whose trust file is older."""
    from medveil.client.line import fetch, get
    from wire.canonical import decode
    from wire.keyset import MembershipChanges

    found: list[ProvenValue] = []
    after = 0
    for _ in range(MOST_ROUNDS):
        page = yield from fetch(line, get("members", "handovers", after=after), _Handovers)
        some = [proven_of(text) for text in page.handovers]
        if not some:
            break
        found += some
        reached = decode(MembershipChanges, some[-1].value or b"").from_height
        if reached <= after:
            break
        after = reached
    return tuple(found)


def proven_of(text: str) -> ProvenValue:
    """A proven value from its canonical bytes in base64, not yet verified. Raises DecodeError."""
    from ledger.receipts import ProvenValue
    from wire.canonical import decode

    return decode(ProvenValue, bytes_of(text))


def bytes_of(text: str) -> bytes:
    """Bytes from base64 (RFC 4648, 4). Raises DecodeError."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise DecodeError("client.unexpected_answer") from None
