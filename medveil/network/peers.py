"""The other organisations as a gateway meets them: who may ask, and the lines to them.

Who is a peer follows the ledger: each question is answered for a member of the present membership, by its certificate
under its present key; a line is to a member and fails if somebody else answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from medveil.network.certificates import PeerTls, organisation_of
from medveil.network.ledger_door import Identify
from medveil.network.line import PeerLine
from medveil.network.protocol import peer_certificate
from wire.checkpoint.membership import Membership
from wire.errors import Unavailable, VerificationError


def identify(membership: Callable[[], Membership], clock: Callable[[], int]) -> Identify:
    """Who asks: the organisation of the connection's certificate, if it is a member now."""

    def asks(request: Request) -> str:
        return organisation_of(peer_certificate(request.scope), membership(), clock())

    return asks


def peers_app(routes: list[Route]) -> Starlette:
    """What the peers' listener serves."""
    return Starlette(routes=routes)


class PeerLines:
    """Lines to other organisations. addresses: ``https://host:port`` by organisation, as its operator wrote them."""

    def __init__(self, tls: PeerTls, addresses: Mapping[str, str]) -> None:
        self._tls = tls
        self._addresses = dict(addresses)
        self._lines: dict[str, tuple[object, PeerLine]] = {}

    def to(self, organisation: str) -> PeerLine:
        """The line to `organisation`: the same until its keys change. Raises Unavailable where none can be made."""
        url = self._addresses.get(organisation)
        if url is None:
            raise Unavailable("network.no_address", organisation=organisation)
        try:
            context = self._tls.towards(organisation)
        except VerificationError:
            raise Unavailable("network.no_member", organisation=organisation) from None
        known = self._lines.get(organisation)
        if known is None or known[0] is not context:
            known = self._lines[organisation] = (context, PeerLine(organisation, url, context))
        return known[1]

    async def close(self) -> None:
        """Hang up everywhere."""
        for _, line in self._lines.values():
            await line.close()
