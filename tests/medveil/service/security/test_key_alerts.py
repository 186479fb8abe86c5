"""What the guard of the keys tells reaches the log, and trouble the security log, from any thread."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest

from medveil.service.database import Database
from medveil.service.logs import Vocabulary, make_log
from medveil.service.security import security_log
from medveil.service.security.key_alerts import KeyAlerts
from medveil.service.security.security_trail import SecurityTrail
from privacy.keys import Argon2Cost, FileKeyProvider, Guarded
from wire.errors import Unavailable, VerificationError

NOW = 1_760_000_000_000


def clock() -> int:
    return NOW


def test_told_to_the_log_and_to_the_security_log(database: Database, tmp_path: Path) -> None:
    written = io.BytesIO()
    log = make_log("hospital-1", Vocabulary(), clock, file=written)
    provider = FileKeyProvider.create(tmp_path / "keys", "correct horse", cost=Argon2Cost(1, 8, 1))
    guard = Guarded(provider, rate=1, burst=3)

    def used() -> None:
        wrapped = guard.wrap(1, b"k" * 32, b"")
        with guard.batch("read claims-1", 10, "mei"):
            guard.unwrap_many(1, [(wrapped, b"")] * 10)
            guard.unwrap(1, wrapped, b"")
        with pytest.raises(VerificationError):
            guard.unwrap(1, wrapped, b"elsewhere")
        with pytest.raises(Unavailable):
            for _ in range(3):
                guard.unwrap(1, wrapped, b"")

    async def run() -> None:
        trail = SecurityTrail(database, clock)
        guard.alert = KeyAlerts(trail.note, log)
        await asyncio.to_thread(used)
        for _ in range(200):
            await asyncio.sleep(0.01)
            with database.reading() as connection:
                if len(security_log.read(connection)) == 3:
                    break
        await trail.close()

    asyncio.run(run())
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [(line["event"], line["count"], line["level"]) for line in lines] == [
        ("keys.batch", 10, "info"),
        ("keys.exceeded", 1, "warning"),
        ("keys.batch_done", 11, "info"),
        ("keys.altered", 1, "warning"),
        ("keys.refused", 1, "warning"),
    ]
    with database.reading() as connection:
        entries = security_log.read(connection)
    assert [(entry.actor, entry.event, entry.subject, entry.reason) for entry in reversed(entries)] == [
        ("mei", "keys.exceeded", "read claims-1", "1"),
        ("-", "keys.altered", "", "1"),
        ("-", "keys.refused", "", "1"),
    ]


def test_a_store_that_is_gone_stops_nobody(database: Database) -> None:
    written = io.BytesIO()

    async def run() -> None:
        trail = SecurityTrail(database, clock)
        alerts = KeyAlerts(trail.note, make_log("hospital-1", Vocabulary(), clock, file=written))
        await trail.close()

        async def failing(_actor: str, _what: str, _subject: str = "", _reason: str = "") -> None:
            raise Unavailable("database.busy", place="x", retry_after=1)

        alerts._note = failing
        from privacy.keys import KeyEvent

        alerts(KeyEvent("refused", 1))
        await asyncio.sleep(0.05)

    asyncio.run(run())
    assert [json.loads(line)["event"] for line in written.getvalue().splitlines()] == [
        "keys.refused",
        "denial_not_kept",
    ]
