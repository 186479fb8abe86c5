"""The main job on the default data, as a user runs it: screen, files, verification, report."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from medveil import verify
from wire.errors import MedveilError

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_every_step_says_what_it_did(default_run: tuple[Path, str]) -> None:
    out, screen = default_run
    steps = re.findall(r"^(\d+)\. (.+)$", screen, flags=re.MULTILINE)
    titles = ["Join", "Load", "Grant", "Query", "Limit", "Eligibility", "Settle", "Score", "At home", "Audit", "Report"]
    assert steps == [(str(number), title) for number, title in enumerate(titles, start=1)]
    for said in (
        "20,190 person-years",
        "not judged",
        "Denied by rule fields",
        "study-hospital-1",
        "按规则 fields 拒绝",
        "Before it asks, researcher-1 has the question explained",
        "First 8 numbers: rows with a known mdvis, by which groups pass.",
        "which has 1 available: 0.75 would be left.",
        "below the minimum of 120",
        "rho: 1 before, 0.75 after",
        "at most 5000.00 CNY",
        "over the limit of 3000.00 CNY",
        "diagnosis on the public list covered-inpatient",
        "person.birth is outside what the conditions allow",
        "Both equal plain arithmetic; 1366.31 CNY of 12480.50 CNY stay with her",
        "stands paid, by insurer-1",
        "The first proof, with one fen more in its commitment: The proof does not hold",
        "the same as the plain computation",
        "places of a number system: one exact score would spell the whole record",
        "Denied by rule level: grant copy-hospital-1 does not reach up to the level of these fields: diagnosis",
        "按规则 level 拒绝",
        "has 244 rows instead of 246",
        "identity: age band, sex, county",
        "cardiology, 80-89, female, 浙江省杭州市淳安县: 3 persons, 6 rows",
        "opens 238 rows in memory",
        "Denied by rule revocation: grant copy-hospital-1 was revoked",
        "ok  no key to those rows and not the patient's number in",
        "One byte of a copy of evidence/ledger.evidence changed",
    ):
        assert said in screen
    assert re.search(r"[\d.]+ s in all", screen)
    assert screen.rstrip().splitlines()[-1] == "medveil-demo/report.html"
    assert (out / "report.html").stat().st_size > 50_000


def test_what_a_run_leaves(default_run: tuple[Path, str]) -> None:
    out, _ = default_run
    assert {path.name for path in out.iterdir()} == {
        ".lock",
        ".medveil-demo",
        "consortium.json",
        "evidence",
        "proofs",
        "receipts",
        "report.html",
        "sites",
    }
    organisations = {"bureau", "insurer-1", "regulator", "researcher-1", *(f"hospital-{i}" for i in range(1, 5))}
    assert {path.name for path in (out / "sites").iterdir()} == organisations
    (wallet,) = [path for path in (out / "sites/hospital-1/wallets").iterdir() if path.is_dir()]
    assert "person-1" not in wallet.name  # it has a random name
    for path in (out / "sites").iterdir():
        assert path.stat().st_mode & 0o077 == 0


def test_the_regulator_verifies(default_run: tuple[Path, str], medveil: Run) -> None:
    out, _ = default_run
    done = medveil("verify", out / "evidence", "--trust", out / "consortium.json")
    assert done.returncode == 0, done.stderr
    assert "verified: chain medveil-demo" in done.stdout
    for said in ("denied (fields)", "released", "ELIGVER", "FRAUD", "score-hospital-2", "HMB"):
        assert said in done.stdout


def test_the_commands_at_the_end_work_as_printed(default_run: tuple[Path, str], medveil: Run) -> None:
    out, screen = default_run
    commands = [line.split()[1:] for line in screen.splitlines() if line.startswith("   medveil ")]
    assert len(commands) == 5
    done = [medveil(*command, cwd=out.parent) for command in commands]
    assert [one.returncode for one in done] == [0, 0, 0, 0, 0], [one.stderr for one in done]
    assert all("verified" in one.stdout and "not pinned" not in one.stdout for one in done)
    assert re.search(r"^payer: +insurer-1$", done[3].stdout, flags=re.MULTILINE)


def test_without_a_trust_file_nothing_is_verified(default_run: tuple[Path, str], medveil: Run) -> None:
    out, _ = default_run
    done = medveil("verify", out / "evidence")
    assert done.returncode == 3
    assert "consistent, not pinned" in done.stdout
    assert "verified:" not in done.stdout


def test_the_trust_file_of_another_consortium(
    default_run: tuple[Path, str], heart_run: tuple[Path, str], medveil: Run
) -> None:
    out, _ = default_run
    other, said = heart_run
    assert "390" not in said.splitlines()[0]
    assert "hospital-3 (switzerland)" in said
    done = medveil("verify", out / "evidence", "--trust", other / "consortium.json")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_json_for_programs(default_run: tuple[Path, str], medveil: Run) -> None:
    out, _ = default_run
    done = medveil("verify", out / "evidence", "--trust", out / "consortium.json", "--json")
    report = json.loads(done.stdout)
    assert report["verdict"] == "verified"
    assert report["pinned"] is True
    assert len(report["flows"]) == 15
    denied = [flow for flow in report["flows"] if flow["outcome"] == "denied (fields)"]
    assert {flow["owner"] for flow in denied} == {f"hospital-{i}" for i in range(1, 5)}
    assert {flow["outcome"] for flow in report["flows"]} == {
        "denied (fields)",
        "denied (revocation)",
        "released",
        "aborted",
        "done",
    }
    at_home = [flow for flow in report["flows"] if flow["dataset"] == "synthetic-visits-hospital-1"]
    assert [(flow["owner"], flow["kind"], flow["outcome"]) for flow in at_home] == [
        ("hospital-1", "extract", "released"),
        ("researcher-1", "opening", "done"),
        ("hospital-1", "extract", "denied (revocation)"),
        ("hospital-1", "erasure", "done"),
    ]


def test_the_independent_curve_library_agrees(default_run: tuple[Path, str]) -> None:
    out, _ = default_run
    report = verify(out / "evidence", trust=out / "consortium.json", backend="reference")
    assert report.backend == "reference"
    assert report.pinned


def test_single_files(default_run: tuple[Path, str], medveil: Run) -> None:
    out, _ = default_run
    trust = out / "consortium.json"
    receipt = next((out / "evidence/receipts").iterdir())
    assert medveil("verify", receipt, "--trust", trust).returncode == 0
    assert medveil("verify", receipt).returncode == 1
    assert medveil("verify", out / "evidence/ledger.evidence", "--trust", trust).returncode == 0
    assert medveil("verify", out / "evidence/ledger.evidence").returncode == 3
    alone = medveil("verify", out / "evidence/releases/query-1.evidence", "--trust", trust)
    assert alone.returncode == 1
    assert "cannot be checked alone" in alone.stderr
    shown = medveil("show", out / "evidence/releases/query-1.evidence")
    assert json.loads(shown.stdout)["unit"] == "row"


def test_the_answer_is_the_plain_one_up_to_the_noise(default_run: tuple[Path, str]) -> None:
    """Against statsmodels' own table: counts within 8 standard deviations of their noise, one group hidden."""
    from statsmodels.datasets import randhie

    from mpc.release import Release
    from wire import evidence

    out, _ = default_run
    release = evidence.read((out / "evidence/releases/query-1.evidence").read_bytes())
    assert isinstance(release, Release)
    frame = randhie.load_pandas().data
    health = [
        "poor" if p == 1 else "fair" if f == 1 else "good" if g == 1 else "excellent"
        for g, f, p in zip(frame.hlthg, frame.hlthf, frame.hlthp, strict=True)
    ]
    plan = ["deductible" if one == 1 else "no-deductible" for one in frame.idp]
    visits = frame.mdvis.clip(0, 30)
    (result,) = release.results
    assert [group.values for group in result.hidden] == [("poor", "deductible")]
    assert len(result.groups) == 7
    noise = {one.kind: float(one.pooled) for one in release.noise}
    for group in result.groups:
        rows = [one == group.values for one in zip(health, plan, strict=True)]
        count = sum(rows)
        assert abs(float(group.count.value or "nan") - count) < 8 * noise["counts"]
        mean = visits[rows].mean()
        spread = (8 * noise["sums"] + 15 * 8 * noise["counts"]) / count
        assert abs(float(group.mean.value or "nan") - mean) < spread


def test_any_changed_byte_is_found_and_named(default_run: tuple[Path, str], tmp_path: Path) -> None:
    """One byte in each of the files, and more in the larger ones: the file is named every time."""
    out, _ = default_run
    copy = tmp_path / "evidence"
    shutil.copytree(out / "evidence", copy)
    tried = 0
    for path in sorted(path for path in copy.rglob("*") if path.is_file()):
        data = path.read_bytes()
        for place in range(0, len(data), max(1, len(data) // 7)):
            changed = bytearray(data)
            changed[place] ^= 1 << (place % 8)
            path.write_bytes(changed)
            with pytest.raises(MedveilError) as found:
                verify(copy, trust=out / "consortium.json")
            if path.name != "manifest.json":
                assert path.name in found.value.message, found.value.message
            tried += 1
        path.write_bytes(data)
    assert tried > 300
    assert verify(copy, trust=out / "consortium.json").pinned


@pytest.mark.long
def test_ten_thousand_changed_bytes(default_run: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = default_run
    copy = tmp_path / "evidence"
    shutil.copytree(out / "evidence", copy)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    whole = sum(path.stat().st_size for path in files)
    tried = 0
    for path in files:
        data = path.read_bytes()
        for place in range(0, len(data), max(1, whole // 10_000)):
            changed = bytearray(data)
            changed[place] ^= 1 << (place % 8)
            path.write_bytes(changed)
            with pytest.raises(MedveilError):
                verify(copy, trust=out / "consortium.json")
            tried += 1
        path.write_bytes(data)
    assert tried >= 9_900


def test_added_removed_and_renamed_files(default_run: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = default_run
    trust = out / "consortium.json"
    copy = tmp_path / "evidence"
    shutil.copytree(out / "evidence", copy)
    (copy / "extra.evidence").write_bytes(b"extra")
    with pytest.raises(MedveilError, match=r"extra\.evidence"):
        verify(copy, trust=trust)
    (copy / "extra.evidence").unlink()
    release = copy / "releases/query-1.evidence"
    release.rename(copy / "releases/query-2.evidence")
    with pytest.raises(MedveilError, match=r"query-[12]\.evidence"):
        verify(copy, trust=trust)
    (copy / "releases/query-2.evidence").unlink()
    with pytest.raises(MedveilError, match=r"query-1\.evidence"):
        verify(copy, trust=trust)


def test_the_report_stands_alone(default_run: tuple[Path, str]) -> None:
    out, _ = default_run
    page = (out / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!#)", page.replace('xlink:href="#', "#"))
    assert not re.search(
        r"https?://(?!www\.w3\.org/|purl\.org/dc/|creativecommons\.org/ns)", page
    )  # names of XML, never fetched
    assert page.count("<svg") == 3
    assert "poor, deductible" in page
    assert "<td>insurer-1</td>" in page and "2145.26 CNY" in page and "supplementary-inpatient" in page
    assert "Denied by rule fields" in page
    assert "淳安县" in page and "Denied by rule revocation" in page


@pytest.mark.chromium
def test_a_browser_shows_the_report(default_run: tuple[Path, str], tmp_path: Path) -> None:
    out, _ = default_run
    browser = next(found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name)))
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1200,7200",
    ]
    page = (out / "report.html").resolve().as_uri()
    home = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    dumped = subprocess.run(
        [browser, *flags, "--dump-dom", page], capture_output=True, text=True, timeout=120, check=True, env=home
    ).stdout
    assert "Usable, never visible" in dumped
    assert dumped.count("<section>") == 11
    picture = tmp_path / "report.png"
    shot = [browser, *flags, f"--screenshot={picture}", page]
    subprocess.run(shot, capture_output=True, timeout=120, check=True, env=home)
    assert picture.stat().st_size > 100_000
