"""How often a sign-in may be tried: waits that double, counted before the secret is looked at.

Three counters: of the address, of the account, and of a known device of the account. An attempt that shows a device
secret from an earlier sign-in counts against that device alone; any other against its address and the account.

* After the free attempts each further failure doubles the wait: up to an hour for an address, a quarter of an hour
  for a device, 30 s for an account. An attempt inside a wait is refused unread and does not lengthen it.
* So nobody is locked out for ever by somebody else: whoever signed in before from a device has a counter of their
  own, which an attacker without that device cannot move, a colleague behind the same address neither; anybody else
  waits 30 s at most for their account, and for their address if it is guessed from.
* Counting comes before checking, in a transaction of its own: a hundred attempts at once are a hundred attempts.

An account's counter is kept under a hash of what was typed as a name, known or not, so that it tells nothing about
who exists. A counter that rested for a day is forgotten.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

import sqlalchemy as sa

from medveil.service.database import metadata
from wire.domains import SERVICE_SECRET, digest

_FORGET_MS = 24 * 3600 * 1000

counters = sa.Table(
    "sign_in_counters",
    metadata,
    sa.Column("counter", sa.LargeBinary, primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("wait_until", sa.BigInteger, nullable=False),
    sa.Column("touched", sa.BigInteger, nullable=False, index=True),
)


class Limit(NamedTuple):
    """Attempts that cost nothing, and the longest wait in seconds."""

    free: int
    longest: int


ADDRESS = Limit(20, 3600)
DEVICE = Limit(5, 900)
ACCOUNT = Limit(5, 30)


class Counter(NamedTuple):
    """One counter: its key and its limit."""

    key: bytes
    limit: Limit


def of_address(address: str) -> Counter:
    """An IPv4 address, or the /64 of an IPv6 one: who has one of those has all of it."""
    try:
        parsed = ipaddress.ip_address(address)
        mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
        known = mapped or parsed
        bits = 64 if isinstance(known, ipaddress.IPv6Address) else 32
        place = str(ipaddress.ip_network((known, bits), strict=False))
    except ValueError:
        place = "unknown"
    return Counter(digest(SERVICE_SECRET, b"address", place.encode()), ADDRESS)


def of_account(name: str) -> Counter:
    """What was typed as a name."""
    return Counter(digest(SERVICE_SECRET, b"account", name.encode("utf-8", "replace")), ACCOUNT)


def of_device(device: bytes) -> Counter:
    """A device that the account knows; device: the digest of its secret."""
    return Counter(digest(SERVICE_SECRET, b"device", device), DEVICE)


def count(connection: sa.Connection, now: int, *wanted: Counter) -> int:
    """Count one attempt on each counter and return 0; or, inside a wait, count nothing and return its seconds."""
    connection.execute(counters.delete().where(counters.c.touched < now - _FORGET_MS))
    found = {
        bytes(row.counter): row
        for row in connection.execute(
            sa.select(counters).where(counters.c.counter.in_([counter.key for counter in wanted]))
        )
    }
    waits = [row.wait_until - now for row in found.values() if row.wait_until > now]
    if waits:
        return -int(-max(waits) // 1000)
    for key, limit in wanted:
        failures = found[key].failures + 1 if key in found else 1
        over = failures - limit.free
        wait = min(2 ** min(over, 20), limit.longest) * 1000 if over > 0 else 0
        row = {"failures": failures, "wait_until": now + wait, "touched": now}
        if key in found:
            connection.execute(counters.update().where(counters.c.counter == key).values(**row))
        else:
            connection.execute(counters.insert().values(counter=key, **row))
    return 0


def clear(connection: sa.Connection, *succeeded: Counter) -> None:
    """Take counters back to nothing."""
    connection.execute(counters.delete().where(counters.c.counter.in_([counter.key for counter in succeeded])))


def refund(connection: sa.Connection, now: int, *counted: Counter) -> None:
    """Take back the one attempt just counted, and its wait. An address gets no more than that: otherwise whoever
    has one account there could clear its counter between guesses at another's."""
    for counter in counted:
        change = {"failures": counters.c.failures - 1, "wait_until": now}
        connection.execute(counters.update().where(counters.c.counter == counter.key).values(change))
