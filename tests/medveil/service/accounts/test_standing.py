"""Who is remembered: what changes for a caller holds from the very next request on, whoever changed it and how.

The caller asks twice before, so that the second answer comes from memory; then the change; then one request.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import APIRouter, Depends

from medveil.service.accounts.people import People
from medveil.service.accounts.rights import Principal
from medveil.service.accounts.sign_in import SignIn
from medveil.service.accounts.standing import Remembered
from medveil.service.accounts.tokens import Tokens
from medveil.service.api.callers import May
from medveil.service.database import Database

from ..staffed import PASSWORD, ROOT, Staffed

RIGHT = "grants.preview"  # an officer's alone, of programs too
PATH = "/v1/test/officers"
ROUTER = APIRouter()


@ROUTER.get(PATH)
async def officers(_who: Annotated[Principal, Depends(May(RIGHT))]) -> dict[str, bool]:
    """A route of officers."""
    return {"ok": True}


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/staff.sqlite"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def staffed(url: str, tmp_path: Path) -> Iterator[Staffed]:
    with Staffed(tmp_path, url=url, routers=[ROUTER]) as made:
        yield made


class Elsewhere:
    """The parts over the same store, as another process has them: nothing in memory is shared."""

    def __init__(self, url: str, of: Staffed) -> None:
        self.database = Database.open(url)
        self.people = People(self.database, "north", clock=of.clock, rand=of.rand)
        self.sign_in = SignIn(
            self.database, "north", bytes(32), clock=of.clock, rand=of.rand, passwords=of.staff.sign_in._passwords
        )
        self.tokens = Tokens(self.database, clock=of.clock, rand=of.rand)


def _remembered(staffed: Staffed, secret: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ask until the caller is remembered; returns the list to which every later look-up is added."""
    looked: list[str] = []
    for part in (staffed.staff.sign_in, staffed.staff.tokens):
        principal: Callable[[str], object] = part.principal

        def look(given: str, principal: Callable[[str], object] = principal) -> object:
            looked.append(given)
            return principal(given)

        monkeypatch.setattr(part, "principal", look)
    for _ in range(3):
        assert staffed.send("GET", PATH, secret).status_code == 200
    assert len(looked) == 1, "the second and third time it is remembered"
    return looked


def _officer(part: People | Elsewhere) -> None:
    people = part if isinstance(part, People) else part.people
    people.set_roles(ROOT, "officer", {"auditor"})


CHANGES: dict[str, tuple[str, int, str, Callable[[Elsewhere, Staffed, str], object]]] = {
    "session ended": (
        "session",
        401,
        "accounts.no_session",
        lambda by, _of, secret: by.sign_in.sign_out(by.sign_in.principal(secret)),
    ),
    "signed out everywhere": (
        "session",
        401,
        "accounts.no_session",
        lambda by, of, _secret: by.sign_in.sign_out(by.sign_in.principal(of.session("officer")), everywhere=True),
    ),
    "person disabled": (
        "session",
        401,
        "accounts.no_session",
        lambda by, _of, _secret: by.people.set_disabled(ROOT, "officer", True),
    ),
    "role taken": ("session", 401, "accounts.no_session", lambda by, _of, _secret: _officer(by)),
    "password changed": (
        "session",
        401,
        "accounts.no_session",
        lambda by, _of, secret: by.sign_in.change_password(
            by.sign_in.principal(secret), PASSWORD, "eight dry lanterns ring", address="192.0.2.7"
        ),
    ),
    "token revoked": (
        "token",
        401,
        "tokens.revoked",
        lambda by, of, secret: by.tokens.revoke(ROOT, by.tokens.principal(secret)[1].id),
    ),
    "owner disabled": (
        "token",
        401,
        "tokens.owner_gone",
        lambda by, _of, _secret: by.people.set_disabled(ROOT, "officer", True),
    ),
    "owner's role taken": ("token", 401, "tokens.revoked", lambda by, _of, _secret: _officer(by)),
}


@pytest.mark.parametrize("where", ["here", "elsewhere"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_holds_from_the_next_request_on(
    staffed: Staffed, url: str, monkeypatch: pytest.MonkeyPatch, change: str, where: str
) -> None:
    what, status, code, make = CHANGES[change]
    secret = staffed.session("officer") if what == "session" else staffed.token("officer", {RIGHT})[0]
    other = Elsewhere(url, staffed)
    by: Elsewhere = other if where == "elsewhere" else staffed.staff  # type: ignore[assignment]
    looked = _remembered(staffed, secret, monkeypatch)
    make(by, staffed, secret)
    looked.clear()
    answer = staffed.send("GET", PATH, secret)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert looked == [secret]
    assert staffed.last_entry().reason == code
    other.database.close()


@pytest.mark.parametrize(
    ("what", "statement", "status"),
    [
        ("session", "DELETE FROM sessions", 401),
        ("session", "UPDATE sessions SET expires = 0", 401),
        ("session", "UPDATE people SET disabled = {true} WHERE name = 'officer'", 401),
        ("session", "DELETE FROM people_roles WHERE person = 'officer'", 403),
        ("session", "UPDATE people_roles SET role = 'clerk' WHERE person = 'officer'", 403),
        ("token", "UPDATE tokens SET revoked = {true}", 401),
        ("token", "UPDATE tokens SET scopes = 'members.read'", 403),
        ("token", "DELETE FROM tokens", 401),
    ],
)
def test_so_does_what_an_operators_hand_changes_in_the_store(
    staffed: Staffed, url: str, monkeypatch: pytest.MonkeyPatch, what: str, statement: str, status: int
) -> None:
    """By another process that knows nothing of this program: sqlite3 or psycopg alone."""
    secret = staffed.session("officer") if what == "session" else staffed.token("officer", {RIGHT})[0]
    _remembered(staffed, secret, monkeypatch)
    if staffed.database.path:
        program = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute(sys.argv[2]); db.commit()"
        place, true = str(staffed.database.path), "1"
    else:
        program = "import psycopg, sys; db = psycopg.connect(sys.argv[1]); db.execute(sys.argv[2]); db.commit()"
        place, true = url.replace("+psycopg", ""), "true"
    subprocess.run([sys.executable, "-c", program, place, statement.format(true=true)], check=True, timeout=30)
    assert staffed.send("GET", PATH, secret).status_code == status


def test_a_role_given_holds_from_the_next_request_on(
    staffed: Staffed, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = staffed.session("clerk")
    for _ in range(2):
        assert staffed.send("GET", PATH, secret).status_code == 403
    other = Elsewhere(url, staffed)
    other.people.set_roles(ROOT, "clerk", {"clerk", "officer"})
    assert staffed.send("GET", PATH, secret).status_code == 401  # with other roles one signs in anew
    assert staffed.send("GET", PATH, staffed.session("clerk")).status_code == 200
    other.database.close()


def test_what_ends_by_the_clock_ends_though_it_is_remembered(staffed: Staffed, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = staffed.session("officer")
    token, _ = staffed.token("officer", {RIGHT})
    for each in (secret, token):
        _remembered(staffed, each, monkeypatch)
        monkeypatch.undo()
    staffed.clock.pass_time(31 * 60)
    assert staffed.send("GET", PATH, secret).json()["code"] == "accounts.no_session"
    assert staffed.send("GET", PATH, token).status_code == 200
    staffed.clock.pass_time(24 * 3600)
    assert staffed.send("GET", PATH, token).json()["code"] == "tokens.expired"


def test_a_session_in_use_does_not_idle_out_of_the_store(staffed: Staffed) -> None:
    """Whoever is remembered is still seen once a minute: half an hour of calls is no half an hour of silence."""
    secret = staffed.session("officer")
    for _ in range(45):
        staffed.clock.pass_time(60)
        assert staffed.send("GET", PATH, secret).status_code == 200


def test_writing_the_log_or_noting_a_use_forgets_nobody(staffed: Staffed, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = staffed.session("officer")
    looked = _remembered(staffed, secret, monkeypatch)
    staffed.running.do(staffed.staff.trail.note("person:ada", "test"))
    with staffed.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE sessions SET seen = seen + 1")
    assert staffed.send("GET", PATH, secret).status_code == 200
    assert len(looked) == 1


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_file_that_cannot_say_its_stamp_at_once_is_asked_in_full(
    staffed: Staffed, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = staffed.session("officer")
    looked = _remembered(staffed, secret, monkeypatch)
    monkeypatch.setattr(staffed.database, "glance", lambda _text: None)
    assert staffed.send("GET", PATH, secret).status_code == 200
    assert len(looked) == 2


def test_memory_is_bounded() -> None:
    remembered: Remembered[int] = Remembered()
    for n in range(25_000):
        remembered.put(n.to_bytes(8), n, stamp=1, until=10)
    assert len(remembered._answers) <= 10_000
    assert remembered.get((24_999).to_bytes(8), 5, 1) == 24_999
    assert remembered.get((24_999).to_bytes(8), 10, 1) is None
    assert remembered.get((24_999).to_bytes(8), 5, 2) is None
