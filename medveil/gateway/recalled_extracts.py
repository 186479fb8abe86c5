"""The extracts at this gateway, as a recall reaches them: those that came here, and those that have not left yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from medveil.gateway import extract_leaving
from medveil.gateway.extracting import close_unfinished
from medveil.gateway.held_extracts import DUE, HeldExtract, close_openings, ever_held, forget, known
from medveil.gateway.made_extracts import find_made
from medveil.gateway.organisation import Clock, Organisation
from medveil.gateway.recalling import Arrived
from privacy.erasure.deletion import Why
from wire.domains import EXTRACT_OPENING, keyed
from wire.errors import MedveilError

_WHY: dict[str, Why] = {
    DUE: "due",
    "erasure": "erasure",
    "consent-revoked": "consent-revoked",
    "withdrawn": "withdrawn",
}
_PIECE = 500


class ExtractsHere:
    """Those of one organisation. Implements `medveil.gateway.recalling.Extracts`.

    going_on: whether there are flows that make extracts and are to be taken up again.
    """

    def __init__(self, organisation: Organisation, clock: Clock, going_on: Callable[[], bool] = lambda: False) -> None:
        self._organisation, self._clock, self._going_on = organisation, clock, going_on

    def arrived(self) -> Iterator[Arrived]:
        """See `Extracts.arrived`."""
        for one in ever_held(self._organisation):
            yield _arrived(one)

    def came(self, extract: bytes) -> Arrived | None:
        """See `Extracts.came`."""
        one = known(self._organisation, extract)
        return None if one is None else _arrived(one)

    def opened(self, extract: bytes) -> bool:
        """See `Extracts.opened`: openings are noted in this organisation's own trail."""
        organisation, one = self._organisation, known(self._organisation, extract)
        if one is None:
            return False
        about, first = keyed(organisation.salt_key, EXTRACT_OPENING, extract), 1
        while some := organisation.audit.intents("dataset", one.facts.dataset, first, _PIECE):
            if any(intent.use.kind == "opening" and intent.use.query == about for intent in some):
                return True
            first = some[-1].sequence + 1
        return False

    def forget(self, extract: bytes, why: Why) -> None:
        """See `Extracts.forget`."""
        forget(self._organisation, extract, why, self._clock)

    def withdraw(self, extract: bytes) -> None:
        """See `Extracts.withdraw`. What is on its way is called back too: its recipient may have it already."""
        one = find_made(self._organisation, extract)
        if one is not None and one.undelivered:  # else it was made and carried by hand, or it is there
            extract_leaving.take_back(self._organisation, extract, "gateway.extract_recalled", self._clock)

    def taken_back(self) -> Iterator[int]:
        """See `Extracts.taken_back`."""
        close_unfinished(self._organisation, self._clock, self._going_on)
        with suppress(MedveilError):  # what cannot be written now the next round writes, and no recall waits for it
            close_openings(self._organisation)
        for one in extract_leaving.take_back_changed(self._organisation, self._clock):
            yield one.facts.audit

    def may_have_left(self, extract: bytes) -> bool:
        """See `Extracts.may_have_left`."""
        one = find_made(self._organisation, extract)
        return one is None or extract_leaving.may_have_left(self._organisation, one)


def _arrived(one: HeldExtract) -> Arrived:
    return Arrived(one.extract, one.issuer, one.deleted, _WHY.get(one.why, "chosen"))
