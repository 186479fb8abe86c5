"""The output folder of a run: one at a time, nothing half-written, nothing of others touched."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from medveil.demo.stage import stage
from wire.errors import Refused, Unavailable


def build(folder: Path, text: str) -> None:
    (folder / "evidence").mkdir()
    (folder / "evidence" / "a").write_text(text)
    (folder / "sites").mkdir()
    (folder / "report.html").write_text(text)
    (folder / "consortium.json").write_text(text)


def test_a_run_replaces_what_an_earlier_one_left(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for text in ("one", "two"):
        with stage(out) as folder:
            build(folder, text)
    assert (out / "report.html").read_text() == "two"
    assert (out / "evidence" / "a").read_text() == "two"
    assert not (out / ".partial").exists()


def test_a_failed_run_leaves_the_earlier_one_untouched(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with stage(out) as folder:
        build(folder, "one")
    with pytest.raises(RuntimeError), stage(out) as folder:
        build(folder, "two")
        raise RuntimeError
    assert (out / "report.html").read_text() == "one"
    assert not (out / ".partial").exists()


def test_a_killed_run_does_not_block_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    program = (
        "import os, sys; from pathlib import Path; from medveil.demo.stage import stage\n"
        "with stage(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'report.html').write_text('half')\n"
        "    os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(out)], check=False).returncode == 9
    assert (out / ".partial").exists()
    assert not (out / "report.html").exists()
    with stage(out) as folder:
        build(folder, "whole")
    assert (out / "report.html").read_text() == "whole"


def test_a_run_killed_while_moving_is_finished_by_the_next(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with stage(out) as folder:
        build(folder, "one")
    partial = out / ".partial"
    partial.mkdir()
    build(partial, "two")
    (partial / "evidence").rename(tmp_path / "moved")  # as if evidence had been moved into place already
    (partial / ".complete").touch()
    with pytest.raises(RuntimeError), stage(out):
        raise RuntimeError
    assert (out / "report.html").read_text() == "two"
    assert (out / "evidence" / "a").read_text() == "one"


def test_two_runs_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with stage(out) as folder:
        build(folder, "one")
        with pytest.raises(Unavailable) as refused, stage(out):
            pass
        assert refused.value.code == "demo.busy"
    assert (out / "report.html").read_text() == "one"


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(Refused) as refused, stage(tmp_path):
        pass
    assert refused.value.code == "demo.not_ours"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(Refused) as refused, stage(tmp_path / "out"):
        pass
    assert refused.value.code == "demo.not_a_folder"


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as refused, stage(Path("/proc/medveil-demo")):
        pass
    assert refused.value.code == "demo.cannot_write"


def test_a_full_disk_in_the_middle(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with stage(out) as folder:
        build(folder, "one")
    with pytest.raises(Unavailable) as refused, stage(out) as folder:
        (folder / "report.html").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert refused.value.code == "demo.disk_full"
    assert (out / "report.html").read_text() == "one"
    assert not (out / ".partial").exists()
