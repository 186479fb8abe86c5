"""Signing in somebody of a local consortium: one person plays them all, and no authenticator app holds their codes.

Password and one-time code come from ``people.json`` of a folder that `medveil up` made. Only the user's own folder is
taken, which nobody else may read or write, and only addresses of this machine: anything else is refused before a
secret is read or sent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from medveil.client import Client
from medveil.client.accounts import SignedIn
from medveil.local.founding import AUTHORITY, STATE, LocalConsortium, LocalMember, read_state
from medveil.local.seeding import PEOPLE_FILE, STEP, LocalPeople, LocalPerson, code_at
from wire.errors import DecodeError, Refused, Unavailable


def own_consortium(folder: Path) -> LocalConsortium:
    """The local consortium in a folder of the user's own.

    Raises Refused (none there; somebody else's, or open to others; nobody seeded yet), DecodeError, Unavailable.
    """
    state = read_state(folder) if folder.exists() else None
    if state is None:
        raise Refused("local.none", folder=str(folder))
    for path in (folder, folder / STATE, folder / PEOPLE_FILE):
        try:
            found = path.stat()
        except FileNotFoundError:
            raise Refused("local.not_seeded", folder=str(folder)) from None
        except OSError:
            raise Unavailable("client.unreadable", file=str(path)) from None
        if os.name == "posix" and (found.st_uid != os.getuid() or found.st_mode & 0o077):
            raise Refused("local.not_own", path=str(path))
    for member in state.members:
        address = urlsplit(member.people)
        if address.scheme != "https" or address.hostname != "localhost":
            raise DecodeError("local.bad_state", file=str(folder / STATE))
    return state


def who_signs_in(folder: Path, state: LocalConsortium, organisation: str, name: str) -> tuple[LocalMember, LocalPerson]:
    """Somebody of ``people.json``. Raises Refused, naming who is there."""
    people = LocalPeople(folder)
    names = [member.organisation for member in state.members]
    if organisation not in names:
        raise Refused("local.no_organisation", organisation=organisation, names=", ".join(names))
    person = people.get(organisation, name)
    if person is None:
        raise Refused("local.nobody", organisation=organisation, person=name)
    return state.member(organisation), person


def sign_in_local(
    folder: Path,
    organisation: str,
    name: str,
    *,
    device: str = "",
    language: str = "en",
    say_wait: Callable[[int], None],
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[str, SignedIn]:
    """Sign somebody in; returns the gateway's address and the session. device: secret of an earlier sign-in there.

    say_wait: told the seconds before a wait for the next one-time code (each works once, this half minute's may be
    used up). Raises Refused, DecodeError, Unavailable.
    """
    state = own_consortium(folder)
    member, person = who_signs_in(folder, state, organisation, name)
    with Client(member.people, ca=folder / AUTHORITY, language=language, organisation=organisation) as client:

        def attempt(steps_ahead: int) -> SignedIn | None:
            code = code_at(person.codes, time.time() + steps_ahead * STEP) if person.codes else ""
            try:
                return client.account.sign_in(name, person.password, code=code, device=device)
            except Refused as refused:
                if refused.code not in ("accounts.not_signed_in", "accounts.code_needed"):
                    raise
                return None

        try:
            signed_in = attempt(0)
            if signed_in is None and person.codes:
                signed_in = attempt(1)  # a gateway takes the codes of a step to each side
            if signed_in is None and person.codes:
                wait = STEP - time.time() % STEP
                say_wait(int(wait) + 1)
                sleep(wait)
                signed_in = attempt(1)
        except Unavailable as error:
            if error.code != "client.unreachable":
                raise
            raise Unavailable("local.not_running", folder=str(folder)) from None
    if signed_in is None:
        raise Refused("local.changed", organisation=organisation, person=name)
    return member.people, signed_in
