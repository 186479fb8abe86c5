"""A backup that is asked for again is the one that was asked for, however late that is."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter

from medveil.service.api import backup_routes as routes
from medveil.service.api.workplace import Workplace

from ..running import Set
from ..staffed import Staffed


def test_the_key_of_a_backup_finds_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    monkeypatch.setattr(routes, "make_backup", lambda _home, out, _clock: made.append(out))
    home: Any = SimpleNamespace(config=SimpleNamespace(backups="kept"))
    instants = itertools.count(1_700_000_000_000, 60_000)  # each look at the clock is a minute later

    def routers(own: Set) -> list[APIRouter]:
        nobody: Any = SimpleNamespace(name="north")
        at = Workplace(
            organisation=nobody,
            engine=nobody,
            jobs=own.jobs,
            tables=nobody,
            data=None,
            clock=lambda: next(instants),
            rand=own.rand,
            snapshots=nobody,
            catching_up=lambda: False,
        )
        routes.register_backup(at, home, tmp_path)
        return [routes.backup_routes(at, tmp_path)]

    with Staffed(tmp_path, routers=routers) as service:
        session = service.session("admin")

        def ask(key: str) -> Any:
            answer = service.send("POST", "/v1/service/backup", session, headers={"idempotency-key": key})
            assert answer.status_code == 202, answer.text
            return answer.json()["job"]

        first = ask("tonight")
        while service.send("GET", f"/v1/jobs/{first}", session).json()["state"] != "done":
            assert ask("tonight") == first
        assert ask("tonight") == first != ask("tomorrow")
        result = service.send("GET", f"/v1/jobs/{first}", session).json()["result"]
    assert re.fullmatch(rf"kept/north-[0-9TZ-]+-{first[:8]}", result) and made[0].name == Path(result).name
