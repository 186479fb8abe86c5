"""Loading a table: read, clean, encrypt, declare.

    source -> vault     the rows, each encrypted; beside them the layout and the figures of quality, which stay at home
    vault  -> ledger    RegisterDataset: columns and bounds, a row class, one salted commitment

May be cut short and taken up again: a vault that has the table already, and a ledger that has it, are left as they
are; another table under the same name is refused.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import pyarrow as pa

from connectors.dataset import shown
from connectors.files import read_csv
from connectors.layout import Layout, row_class, schema_hash
from connectors.quality import Prepared, QualityReport, prepare
from connectors.sources import find_tables
from ledger.contracts import Column, RegisterDataset, datasets
from medveil.gateway import use_state
from medveil.gateway.ledger_account import FinalState
from medveil.gateway.long_work import at_length
from medveil.gateway.organisation import Organisation
from medveil.gateway.steps import Steps
from medveil.gateway.tables import keep_layout
from privacy.grants.levels import suite_of
from privacy.retention import ZONE, retain_each, retain_until
from wire.canonical import Wire, decode, encode
from wire.commitment import Place, commit, salt
from wire.dates import day_at
from wire.errors import MedveilError, Refused, Unavailable
from wire.identifiers import check_name

_QUALITY = "quality"
_LOADED = "loaded"
_DECLARATION = "dataset.toml"

Count = Annotated[int, msgspec.Meta(ge=0)]


class ColumnCounts(Wire, frozen=True, tag="medveil.column_counts"):
    """Exact counts of one column as it was read. Private."""

    column: str
    missing: Count
    out_of_range: Count


class TableQuality(Wire, frozen=True, tag="medveil.table_quality"):
    """How clean a table was when it was read: exact counts, private to its owner. See `connectors.quality`.

    source, table: where it came from. duplicates: None where the layout has no record id.
    """

    dataset: str
    source: str
    table: str
    rows: Count
    columns: tuple[ColumnCounts, ...]
    duplicates: Count | None
    dirty_cells: Count

    @property
    def dirty_rate(self) -> float:
        """Dirty cells over all cells, 0.0 to 1.0; 0.0 for an empty table."""
        cells = self.rows * len(self.columns)
        return self.dirty_cells / cells if cells else 0.0


class TableSource(NamedTuple):
    """A table that can be loaded. source: the folder's name; table: the file's, without ending; folder: all data."""

    source: str
    table: str
    layout: Layout
    path: Path
    folder: Path

    def read(self) -> pa.Table:
        """The table as read: secret, not yet clamped. Raises DecodeError, Unavailable, Refused as `sources_in`."""
        _check_inside(self.folder, self.path)
        return read_csv(self.path, self.layout, f"{self.source}/{self.path.name}")


class BadSource(NamedTuple):
    """A folder with a declaration of which nothing can be loaded, and why."""

    source: str
    why: MedveilError


class Sources(NamedTuple):
    """What a data folder holds."""

    tables: tuple[TableSource, ...]
    bad: tuple[BadSource, ...]


def sources_in(folder: Path) -> Sources:
    """The tables below a data folder: of each folder in it that holds a declaration, and of itself. No row is read.

    A folder whose declaration is wrong, of which something cannot be read, or in which a file is a link to outside the
    data folder, is `bad`, and the others are there all the same. Raises Unavailable for a data folder that cannot be
    read.
    """
    tables: list[TableSource] = []
    bad = []
    for place in _declared_folders(folder):
        try:
            _check_inside(folder, place / _DECLARATION)
            layout, files = find_tables(place)
            for _, path in files:
                _check_inside(folder, path)
        except MedveilError as error:
            bad.append(BadSource(place.name, error))
        else:
            tables += [TableSource(place.name, name, layout, path, folder) for name, path in files]
    return Sources(tuple(tables), tuple(bad))


def source_in(folder: Path, source: str, table: str) -> TableSource:
    """One of `sources_in`. Raises Refused where there is none of those names, and why its folder is `bad`."""
    found = sources_in(folder)
    for one in found.tables:
        if (one.source, one.table) == (source, table):
            return one
    for other in found.bad:
        if other.source == source:
            raise other.why
    raise Refused("gateway.no_source", source=source[:64], table=table[:64])


def _declared_folders(folder: Path) -> list[Path]:
    try:
        if not folder.is_dir():
            return []
        below = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise Unavailable("connectors.unreadable", file=folder.name, reason=error.strerror or "") from None
    return [place for place in (folder, *below) if _may_declare(place)]


def _may_declare(folder: Path) -> bool:
    try:
        return (folder / _DECLARATION).exists()
    except OSError:  # it is not readable: reading it will say so
        return True


def _check_inside(folder: Path, path: Path) -> None:
    """Raises Refused for a file that is, through links, outside the data folder: who may write into the folder must
    not make the gateway read elsewhere."""
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links that lead to themselves
        inside = False
    if not inside:
        raise Refused("gateway.outside_data", file=shown(Path(path.parent.name) / path.name))


async def load_table(
    organisation: Organisation,
    dataset: str,
    layout: Layout,
    read: Callable[[], pa.Table],
    steps: Steps,
    source: str = "",
    table: str = "",
) -> TableQuality:
    """Load a table into the vault and declare it on the ledger; returns its figures of quality (private).

    read: the table as read (secret), called in a thread. source, table: where it comes from. Raises Refused: not an
    owner of the layout's population, other terms than the population's, a name that is taken; what `read` raises.
    """
    check_name(dataset, "dataset")
    _check_population(organisation, await organisation.account.caught_up(), dataset, layout)

    async def ingesting() -> TableQuality:
        return await at_length(_ingest, organisation, dataset, layout, read, source, table)

    quality = await steps.once(_LOADED, TableQuality, ingesting)
    declaration = await at_length(_declaration, organisation, dataset, layout)
    await organisation.ensure(lambda state: _declared(state, organisation.name, declaration), declaration)
    return quality


def quality_of(organisation: Organisation, dataset: str) -> TableQuality:
    """A loaded table's figures of quality (private). Raises Refused where there are none."""
    return decode(TableQuality, organisation.vault.document(_QUALITY, dataset))


def _check_population(organisation: Organisation, state: FinalState, dataset: str, layout: Layout) -> None:
    population = datasets.population(state.view(), layout.population)
    if organisation.name not in population.owners:
        raise Refused("datasets.not_owner", organisation=organisation.name, population=layout.population)
    if (layout.unit, layout.rows_per_person) != (population.unit, population.rows_per_person):
        raise Refused("gateway.other_terms", dataset=dataset, population=layout.population)
    taken = state.get(datasets.dataset_key(dataset), datasets.DatasetState)
    if taken is not None and (taken.owner, taken.population) != (organisation.name, layout.population):
        raise Refused("datasets.dataset_exists", dataset=dataset)


def _ingest(
    organisation: Organisation,
    dataset: str,
    layout: Layout,
    read: Callable[[], pa.Table],
    source: str,
    table: str,
) -> TableQuality:
    prepared = prepare(read(), layout)
    vault, schema = organisation.vault, schema_hash(layout)
    known = next((info for info in vault.datasets() if info.name == dataset), None)
    if known is None:
        vault.ingest(
            dataset,
            prepared.table,
            prepared.record_ids,
            persons=prepared.table[layout.person].to_pylist() if layout.person else None,
            retain_until=_retain_until(prepared, layout),
            schema_hash=schema,
            suites=_suites(organisation, dataset, prepared.table.column_names),
        )
    elif known.schema_hash != schema or not vault.read(dataset).equals(prepared.table):
        raise Refused("privacy.dataset_exists", dataset=dataset)
    keep_layout(vault, dataset, layout)
    quality = _quality(dataset, source, table, prepared.report)
    vault.put_document(_QUALITY, dataset, encode(quality))
    return quality


def _suites(organisation: Organisation, dataset: str, columns: Sequence[str]) -> dict[str, int]:
    """The suite that seals each column, by how the data officer classified the dataset; nothing chosen where nobody
    did. Raises Refused for a classified column that the table does not have: another would stay unclassified."""
    facts = use_state.classified(organisation, dataset)
    named = (*(column.name for column in facts.columns), *([facts.age_column] if facts.age_column else []))
    for name in named:
        if name not in columns:
            raise Refused("gateway.no_column", dataset=dataset, column=name, columns=", ".join(columns))
    return {name: suite_of(facts.column(name)) for name in columns} if facts.columns else {}


def _retain_until(prepared: Prepared, layout: Layout) -> Sequence[int | None] | int | None:
    """Until when each row must be kept, or all alike; counted from today where a row has no day of its own."""
    if not layout.record_type:
        return None
    loaded = day_at(time.time_ns() // 1_000_000, ZONE)
    if prepared.days is None:
        return retain_until(layout.record_type, None, loaded)
    return retain_each(layout.record_type, prepared.days, loaded)


def _quality(dataset: str, source: str, table: str, report: QualityReport) -> TableQuality:
    columns = tuple(ColumnCounts(one.column, one.missing, one.out_of_range) for one in report.columns)
    return TableQuality(dataset, source, table, report.rows, columns, report.duplicates, report.dirty_cells)


def _declaration(organisation: Organisation, dataset: str, layout: Layout) -> RegisterDataset:
    """A table as the ledger has it: declarations, and one salted commitment to what the vault holds."""
    table = organisation.vault.read(dataset)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    content = hashlib.sha256(sink.getvalue()).digest()
    place = Place("datasets", "register", "everyone", dataset, "table", 1)
    return RegisterDataset(
        dataset=dataset,
        population=layout.population,
        schema_hash=schema_hash(layout),
        columns=tuple(
            Column(column.name, column.kind, column.low, column.high, column.scale, column.values)
            for column in layout.columns
        ),
        row_class=row_class(table.num_rows),
        commitment=commit(salt(organisation.salt_key, place), content),
    )


def _declared(state: FinalState, owner: str, said: RegisterDataset) -> bool:
    found = state.get(datasets.dataset_key(said.dataset), datasets.DatasetState)
    if found is None:
        return False
    same = (owner, said.population, said.schema_hash, said.commitment)
    if (found.owner, found.population, found.schema_hash, found.commitment) != same:
        raise Refused("datasets.dataset_exists", dataset=said.dataset)
    return True
