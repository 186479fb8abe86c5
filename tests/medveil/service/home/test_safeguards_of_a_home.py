"""A restored home protects whom the lost one protected, as long as its register and its log of safeguards are left."""

from __future__ import annotations

import io
import secrets
import shutil
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest

from medveil.gateway import erasing, use_state
from medveil.service.home import backup
from medveil.service.home.backup import FILES, make_backup
from medveil.service.home.config import VaultPlace
from medveil.service.home.home import Home
from medveil.service.home.restore import restore
from privacy.erasure import recalls, steps
from privacy.grants.opt_outs import OptOut
from privacy.keys import Argon2Cost
from privacy.legal_holds import LegalHold, all_holds, lift_hold, place_hold
from wire.dates import NO_END
from wire.errors import DecodeError, Unavailable

PASS = "correct horse battery staple"
DAY = 86_400_000
NOW = 1_760_000_000_000
DATASETS = {"visits": None, "bills": 60_000}


class Clock:
    """Instants that rise by a second each."""

    now = NOW

    def __call__(self) -> int:
        self.now += 1_000
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privacy.keys.file_keys.STRONG", Argon2Cost(1, 8, 1))


def opened(folder: Path, clock: Clock) -> Home:
    return Home.open(folder, PASS, secrets.token_bytes, clock)


def made(folder: Path, clock: Clock, place: VaultPlace) -> Path:
    Home.create(folder, "hospital-1", ("hospital",), PASS, secrets.token_bytes, clock, vault=place)
    with opened(folder, clock) as home:
        vault = home.organisation.vault
        persons = ["li", "wu", "wang", "zhao"]
        for name, until in DATASETS.items():
            vault.ingest(name, pa.table({"n": [1, 2, 3, 4]}), persons=persons, retain_until=until)
        place_hold(vault, LegalHold("old", b"", "bills", "before the backup", 0, NO_END))
    return folder


def erased(home: Home, person: str, clock: Clock) -> str:
    name = erasing.plan(home.organisation, person, clock()).name
    return erasing.apply(home.organisation, name, clock).name


def _recall(extract: bytes) -> recalls.Recall:
    return recalls.Recall(extract, "university", "visits", "grant-1", 1, NOW, "erasure", NOW, NOW + DAY)


def lived_on(home: Home, clock: Clock) -> dict[str, str]:
    """What happens after the backup: somebody is erased, restricted, held, opted out; a recall is not told yet."""
    organisation = home.organisation
    vault = organisation.vault
    names = {"done": erased(home, "li", clock)}
    erasing.rotate(organisation, clock)
    names["after the rotation"] = erased(home, "wu", clock)
    place_hold(vault, LegalHold("new", vault.person_id("wang"), "", "a dispute", 0, NO_END))
    lift_hold(vault, "old", 20_000)
    use_state.opt_out(organisation, "zhao", OptOut("all", "", NOW))
    recalls.recall(vault, _recall(b"e" * 16))
    under_way = erasing.plan(organisation, "zhao", clock())
    names["under way"] = under_way.name

    def stopping(step: str) -> None:
        if step == "restrict":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        erasing.apply(organisation, under_way.name, clock, fault=stopping)
    return names


def check_protected(home: Home, names: dict[str, str], clock: Clock) -> None:
    vault = home.organisation.vault
    rows = {name: sorted(vault.read(name)["n"].to_pylist()) for name in DATASETS}
    assert rows == {"visits": [3], "bills": [3]}, "erased and restricted rows stay out, also of what was under way"
    assert [key.state for key in vault.keys_of("li")] == ["restricted"], "kept by a duty, and out of every use"
    assert {hold.hold: hold.until == NO_END for hold in all_holds(vault)} == {"old": False, "new": True}
    assert [person for person, _ in vault.person_notes("opt-out")] == [vault.person_id("zhao")]
    assert [one.told for one in recalls.recalls(vault)] == [0]
    found = {what: steps.erasure(vault, name) for what, name in names.items()}
    assert found["done"].done and found["after the rotation"].done and not found["under way"].done
    assert [one.name for one in steps.unfinished(vault, home.organisation.audit)] == [names["under way"]]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def place(request: pytest.FixtureRequest) -> VaultPlace:
    if request.param == "sqlite":
        return VaultPlace()
    return VaultPlace(str(request.getfixturevalue("postgres_url")).replace("+psycopg", ""))


def emptied(place: VaultPlace) -> None:
    if place.database != "sqlite":
        with psycopg.connect(place.database, autocommit=True) as connection:
            connection.execute("DROP SCHEMA IF EXISTS medveil_vault CASCADE")


@pytest.mark.parametrize("given", ["home", "register", "folder"])
def test_a_restored_home_protects_whom_the_lost_one_did(
    given: str, place: VaultPlace, tmp_path: Path, clock: Clock
) -> None:
    home = made(tmp_path / "home", clock, place)
    with opened(home, clock) as at:
        make_backup(at, tmp_path / "monday", clock)
        names = lived_on(at, clock)
        due = erasing.rotation_due(at.organisation)
        check_protected(at, names, clock)
    home.rename(tmp_path / "lost")
    emptied(place)
    kept = tmp_path / "off-site"
    kept.mkdir()
    for name in ("erased", "safeguards"):
        shutil.copy(tmp_path / "lost" / name, kept)
    source = {"home": tmp_path / "lost", "register": tmp_path / "lost" / "erased", "folder": kept}[given]
    restore(tmp_path / "monday", home, PASS, secrets.token_bytes, clock, erased=source)
    for _ in range(2):
        with opened(home, clock) as at:
            check_protected(at, names, clock)
            first = steps.erasure(at.organisation.vault, names["done"])
            assert not first.rotated, "the backup's key file has the epochs again that were destroyed"
            assert erasing.rotation_due(at.organisation) == first.rotate_by < due
    with opened(home, clock) as at:
        again = erasing.apply(at.organisation, names["under way"], clock)
        assert again.done and [key.dataset for key in at.organisation.vault.keys_of("zhao")] == ["bills"]
        assert [at.organisation.audit.ending(trace.entry) for trace in again.traces] == ["done", "done"]
        assert steps.unfinished(at.organisation.vault, at.organisation.audit) == ()


def test_a_register_that_was_lost_is_replaced_by_the_erasures_of_the_log(tmp_path: Path, clock: Clock) -> None:
    home = made(tmp_path / "home", clock, VaultPlace())
    with opened(home, clock) as at:
        make_backup(at, tmp_path / "monday", clock)
        names = lived_on(at, clock)
    kept = tmp_path / "off-site"
    kept.mkdir()
    shutil.copy(home / "safeguards", kept)
    restore(tmp_path / "monday", tmp_path / "again", PASS, secrets.token_bytes, clock, erased=kept)
    with opened(tmp_path / "again", clock) as at:
        check_protected(at, names, clock)


def test_without_the_log_a_restored_home_is_of_its_day(tmp_path: Path, clock: Clock) -> None:
    """What the documents say of it, and why the log is to be kept apart."""
    home = made(tmp_path / "home", clock, VaultPlace())
    with opened(home, clock) as at:
        make_backup(at, tmp_path / "monday", clock)
        lived_on(at, clock)
    (home / "safeguards").unlink()
    restore(tmp_path / "monday", tmp_path / "again", PASS, secrets.token_bytes, clock, erased=home)
    with opened(tmp_path / "again", clock) as at:
        vault = at.organisation.vault
        assert [hold.hold for hold in all_holds(vault)] == ["old"] and not list(vault.person_notes("opt-out"))
        assert vault.read("visits").num_rows == 2 and vault.read("bills").num_rows == 4


@pytest.mark.parametrize("wrong", ["foreign", "cut", "changed", "nothing there"])
def test_a_log_that_is_none_ends_the_restore(wrong: str, tmp_path: Path, clock: Clock) -> None:
    home = made(tmp_path / "home", clock, VaultPlace())
    other = made(tmp_path / "other", clock, VaultPlace())
    with opened(home, clock) as at:
        make_backup(at, tmp_path / "monday", clock)
        lived_on(at, clock)
    log = home / "safeguards"
    content = log.read_bytes()
    if wrong == "foreign":
        shutil.copy(other / "safeguards", log)
    elif wrong == "cut":
        log.write_bytes(content[:100] + content[130:])
    elif wrong == "changed":
        log.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    source = tmp_path / "empty" if wrong == "nothing there" else home
    source.mkdir(exist_ok=True)
    with pytest.raises((DecodeError, Unavailable)) as raised:
        restore(tmp_path / "monday", tmp_path / "again", PASS, secrets.token_bytes, clock, erased=source)
    wanted = "privacy.no_register" if wrong == "nothing there" else "privacy.safeguards_damaged"
    assert raised.value.code == wanted and not (tmp_path / "again").exists()


def test_a_backup_has_the_log_and_it_is_as_new_as_its_vault(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes while it is made: what its own log has beyond its vault is taken over."""
    home = made(tmp_path / "home", clock, VaultPlace())
    copy_vault = backup._copy_vault
    with opened(home, clock) as at:
        vault = at.organisation.vault

        def copied(*given: object) -> None:
            copy_vault(*given)  # type: ignore[arg-type]
            place_hold(vault, LegalHold("meanwhile", b"", "", "a dispute", 0, NO_END))

        monkeypatch.setattr(backup, "_copy_vault", copied)
        make_backup(at, tmp_path / "monday", clock)
    assert (tmp_path / "monday" / FILES / "safeguards").is_file()
    restore(tmp_path / "monday", tmp_path / "again", PASS, secrets.token_bytes, clock)
    with opened(tmp_path / "again", clock) as at:
        assert [hold.hold for hold in all_holds(at.organisation.vault)] == ["meanwhile", "old"]


def test_large_documents_are_restricted_again(tmp_path: Path, clock: Clock) -> None:
    home = made(tmp_path / "home", clock, VaultPlace())
    with opened(home, clock) as at:
        vault = at.organisation.vault
        vault.put_stream("scan", "s", io.BytesIO(b"x" * 1_000), person="wang", retain_until=60_000)
        make_backup(at, tmp_path / "monday", clock)
        erased(at, "wang", clock)
    restore(tmp_path / "monday", tmp_path / "again", PASS, secrets.token_bytes, clock, erased=home)
    with opened(tmp_path / "again", clock) as at:
        states = {key.dataset: key.state for key in at.organisation.vault.keys_of("wang")}
        assert states == {"bills": "restricted", "document.scan": "restricted"}
