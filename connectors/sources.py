"""Which tables stand at which site: the default data, the heart data, or a folder of one's own.

A folder of one's own holds `dataset.toml` and one `<site>.csv` a site, three sites or more. A folder
without `dataset.toml` that holds files of the four heart hospitals is read by the built-in layout.
Without a folder, the RAND Health Insurance Experiment is dealt to four sites by a stated rule.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from connectors.dataset import load_layout, read_layout, shown
from connectors.files import read_csv, read_lines
from connectors.layout import Layout
from wire.errors import DecodeError, Unavailable
from wire.identifiers import check_name

HEART_SITES = ("cleveland", "hungarian", "switzerland", "va")
RANDHIE_SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")
LEAST_SITES = 3
MOST_SITES = 64

_DEMO_FILE = "statsmodels.datasets.randhie"

Source = tuple[str, Layout, pa.Table]
"""A site's name, the layout (one for all sites) and its table as read: secret, not yet clamped."""


def load_sources(data_dir: Path | None = None) -> list[Source]:
    """Every site's table, in a fixed order. All or nothing: any fault raises.

    data_dir: a folder as the module's docstring says; None for the default data.
    Raises Unavailable or DecodeError, naming the folder or file.
    """
    return list(iterate_sources(data_dir))


def iterate_sources(data_dir: Path | None = None) -> Iterator[Source]:
    """`load_sources` one by one, for a progress bar. The layout and the list of files are checked first."""
    if data_dir is None:
        yield from _randhie()
        return
    layout, files = find_sites(data_dir)
    for site, path in files:
        yield site, layout, read_csv(path, layout)


def find_sites(data_dir: Path) -> tuple[Layout, list[tuple[str, Path]]]:
    """The layout of a folder and its sites' files, before any row is read."""
    folder = shown(data_dir)
    try:
        mode = data_dir.stat().st_mode
        names = sorted(entry.name for entry in data_dir.iterdir()) if stat.S_ISDIR(mode) else []
    except FileNotFoundError:
        raise Unavailable("connectors.folder_missing", folder=folder) from None
    except OSError as error:
        raise Unavailable("connectors.unreadable", file=folder, reason=error.strerror or "") from None
    if not stat.S_ISDIR(mode):
        raise DecodeError("connectors.not_a_folder", folder=folder)
    if "dataset.toml" in names:
        layout = read_layout(data_dir / "dataset.toml")
        files = [name for name in names if _is_table(name)]
        if not LEAST_SITES <= len(files) <= MOST_SITES:
            raise DecodeError(
                "connectors.wrong_number_of_sites", folder=folder, found=len(files), least=LEAST_SITES, most=MOST_SITES
            )
        return layout, [(_site(data_dir / name), data_dir / name) for name in files]
    if not any(f"{site}.csv" in names for site in HEART_SITES):
        raise DecodeError("connectors.no_layout", folder=folder)
    paths = [(site, data_dir / f"{site}.csv") for site in HEART_SITES]
    for _, path in paths:
        if path.name not in names:
            raise Unavailable("connectors.file_missing", file=shown(path))
    return load_layout("heart"), paths


def find_tables(folder: Path) -> tuple[Layout, list[tuple[str, Path]]]:
    """One organisation's own folder: the layout that its `dataset.toml` declares, and its tables, by file name.

    No row is read. Raises DecodeError or Unavailable, naming the folder or file, which is named without what lies
    above the folder: it may be a caller elsewhere who reads it.
    """
    label = shown(Path(folder.name))
    layout = read_layout(folder / "dataset.toml", f"{label}/dataset.toml")
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise Unavailable("connectors.unreadable", file=label, reason=error.strerror or "") from None
    return layout, [(_site(Path(label) / name), folder / name) for name in names if _is_table(name)]


def _is_table(name: str) -> bool:
    return name.endswith(".csv") and not name.startswith(".")


def _site(path: Path) -> str:
    try:
        return check_name(path.name.removesuffix(".csv"), "site")
    except DecodeError:
        raise DecodeError("connectors.bad_site_name", file=shown(path)) from None


def _randhie() -> Iterator[Source]:
    """The default data: contiguous quarters of the file, to within one row."""
    layout = load_layout("randhie")
    table = read_lines(iter(_randhie_lines()), _DEMO_FILE, layout)
    for site, begin, end in _shares(table.num_rows):
        yield site, layout, table.slice(begin, end - begin)


def default_files() -> list[tuple[str, bytes]]:
    """The default data as each site's CSV file, in order. Raises Unavailable where the data is not installed."""
    header, *rows = _randhie_lines()
    return [(site, b"".join((header, *rows[begin:end]))) for site, begin, end in _shares(len(rows))]


def _shares(rows: int) -> Iterator[tuple[str, int, int]]:
    parts = len(RANDHIE_SITES)
    for index, site in enumerate(RANDHIE_SITES):
        yield site, index * rows // parts, (index + 1) * rows // parts


def _randhie_lines() -> list[bytes]:
    # By way of CSV text, so that the default data pass the same checks as a hospital's file.
    text: bytes = _randhie_frame().to_csv(index=False).encode("utf-8")
    return text.splitlines(keepends=True)


def _randhie_frame() -> Any:
    try:
        from statsmodels.datasets import randhie
    except ImportError:
        raise Unavailable("connectors.demo_data_missing") from None
    return randhie.load_pandas().data
