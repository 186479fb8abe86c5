"""The extracts at this gateway, as a recall reaches them: those that came here, and those that have not left yet."""

from __future__ import annotations

from collections.abc import Iterator

from medveil.gateway import extract_delivery
from medveil.gateway.extracting import made_of
from medveil.gateway.held_extracts import DUE, ever_held, forget, known
from medveil.gateway.organisation import Clock, Organisation
from medveil.gateway.recalling import Arrived
from privacy.erasure.deletion import Why
from wire.domains import EXTRACT_OPENING, keyed
from wire.errors import Refused

_WHY: dict[str, Why] = {DUE: "due", "erasure": "erasure", "consent-revoked": "consent-revoked"}
_PIECE = 500


class ExtractsHere:
    """Those of one organisation. Implements `medveil.gateway.recalling.Extracts`."""

    def __init__(self, organisation: Organisation, clock: Clock) -> None:
        self._organisation, self._clock = organisation, clock

    def arrived(self) -> Iterator[Arrived]:
        """See `Extracts.arrived`."""
        for one in ever_held(self._organisation):
            yield Arrived(one.extract, one.issuer, one.deleted, _WHY.get(one.why, "chosen"))

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
        try:
            one = made_of(self._organisation, extract)
        except Refused:  # it was made and carried by hand
            return
        if one.state == "released":
            extract_delivery.withdraw(self._organisation, extract, "gateway.extract_recalled", self._clock)
