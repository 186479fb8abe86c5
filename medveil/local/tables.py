"""Each hospital's table as a file in its own data folder, as a hospital would put it there."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from connectors.dataset import layout_bytes
from connectors.layout import Layout
from connectors.sources import default_files, find_sites, load_sources
from wire.errors import Unavailable

DECLARATION = "dataset.toml"


class PlacedTable(NamedTuple):
    """A hospital's table in its data folder. source: folder; table: file, without its ending."""

    source: str
    table: str


def place_tables(data: Path | None, folders: list[Path]) -> tuple[Layout, list[PlacedTable]]:
    """Write a table for each of `folders`, the data folders of the hospitals in order.

    data: a folder as `connectors.sources` reads it; None for the default data. Every table is read first, so that a
    fault is said before anything runs. Raises Unavailable, DecodeError.
    """
    layout = load_sources(data)[0][1]
    if data is None:
        declaration, files = layout_bytes(layout.name), default_files()
    else:
        _, found = find_sites(data)
        own = data / DECLARATION
        declaration = own.read_bytes() if own.exists() else layout_bytes(layout.name)
        files = [(site, path.read_bytes()) for site, path in found]
    placed = []
    try:
        for folder, (site, content) in zip(folders, files, strict=True):
            source = folder / layout.name
            source.mkdir(mode=0o700, parents=True)
            (source / DECLARATION).write_bytes(declaration)
            (source / f"{site}.csv").write_bytes(content)
            placed.append(PlacedTable(layout.name, site))
    except OSError:
        raise Unavailable("home.unwritable", folder=str(folders[0].parent)) from None
    return layout, placed


def count_sites(data: Path | None) -> int:
    """How many hospitals there are tables for."""
    return len(default_files()) if data is None else len(find_sites(data)[1])
