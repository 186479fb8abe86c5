"""What was noted in a vault of before, on somebody of whom no row says who it is, counts when rows come."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from privacy.grants.opt_outs import ALL, NOTE, OptOut, OptOutRegister, note_of
from privacy.keys import FileKeyProvider
from privacy.legal_holds import LegalHold, all_holds, held_until, place_hold
from privacy.vault import Vault, places
from privacy.vault.awaited import EARLIER
from privacy.vault.opened import Opened
from wire.dates import NO_END
from wire.errors import Unavailable

FIFTEEN, INVENTED = "200106910523017", "200106199105230171"
"""Fifteen digits that are no identity number, and the number that was made of them."""
BROKEN, LOWER = "200106 910523017", "11010119900307451x"
OPT_OUT = note_of((OptOut("all", "", 1),))

Before = Callable[[Vault, str], bytes]


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Vaults are made as the program of before made them: an id for each spelling."""
    with monkeypatch.context() as patched:
        patched.setattr(Opened, "person_id", Opened.spelling_id)
        patched.setattr("privacy.vault.vault.ONE_NAME", 2)
        patched.setattr(places, "ONE_NAME", 3)
        yield patched


def made(tmp_path: Path, provider: FileKeyProvider, url: str) -> Vault:
    return Vault.create(tmp_path / "vault", provider, "hospital-1", database=url)


def again(tmp_path: Path, provider: FileKeyProvider, url: str) -> Vault:
    return Vault.open(tmp_path / "vault", provider, "hospital-1", database=url)


def objected(vault: Vault, under: str, *others: str, content: bytes = OPT_OUT) -> None:
    """As an opt-out was noted before."""
    vault.put_person_note(NOTE, under, content)
    for other in others:
        vault.put_person_note("opt-out-alike", other, vault.person_id(under))


def check_one(vault: Vault, dataset: str, person: str) -> None:
    """Rows, opt-outs, holds and what an officer asks for are of one person."""
    (of_rows,) = {key.person for key in vault.data_keys(dataset)}
    register = OptOutRegister(vault.person_notes(NOTE))
    assert of_rows == vault.person_id(person) == vault.person_id(of_rows)
    assert of_rows in register.persons([ALL], 5) and register.opt_outs[vault.person_id(person)]
    assert [key.dataset for key in vault.keys_of(vault.person_id(person))] == [dataset]
    place_hold(vault, LegalHold("mine", vault.person_id(person), dataset, "ref", 0, NO_END))


@pytest.mark.parametrize("rows", ["absent", "erased", "in no cell"])
def test_fifteen_digits_that_an_opt_out_took_for_a_number(
    rows: str, tmp_path: Path, provider: FileKeyProvider, vault_url: str, before: pytest.MonkeyPatch
) -> None:
    with made(tmp_path, provider, vault_url) as vault:
        vault.ingest("others", pa.table({"n": [1]}), persons=["somebody"])
        if rows != "absent":
            vault.ingest("visits", pa.table({"n": [7]}), persons=[FIFTEEN])
        if rows == "erased":
            vault.destroy([key.key for key in vault.keys_of(FIFTEEN)], b"r" * 32)
        objected(vault, INVENTED, FIFTEEN)
    before.undo()
    with again(tmp_path, provider, vault_url) as vault:
        if rows != "in no cell":
            vault.ingest("visits", pa.table({"n": [1]}), persons=[FIFTEEN], append=rows == "erased")
        check_one(vault, "visits", FIFTEEN)
    with again(tmp_path, provider, vault_url) as vault:
        check_one(vault, "visits", FIFTEEN)
        assert not list(vault.person_notes("opt-out-alike"))


@pytest.mark.parametrize("both", [False, True])
def test_an_opt_out_of_two_spellings_stays_on_both(
    both: bool, tmp_path: Path, provider: FileKeyProvider, vault_url: str, before: pytest.MonkeyPatch
) -> None:
    """Noted under the number that was made of them; one of them said something of its own."""
    with made(tmp_path, provider, vault_url) as vault:
        vault.ingest("slips", pa.table({"who": [FIFTEEN, BROKEN]}), persons=[FIFTEEN, BROKEN])
        objected(vault, INVENTED, FIFTEEN, BROKEN)
        if both:
            vault.put_person_note(NOTE, FIFTEEN, note_of((OptOut("use", "query", 1),)))
    before.undo()
    with again(tmp_path, provider, vault_url) as vault:
        register = OptOutRegister(vault.person_notes(NOTE))
        assert {key.person for key in vault.data_keys("slips")} <= register.persons([ALL], 5)
        assert ("use:query" in register.scopes_of(vault.person_id(FIFTEEN), 5)) == both


@pytest.mark.parametrize("come", ["persons", "record ids", "document"])
def test_a_hold_and_an_opt_out_wait_for_rows_in_their_spelling(
    come: str, tmp_path: Path, provider: FileKeyProvider, vault_url: str, before: pytest.MonkeyPatch
) -> None:
    with made(tmp_path, provider, vault_url) as vault:
        vault.ingest("others", pa.table({"n": [1]}), persons=["somebody"])
        objected(vault, LOWER)
        place_hold(vault, LegalHold("court", vault.person_id(LOWER), "", "ref", 0, NO_END), not_here_yet=True)
    before.undo()
    again(tmp_path, provider, vault_url).close()
    with again(tmp_path, provider, vault_url) as vault:
        vault.ingest("noise", pa.table({"n": [1, 2]}), persons=["somebody", f"{FIFTEEN} "])
        if come == "document":
            vault.put_stream("scan", "1", pa.BufferReader(b"scan"), person=LOWER)
        else:
            ids = {"persons": [LOWER]} if come == "persons" else {"record_ids": [LOWER]}
            vault.ingest("visits", pa.table({"n": [1]}), **ids)
        check_awaited(vault)
    with again(tmp_path, provider, vault_url) as vault:
        check_awaited(vault)


def check_awaited(vault: Vault) -> None:
    for way in (LOWER, LOWER.upper()):
        assert vault.keys_of(way) and held_until(all_holds(vault), vault.person_id(way), "visits", 9) == NO_END
        assert OptOutRegister(vault.person_notes(NOTE)).scopes_of(vault.person_id(way), 5) == ("all",)


def test_a_reader_sees_that_persons_were_brought_together(
    tmp_path: Path, provider: FileKeyProvider, before: pytest.MonkeyPatch
) -> None:
    with made(tmp_path, provider, "") as vault:
        vault.ingest("slips", pa.table({"who": [LOWER]}), persons=[LOWER])
        was = vault.person_id(LOWER)
    before.undo()
    with Vault.reader(tmp_path / "vault", provider, "hospital-1") as reader:
        with pytest.raises(Unavailable):
            reader.keys_of(LOWER)
        again(tmp_path, provider, "").close()
        assert len(reader.keys_of(LOWER)) == 1 and reader.person_id(was) == reader.person_id(LOWER)


def test_what_comes_back_from_the_log_of_before_waits_too(
    tmp_path: Path, provider: FileKeyProvider, before: pytest.MonkeyPatch
) -> None:
    """A backup of before, and the log of a home that went on: what it says is taken over after ids were brought
    together."""
    with made(tmp_path, provider, "") as vault:
        vault.ingest("others", pa.table({"n": [1]}), persons=["somebody"])
        vault.back_up(tmp_path / "monday")
        objected(vault, LOWER)
        place_hold(vault, LegalHold("court", vault.person_id(LOWER), "", "ref", 0, NO_END), not_here_yet=True)
    before.undo()
    shutil.rmtree(tmp_path / "vault")
    (tmp_path / "monday").rename(tmp_path / "vault")
    (tmp_path / "safeguards").rename(tmp_path / "lost")
    with again(tmp_path, provider, "") as vault:
        assert vault.take_over(tmp_path / "lost") == 2
    with again(tmp_path, provider, "") as vault:
        vault.ingest("visits", pa.table({"n": [1]}), persons=[LOWER])
        check_awaited(vault)


def test_an_opt_out_that_waits_is_withdrawn_by_whom_it_names(
    tmp_path: Path, provider: FileKeyProvider, vault_url: str, before: pytest.MonkeyPatch
) -> None:
    with made(tmp_path, provider, vault_url) as vault:
        objected(vault, LOWER)
    before.undo()
    with again(tmp_path, provider, vault_url) as vault:
        before_it = vault.revision(EARLIER)
        person = vault.person_id(LOWER)
        assert vault.revision(EARLIER) > before_it, "who keeps what was read of notes reads it again"
        assert OptOutRegister(vault.person_notes(NOTE)).scopes_of(person, 5) == ("all",)
        assert vault.remove_person_note(NOTE, LOWER)
        vault.ingest("visits", pa.table({"n": [1]}), persons=[LOWER])
        assert not list(vault.person_notes(NOTE))


def test_a_reader_beside_ids_that_were_noted_and_not_brought_together(
    tmp_path: Path, provider: FileKeyProvider, before: pytest.MonkeyPatch
) -> None:
    """Killed between both, the vault is of before: its rows are found under the ids of before."""
    with made(tmp_path, provider, "") as vault:
        vault.ingest("slips", pa.table({"who": [LOWER]}), persons=[LOWER])
        was = vault.person_id(LOWER)
    before.undo()

    def killed(step: str) -> None:
        if step == "respell:noted":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Vault.open(tmp_path / "vault", provider, "hospital-1", fault=killed)
    with Vault.reader(tmp_path / "vault", provider, "hospital-1") as reader:
        assert len(reader.keys_of(was)) == 1
        again(tmp_path, provider, "").close()
        assert len(reader.keys_of(LOWER)) == 1 and reader.person_id(was) == reader.person_id(LOWER)


def awaiting(tmp_path: Path, provider: FileKeyProvider, url: str, before: pytest.MonkeyPatch) -> Vault:
    """A vault in which an opt-out and a hold wait for whom they are of."""
    with made(tmp_path, provider, url) as vault:
        objected(vault, LOWER)
        place_hold(vault, LegalHold("court", vault.person_id(LOWER), "", "ref", 0, NO_END), not_here_yet=True)
    before.undo()
    return again(tmp_path, provider, url)


def test_a_reader_that_is_open_hears_of_whom_an_opt_out_is(
    tmp_path: Path, provider: FileKeyProvider, vault_url: str, before: pytest.MonkeyPatch
) -> None:
    """Else it would count the person in until it is opened again."""
    with (
        awaiting(tmp_path, provider, vault_url, before) as vault,
        Vault.reader(tmp_path / "vault", provider, "hospital-1", database=vault_url) as reader,
    ):
        ((waiting, _),) = reader.person_notes(NOTE)
        vault.ingest("visits", pa.table({"n": [1]}), persons=[LOWER])
        person = vault.person_id(LOWER)
        assert waiting != person and reader.person_id(waiting) == person
        assert [key.person for key in reader.keys_of(waiting)] == [person]
        assert OptOutRegister(reader.person_notes(NOTE)).scopes_of(person, 5) == ("all",)
    with Vault.reader(tmp_path / "vault", provider, "hospital-1", database=vault_url) as reader:
        assert OptOutRegister(reader.person_notes(NOTE)).scopes_of(person, 5) == ("all",)


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_what_fails_while_somebody_is_heard_of_is_done_by_the_next_call(
    step: int, tmp_path: Path, provider: FileKeyProvider, vault_url: str, before: pytest.MonkeyPatch
) -> None:
    """A full disk, or a database that went away, at each document that is written."""
    with awaiting(tmp_path, provider, vault_url, before) as vault:
        written = [0]

        def full(place: str) -> None:
            written[0] += place == "document:written"
            if written[0] == step:
                raise Unavailable("privacy.store_failed", path="vault", reason="no room")

        vault._opened.fault = full
        with pytest.raises(Unavailable):
            vault.ingest("visits", pa.table({"n": [1]}), persons=[LOWER])
        vault._opened.fault = lambda place: None
        vault.ingest("visits", pa.table({"n": [1]}), persons=[LOWER])
        check_awaited(vault)
    with again(tmp_path, provider, vault_url) as vault:
        check_awaited(vault)


def test_who_is_named_while_another_thread_is_heard_is_not_without_protection(
    tmp_path: Path, provider: FileKeyProvider, before: pytest.MonkeyPatch
) -> None:
    with awaiting(tmp_path, provider, "", before) as vault:
        seen: list[tuple[bool, bool]] = []

        def naming() -> None:
            person = vault.person_id(LOWER)
            scopes = OptOutRegister(vault.person_notes(NOTE)).scopes_of(person, 5)
            seen.append((scopes == ("all",), held_until(all_holds(vault), person, "visits", 9) == NO_END))

        others: list[threading.Thread] = []

        def between(place: str) -> None:
            if place == "document:written" and threading.current_thread() is threading.main_thread():
                others.append(threading.Thread(target=naming))
                others[-1].start()
                others[-1].join(0.2)  # it waits for its turn

        vault._opened.fault = between
        vault.person_id(LOWER)
        for other in others:
            other.join()
        assert len(seen) == len(others) > 2 and set(seen) == {(True, True)}


def restored_beside_the_log(tmp_path: Path, provider: FileKeyProvider, before: pytest.MonkeyPatch) -> Path:
    """A home whose vault came back from a backup of before, beside the log that has an opt-out and a hold since."""
    home = tmp_path / "home"
    home.mkdir()
    with made(home, provider, "") as vault:
        vault.ingest("others", pa.table({"n": [1]}), persons=["somebody"])
        vault.back_up(tmp_path / "monday")
        objected(vault, LOWER)
        place_hold(vault, LegalHold("court", vault.person_id(LOWER), "", "ref", 0, NO_END), not_here_yet=True)
    before.undo()
    shutil.rmtree(home / "vault")
    (tmp_path / "monday").rename(home / "vault")
    return home


@pytest.mark.parametrize("lost", [False, True])
def test_killed_at_every_step_of_taking_over_nobody_is_forgotten(
    lost: bool, tmp_path: Path, provider: FileKeyProvider, before: pytest.MonkeyPatch
) -> None:
    """lost: the log is another home's, and taken over from there; killed, that is done again."""
    home, steps = restored_beside_the_log(tmp_path, provider, before), 0
    if lost:
        (home / "safeguards").rename(tmp_path / "lost")
    while True:
        here, done = tmp_path / f"run-{steps}", [0]
        shutil.copytree(home, here)

        def killed(place: str, done: list[int] = done, at: int = steps) -> None:
            done[0] += 1
            if done[0] > at:
                raise KeyboardInterrupt

        for fault in (killed, lambda place: None):
            try:
                with Vault.open(here / "vault", provider, "hospital-1", fault=fault) as vault:
                    if lost:
                        vault.take_over(tmp_path / "lost")
            except KeyboardInterrupt:
                continue
        with again(here, provider, "") as vault:
            vault.ingest("visits", pa.table({"n": [1]}), persons=[LOWER])
            check_awaited(vault)
        if done[0] <= steps:
            break
        steps += 1
    assert steps > 5


def test_what_is_heard_while_others_come_from_a_log_leaves_them_awaited(
    tmp_path: Path, provider: FileKeyProvider, before: pytest.MonkeyPatch
) -> None:
    home = restored_beside_the_log(tmp_path, provider, before)
    (home / "safeguards").rename(tmp_path / "lost")
    with again(home, provider, "") as vault:
        vault.put_person_note(NOTE, vault.spelling_id("A 1"), OPT_OUT)
        with vault._opened.database.transaction() as connection:
            vault._awaited.look(connection)
        vault._awaited.came()
        came = vault._awaited.came

        def heard_first() -> None:
            vault.person_id("A 1")
            came()

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(vault._awaited, "came", heard_first)
            vault.take_over(tmp_path / "lost")
        assert vault.person_id("A 1") == vault.person_id(vault.spelling_id("A 1"))
        vault.ingest("visits", pa.table({"n": [1]}), persons=[LOWER])
        check_awaited(vault)
    with again(home, provider, "") as vault:
        check_awaited(vault)
