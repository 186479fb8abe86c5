"""Snapshots say what the vault says, also after loads, erasures and objections; and hold nothing of what is gone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.copies import snapshots as module
from privacy.copies.snapshots import KEY, KIND, LIFETIME, OptedOut, SnapshotIndex, Snapshots
from privacy.grants.opt_outs import ALL
from privacy.keys import Argon2Cost, FileKeyProvider
from privacy.vault import Vault
from wire.canonical import decode, encode
from wire.errors import MedveilError, Refused, Unavailable, VerificationError

CHEAP = Argon2Cost(time=1, memory=8, lanes=1)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def behind(objecting: set[bytes], scope: str = ALL) -> OptedOut:
    """Those who object to all secondary use, or in another scope."""
    return lambda scopes: frozenset(objecting) if scope in scopes else frozenset()


@pytest.fixture
def objecting() -> set[bytes]:
    return set()


@pytest.fixture
def damaged() -> list[str]:
    return []


@pytest.fixture
def snaps(vault: Vault, tmp_path: Path, clock: Clock, objecting: set[bytes], damaged: list[str]) -> Snapshots:
    return Snapshots(
        vault,
        tmp_path / "snapshots",
        opted_out=behind(objecting),
        clock=clock,
        damaged=damaged.append,
    )


def files(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "snapshots").glob("*")}


def index_of(vault: Vault, dataset: str = "claims-1") -> SnapshotIndex:
    return decode(SnapshotIndex, vault.document(KIND, dataset))


def same(one: pa.Table, other: pa.Table) -> bool:
    """Cell by cell, NaN and -0.0 as they are."""
    return one.schema == other.schema and repr(one.to_pylist()) == repr(other.to_pylist())


def many(count: int, people: int) -> tuple[pa.Table, list[str]]:
    draw = random.Random(count)
    names = [f"person-{draw.randrange(people)}" for _ in range(count)]
    return pa.table({"visits": list(range(count)), "health": [f"h{number % 5}" for number in range(count)]}), names


def test_it_says_what_the_vault_says(
    vault: Vault, snaps: Snapshots, table: pa.Table, people: list[str], tmp_path: Path
) -> None:
    vault.ingest("claims-1", table, people)
    for _ in range(2):
        assert same(snaps.table("claims-1"), vault.read("claims-1"))
        assert same(snaps.table("claims-1", "id"), vault.read("claims-1", "id"))
        assert same(snaps.table("claims-1", "id", "who"), vault.read("claims-1", "id", person_column="who"))
    assert len(files(tmp_path)) == 1
    said = snaps.info("claims-1")
    assert said is not None and (said.rows, said.parts, said.loads) == (6, 1, 1)
    assert snaps.data_keys("claims-1") == {key.key for key in vault.data_keys("claims-1")}
    with pytest.raises(ValueError, match="of that name"):
        snaps.table("claims-1", "visits")


def test_a_dataset_without_ids_and_an_empty_one(vault: Vault, snaps: Snapshots, table: pa.Table) -> None:
    vault.ingest("claims-1", table)
    vault.ingest("claims-2", table.slice(0, 0))
    for name in ("claims-1", "claims-2"):
        assert same(snaps.table(name, "id"), vault.read(name, "id"))


def test_nothing_is_made_of_what_is_not_there(snaps: Snapshots) -> None:
    with pytest.raises(Refused) as raised:
        snaps.table("claims-1")
    assert raised.value.code == "privacy.no_dataset"
    with pytest.raises(Refused) as raised:
        snaps.read("claims-1")
    assert raised.value.code == "snapshots.none" and snaps.info("claims-1") is None


def test_a_fresh_one_is_not_written_again(
    vault: Vault, snaps: Snapshots, table: pa.Table, people: list[str], tmp_path: Path
) -> None:
    vault.ingest("claims-1", table, people)
    snaps.refresh("claims-1")
    before = files(tmp_path)
    index = index_of(vault)
    assert list(snaps.refreshing("claims-1")) == []
    assert files(tmp_path) == before and index_of(vault) == index


# ---- by delta


def test_later_loads_are_added_as_parts(
    vault: Vault, snaps: Snapshots, table: pa.Table, people: list[str], tmp_path: Path
) -> None:
    vault.ingest("claims-1", table, people)
    snaps.refresh("claims-1")
    first = files(tmp_path)
    for load in range(2, 5):
        vault.ingest("claims-1", table, people, append=True)
        if load != 3:  # two loads at once
            assert same(snaps.table("claims-1", "id"), vault.read("claims-1", "id"))
    assert first < files(tmp_path)
    index = index_of(vault)
    assert [part.rows for part in index.parts] == [6, 6, 12] and index.loads == 4


def test_many_small_parts_become_few(
    vault: Vault, snaps: Snapshots, table: pa.Table, people: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART_ROWS", 20)
    vault.ingest("claims-1", table, people)
    for _ in range(module.MOST_PARTS + 3):
        snaps.refresh("claims-1")
        vault.ingest("claims-1", table, people, append=True)
    snaps.refresh("claims-1")
    rows = [part.rows for part in index_of(vault).parts]
    assert len(rows) <= module.MOST_PARTS and max(rows) <= 20 and sum(rows) == 6 * (module.MOST_PARTS + 4)
    assert same(snaps.table("claims-1", "id"), vault.read("claims-1", "id"))
    assert len(files(tmp_path)) == len(rows)


def test_a_dataset_loaded_anew_is_copied_anew(
    vault: Vault, snaps: Snapshots, table: pa.Table, people: list[str], tmp_path: Path
) -> None:
    vault.ingest("claims-1", table, people)
    snaps.refresh("claims-1")
    before = files(tmp_path)
    vault.ingest("claims-1", table.slice(0, 2).drop_columns(["plan"]), people[:2], replace=True)
    assert same(snaps.table("claims-1"), vault.read("claims-1"))
    assert not before & files(tmp_path) and len(files(tmp_path)) == 1


# ---- re-cut


def test_the_erased_are_cut_out_and_their_part_has_a_new_key(
    vault: Vault, snaps: Snapshots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART_ROWS", 100)
    table, names = many(250, 40)
    vault.ingest("claims-1", table, names)
    snaps.refresh("claims-1")
    before = index_of(vault)
    late = "only-in-the-last-part"
    vault.ingest("claims-1", table.slice(0, 30), [late] * 30, append=True)
    snaps.refresh("claims-1")
    keys = [key.key for key in vault.keys_of(late)]
    vault.destroy(keys, bytes(32))
    assert same(snaps.table("claims-1", "id"), vault.read("claims-1", "id"))
    after = index_of(vault)
    assert after.parts == before.parts  # nobody else's part was touched
    victim = names[0]
    keys = [key.key for key in vault.keys_of(victim)]
    touched = {number // 100 for number, name in enumerate(names) if name == victim}
    vault.destroy(keys, bytes(32))
    assert set(keys) <= snaps.data_keys("claims-1")
    assert same(snaps.table("claims-1", "id"), vault.read("claims-1", "id"))
    assert not set(keys) & snaps.data_keys("claims-1")
    after = index_of(vault)
    for at, (old, new) in enumerate(zip(before.parts, after.parts, strict=True)):
        assert (old.file != new.file and old.key != new.key) == (at in touched)
    assert files(tmp_path) == {f"{part.file.hex()}.snapshot" for part in after.parts}


def test_a_part_whose_rows_are_all_gone(vault: Vault, snaps: Snapshots, table: pa.Table, tmp_path: Path) -> None:
    vault.ingest("claims-1", table, ["a"] * 6)
    vault.ingest("claims-1", table, ["b"] * 6, append=True)
    snaps.refresh("claims-1")
    vault.ingest("claims-1", table, ["c"] * 6, append=True)
    snaps.refresh("claims-1")
    vault.destroy([key.key for person in "ab" for key in vault.keys_of(person)], bytes(32))
    assert same(snaps.table("claims-1"), vault.read("claims-1"))
    assert [part.rows for part in index_of(vault).parts] == [6]
    vault.destroy([key.key for key in vault.keys_of("c")], bytes(32))
    assert snaps.table("claims-1").num_rows == 0
    assert files(tmp_path) == set()


def test_the_restricted_leave_and_come_back(vault: Vault, snaps: Snapshots, table: pa.Table, people: list[str]) -> None:
    vault.ingest("claims-1", table, people)
    assert snaps.table("claims-1").num_rows == 6
    keys = [key.key for key in vault.keys_of("wang-wu")]
    vault.restrict(keys)
    assert snaps.table("claims-1").num_rows == 3
    assert not set(keys) & snaps.data_keys("claims-1")
    other = [key.key for key in vault.keys_of("li-si")]
    vault.restrict(other)
    vault.unrestrict(keys)  # between two refreshes; other totals
    assert same(snaps.table("claims-1", "id"), vault.read("claims-1", "id"))
    vault.unrestrict(other)
    vault.restrict([key.key for key in vault.keys_of("wang-wu")])
    vault.restrict(other)
    vault.unrestrict(keys)
    assert same(snaps.table("claims-1", "id"), vault.read("claims-1", "id"))


def test_as_many_rows_but_others(vault: Vault, snaps: Snapshots, table: pa.Table) -> None:
    """One is restricted and another let go: every total is as before."""
    vault.ingest("claims-1", table, [f"p{number}" for number in range(6)])
    keys = [key.key for key in vault.data_keys("claims-1")]
    vault.restrict(keys[:1])
    snaps.refresh("claims-1")
    info = vault.info("claims-1")
    vault.unrestrict(keys[:1])
    vault.restrict(keys[1:2])
    assert vault.info("claims-1").restricted == info.restricted
    assert same(snaps.table("claims-1", "id"), vault.read("claims-1", "id"))


@settings(max_examples=40)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["load", "erase", "restrict", "free", "object", "agree", "look"]), st.integers(0, 4)),
        max_size=14,
    )
)
def test_whatever_happens_it_says_what_the_vault_says(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("s")
    provider = FileKeyProvider.create(folder / "keys", "correct horse", cost=CHEAP)
    objecting: set[bytes] = set()
    with Vault.create(folder / "vault", provider, "hospital-1") as vault:
        snaps = Snapshots(vault, folder / "snapshots", opted_out=behind(objecting))
        names = [f"p{number}" for number in range(5)] * 2
        data = pa.table({"visits": list(range(10))})
        vault.ingest("claims-1", data, names)
        for step, number in [*steps, ("look", 0)]:
            who = f"p{number}"
            keys = list(vault.keys_of(who))
            if step == "load":
                vault.ingest("claims-1", data.slice(0, number), names[:number], append=True)
            elif step == "erase":
                vault.destroy([key.key for key in keys], bytes(32))
            elif step == "restrict":
                vault.restrict([key.key for key in keys[:1]])
            elif step == "free":
                vault.unrestrict([key.key for key in keys])
            elif step == "object":
                objecting.add(vault.person_id(who))
            elif step == "agree":
                objecting.discard(vault.person_id(who))
            else:
                whole = vault.read("claims-1", "id", person_column="who")
                wanted = whole.filter(pc.invert(pc.is_in(whole["who"], pa.array(sorted(objecting), pa.binary(16)))))
                assert same(snaps.table("claims-1", "id", "who", excluded=[ALL]), wanted)
                assert same(snaps.table("claims-1", "id", "who"), whole)
                active = {key.key for key in vault.data_keys("claims-1") if key.state == "active"}
                assert snaps.data_keys("claims-1") <= active


# ---- a life of its own


def test_an_expired_one_is_refused_and_made_anew(
    vault: Vault, snaps: Snapshots, clock: Clock, table: pa.Table, people: list[str], tmp_path: Path
) -> None:
    vault.ingest("claims-1", table, people)
    snaps.refresh("claims-1")
    before = files(tmp_path)
    clock.now += LIFETIME - 1
    assert snaps.read("claims-1").num_rows == 6
    clock.now += 1
    with pytest.raises(Refused) as raised:
        snaps.read("claims-1")
    assert raised.value.code == "snapshots.expired"
    assert snaps.table("claims-1").num_rows == 6
    assert not before & files(tmp_path)


def test_it_survives_rotation_and_reopening(
    vault: Vault,
    snaps: Snapshots,
    clock: Clock,
    provider: FileKeyProvider,
    table: pa.Table,
    people: list[str],
    tmp_path: Path,
) -> None:
    vault.ingest("claims-1", table, people)
    snaps.refresh("claims-1")
    before = files(tmp_path)
    vault.rotate()
    assert same(snaps.table("claims-1"), vault.read("claims-1"))
    vault.close()
    with Vault.open(tmp_path / "vault", provider, "hospital-1") as again:
        later = Snapshots(again, tmp_path / "snapshots", clock=clock)
        assert later.clear_leftovers() == 0
        assert same(later.table("claims-1", "id"), again.read("claims-1", "id"))
    assert files(tmp_path) == before


def test_an_older_vault_beside_newer_parts(
    vault: Vault, snaps: Snapshots, table: pa.Table, people: list[str], tmp_path: Path
) -> None:
    """As after a restore: the index is of then, files of now are nobody's, and files of then are lost."""
    vault.ingest("claims-1", table, people)
    snaps.refresh("claims-1")
    then = vault.document(KIND, "claims-1")
    vault.ingest("claims-1", table, people, append=True)
    vault.destroy([key.key for key in vault.keys_of("wang-wu")], bytes(32))
    snaps.refresh("claims-1")
    vault.put_document(KIND, "claims-1", then)
    assert same(snaps.table("claims-1", "id"), vault.read("claims-1", "id"))
    snaps.clear_leftovers()
    assert files(tmp_path) == {f"{part.file.hex()}.snapshot" for part in index_of(vault).parts}


def test_nothing_of_it_is_readable_at_home(vault: Vault, snaps: Snapshots, tmp_path: Path) -> None:
    marked = pa.table({"secret_column": ["wang-wu-of-ward-7"] * 50})
    vault.ingest("claims-1", marked, ["wang-wu"] * 50)
    snaps.refresh("claims-1")
    who = vault.person_id("wang-wu")
    (part,) = index_of(vault).parts
    assert repr(part) == "SnapshotPart(rows=50)" and "parts=1" in repr(index_of(vault))
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix == ".snapshot":
            data = path.read_bytes()
            assert not any(secret in data for secret in (b"wang-wu", b"secret_column", who, part.key))
            assert path.stat().st_mode & 0o077 == 0
        elif path.is_file():
            assert part.key not in path.read_bytes()


def test_the_key_of_a_recut_part_is_gone_from_the_vaults_file(
    vault: Vault, snaps: Snapshots, table: pa.Table, people: list[str], tmp_path: Path
) -> None:
    """With the old index its sealed bytes go, so that no copy of the file from now on opens an old part."""
    import sqlite3

    vault.ingest("claims-1", table, people)
    snaps.refresh("claims-1")

    def kept() -> set[bytes]:
        with closing(sqlite3.connect(tmp_path / "vault" / "vault.sqlite")) as database:
            return {bytes(cell) for row in database.execute("SELECT sealed, wrapped FROM documents") for cell in row}

    before = kept()
    vault.destroy([key.key for key in vault.keys_of("wang-wu")], bytes(32))
    snaps.refresh("claims-1")
    replaced = before - kept()
    assert len(replaced) == 2  # the index and its key
    on_disk = b"".join(path.read_bytes() for path in (tmp_path / "vault").iterdir() if path.is_file())
    for gone in replaced:
        assert gone not in on_disk


# ---- altered or lost


def _each(vault: Vault, tmp_path: Path) -> list[Path]:
    return [tmp_path / "snapshots" / f"{part.file.hex()}.snapshot" for part in index_of(vault).parts]


@pytest.mark.parametrize("harm", ["remove", "cut", "empty", "swap", "flip", "longer"])
def test_a_harmed_part_is_found_and_made_anew(
    vault: Vault, snaps: Snapshots, damaged: list[str], table: pa.Table, people: list[str], tmp_path: Path, harm: str
) -> None:
    vault.ingest("claims-1", table, people)
    snaps.refresh("claims-1")
    vault.ingest("claims-1", table, people, append=True)
    snaps.refresh("claims-1")
    first, second = _each(vault, tmp_path)
    data = first.read_bytes()
    if harm == "remove":
        first.unlink()
    else:
        first.write_bytes(
            {
                "cut": data[:-1],
                "empty": b"",
                "swap": second.read_bytes(),
                "flip": data[:100] + bytes([data[100] ^ 4]) + data[101:],
                "longer": data + b"\0",
            }[harm]
        )
    if harm == "longer":
        assert snaps.read("claims-1").num_rows == 12  # what stands behind is not looked at
        return
    with pytest.raises(VerificationError) as raised:
        snaps.read("claims-1")
    assert raised.value.code == "parquet.altered"
    assert same(snaps.table("claims-1", "id"), vault.read("claims-1", "id"))
    assert damaged == ["claims-1"]
    assert same(snaps.read("claims-1", "id"), vault.read("claims-1", "id"))


def test_a_harmed_part_does_not_stop_a_recut(
    vault: Vault, snaps: Snapshots, damaged: list[str], table: pa.Table, people: list[str], tmp_path: Path
) -> None:
    vault.ingest("claims-1", table, people)
    snaps.refresh("claims-1")
    vault.destroy([key.key for key in vault.keys_of("li-si")], bytes(32))
    _each(vault, tmp_path)[0].unlink()
    assert same(snaps.table("claims-1", "id"), vault.read("claims-1", "id"))
    assert damaged == ["claims-1"]


def _altered(snaps: Snapshots, vault: Vault, path: Path, count: int) -> int:
    good, whole = path.read_bytes(), snaps.read("claims-1", "id")
    draw = random.Random(count)
    refused = 0
    for _ in range(count):
        at = draw.randrange(len(good))
        changed = [
            good[:at] + bytes([good[at] ^ 1 << draw.randrange(8)]) + good[at + 1 :],
            good[:at],
            good[:at] + draw.randbytes(draw.randrange(1, 9)) + good[at:],
            good[:at] + good[at + draw.randrange(1, 40) :],
        ][draw.randrange(4)]
        path.write_bytes(changed)
        try:
            assert same(snaps.read("claims-1", "id"), whole)
        except MedveilError as error:
            assert error.code == "parquet.altered"
            refused += 1
    return refused


def test_500_altered_parts_are_refused(
    vault: Vault, snaps: Snapshots, table: pa.Table, people: list[str], tmp_path: Path
) -> None:
    vault.ingest("claims-1", table, people)
    snaps.refresh("claims-1")
    assert _altered(snaps, vault, _each(vault, tmp_path)[0], 500) == 500


@pytest.mark.long
def test_10000_altered_parts_are_refused(
    vault: Vault, snaps: Snapshots, table: pa.Table, people: list[str], tmp_path: Path
) -> None:
    vault.ingest("claims-1", table, people)
    snaps.refresh("claims-1")
    assert _altered(snaps, vault, _each(vault, tmp_path)[0], 10_000) == 10_000


def test_an_index_that_names_other_parts_reads_none(
    vault: Vault, snaps: Snapshots, table: pa.Table, people: list[str]
) -> None:
    """Parts of another dataset: the same columns, bound to their own name."""
    vault.ingest("claims-1", table, people)
    vault.ingest("claims-2", table, people)
    for name in ("claims-1", "claims-2"):
        snaps.refresh(name)
    import msgspec

    crossed = msgspec.structs.replace(index_of(vault), parts=index_of(vault, "claims-2").parts)
    vault.put_document(KIND, "claims-1", encode(crossed))
    with pytest.raises(VerificationError):
        snaps.read("claims-1")
    wrong = msgspec.structs.replace(index_of(vault), parts=())
    vault.put_document(KIND, "claims-1", encode(wrong))
    assert same(snaps.table("claims-1", "id"), vault.read("claims-1", "id"))  # too few rows: made anew


def test_a_full_disk_leaves_the_snapshot_before(
    vault: Vault, snaps: Snapshots, table: pa.Table, people: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.ingest("claims-1", table, people)
    snaps.refresh("claims-1")
    vault.ingest("claims-1", table, people, append=True)
    before = files(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(Unavailable):
        snaps.refresh("claims-1")
    monkeypatch.undo()
    assert files(tmp_path) == before and snaps.read("claims-1").num_rows == 6
    assert snaps.table("claims-1").num_rows == 12


def test_a_recut_can_stop_between_its_parts(
    vault: Vault, snaps: Snapshots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PART_ROWS", 50)
    table, names = many(200, 10)
    vault.ingest("claims-1", table, names)
    snaps.refresh("claims-1")
    vault.destroy([key.key for key in vault.keys_of(names[0])], bytes(32))
    steps: Iterator[int] = snaps.refreshing("claims-1")
    assert [next(steps), next(steps)] == [50, 50]
    del steps
    held = index_of(vault)
    assert held.changes < vault.info("claims-1").changes
    gone = vault.read("claims-1", key_column=KEY)[KEY]
    assert len(snaps.read("claims-1")) > len(gone)  # half of it is cut, and it is not used like this
    assert same(snaps.table("claims-1", "id"), vault.read("claims-1", "id"))
