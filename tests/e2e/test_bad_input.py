"""What goes wrong on a user's machine: one clear sentence, a non-zero exit, nothing half-written."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

COMMAND = str(Path(sys.executable).with_name("medveil"))


def one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on standard error; the exit code is 1 and there is no traceback."""
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("medveil: ")
    assert "Traceback" not in done.stderr + done.stdout
    return lines[0]


@pytest.fixture
def heart(shared_data: Path, tmp_path: Path) -> Path:
    """A copy of the heart data, to be spoilt."""
    return Path(shutil.copytree(shared_data / "heart", tmp_path / "heart"))


def spoil(heart: Path, content: bytes) -> None:
    file = heart / "va.csv"
    file.chmod(0o644)
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "va.csv"),
        (b"1,2,3\n", "va.csv"),
        (b"\xff\xfe\x00broken\n", "va.csv"),
        (b"63,1,4,140,260,0,1,112,1,3,2,,,2\n63,1,4,140,Zhang San,0,1,112,1,3,2,,,2\n", "line 2"),
        (b'63,1,4,140,"260,0,1,112,1,3,2,,,2\n', "va.csv"),
    ],
    ids=["empty", "wrong columns", "not text", "text in a number", "open quote"],
)
def test_a_table_that_cannot_be_read(medveil: Run, heart: Path, tmp_path: Path, content: bytes, said: str) -> None:
    spoil(heart, content)
    sentence = one_sentence(medveil("demo", "--data", heart, "--out", tmp_path / "out"))
    assert said in sentence
    assert "Zhang" not in sentence
    assert not (tmp_path / "out").exists()


def test_a_missing_folder_and_a_missing_file(medveil: Run, heart: Path, tmp_path: Path) -> None:
    assert "nowhere" in one_sentence(medveil("demo", "--data", tmp_path / "nowhere", "--out", tmp_path / "out"))
    (heart / "va.csv").unlink()
    assert "va.csv" in one_sentence(medveil("demo", "--data", heart, "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_sentence_comes_in_chinese_too(medveil: Run, tmp_path: Path) -> None:
    done = medveil("demo", "--data", tmp_path / "nowhere", MEDVEIL_LANGUAGE="zh")
    assert "文件夹" in one_sentence(done)


def test_an_output_folder_with_other_things(medveil: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert "no demo run wrote" in one_sentence(medveil("demo", "--out", tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_place_that_cannot_be_written(medveil: Run) -> None:
    assert "cannot be written" in one_sentence(medveil("demo", "--out", "/proc/medveil-demo"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 700 kB where we may mount one; otherwise a limit on file sizes stands in for it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_960, limits[1]))
        yield folder
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        return
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(medveil: Run, small_disk: Path, heart: Path) -> None:
    sentence = one_sentence(medveil("demo", "--data", heart, "--out", small_disk / "out"))
    assert "space" in sentence
    assert {path.name for path in (small_disk / "out").iterdir()} <= {".lock", ".medveil-demo"}


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "MEDVEIL_LANGUAGE": "en"},
    )


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, "the run ended before it could be interrupted"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_runs_at_once_a_killed_run_and_an_interrupted_one(
    medveil: Run, heart: Path, heart_run: tuple[Path, str], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(heart_run[0], tmp_path / "out"))
    before = (out / "evidence/manifest.json").read_bytes()

    running = start("demo", "--data", heart, "--out", out)
    wait_for(out / ".partial/consortium.json", running)
    assert "Another run" in one_sentence(medveil("demo", "--data", heart, "--out", out))
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert b"interrupted" in said and b"Traceback" not in said
    assert not (out / ".partial").exists()

    running = start("demo", "--data", heart, "--out", out)
    wait_for(out / ".partial/consortium.json", running)
    running.kill()
    running.communicate(timeout=60)
    assert (out / ".partial").exists()
    assert (out / "evidence/manifest.json").read_bytes() == before
    assert medveil("verify", out / "evidence", "--trust", out / "consortium.json").returncode == 0

    assert medveil("demo", "--data", heart, "--out", out).returncode == 0
    assert (out / "evidence/manifest.json").read_bytes() != before
    assert not (out / ".partial").exists()


def test_evidence_that_is_none(medveil: Run, tmp_path: Path) -> None:
    (tmp_path / "junk").write_bytes(os.urandom(1000))
    (tmp_path / "empty").mkdir()
    assert "not an evidence file" in one_sentence(medveil("verify", tmp_path / "junk"))
    assert "not an evidence file" in one_sentence(medveil("show", tmp_path / "junk"))
    assert "manifest.json" in one_sentence(medveil("verify", tmp_path / "empty"))
    assert "cannot be read" in one_sentence(medveil("verify", tmp_path / "nowhere"))
    assert "cannot be read" in one_sentence(medveil("show", tmp_path / "nowhere"))
    assert "trust file" in one_sentence(medveil("verify", tmp_path / "empty", "--trust", tmp_path / "junk"))


OWN = """
version = 1
name = "visits"
population = "visits"
unit = "person"
person = "patient"
rows_per_person = 2
columns = [
  { name = "cost", source = "费用", title = "费用", kind = "number", low = 0, high = 100 },
  { name = "sex", kind = "category", values = ["女", "男"] },
]
study = { title = "Cost by sex", measure = "cost", groups = ["sex"], edges = [0, 10, 100], minimum = 20 }
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of one's own: unit person, Chinese header and values, one site without rows."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "dataset.toml").write_text(OWN, encoding="utf-8")
    rows = "".join(f"p{row % 90},{row % 100},{'女男'[row % 2]}\n" for row in range(300))
    for site, content in (("east", rows), ("north", ""), ("south", rows)):
        (folder / f"{site}.csv").write_text("patient,费用,sex\n" + content, encoding="utf-8")
    return folder


def test_a_folder_of_ones_own_on_a_terminal_that_knows_ascii_only(medveil: Run, own: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = medveil("demo", "--data", own, "--out", out, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, ""), "no warning about a character either"
    assert "fields cost, patient, sex" in done.stdout
    assert "at most 2 count at a site" in done.stdout
    assert "score-hospital-3" in done.stdout, "the second site has no records"
    assert "女" in (out / "report.html").read_text(encoding="utf-8")
    assert medveil("verify", out / "evidence", "--trust", out / "consortium.json").returncode == 0


def test_a_question_that_cannot_be_asked(medveil: Run, own: Path, tmp_path: Path) -> None:
    (own / "dataset.toml").write_text(OWN.replace("minimum = 20", "minimum = 1"), encoding="utf-8")
    assert "minimum" in one_sentence(medveil("demo", "--data", own, "--out", tmp_path / "out"))
    (own / "dataset.toml").write_text(OWN.split("study")[0], encoding="utf-8")
    assert "[study]" in one_sentence(medveil("demo", "--data", own, "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_reader_that_goes_away_gets_no_traceback(own: Path, tmp_path: Path) -> None:
    line = f"'{COMMAND}' demo --data '{own}' --out '{tmp_path / 'out'}' | head -n 1"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=240, check=False)
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1
