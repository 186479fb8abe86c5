"""What lets an account in besides its password: sessions, tokens, invitations, known devices, recovery codes.

Kept as tables of hashes, and ended here, so that nothing is forgotten where an account is reset or disabled or loses a
role, or where the store came back from a backup and brings back what was ended or used up since.
"""

from __future__ import annotations

import sqlalchemy as sa

from medveil.service.accounts.rights import Principal
from medveil.service.database import metadata
from medveil.service.security import security_log
from wire.errors import Refused

invitations = sa.Table(
    "invitations",
    metadata,
    sa.Column("person", sa.Text, sa.ForeignKey("people.name"), primary_key=True),
    sa.Column("secret", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("expires", sa.BigInteger, nullable=False),
)
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("secret", sa.LargeBinary, primary_key=True),
    sa.Column("person", sa.Text, sa.ForeignKey("people.name"), nullable=False, index=True),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("seen", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False, index=True),
    sa.Column("by_provider", sa.Boolean, nullable=False),
)
recovery_codes = sa.Table(
    "recovery_codes",
    metadata,
    sa.Column("person", sa.Text, sa.ForeignKey("people.name"), primary_key=True),
    sa.Column("code", sa.LargeBinary, primary_key=True),
)
devices = sa.Table(
    "known_devices",
    metadata,
    sa.Column("secret", sa.LargeBinary, primary_key=True),
    sa.Column("person", sa.Text, sa.ForeignKey("people.name"), nullable=False, index=True),
    sa.Column("expires", sa.BigInteger, nullable=False, index=True),
)
tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("secret", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("owner", sa.Text, sa.ForeignKey("people.name"), nullable=False, index=True),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("scopes", sa.Text, nullable=False),  # sorted, one space between
    sa.Column("key", sa.LargeBinary, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False),
    sa.Column("used", sa.BigInteger, nullable=False),  # 0: never
    sa.Column("revoked", sa.Boolean, nullable=False),
)


def check_stands(connection: sa.Connection, who: Principal) -> None:
    """In the transaction that changes something: the session that asks for it was not ended meanwhile.

    Else what is made by a call that is under way (a token, an account) outlives the reset that was to end it. A
    principal that no session stands for, of `medveil init`, is not looked at. Raises Refused.
    """
    mine = sa.select(sessions.c.secret).where(sessions.c.secret == who.session, sessions.c.person == who.name)
    if who.session and connection.execute(mine).one_or_none() is None:
        raise Refused("accounts.no_session")


def end_sessions(connection: sa.Connection, name: str) -> None:
    """End somebody's sessions, and forget the devices that they signed in from."""
    connection.execute(sessions.delete().where(sessions.c.person == name))
    connection.execute(devices.delete().where(devices.c.person == name))


def end_tokens(connection: sa.Connection, now: int, by: str, name: str, why: str) -> None:
    """Revoke somebody's tokens. now: ms UTC; by: who did it, as the security log has it; why: the event's name.

    Each stands in the log by itself, as if it had been revoked by hand.
    """
    for token in _revoked(connection, tokens.c.owner == name):
        security_log.append(connection, now, by, "tokens.revoked", f"program:{token}", why)


def end_all(connection: sa.Connection, now: int, why: str) -> None:
    """End every session, token, invitation, known device and recovery code: those of an older state may have been
    ended or used up since."""
    for table in (sessions, devices, invitations, recovery_codes):
        connection.execute(table.delete())
    security_log.append(connection, now, "-", "people.all_sessions_ended", "", why)
    count = len(_revoked(connection, sa.true()))
    security_log.append(connection, now, "-", "tokens.all_revoked", "", f"{why} {count}")


def _revoked(connection: sa.Connection, which: sa.ColumnElement[bool]) -> list[str]:
    standing = sa.and_(tokens.c.revoked.is_(False), which)
    found = list(connection.execute(sa.select(tokens.c.id).where(standing).order_by(tokens.c.id)).scalars())
    connection.execute(tokens.update().where(standing).values(revoked=True))
    return found
