"""The log of safeguards: what protects persons outlives the tables that a restore puts in their place."""

from __future__ import annotations

import io
import itertools
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from medveil.gateway import limits_asked, recalling
from privacy import legal_holds
from privacy.erasure import recalls, steps
from privacy.keys import FileKeyProvider
from privacy.vault import Vault, safeguard_log
from privacy.vault.growing_file import BEGINNING, MARK_BYTES
from privacy.vault.safeguard_log import Safeguard, SafeguardLog, latest
from privacy.vault.safeguards import _MARK, FILE, KINDS
from wire.errors import DecodeError, MedveilError, Unavailable

INDEX_KEY = b"i" * 32


def said(number: int, *, about: int | None = None, at: int = 0, gone: bool = False) -> Safeguard:
    item = b"hold-%d" % (number if about is None else about)
    return Safeguard("document", "legal-hold", item, b"" if gone else b"said %d" % number, gone, at or number)


def a_log(path: Path, index_key: bytes = INDEX_KEY) -> SafeguardLog:
    return SafeguardLog(path, index_key, os.urandom)


@pytest.fixture
def log(tmp_path: Path) -> SafeguardLog:
    return a_log(tmp_path / FILE)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# ---- the file


def test_what_was_noted_is_read_again(log: SafeguardLog) -> None:
    assert log.entries() == [] and log.number() == 0 and not log.path.exists()
    assert log.append([said(1), said(2)]) == 1 and log.append([said(3)]) == 2 and log.append([said(4)], above=9) == 10
    wanted = [(1, said(1)), (1, said(2)), (2, said(3)), (10, said(4))]
    assert log.entries() == wanted == a_log(log.path).entries() and log.number() == 10
    assert log.path.stat().st_mode & 0o077 == 0 and b"said" not in log.path.read_bytes()
    assert "hold-1" not in repr(said(1)) and "said" not in repr(said(1))


@pytest.mark.parametrize("sector", range(1, 24))
def test_sectors_of_an_entry_that_were_never_written_are_no_damage(log: SafeguardLog, sector: int) -> None:
    """Power may go with any of them on the disk: the entry is none."""
    log.append([Safeguard("document", "legal-hold", b"1", bytes(100), False, 1)])
    before = log.entries()
    log.append([Safeguard("document", "legal-hold", b"2", bytes(11_000), False, 2)])
    content = bytearray(log.path.read_bytes()[:-MARK_BYTES])
    start = min(sector * 512, len(content) - 100)
    content[start : start + 512] = bytes(len(content[start : start + 512]))
    log.path.write_bytes(content)
    assert log.entries() == before
    log.append([Safeguard("document", "legal-hold", b"3", b"3", False, 3)])
    assert [one.item for _, one in log.entries()] == [b"1", b"3"]


def test_an_entry_that_was_cut_short_is_none(log: SafeguardLog) -> None:
    log.append([said(1)])
    first = log.path.stat().st_size
    log.append([said(2), said(3)])
    whole = log.path.read_bytes()
    for length in range(first, len(whole)):
        log.path.write_bytes(whole[:length])
        assert log.entries() == [(1, said(1))], length
    for length in range(16):
        log.path.write_bytes(whole[:length])
        assert log.entries() == [], length
    log.path.write_bytes(whole[:-3])
    assert a_log(log.path).append([said(4)]) == 2
    assert log.entries() == [(1, said(1)), (2, said(4))]


def test_room_that_was_made_and_never_written_is_no_damage(log: SafeguardLog) -> None:
    log.append([said(1)])
    start = log.path.stat().st_size
    log.append([said(2)])
    whole = log.path.read_bytes()
    for kept in (start, start + 5, start + 16, start + 40, len(whole) - 32, len(whole) - 16):
        log.path.write_bytes(whole[:kept] + bytes(len(whole) - kept))
        assert log.entries() == [(1, said(1))], kept


def test_a_changed_moved_left_out_or_foreign_entry_is_damage(log: SafeguardLog) -> None:
    ends = [BEGINNING]
    for number in (1, 2, 3):
        log.append([said(number)])
        ends.append(log.path.stat().st_size)
    whole = log.path.read_bytes()
    parts = [whole[:BEGINNING], *(whole[a:b] for a, b in itertools.pairwise(ends))]
    wrong = [
        parts[0] + parts[2] + parts[3],
        parts[0] + parts[1] + parts[3],
        parts[0] + parts[2] + parts[1] + parts[3],
        whole + parts[3],
        whole + parts[1],
        b"medveil erased 1" + whole[16:],
    ]
    for content in wrong:
        log.path.write_bytes(content)
        with pytest.raises(DecodeError) as raised:
            log.entries()
        assert raised.value.code == "privacy.safeguards_damaged"
    log.path.write_bytes(whole)
    with pytest.raises(DecodeError):
        a_log(log.path, b"o" * 32).entries()


def test_no_changed_byte_says_something_else(log: SafeguardLog) -> None:
    """Every byte of it: damage, or as if the last entry had never come."""
    chance = random.Random(7)
    for number in range(1, 5):
        log.append([said(number)])
    whole, good = log.path.read_bytes(), log.entries()
    for at in range(len(whole)):
        other = bytearray(whole)
        other[at] ^= chance.randrange(1, 256)
        log.path.write_bytes(bytes(other))
        with pytest.raises(DecodeError):
            log.entries()
    log.path.write_bytes(whole)
    assert log.entries() == good


def test_a_log_that_grew_is_written_anew_with_the_last_words(
    log: SafeguardLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safeguard_log, "_LARGE", 4_000)
    most = 0
    for number in range(1, 200):
        assert log.append([said(number, about=number % 7, gone=number % 5 == 0)]) == number
        most = max(most, log.path.stat().st_size)
    assert most < 8_000
    found = latest(a_log(log.path).entries())
    assert [number for number, _ in found.values()] == list(range(193, 200))
    assert [one for _, one in found.values()] == [
        said(number, about=number % 7, gone=number % 5 == 0) for number in range(193, 200)
    ]


def test_a_full_disk_adds_nothing(log: SafeguardLog) -> None:
    log.append([said(1)])
    with room_for(log.path.stat().st_size + 20), pytest.raises(Unavailable):
        log.append([said(2)])
    assert log.entries() == [(1, said(1))]
    assert log.append([said(3)]) == 2 and [one for _, one in log.entries()] == [said(1), said(3)]


# ---- a vault and its log


def kept(vault: Vault) -> dict[str, object]:
    """What protects persons, as whoever uses the vault sees it."""
    return {
        "hold": {name: vault.document("legal-hold", name) for name in vault.documents("legal-hold")},
        "erasure": {name: vault.document("erasure", name) for name in vault.documents("erasure")},
        "opt-out": dict(vault.person_notes("opt-out")),
        "restricted": sorted(
            one.dataset for name in ("li", "wu") for one in vault.keys_of(name) if one.state[0] == "r"
        ),
    }


CHANGES: dict[str, Callable[[Vault], object]] = {
    "a hold": lambda vault: vault.put_document("legal-hold", "h-1", b"a reference"),
    "an erasure that went on": lambda vault: vault.put_document("erasure", "e-0", b"further"),
    "an opt-out": lambda vault: vault.put_person_note("opt-out", "li", b"all"),
    "an opt-out that ended": lambda vault: vault.remove_person_note("opt-out", "wu"),
    "a document that went": lambda vault: vault.remove_document("erasure", "e-1"),
    "a restriction": lambda vault: vault.restrict([key.key for key in vault.keys_of("li")]),
    "a restriction that ended": lambda vault: vault.unrestrict([key.key for key in vault.keys_of("wu")]),
}


@pytest.fixture
def old(vault: Vault) -> Vault:
    """A vault as it is on the day of its backup."""
    vault.ingest("visits", pa.table({"n": [1, 2, 3]}), persons=["li", "wu", "li"])
    vault.put_stream("scan", "s", io.BytesIO(b"x" * 1000), person="li")
    vault.put_document("erasure", "e-0", b"begun")
    vault.put_document("erasure", "e-1", b"begun")
    vault.put_person_note("opt-out", "wu", b"research")
    vault.restrict([key.key for key in vault.keys_of("wu")])
    vault.put_document("grant", "g", b"terms of then")
    return vault


def put_back(vault: Vault, copy: Path) -> None:
    """An older copy of the tables in the place of the present ones."""
    for ending in ("", "-wal", "-shm"):
        (vault.path / f"vault.sqlite{ending}").unlink(missing_ok=True)
    shutil.copy(copy / "vault.sqlite", vault.path / "vault.sqlite")


@pytest.mark.parametrize("change", CHANGES)
def test_an_older_copy_of_the_tables_takes_over_what_came_since(
    change: str, old: Vault, provider: FileKeyProvider, tmp_path: Path
) -> None:
    old.back_up(tmp_path / "monday")
    before = kept(old)
    CHANGES[change](old)
    old.put_document("grant", "g", b"terms of today")
    wanted = kept(old)
    assert wanted != before
    old.close()
    put_back(old, tmp_path / "monday")
    for _ in range(2):
        with Vault.open(old.path, provider, "hospital-1") as again:
            assert kept(again) == wanted
            assert again.document("grant", "g") == b"terms of then", "what protects nobody is as of the backup"
            assert again.read("visits").num_rows == again.count("visits")


def test_what_protects_persons_is_known_by_its_kinds() -> None:
    of_erasures = {steps.KIND, steps.BEGUN, recalls.KIND, recalling._NOTICE}
    assert {legal_holds.KIND, limits_asked._BOOK, *of_erasures} == KINDS


def test_what_the_log_brings_into_the_tables_is_another_state_once_it_is_there(old: Vault) -> None:
    """Whoever keeps what it read reads it anew, and never with a number that comes before the content."""

    def stopping(step: str) -> None:
        if step == "safeguards:noted":
            raise InterruptedError

    old._opened.fault = stopping
    with pytest.raises(InterruptedError):
        old.put_person_note("opt-out", "somebody else", b"all")
    failed, notes, seen = old.revision("opt-out"), len(list(old.person_notes("opt-out"))), []

    def looking(step: str) -> None:
        if step == "safeguards:marked":
            seen.append(old.revision("opt-out"))

    old._opened.fault = looking
    old.put_document("legal-hold", "any", b"hold")
    assert seen == [failed] and old.revision("opt-out") > failed
    assert len(list(old.person_notes("opt-out"))) == notes + 1


def test_a_lost_log_is_made_anew_of_the_tables(old: Vault, provider: FileKeyProvider, tmp_path: Path) -> None:
    for change in CHANGES.values():
        change(old)
    wanted, log = kept(old), old.path.parent / FILE
    log.unlink()
    old.put_document("legal-hold", "h-2", b"while it runs")
    shutil.copy(log, tmp_path / "again")
    log.unlink()
    old.close()
    with Vault.open(old.path, provider, "hospital-1") as again:
        assert kept(again)["hold"] == {"h-1": b"a reference", "h-2": b"while it runs"}
        again.remove_document("legal-hold", "h-2")
        assert kept(again) == wanted
        for other in (log, tmp_path / "again"):
            found = {one.about for _, one in latest(again._safeguards.log.entries(other)).values() if not one.gone}
            assert ("document", "legal-hold", b"h-1") in found and ("note", "opt-out", again.person_id("li")) in found
            assert len([about for about in found if about[0] == "key"]) == 2


def test_an_older_log_in_its_place_forgets_nothing(old: Vault, provider: FileKeyProvider) -> None:
    log = old.path.parent / FILE
    before = log.read_bytes()
    for change in CHANGES.values():
        change(old)
    wanted = kept(old)
    old.close()
    log.write_bytes(before)
    with Vault.open(old.path, provider, "hospital-1") as again:
        assert kept(again) == wanted
        back = {about: one for about, (_, one) in latest(again._safeguards.log.entries()).items()}
        assert back["document", "legal-hold", b"h-1"].content == b"a reference"
        assert back["document", "erasure", b"e-1"].gone and back["note", "opt-out", again.person_id("wu")].gone


def test_a_home_of_before_gets_its_log_at_the_first_opening(
    old: Vault, provider: FileKeyProvider, tmp_path: Path
) -> None:
    wanted = kept(old)
    old.remove_document("safeguards", "safeguards")  # as tables were before there was a log
    (old.path.parent / FILE).unlink()
    old.close()
    with Vault.open(old.path, provider, "hospital-1") as again:
        again.back_up(tmp_path / "monday")
        again.put_document("legal-hold", "h-1", b"a reference")
        assert kept(again) == {**wanted, "hold": {"h-1": b"a reference"}}
    put_back(old, tmp_path / "monday")
    with Vault.open(old.path, provider, "hospital-1") as again:
        assert kept(again)["hold"] == {"h-1": b"a reference"}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_changed_that_could_not_be_noted(change: str, old: Vault, provider: FileKeyProvider) -> None:
    before, log = kept(old), old.path.parent / FILE
    content = log.read_bytes()
    with room_for(len(content) + 9), pytest.raises(Unavailable):
        CHANGES[change](old)
    assert kept(old) == before
    old.close()
    with Vault.open(old.path, provider, "hospital-1") as again:
        assert kept(again) == before
        CHANGES[change](again)
        assert kept(again) != before


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_noted_and_not_written_comes_with_the_next(
    change: str, old: Vault, provider: FileKeyProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kept(old)

    def stopping(place: str) -> None:
        if place == "safeguards:noted":
            raise RuntimeError("the database went away")

    monkeypatch.setattr(old._opened, "fault", stopping)
    with pytest.raises(RuntimeError):
        CHANGES[change](old)
    assert kept(old) == before
    monkeypatch.setattr(old._opened, "fault", lambda place: None)
    old.put_person_note("opt-out", "somebody-else", b"all")
    found = kept(old)
    found["opt-out"].pop(old.person_id("somebody-else"))  # type: ignore[attr-defined]
    assert found != before
    old.close()
    with Vault.open(old.path, provider, "hospital-1") as again:
        after = kept(again)
        after["opt-out"].pop(again.person_id("somebody-else"))  # type: ignore[attr-defined]
        assert after == found


def test_taking_over_takes_the_newer_word_of_each(old: Vault, provider: FileKeyProvider, tmp_path: Path) -> None:
    """Two lines of one vault: the lost one, and the one that went on from its backup."""
    now = [5_000]
    old._opened.clock = lambda: now[0]
    old.put_document("legal-hold", "h-1", b"first")
    old.back_up(tmp_path / "monday")
    log = old.path.parent / FILE
    shutil.copy(log, tmp_path / "log-of-monday")
    now[0] = 6_000
    old.put_document("legal-hold", "h-1", b"in the lost home")
    old.put_document("legal-hold", "h-2", b"in the lost home")
    now[0] = 8_000
    old.put_document("legal-hold", "h-3", b"in the lost home, later")
    old.close()
    log.rename(tmp_path / "lost")
    shutil.copy(tmp_path / "log-of-monday", log)
    put_back(old, tmp_path / "monday")
    with Vault.open(old.path, provider, "hospital-1", clock=lambda: 7_000) as again:
        again.put_document("legal-hold", "h-2", b"here")
        again.put_document("legal-hold", "h-3", b"here")
        assert again.take_over(tmp_path / "lost") == 2
        wanted = {"h-1": b"in the lost home", "h-2": b"here", "h-3": b"in the lost home, later"}
        assert kept(again)["hold"] == wanted
        assert again.take_over(tmp_path / "lost") == 0 and again.take_over(tmp_path / "log-of-monday") == 0
    with Vault.open(old.path, provider, "hospital-1") as again:
        assert kept(again)["hold"] == wanted


@pytest.mark.parametrize("dated", [True, False])
@pytest.mark.parametrize("again_without", [False, True])
def test_tables_without_their_log_are_as_of_when_they_were_written(
    again_without: bool, dated: bool, old: Vault, provider: FileKeyProvider, tmp_path: Path
) -> None:
    """A backup was put back without the log; then the lost home's turns up: what it says of later counts. dated: else
    the backup's mark is of before, and says not when."""
    now = [5_000]
    old._opened.clock = lambda: now[0]
    for name in ("h-1", "h-2"):
        old.put_document("legal-hold", name, b"first")
    old.put_person_note("opt-out", "wu", b"queries")
    old.put_person_note("opt-out", "li", b"all")
    if not dated:
        old._documents.put(_MARK, _MARK, old.document(_MARK, _MARK)[:8])
    old.back_up(tmp_path / "monday")
    now[0] = 6_000
    old.put_document("legal-hold", "h-1", b"in the lost home")
    old.put_person_note("opt-out", "wu", b"all")
    old.remove_person_note("opt-out", "li")
    wanted = kept(old) | {"hold": {"h-1": b"in the lost home", "h-2": b"here"}}
    old.close()
    log = old.path.parent / FILE
    log.rename(tmp_path / "lost")
    put_back(old, tmp_path / "monday")
    if again_without:
        Vault.open(old.path, provider, "hospital-1", clock=lambda: 7_000).close()
        log.unlink()
    with Vault.open(old.path, provider, "hospital-1", clock=lambda: 8_000) as again:
        again.put_document("legal-hold", "h-2", b"here")
        assert again.take_over(tmp_path / "lost") >= 3 and kept(again) == wanted
        assert again.take_over(tmp_path / "lost") == 0


def test_a_backup_of_before_there_was_a_log_takes_over_all_that_came_since(
    old: Vault, provider: FileKeyProvider, tmp_path: Path
) -> None:
    """The backup, then a change, then the first log, then another change."""
    old.put_document("legal-hold", "h-1", b"first")
    old.put_document("legal-hold", "h-2", b"first")
    old.remove_document("safeguards", "safeguards")
    old.back_up(tmp_path / "monday")
    old.put_document("legal-hold", "h-1", b"before the log")
    old.remove_document("safeguards", "safeguards")
    log = old.path.parent / FILE
    log.unlink()
    old.close()
    with Vault.open(old.path, provider, "hospital-1") as vault:
        vault.put_document("legal-hold", "h-2", b"lifted")
        vault.unrestrict([key.key for key in vault.keys_of("wu")])
        wanted = kept(vault)
    log.rename(tmp_path / "lost")
    put_back(old, tmp_path / "monday")
    with Vault.open(old.path, provider, "hospital-1") as again:  # as a restore does, before it takes over
        assert kept(again)["hold"] == {"h-1": b"first", "h-2": b"first"}
        assert again.take_over(tmp_path / "lost") == 3
        assert kept(again) == wanted and again.take_over(tmp_path / "lost") == 0


def test_another_vaults_log_is_refused(old: Vault, provider: FileKeyProvider, tmp_path: Path) -> None:
    with Vault.create(tmp_path / "other" / "vault", provider, "hospital-1") as other:
        other.put_document("legal-hold", "h", b"of another")
    with pytest.raises(DecodeError):
        old.take_over(tmp_path / "other" / FILE)
    assert kept(old)["hold"] == {}
    old.close()
    shutil.copy(tmp_path / "other" / FILE, old.path.parent / FILE)
    with pytest.raises(MedveilError) as raised:
        Vault.open(old.path, provider, "hospital-1")
    assert raised.value.code == "privacy.safeguards_damaged"


def test_epochs_that_are_back_are_noticed(old: Vault, provider: FileKeyProvider, tmp_path: Path) -> None:
    old.back_up(tmp_path / "monday")
    shutil.copy(provider.path, tmp_path / "keys-of-monday")
    assert not old.epochs_are_back()
    old.rotate()
    assert not old.epochs_are_back()
    old.close()
    put_back(old, tmp_path / "monday")
    shutil.copy(tmp_path / "keys-of-monday", provider.path)
    revived = FileKeyProvider(provider.path, "correct horse")
    with Vault.open(old.path, revived, "hospital-1") as again:
        assert again.epochs_are_back()
        again.rotate()
        assert not again.epochs_are_back()


def test_a_vault_on_either_engine_keeps_a_log(vault_url: str, provider: FileKeyProvider, tmp_path: Path) -> None:
    path = tmp_path / "home" / "vault"
    with Vault.create(path, provider, "hospital-1", database=vault_url) as vault:
        vault.ingest("visits", pa.table({"n": [1, 2, 3]}), persons=["li", "wu", "li"])
        vault.put_document("erasure", "e-1", b"begun")
        vault.put_person_note("opt-out", "wu", b"research")
        for change in CHANGES.values():
            change(vault)
        wanted = kept(vault)
        lost = latest(vault._safeguards.log.entries())
    with Vault.open(path, provider, "hospital-1", database=vault_url) as vault:
        assert kept(vault) == wanted and vault._safeguards.log.number() == max(number for number, _ in lost.values())
