"""Which tables stand where: the default data, the heart folder, a folder of one's own, and their faults."""

from __future__ import annotations

import builtins
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from connectors.sources import HEART_SITES, MOST_SITES, RANDHIE_SITES, find_sites, iterate_sources, load_sources
from wire.errors import DecodeError, MedveilError, Unavailable

ROWS = "visit_no,age,cost,sex\nv1,1,1,1\nv2,2,2,0\n"


@pytest.fixture
def folder(tmp_path: Path, small_toml: str) -> Path:
    """A folder of one's own with three sites."""
    (tmp_path / "dataset.toml").write_text(small_toml, encoding="utf-8")
    for site in ("north", "south", "west-2"):
        (tmp_path / f"{site}.csv").write_text(ROWS, encoding="utf-8")
    return tmp_path


def code(path: Path | None) -> str:
    with pytest.raises(MedveilError) as caught:
        load_sources(path)
    assert isinstance(caught.value, (Unavailable, DecodeError))
    for language in ("en", "zh"):
        assert "{" not in caught.value.text(language)
    return caught.value.code.removeprefix("connectors.")


def test_randhie_is_dealt_in_contiguous_quarters() -> None:
    from statsmodels.datasets import randhie

    frame = randhie.load_pandas().data
    sources = load_sources()
    assert [site for site, _, _ in sources] == list(RANDHIE_SITES)
    assert [table.num_rows for _, _, table in sources] == [5047, 5048, 5047, 5048]
    whole = pa.concat_tables([table for _, _, table in sources])
    for name in frame.columns:
        assert np.array_equal(whole[name].to_numpy(), frame[name].to_numpy(dtype=np.float64)), name
    layout = sources[0][1]
    assert all(other == layout for _, other, _ in sources) and "four contiguous parts" in layout.split_rule.text("en")


def test_the_smallest_group_of_randhie_is_below_its_minimum_and_the_next_above() -> None:
    whole = pa.concat_tables([table for _, _, table in load_sources()])
    counts = sorted(whole.group_by(["health", "plan"]).aggregate([([], "count_all")])["count_all"].to_pylist())
    assert counts[:2] == [77, 225]


def test_the_heart_folder(shared_data: Path) -> None:
    sources = load_sources(shared_data / "heart")
    assert [(site, table.num_rows) for site, _, table in sources] == list(
        zip(HEART_SITES, (303, 294, 123, 200), strict=True)
    )
    assert sources[0][1].name == "heart"


def test_a_missing_heart_file_is_named(shared_data: Path, tmp_path: Path) -> None:
    shutil.copy(shared_data / "heart" / "va.csv", tmp_path / "va.csv")
    with pytest.raises(Unavailable, match=r"cleveland\.csv"):
        load_sources(tmp_path)


def test_a_folder_of_ones_own(folder: Path) -> None:
    (folder / "README.md").write_text("notes", encoding="utf-8")
    (folder / "._north.csv").write_bytes(b"\x00")  # what macOS leaves behind
    sources = list(iterate_sources(folder))
    assert [site for site, _, _ in sources] == ["north", "south", "west-2"]
    assert all(layout.name == "small" and table.num_rows == 2 for _, layout, table in sources)


def test_its_own_dataset_toml_wins_over_the_built_in_layout(folder: Path) -> None:
    shutil.copy(folder / "north.csv", folder / "va.csv")
    assert find_sites(folder)[0].name == "small"


def test_a_fault_in_one_file_stops_all(folder: Path) -> None:
    (folder / "west-2.csv").write_text(ROWS + "v3,young,1,1\n", encoding="utf-8")
    assert code(folder) == "not_a_number"


def test_folders_that_cannot_be_used(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    assert code(empty) == "no_layout"
    assert code(empty / "nothing") == "folder_missing"
    assert code(folder / "north.csv") == "not_a_folder"
    assert code(folder / "north.csv" / "deeper") == "unreadable"
    (folder / "north.csv").unlink()
    assert code(folder) == "wrong_number_of_sites"
    (folder / "north.csv").mkdir()
    assert code(folder) == "not_a_file"


@pytest.mark.parametrize("name", ["North.csv", "a b.csv", "站点.csv", "..csv.csv", "-a.csv"])
def test_a_file_name_that_names_no_site(folder: Path, name: str) -> None:
    (folder / name).write_text(ROWS, encoding="utf-8")
    if not name.startswith("."):
        assert code(folder) == "bad_site_name"
    else:
        assert len(load_sources(folder)) == 3


def test_too_many_sites(folder: Path) -> None:
    for index in range(MOST_SITES):
        (folder / f"site-{index}.csv").write_text(ROWS, encoding="utf-8")
    assert code(folder) == "wrong_number_of_sites"


def test_a_folder_that_may_not_be_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The tests may run as root, who may read everything: the refusal itself is played.
    def refuse(*_: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert code(folder) == "unreadable"


def test_without_statsmodels_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("statsmodels"):
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(Unavailable) as caught:
        load_sources()
    assert "pip install 'medveil[demo]'" in caught.value.fix
