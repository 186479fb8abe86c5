"""`Client` and `AsyncClient`: one gateway, one caller, all parts of the API.

    with Client("https://gateway.example", Session(secret), trust="consortium.json", ca="ca.pem") as client:
        release = client.queries.ask(question)
        release.to_pandas()

Both are made alike and have the same parts with the same methods, defined once: `AsyncClient`'s are awaited. Every
receipt and every release is verified on arrival by the pinned trust file: one that does not hold raises
VerificationError and is never returned.
"""

from __future__ import annotations

import secrets
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from medveil.client.accounts import Account, People, SecurityLog, Tokens
from medveil.client.audit import Audit, Evidence, ServicePart
from medveil.client.carriers import AwaitingCarrier, BlockingCarrier
from medveil.client.claims import Bills, Eligibility, Models, ScoresPart
from medveil.client.consortium import Ledger, Members, Receipts
from medveil.client.credentials import Clock, Program, Rand, Session, read_program
from medveil.client.datasets import Datasets, Populations
from medveil.client.erasures import Erasures, Holds, Persons
from medveil.client.exchange import Awaiting, Blocking, Carrier, M
from medveil.client.extracts import Extracts
from medveil.client.grants import Grants
from medveil.client.jobs import Jobs
from medveil.client.line import DEADLINE, Line
from medveil.client.opt_outs import OptOuts
from medveil.client.pinned import Pinned
from medveil.client.queries import Queries
from wire.errors import Unavailable

if TYPE_CHECKING:
    from wire.checkpoint import TrustFile

C = TypeVar("C", bound=Carrier)


def _now() -> int:
    return time.time_ns() // 1_000_000


class _Gateway(Generic[M, C]):
    """Both clients: how one is made, and the parts of the API over one line and one carrier.

    gateway: its address, ``https://host[:port]``; plain HTTP for this machine alone. who: `Session`, `Program`, or
    None to sign in or accept an invitation. trust: the trust file ``consortium.json`` that was pinned, or its path;
    whatever writes or releases needs it. keep_trust: write proven changes of members back to that path. ca: path of
    the certificate authority that the gateway's certificate is of, if it is not one of the system's. proxy: address
    of an HTTP proxy. language: of sentences, "en" or "zh". clock: ms UTC; rand: random bytes.
    organisation: whose gateway this must be: another one gets no secret, and what another one wrote is no answer.
    deadline: seconds that one answer may take, from the call to its last byte; a job is followed for as long as it
    goes on.

    Raises Refused (an address that cannot be used), Unavailable and DecodeError (files).
    """

    def __init__(
        self,
        gateway: str,
        who: Session | Program | None = None,
        *,
        trust: TrustFile | str | Path | None = None,
        keep_trust: bool = False,
        ca: str | Path = "",
        proxy: str = "",
        language: str = "en",
        clock: Clock = _now,
        rand: Rand = secrets.token_bytes,
        organisation: str = "",
        deadline: float = DEADLINE,
    ) -> None:
        line = Line(
            gateway,
            who,
            _pinned(trust, keep_trust),
            language=language,
            clock=clock,
            rand=rand,
            organisation=organisation,
            deadline=deadline,
        )
        carrier = self._carried(_tls(ca), proxy, deadline)
        self._line, self._carrier = line, carrier
        self.account: Account[M] = Account(line, carrier)
        self.people: People[M] = People(line, carrier)
        self.tokens: Tokens[M] = Tokens(line, carrier)
        self.security_log: SecurityLog[M] = SecurityLog(line, carrier)
        self.jobs: Jobs[M] = Jobs(line, carrier)
        self.members: Members[M] = Members(line, carrier)
        self.ledger: Ledger[M] = Ledger(line, carrier)
        self.receipts: Receipts[M] = Receipts(line, carrier)
        self.populations: Populations[M] = Populations(line, carrier)
        self.datasets: Datasets[M] = Datasets(line, carrier)
        self.grants: Grants[M] = Grants(line, carrier)
        self.opt_outs: OptOuts[M] = OptOuts(line, carrier)
        self.erasures: Erasures[M] = Erasures(line, carrier)
        self.holds: Holds[M] = Holds(line, carrier)
        self.persons: Persons[M] = Persons(line, carrier)
        self.extracts: Extracts[M] = Extracts(line, carrier)
        self.queries: Queries[M] = Queries(line, carrier)
        self.bills: Bills[M] = Bills(line, carrier)
        self.eligibility: Eligibility[M] = Eligibility(line, carrier)
        self.models: Models[M] = Models(line, carrier)
        self.scores: ScoresPart[M] = ScoresPart(line, carrier)
        self.audit: Audit[M] = Audit(line, carrier)
        self.evidence: Evidence[M] = Evidence(line, carrier)
        self.service: ServicePart[M] = ServicePart(line, carrier)

    @staticmethod
    def _carried(tls: ssl.SSLContext, proxy: str, deadline: float) -> C:
        raise NotImplementedError

    @classmethod
    def of_program(cls, file: str | Path, *, language: str = "en", deadline: float = DEADLINE) -> Self:
        """The client of the program whose file this is (`medveil.client.credentials`)."""
        read = read_program(Path(file))
        return cls(
            read.gateway,
            read.program,
            trust=read.trust or None,
            ca=read.ca,
            language=language,
            organisation=read.organisation,
            deadline=deadline,
        )

    @property
    def gateway(self) -> str:
        """Where the gateway is: ``https://host[:port]``."""
        return self._line.origin

    @property
    def trust(self) -> TrustFile:
        """The trust file, grown by the changes of members that were proven since. Raises Refused if none is pinned."""
        return self._line.pinned.needed()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._line.origin!r})"


class Client(_Gateway[Blocking, BlockingCarrier]):
    """A gateway's client that blocks. It may be used by several threads at once."""

    @staticmethod
    def _carried(tls: ssl.SSLContext, proxy: str, deadline: float) -> BlockingCarrier:
        return BlockingCarrier(tls, proxy, deadline)

    def close(self) -> None:
        """Close every connection. Jobs go on at the gateway."""
        self._line.closed = True
        self._carrier.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Gateway[Awaiting, AwaitingCarrier]):
    """A gateway's client in an event loop.

    Whoever is cancelled leaves no connection and no task behind; a job that was begun goes on at the gateway.
    """

    @staticmethod
    def _carried(tls: ssl.SSLContext, proxy: str, deadline: float) -> AwaitingCarrier:
        return AwaitingCarrier(tls, proxy, deadline)

    async def aclose(self) -> None:
        """Close every connection. Jobs go on at the gateway."""
        self._line.closed = True
        await self._carrier.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _pinned(trust: TrustFile | str | Path | None, keep: bool) -> Pinned:
    if isinstance(trust, str | Path):
        from wire.checkpoint import read_trust

        return Pinned(read_trust(Path(trust)), Path(trust) if keep else None)
    return Pinned(trust)


def _tls(ca: str | Path) -> ssl.SSLContext:
    """A context that checks certificates, by the system's authorities or by the one given."""
    try:
        context = ssl.create_default_context(cafile=str(ca) or None)
    except (OSError, ssl.SSLError):
        raise Unavailable("client.bad_ca", file=str(ca)) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
