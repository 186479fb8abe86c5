"""How a running service writes its security log: many entries in one transaction, denials within bounds.

A note is durable when `note` returns. What waits while one is written goes into the next one together (`gathered`).

Every denial is noted. So that nobody fills the disk with denials, the entries of one hour are bounded: for each
address of callers who are nobody, for all such addresses together, and for each person or program. What is beyond
is counted, and the count is written at 1, 10, 100, ... and when the hour is over. No entry holds an address.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medveil.service.accounts.rights import NOBODY
from medveil.service.api.rates import network
from medveil.service.database import Database
from medveil.service.security.gathered import Gathered
from medveil.service.security.log_writer import LogWriter
from medveil.service.security.security_log import Noted
from wire.errors import MedveilError

Clock = Callable[[], int]

HOUR_MS = 3600 * 1000
_NOBODY = "-"
_WRITTEN_ALREADY = frozenset({"accounts.not_signed_in", "accounts.not_confirmed"})
"""Refusals that `sign_in` writes in the transaction that counts them."""


@dataclass(frozen=True)
class Bounds:
    """Denials an hour that have an entry each. address: of one network; nobody: of all networks; actor: of one."""

    address: int = 20
    nobody: int = 1000
    actor: int = 200


class SecurityTrail:
    """The pen of one process. Used in one event loop; `database` may be shared."""

    def __init__(self, database: Database, clock: Clock, bounds: Bounds | None = None) -> None:
        self._clock = clock
        self._bounds = bounds or Bounds()
        writer = LogWriter(database)
        self._pen: Gathered[Sequence[Noted], None] = Gathered(
            writer.write, "writes the security log", at_once=writer.write_at_once
        )
        self._hour = 0
        self._written: Counter[str] = Counter()
        self._beyond: Counter[str] = Counter()

    async def note(self, actor: str, what: str, subject: str = "", reason: str = "") -> None:
        """Write one entry; durable when this returns, also written if the caller is cancelled meanwhile.

        Raises Unavailable or DecodeError where the store cannot.
        """
        await self._pen.ask((Noted(self._clock(), actor, what, subject, reason),))

    async def denied(self, actor: str, address: str, route: str, code: str) -> None:
        """Note that a call was refused, or count it where the hour's entries are used up.

        actor: of a person or program that is known, else empty. address: the caller's, for the bound alone.
        route: method and template, as in ``GET /v1/jobs/{job}``. Raises as `note`.
        """
        if code in _WRITTEN_ALREADY:
            return
        entries = self._ended_hour()
        who = actor or _NOBODY
        if self._admits(actor, address):
            entries.append(Noted(self._clock(), who, "denied", route, code))
        else:
            self._beyond[who] += 1
            if _is_power_of_ten(self._beyond[who]):
                entries.append(Noted(self._clock(), who, "denied.more", "", str(self._beyond[who])))
        if entries:
            await self._pen.ask(entries)

    async def settle(self) -> None:
        """Write what has only been counted so far. Raises as `note`."""
        entries = self._ended_hour(now=True)
        if entries:
            await self._pen.ask(entries)

    async def close(self) -> None:
        """Write what has only been counted, and end the pen's thread. Raises as `note`."""
        try:
            await self.settle()
        finally:
            await asyncio.to_thread(self._pen.close)

    def _admits(self, actor: str, address: str) -> bool:
        keys = {actor: self._bounds.actor} if actor else {_NOBODY: self._bounds.nobody}
        if not actor:
            keys[f"- {network(address)}"] = self._bounds.address
        if any(self._written[key] >= most for key, most in keys.items()):
            return False  # and nothing is remembered, so that memory is bounded as the entries are
        self._written.update(keys.keys())
        return True

    def _ended_hour(self, now: bool = False) -> list[Noted]:
        """What to write of the counts of an hour that is over; now: of this one too."""
        hour = self._clock() // HOUR_MS
        over = hour != self._hour
        if over:
            self._hour = hour
            self._written.clear()
        if not over and not now:
            return []
        counts, self._beyond = self._beyond, Counter()
        return [Noted(self._clock(), who, "denied.more", "", str(count)) for who, count in sorted(counts.items())]


def actor_of(state: object, error: MedveilError) -> str:
    """Whom a denial is of: the caller as far as it is known; of a token that no longer holds, the token; or nobody."""
    principal = getattr(state, "principal", NOBODY)
    if principal is not NOBODY:
        return str(principal.actor)
    token = error.facts.get("token")
    return f"program:{token}" if error.code in {"tokens.revoked", "tokens.expired", "tokens.owner_gone"} else ""


def _is_power_of_ten(count: int) -> bool:
    return str(count).strip("0") == "1" and str(count)[0] == "1"
