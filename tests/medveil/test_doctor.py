"""`medveil doctor` finds what is wrong, says what to do, and leaves nothing behind."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest

from medveil import doctor
from medveil.doctor import Finding, examine
from wire.errors import Unavailable


def _by_check(folder: Path) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(folder)}


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_fit_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run(language="en") == 0
    shown = capsys.readouterr().out
    assert "problem" not in shown
    for check in ("python", "cryptography", "name wire", "signatures", "file locks", "durable writes", "clock"):
        assert check in shown
    assert list(tmp_path.iterdir()) == []


def test_every_line_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    doctor.run(json=True, language="zh")
    rows = json.loads(capsys.readouterr().out)
    assert {row["state"] for row in rows} <= {"ok", "note"}
    for row in rows:
        assert (row["do"] is None) == (row["state"] == "ok")
    assert list(tmp_path.iterdir()) == []


def test_an_old_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "OLDEST_PYTHON", (9, 9))
    assert doctor.run(language="en") == 1
    assert "medveil needs 9.9 or newer" in capsys.readouterr().out
    assert _by_check(tmp_path)["python"].state == "problem"


def test_a_missing_and_an_unfit_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = metadata.version

    def version(name: str) -> str:
        if name == "opendp":
            raise metadata.PackageNotFoundError(name)
        return {"cryptography": "41.0.0", "phe": "1.4.0"}.get(name) or true(name)

    monkeypatch.setattr(metadata, "version", version)
    found = _by_check(tmp_path)
    assert found["opendp"].error and found["opendp"].error.code == "doctor.package_missing"
    assert found["cryptography"].error and found["cryptography"].error.code == "doctor.package_version"
    assert "41.0.0" in str(found["cryptography"].error)
    assert found["phe (medveil[scoring])"].state == "problem"


def test_a_missing_extra_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = metadata.version

    def version(name: str) -> str:
        if name == "matplotlib":
            raise metadata.PackageNotFoundError(name)
        return true(name)

    monkeypatch.setattr(metadata, "version", version)
    finding = _by_check(tmp_path)["matplotlib (medveil[plot])"]
    assert finding.state == "note"
    assert "pip install 'medveil[plot]'" in str(finding.error)


def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def distribution(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    assert _by_check(tmp_path)["medveil"].state == "problem"


def test_another_distribution_with_our_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"wire": ["medveil", "wire-format"]})
    finding = _by_check(tmp_path)["name wire"]
    assert finding.state == "problem"
    assert "wire-format" in str(finding.error)
    assert _by_check(tmp_path)["name ledger"].state == "ok"


def test_a_folder_that_stands_before_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "privacy.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "privacy", raising=False)
    finding = _by_check(tmp_path)["name privacy"]
    assert finding.state == "problem"
    assert str(tmp_path) in str(finding.error)


def test_a_wrong_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (0.0, 4e9, doctor.time.time() + 3600):
        with monkeypatch.context() as patch:
            patch.setattr(doctor, "time", SimpleNamespace(time=lambda wrong=wrong: wrong))
            assert _by_check(tmp_path)["clock"].state == "problem"


def test_locks_that_do_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Open:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(filelock, "FileLock", Open)
    error = _by_check(tmp_path)["file locks"].error
    assert error and error.code == "doctor.locks"


def test_a_folder_that_takes_no_files(tmp_path: Path) -> None:
    found = {
        finding.check: finding for finding in examine(tmp_path / "missing" / "folder") if "name" not in finding.check
    }
    for check in ("file locks", "durable writes", "clock", "free space"):
        finding = found[check]
        assert isinstance(finding.error, Unavailable), check
        assert finding.error.code == "doctor.folder"


def test_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SPACE", 10**12)
    error = _by_check(tmp_path)["free space"].error
    assert error and error.code == "doctor.space"


def test_a_lax_verifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wire import signing

    monkeypatch.setattr(signing, "verify_raw", lambda *_: None)
    error = _by_check(tmp_path)["signatures"].error
    assert error and error.code == "doctor.verifier"
