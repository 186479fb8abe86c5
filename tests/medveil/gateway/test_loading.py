"""Loading a table: from a file to the vault and the ledger, once, wherever its flow is cut short."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from connectors.dataset import parse_layout
from ledger.contracts import datasets
from medveil.gateway.loading import load_table, quality_of, source_in, sources_in
from medveil.gateway.steps import Passing
from medveil.gateway.tables import VaultTables
from privacy.local import RowFilter
from privacy.predicate import Compare
from wire.errors import DecodeError, MedveilError, Refused, Unavailable

from .cutting import Cut

Play = Callable[[Callable[[Any], Any]], Any]
NOWHERE = 10_000
TOML = """
version = 1
name = "stays"
population = "stays"
unit = "row"
colluders = 1
record_id = "id"
about = "Made up for tests."
split_rule = "As made."

[[columns]]
name = "cost"
kind = "number"
low = 0
high = 100

[[columns]]
name = "ward"
kind = "category"
values = ["east", "west"]
"""
CSV = "id,cost,ward\na,10,east\nb,200,west\nb,30,west\nc,,north\n"
LAYOUT = parse_layout(TOML.encode(), "dataset.toml")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with one source of two tables, and what is none."""
    place = tmp_path / "data"
    for name in ("ward-a", "notes"):
        (place / name).mkdir(parents=True)
    (place / "ward-a" / "dataset.toml").write_text(TOML)
    (place / "ward-a" / "stays-2026.csv").write_text(CSV)
    (place / "ward-a" / "empty.csv").write_text("id,cost,ward\n")
    (place / "ward-a" / ".hidden.csv").write_text("x")
    (place / "notes" / "readme.txt").write_text("no table")
    return place


def test_sources_are_folders_with_a_declaration(folder: Path) -> None:
    found = sources_in(folder)
    assert [(one.source, one.table, one.layout) for one in found.tables] == [
        ("ward-a", "empty", LAYOUT),
        ("ward-a", "stays-2026", LAYOUT),
    ]
    assert found.bad == ()
    assert source_in(folder, "ward-a", "stays-2026").read().num_rows == 4
    assert sources_in(folder / "nowhere") == ((), ())
    for source, table in (("ward-a", "other"), ("notes", "readme"), ("..", "stays-2026"), ("ward-a", "../ward-a/x")):
        with pytest.raises(Refused) as refused:
            source_in(folder, source, table)
        assert refused.value.code == "gateway.no_source"


def spoil_name(place: Path) -> None:
    (place / "Bad Name.csv").write_text(CSV)


def spoil_declaration(place: Path) -> None:
    (place / "dataset.toml").write_text("version = 1\nsecret = 'x'\n")


def spoil_with_a_link(place: Path) -> None:
    (place / "passwords.csv").symlink_to("/etc/passwd")


def spoil_with_a_linked_declaration(place: Path) -> None:
    (place / "dataset.toml").unlink()
    (place / "dataset.toml").symlink_to("/etc/hostname")


def spoil_with_a_loop(place: Path) -> None:
    (place / "loop.csv").symlink_to(place / "loop.csv")


@pytest.mark.parametrize(
    ("spoil", "code", "named"),
    [
        (spoil_name, "connectors.bad_site_name", "ward-b/Bad Name.csv"),
        (spoil_declaration, "connectors.toml_shape", "ward-b/dataset.toml"),
        (spoil_with_a_link, "gateway.outside_data", "ward-b/passwords.csv"),
        (spoil_with_a_linked_declaration, "gateway.outside_data", "ward-b/dataset.toml"),
        (spoil_with_a_loop, "gateway.outside_data", "ward-b/loop.csv"),
    ],
)
def test_one_bad_folder_does_not_hide_the_others(
    folder: Path, spoil: Callable[[Path], None], code: str, named: str
) -> None:
    shutil.copytree(folder / "ward-a", folder / "ward-b")
    assert len(sources_in(folder).tables) == 4
    spoil(folder / "ward-b")
    found = sources_in(folder)
    assert [(one.source, one.table) for one in found.tables] == [("ward-a", "empty"), ("ward-a", "stays-2026")]
    (bad,) = found.bad
    assert (bad.source, bad.why.code) == ("ward-b", code), bad.why.text()
    assert named in bad.why.text() and str(folder) not in bad.why.text()
    assert source_in(folder, "ward-a", "empty").read().num_rows == 0
    with pytest.raises(type(bad.why)) as refused:
        source_in(folder, "ward-b", "stays-2026")
    assert refused.value.code == code


def test_nothing_is_read_outside_of_the_data_folder(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder / "ward-a", elsewhere)
    (folder / "linked").symlink_to(elsewhere, target_is_directory=True)
    (bad,) = sources_in(folder).bad
    assert (bad.source, bad.why.code) == ("linked", "gateway.outside_data")
    # A link that comes between looking and reading.
    source = source_in(folder, "ward-a", "stays-2026")
    source.path.unlink()
    source.path.symlink_to(elsewhere / "stays-2026.csv")
    with pytest.raises(Refused) as refused:
        source.read()
    assert refused.value.code == "gateway.outside_data"
    # Links within it are its own business; so is where the folder itself lies.
    source.path.unlink()
    source.path.symlink_to(folder / "ward-a" / "empty.csv")
    (folder / "linked").unlink()
    (tmp_path / "by-another-name").symlink_to(folder, target_is_directory=True)
    found = source_in(tmp_path / "by-another-name", "ward-a", "stays-2026")
    assert found.read().num_rows == 0


def test_faults_of_a_table_name_the_file_and_not_where_it_lies(folder: Path) -> None:
    (folder / "ward-a" / "stays-2026.csv").write_text("id,cost,ward\na,Zhang San,east\n")
    with pytest.raises(DecodeError) as bad:
        source_in(folder, "ward-a", "stays-2026").read()
    assert bad.value.facts["file"] == "ward-a/stays-2026.csv"


def test_a_table_is_cleaned_encrypted_and_declared(play: Play, folder: Path) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        source = source_in(folder, "ward-a", "stays-2026")
        where = (source.source, source.table)
        threads: list[str] = []

        def read() -> pa.Table:
            threads.append(threading.current_thread().name)
            return source.read()

        quality = await load_table(hospital, "stays-new", source.layout, read, Passing(), *where)
        assert threads and all(name.startswith("long work") for name in threads)
        assert quality == quality_of(hospital, "stays-new")
        assert (quality.rows, quality.duplicates, quality.source, quality.table) == (4, 1, *where)
        assert [(one.column, one.missing, one.out_of_range) for one in quality.columns] == [
            ("cost", 1, 1),
            ("ward", 0, 1),
        ]
        assert quality.dirty_rate == 5 / 8
        tables = VaultTables.of(hospital)
        assert "stays-new" in tables.names()
        assert tables.layout("stays-new") == LAYOUT
        read = hospital.vault.read("stays-new")
        assert read["cost"].to_pylist() == [10.0, 100.0, None] and read.column_names == ["cost", "ward"]
        state = datasets.current_dataset(hospital.account.state.view(), "stays-new")
        assert (state.owner, state.population, state.row_class) == ("hospital-1", "stays", 100)
        assert tables.records("stays-new", ("cost",), RowFilter(None), ()) == [
            ("record/a", (10.0,)),
            ("record/b", (100.0,)),
            ("record/c", (None,)),
        ]
        some = tables.records("stays-hospital-1", ("cost", "age"), RowFilter(Compare("age", "ge", 6)), ())
        assert some[0] == ("stays-hospital-1/3", (15, 6))

    play(story)


def test_what_is_not_loaded(play: Play, folder: Path) -> None:
    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        read = source_in(folder, "ward-a", "stays-2026").read

        async def fails(
            code: str, name: str = "stays-new", who: Any = hospital, layout: Any = LAYOUT, get: Any = read
        ) -> None:
            before = who.vault.datasets()
            with pytest.raises(MedveilError) as refused:
                await load_table(who, name, layout, get, Passing())
            assert refused.value.code == code
            assert who.vault.datasets() == before

        def gone() -> pa.Table:
            raise Unavailable("connectors.file_missing", file="stays.csv")

        other = msgspec.structs.replace
        await fails("datasets.unknown_population", layout=other(LAYOUT, population="nobody"))
        await fails("gateway.other_terms", layout=other(LAYOUT, unit="person", person="id"))
        await fails("datasets.not_owner", who=world.insurer)
        await fails("datasets.dataset_exists", name="stays-hospital-2")
        await fails("privacy.dataset_exists", name="stays-hospital-1")
        await fails("connectors.file_missing", get=gone)
        for name in ("", "Stays", "../x", "a b"):
            await fails("wire.bad_name", name=name)

    play(story)


async def loaded_with_a_cut(world: Any, folder: Path, at: int) -> Cut:
    """One table whose flow is cut at its point `at`. Everything is checked."""
    hospital, name = world["hospital-1"], f"stays-{at}"
    source = source_in(folder, "ward-a", "stays-2026")
    written = len(hospital.account.receipts)
    cut = Cut(hospital, at)
    try:
        quality = await cut.run(lambda steps: load_table(hospital, name, source.layout, source.read, steps))
    finally:
        cut.heal()
    where = cut.cuts.passed[at - 1] if at <= len(cut.cuts.passed) else "no cut"
    assert quality.rows == 4, where
    assert hospital.vault.info(name).version == 1, where
    assert len(hospital.account.receipts) == written + 1, where
    assert datasets.current_dataset(hospital.account.state.view(), name).owner == "hospital-1", where
    return cut


def test_a_table_is_loaded_once_wherever_its_flow_is_cut(play: Play, folder: Path) -> None:
    async def story(world: Any) -> None:
        points = len((await loaded_with_a_cut(world, folder, NOWHERE)).cuts.passed)
        assert points >= 9
        for at in range(1, points + 1):
            await loaded_with_a_cut(world, folder, at)

    play(story)


def test_a_file_that_changed_between_two_lives_is_refused(play: Play, folder: Path) -> None:
    """What the vault has may not be what the file says now."""

    async def story(world: Any) -> None:
        hospital = world["hospital-1"]
        source = source_in(folder, "ward-a", "stays-2026")
        points = (await loaded_with_a_cut(world, folder, NOWHERE)).cuts.passed
        cut = Cut(hospital, points.index("after ingest") + 1)

        async def living(steps: Any) -> Any:
            try:
                return await load_table(hospital, "stays-new", source.layout, source.read, steps)
            finally:
                source.path.write_text(CSV.replace("10", "11"))

        with pytest.raises(Refused) as refused:
            await cut.run(living)
        cut.heal()
        assert refused.value.code == "privacy.dataset_exists"

    play(story)
