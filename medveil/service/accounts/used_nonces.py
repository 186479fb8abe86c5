"""Nonces of signed calls that were used up: no call is taken twice, wherever the machine's clock is set.

A nonce is kept until an hour after its signature ended. Then it is forgotten, and the time at which the signature ended
is remembered as part of a *span*: a signature that ends within a span is refused, since nobody knows whether it was
used. Spans follow from what the signatures said and not from the clock, and are kept for good; so

* a signature that was taken is never taken again, whatever the clock shows;
* by a clock that goes right no fresh signature is refused, also not after it had stood ahead: times that lie apart by
  more than an hour are spans of their own. When the time at which it had stood comes indeed, signed calls are refused
  for as long as it had stood there, less the hour;
* while a clock stands behind by more than the hour, signed calls are refused.

A store that came back from a backup knows fewer nonces than were used. There every token has ended
(`medveil.service.home.returned`), and a signature covers its token.
"""

from __future__ import annotations

import sqlalchemy as sa

from medveil.service.accounts.signed_request import LONGEST_S
from medveil.service.database import Database, metadata
from wire.errors import VerificationError

KEPT_S = 3600
"""For how long a nonce is kept after its signature ended."""
APART_S = 3600
"""Times that lie further apart are not of one span."""
_MOST_SPANS = 64
_EVERY_S = 60
_NOBODY = b""
"""Stands for the key in the rows of spans."""

nonces = sa.Table(
    "signature_nonces",
    metadata,
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("nonce", sa.Text, primary_key=True),  # of a span: its first second, in decimal
    sa.Column("until", sa.BigInteger, nullable=False, index=True),  # seconds; of a span: its last one
)

Span = tuple[int, int]
"""First and last second (UTC) in which forgotten signatures ended."""


def use_up(database: Database, key: bytes, nonce: str, *, now: int, expires: int) -> None:
    """Use up a nonce of the public `key`, durably. now, expires: seconds UTC.

    Raises VerificationError: it was used before, or whether it was cannot be known.
    """
    until = expires + LONGEST_S
    with database.transaction() as connection:
        spans = _forget_old(connection, now)
        if any(first <= expires <= last for first, last in spans):
            raise VerificationError("signatures.time_gone")
        mine = sa.and_(nonces.c.key == key, nonces.c.nonce == nonce)
        if connection.execute(sa.select(nonces.c.nonce).where(mine)).first() is not None:
            raise VerificationError("signatures.replayed")
        connection.execute(nonces.insert().values(key=key, nonce=nonce, until=until))


def _forget_old(connection: sa.Connection, now: int) -> list[Span]:
    """Forget the nonces whose time is long over, once a minute; returns the spans."""
    of_spans = sa.select(nonces).where(nonces.c.key == _NOBODY)
    spans = [(int(row.nonce), int(row.until)) for row in connection.execute(of_spans)]
    used, limit = nonces.c.key != _NOBODY, now - KEPT_S + LONGEST_S
    oldest = connection.execute(sa.select(sa.func.min(nonces.c.until)).where(used)).scalar_one()
    if oldest is None or oldest >= limit - _EVERY_S:
        return spans
    gone = nonces.delete().where(used, nonces.c.until < limit).returning(nonces.c.until)
    ended = [int(until) - LONGEST_S for until in connection.execute(gone).scalars()]
    spans = _joined([*spans, *((second, second) for second in ended)])
    connection.execute(nonces.delete().where(nonces.c.key == _NOBODY))
    connection.execute(nonces.insert(), [{"key": _NOBODY, "nonce": str(first), "until": last} for first, last in spans])
    return spans


def _joined(spans: list[Span]) -> list[Span]:
    """The same times and those between near ones, in order: at most `_MOST_SPANS`, of which the oldest lose gaps."""
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + APART_S:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    while len(found) > _MOST_SPANS:
        found[:2] = [(found[0][0], found[1][1])]
    return found
