"""The other organisations as a gateway meets them: who may ask, and the lines to them.

Who is a peer follows the ledger: each question is answered for a member of the present membership, by its certificate
under its present key; a line is to a member and fails if somebody else answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from medveil.network.certificates import PeerTls, organisation_of
from medveil.network.ledger_door import Identify
from medveil.network.line import PeerLine
from medveil.network.protocol import peer_certificate
from wire.canonical import Wire
from wire.checkpoint.membership import Membership
from wire.errors import Unavailable, VerificationError

W = TypeVar("W", bound=Wire)


def identify(membership: Callable[[], Membership], clock: Callable[[], int]) -> Identify:
    """Who asks: the organisation of the connection's certificate, if it is a member now."""

    def asks(request: Request) -> str:
        return organisation_of(peer_certificate(request.scope), membership(), clock())

    return asks


def peers_app(routes: list[Route]) -> Starlette:
    """What the peers' listener serves."""
    return Starlette(routes=routes)


class FollowingLine:
    """The line to one organisation, whichever it is when somebody asks: keys may have changed since."""

    def __init__(self, lines: PeerLines, organisation: str) -> None:
        self._lines = lines
        self.organisation = organisation

    async def ask(self, method: str, path: str, kind: type[W], body: bytes = b"", timeout: float = 30.0) -> W:
        """See `PeerLine.ask`."""
        return await self._lines.to(self.organisation).ask(method, path, kind, body, timeout)


class PeerLines:
    """Lines to other organisations. addresses: ``https://host:port`` by organisation, as its operator wrote them."""

    def __init__(self, tls: PeerTls, addresses: Mapping[str, str]) -> None:
        self._tls = tls
        self._addresses = dict(addresses)
        self._lines: dict[str, tuple[object, PeerLine]] = {}  # by organisation, with what it connects by
        self._left: list[PeerLine] = []

    def to(self, organisation: str) -> PeerLine:
        """The line to `organisation`: the same until keys or the own certificate change, since a connection that is
        always in use would outlive the certificate it showed. Raises Unavailable where none can be made.
        """
        url = self._addresses.get(organisation)
        if url is None:
            raise Unavailable("network.no_address", organisation=organisation)
        renewals = self._tls.renewals
        try:
            contexts = self._tls.towards(organisation)
        except VerificationError:
            raise Unavailable("network.no_member", organisation=organisation) from None
        known = self._lines.get(organisation)
        if known is None or known[0] != (contexts, renewals):
            if known is not None:
                self._left.append(known[1])  # others may be waiting for an answer on it
            known = self._lines[organisation] = ((contexts, renewals), PeerLine(organisation, url, contexts))
        return known[1]

    async def close(self) -> None:
        """Hang up everywhere."""
        for line in (*(line for _, line in self._lines.values()), *self._left):
            await line.close()

    def following(self, organisation: str) -> FollowingLine:
        """A line to `organisation` that lasts."""
        return FollowingLine(self, organisation)
