"""Files that somebody else had a hand in: cells, tables, the journal and the place of a trail's file."""

from __future__ import annotations

import shutil
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from privacy.audit import AuditTrail, Use
from privacy.audit.entries import START, VERSION, Entry
from privacy.audit.pruning import prunable, prune
from privacy.audit.views import of_recipient
from wire.canonical import encode
from wire.errors import DecodeError, MedveilError, Unavailable, VerificationError

from .conftest import USE, Clock
from .test_file import older

FAR = 10**13
PERSON = b"w" * 16
TABLES = {
    "entries": ("sequence", "intent", "entry", "head"),
    "batches": ("first", "last", "anchored"),
    "uses": ("sequence", "recipient", "dataset", "grant_id", "nonce"),
    "touched": ("person", "sequence"),
    "pruned": ("first", "last", "head", "time"),
}
VALUES = (None, 0, -1, 2**63 - 1, -(2**63), b"", b"x" * 16, "", "text")

Reopen = Callable[[], AuditTrail]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A trail with batches, a pruned end, a batch on its way and uses under way."""
    path, clock = tmp_path_factory.mktemp("begun") / "audit.sqlite", Clock()
    with AuditTrail(path, "hospital-1", clock=clock) as trail:
        for _ in range(3):
            for _ in range(2):
                trail.outcome(trail.intent(USE, persons=[PERSON]), "released")
            batch = trail.batch()
            assert batch is not None
            trail.anchored(batch)
        trail.cut(4, clock())
        for _ in range(2):
            trail.intent(USE)
        trail.batch()
    yield path


@pytest.fixture
def path(begun: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(begun, tmp_path / "audit.sqlite"))


def altered(path: Path, statement: str, *values: object) -> bool:
    """Whether the file takes it."""
    with closing(sqlite3.connect(path)) as database:
        try:
            database.execute(statement, values)
            database.commit()
        except sqlite3.Error:
            return False
        return True


def used(path: Path, clock: Clock) -> None:
    """All that is done with a trail, as long as it says what is wrong in words."""
    with AuditTrail(path, "hospital-1", clock=clock) as trail:
        for work in (
            trail.verify,
            trail.batch,
            trail.batches,
            trail.unfinished,
            trail.entries,
            lambda: trail.pruned,
            lambda: of_recipient(trail, "university"),
            lambda: [trail.end(number) for number in range(16)],
            lambda: prune(trail, prunable(trail, FAR), FAR),
        ):
            with suppress(MedveilError):
                work()
        with suppress(MedveilError):
            intent = trail.intent(USE, persons=[PERSON])
            assert [entry.sequence for entry in trail.entries(intent, intent)] == [intent]
            assert trail.intents("person", PERSON, intent) == trail.entries(intent, intent)


@pytest.mark.parametrize("table", TABLES)
def test_any_cell_of_anybodys_making(table: str, begun: Path, tmp_path: Path, clock: Clock) -> None:
    tried = 0
    for column in TABLES[table]:
        key = "sequence" if table == "touched" else TABLES[table][0]
        for place in ("", f" WHERE {key} = (SELECT max({key}) FROM {table})"):
            for value in VALUES:
                path = Path(shutil.copy(begun, tmp_path / "audit.sqlite"))
                if altered(path, f"UPDATE {table} SET {column} = ?{place}", value):
                    tried += 1
                    with suppress(MedveilError):
                        used(path, clock)
                for left in tmp_path.glob("audit.sqlite-*"):
                    left.unlink()
    assert tried > 5


@pytest.mark.parametrize("cell", ["last", "anchored"])
def test_a_batch_without_its_end(cell: str, path: Path, clock: Clock) -> None:
    assert altered(path, f"UPDATE batches SET {cell} = NULL")
    with pytest.raises(VerificationError):
        used(path, clock)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM batches WHERE first = 5",
        "DELETE FROM batches WHERE first = 9",
        "UPDATE batches SET first = 6 WHERE first = 5",
        "UPDATE batches SET anchored = 2 WHERE first = 9",
    ],
)
def test_a_batch_that_is_not_where_it_was(statement: str, path: Path, clock: Clock) -> None:
    """All entries are there and chained: only what the ledger holds of them is forgotten."""
    AuditTrail(path, "hospital-1", clock=clock).close()
    assert altered(path, statement)
    with pytest.raises(VerificationError):
        AuditTrail(path, "hospital-1", clock=clock)


def test_an_old_entry_that_ends_nothing_hides_no_use_that_is_under_way(path: Path, clock: Clock) -> None:
    assert altered(path, "UPDATE entries SET intent = NULL WHERE sequence = 6")
    with AuditTrail(path, "hospital-1", clock=clock) as trail:
        assert set(trail.unfinished()) >= {13, 14}
        with pytest.raises(VerificationError):
            trail.verify()


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries WHERE sequence = NEW.sequence; END",
        "CREATE TRIGGER t AFTER INSERT ON touched BEGIN DELETE FROM touched WHERE sequence = NEW.sequence; END",
        "CREATE TRIGGER t AFTER UPDATE ON batches BEGIN UPDATE batches SET anchored = 0; END",
        "CREATE VIEW v AS SELECT * FROM entries",
        "CREATE UNIQUE INDEX one ON batches (anchored) WHERE anchored > 1",
        "ALTER TABLE entries ADD COLUMN more TEXT",
        "DROP TABLE touched",
        "DROP INDEX uses_by_recipient",
        "ALTER TABLE touched ADD COLUMN c INTEGER CHECK (sequence < 13)",
    ],
)
def test_tables_of_anybodys_making(statement: str, version: int, path: Path, clock: Clock) -> None:
    """A trigger that takes an intent away again when it was written: no log, and it would be released."""
    if version == 2:
        older(path, 2)
    assert altered(path, statement)
    with pytest.raises(DecodeError) as raised:
        used(path, clock)
    assert raised.value.code == "privacy.store_damaged"
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (version,), "it stays as it is"


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("trigger", "TRIGGER {} AFTER INSERT ON entries BEGIN DELETE FROM entries WHERE sequence = NEW.sequence; END"),
        ("trigger", "TRIGGER {} AFTER INSERT ON touched BEGIN DELETE FROM touched WHERE sequence = NEW.sequence; END"),
        ("view", "VIEW {} AS SELECT * FROM entries"),
    ],
)
@pytest.mark.parametrize("name", ["sqlite_t", "sqlite_stat1", "sqlite_autoindex_touched_1", "SQLITE_T"])
def test_a_name_as_of_sqlites_own(name: str, kind: str, text: str, version: int, path: Path, clock: Clock) -> None:
    """Nobody can make such a trigger by a statement; who writes the schema by hand can, and SQLite runs it."""
    if version == 2:
        older(path, 2)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        (before,) = database.execute("PRAGMA schema_version").fetchone()
        database.execute("PRAGMA writable_schema = ON")
        on = text.split(" ON ")[1].split()[0] if kind == "trigger" else name
        row = (kind, name, on, 0, f"CREATE {text.format(name)}")
        database.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", row)
        database.execute(f"PRAGMA schema_version = {before + 1}")
    with pytest.raises(DecodeError) as raised:
        used(path, clock)
    assert raised.value.code == "privacy.store_damaged"


def test_what_an_operator_lets_sqlite_note_for_itself_is_no_damage(path: Path, clock: Clock) -> None:
    assert altered(path, "ANALYZE")
    used(path, clock)


def test_a_journal_that_was_cut_leaves_a_beginning_of_the_trail(tmp_path: Path, use: Use) -> None:
    live, cut = tmp_path / "audit.sqlite", tmp_path / "cut" / "audit.sqlite"
    cut.parent.mkdir()
    with AuditTrail(live, "hospital-1", clock=Clock()) as trail:
        for _ in range(4):
            trail.outcome(trail.intent(use), "released")
        entries = trail.entries()
        file, journal = live.read_bytes(), Path(f"{live}-wal").read_bytes()
    lengths = set()
    for length in (*range(0, len(journal), len(journal) // 30), len(journal)):
        for left in cut.parent.iterdir():
            left.unlink()
        cut.write_bytes(file)
        Path(f"{cut}-wal").write_bytes(journal[:length])
        with AuditTrail(cut, "hospital-1", clock=Clock()) as trail:
            assert trail.entries() == entries[: trail.last]
            trail.verify()
            lengths.add(trail.last)
    assert {0, 8} <= lengths and len(lengths) > 6


def test_the_journal_of_another_trail(path: Path, tmp_path: Path, use: Use, clock: Clock) -> None:
    """What opens is one trail or the other, never a mixture; which it must be, the ledger knows."""
    other = tmp_path / "other.sqlite"
    with AuditTrail(other, "hospital-1", clock=Clock()) as trail:
        trail.intent(use)
        shutil.copy(f"{other}-wal", f"{path}-wal")
    with suppress(MedveilError), AuditTrail(path, "hospital-1", clock=clock) as trail:
        trail.verify()
        assert trail.last in (1, 14)


def test_two_names_of_one_file_are_one_trail(path: Path, tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "beside").mkdir()
    link = tmp_path / "beside" / "audit.sqlite"
    link.symlink_to(path)
    with AuditTrail(path, "hospital-1", clock=clock):
        with pytest.raises(Unavailable) as raised:
            AuditTrail(link, "hospital-1", clock=clock)
        assert raised.value.code == "privacy.store_in_use"
    with AuditTrail(link, "hospital-1", clock=clock) as trail:
        assert trail.last == 14


def test_a_link_to_a_disk_that_is_not_there_begins_no_new_trail(tmp_path: Path) -> None:
    link = tmp_path / "audit.sqlite"
    link.symlink_to(tmp_path / "disk" / "audit.sqlite")
    with pytest.raises(Unavailable):
        AuditTrail(link, "hospital-1")
    assert [left.name for left in tmp_path.iterdir()] == ["audit.sqlite"]


@pytest.mark.parametrize("version", [2, 3])
def test_somebody_reads_beside_it(version: int, path: Path, clock: Clock) -> None:
    """An operator's own reader, with a view of before, while the file is brought forward and written."""
    if version == 2:
        older(path, 2)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT max(sequence) FROM entries").fetchone() == (14,)
        with AuditTrail(path, "hospital-1", clock=clock) as trail:
            assert trail.intent(USE) == 15
            trail.verify()
            assert reader.execute("SELECT max(sequence) FROM entries").fetchone() == (14,)
            reader.execute("COMMIT")
    with AuditTrail(path, "hospital-1", clock=clock) as trail:
        assert trail.last == 15
        trail.verify()


def test_a_long_trail_is_brought_forward_and_checked_in_pieces(tmp_path: Path, reopen: Reopen) -> None:
    reopen().close()
    path = tmp_path / "audit.sqlite"
    size = 0
    with closing(sqlite3.connect(path)) as database:
        head = START
        for number in range(1, 12_001, 2):
            rows: list[tuple[Any, ...]] = []
            for at in (number, number + 1):
                ends = at - number
                entry = Entry(
                    VERSION,
                    at,
                    at,
                    "hospital-1",
                    USE,
                    number * ends,
                    "released" if ends else "",
                    at.to_bytes(16, "big"),
                    head,
                )
                head, data = entry.head(), encode(entry)
                size += len(data)
                rows.append((at, entry.intent, data, head))
                if not ends:
                    uses = (at, USE.recipient, USE.dataset, USE.grant, entry.nonce)
                    database.execute("INSERT INTO uses VALUES (?, ?, ?, ?, ?)", uses)
            database.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", rows)
        database.commit()
    older(path, 2)
    tracemalloc.start()
    try:
        with reopen() as trail:
            assert trail.last == 12_000 and trail.verify() == head
            assert len(trail.intents("nonce", (11_999).to_bytes(16, "big"))) == 1
        assert tracemalloc.get_traced_memory()[1] < 2 * size
    finally:
        tracemalloc.stop()


def _away(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def _lost(path: Path) -> None:
    path.unlink()


def _replaced(path: Path) -> None:
    other = path.with_name("other.sqlite")
    with AuditTrail(other, "hospital-2") as trail:
        trail.outcome(trail.intent(USE), "released")
    other.rename(path)


def _without_its_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def _led_elsewhere(path: Path) -> None:
    real = path.with_name("elsewhere")
    path.rename(real)
    shutil.copy(real, path.with_name("copy"))
    path.symlink_to(path.with_name("copy"))


@pytest.mark.parametrize("hand", [_away, _lost, _replaced, _without_its_log, _led_elsewhere])
def test_an_open_trail_that_is_not_in_its_place_takes_no_entry(hand: Callable[[Path], None], path: Path) -> None:
    """SQLite would go on writing where the next process never looks: released, and no log. Nothing is lost by it."""
    clock = Clock()
    with AuditTrail(path, "hospital-1", clock=clock) as trail:
        begun = trail.intent(USE)
        written = trail.entries()
        hand(path)
        for _ in range(2):
            with pytest.raises(Unavailable) as raised:
                trail.intent(USE)
            assert raised.value.code == "privacy.store_moved"
        with pytest.raises(Unavailable):
            trail.outcome(begun, "released")
        assert trail.unfinished()[-1] == begun
    copy = path.with_name(f"{path.name}.as-it-was")
    assert copy.stat().st_mode & 0o777 == 0o600
    with AuditTrail(copy, "hospital-1", clock=clock) as trail:
        assert trail.entries() == written
        trail.outcome(begun, "released")


@pytest.mark.parametrize("name", ["audit.sqlite", "audit.sqlite-wal"])
def test_an_open_trail_that_was_cut_short_takes_no_entry(name: str, path: Path) -> None:
    with AuditTrail(path, "hospital-1", clock=Clock()) as trail:
        for _ in range(3):
            trail.intent(USE)
        file = path.with_name(name)
        with file.open("r+b") as whole:
            whole.truncate(file.stat().st_size - 1)
        with pytest.raises(Unavailable) as raised:
            trail.intent(USE)
        assert raised.value.code == "privacy.store_moved"


def test_a_trail_that_is_moved_while_an_entry_is_written_has_not_taken_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with AuditTrail(path, "hospital-1", clock=Clock()) as trail:
        insert = trail._store.insert

        def moved(*values: Any) -> None:
            insert(*values)
            _away(path)

        monkeypatch.setattr(trail._store, "insert", moved)
        with pytest.raises(Unavailable) as raised:
            trail.intent(USE)
        assert raised.value.code == "privacy.store_moved"


def test_a_log_that_the_trail_itself_cuts_is_none_that_was_cut_short(path: Path) -> None:
    with AuditTrail(path, "hospital-1", clock=Clock()) as trail:
        for _ in range(2):
            trail.intent(USE)
            trail._store.cut_log()
        last = trail.last
    assert not path.with_name(f"{path.name}.as-it-was").exists()
    with AuditTrail(path, "hospital-1", clock=Clock()) as trail:
        assert trail.last == last
