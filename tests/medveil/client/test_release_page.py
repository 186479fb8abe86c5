"""A release of several measures, read as rows, as a page, in a browser, and with texts of others that nobody sees."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from medveil.cli.released import show_released
from medveil.client import Group, Measure, Question, Released, column
from medveil.client.release_page import HEAD
from medveil.verification.screen import show_file
from mpc.query import salted_hash
from mpc.release import DatasetNote, HiddenGroup, hidden_words
from wire.canonical import encode
from wire.errors import Refused

from .world import SITES, World, terms


@pytest.fixture(scope="module")
def several(world: World) -> Released:
    """Two measures with a histogram each, of which the document was written to a file and read again."""
    for name in SITES:
        with world.client(name, "officer") as officer:
            officer.grants.issue(terms(name, grant=f"ages-{name}", fields=("age", "cost", "ward")))
    age, cost = Measure("age", edges=("0", "18", "65", "120"), weight=2), Measure("cost", edges=("0", "50", "100"))
    groups = (Group("ward"),)  # with "other", which nobody is in
    asked = Question(population="stays", measures=(cost, age), purpose="HMB", rho="0.2", groups=groups)
    with world.client("researcher-1", "researcher") as researcher:
        return researcher.queries.ask(asked)


def test_several_measures_and_rows_alone(world: World, several: Released, tmp_path: Path) -> None:
    assert [result.measure for result in several.release.results] == ["age", "cost"]
    frame = several.to_pandas().set_index(["measure", "ward"])
    assert {"[0, 18)", "[50, 100)"} <= set(frame.columns) and len(frame) == 6
    assert abs(frame.loc[("cost", "east"), "mean"] - 50) < 30
    file = tmp_path / "question.json"
    file.write_text(Question(population="stays", purpose="HMB", rho="0.05", filter=column("cost") >= 50).json())
    with world.client("researcher-1", "researcher") as researcher:
        rows = researcher.queries.ask(Question.read(file))
        again = researcher.queries.release(several.query)
        assert again.data == several.data and researcher.queries.explain(Question.read(file)).answered == rows.query
    ((count,),) = [result.groups for result in rows.release.results]
    assert count.mean is None and abs(float(count.count.value or 0) - 90) < 60
    with world.client("hospital-2", "officer", language="zh") as officer:
        explained = officer.queries.explain_served(several.query)
        assert explained.query.roster == SITES and "hospital-2" in str(explained) and "多一行" in str(explained)
        assert {one.reads for one in explained.sites} == {("age", "cost", "ward")}
        with pytest.raises(Refused) as unknown:
            officer.queries.explain_served("00" * 16)
        assert unknown.value.code == "queries.not_served"


def test_a_release_as_a_page(several: Released) -> None:
    page = several.page()
    tree = ElementTree.fromstring(page)
    assert several._repr_html_() == page and len(tree.findall(".//table")) == 2
    east = [row for row in tree.iter("tr") if (row.findtext("td") or "") == "east"]
    assert [len(row.findall(".//rect[@fill='#0b6e6e']")) for row in east] == [3, 2]
    texts = "".join(tree.itertext())
    assert several.release.results[0].groups[0].mean.value in texts
    hidden = [line for result in several.release.results for line in hidden_words(result.hidden)]  # as the noise has it
    assert all(line in texts for line in hidden) and ("below the minimum" in texts) == bool(hidden)
    assert several.release.protection() in texts and "95 % interval" in texts
    assert "(health or medical or biomedical research)" in texts
    assert "0.2 spent" in texts and salted_hash(several.release.query, several.release.salt).hex() in texts
    assert "标准差" in several.page("zh") and "http" not in page.replace("http-equiv", "")
    evil = "<script>alert(1)</script>&"
    result = several.release.results[0]
    group = msgspec.structs.replace(result.groups[0], values=(evil,))
    results = (msgspec.structs.replace(result, groups=(group,)), several.release.results[1])
    release = msgspec.structs.replace(several.release, results=results)
    hostile = Released(several.query, release, b"", (), several.declared, True).page()
    assert "<script" not in hostile and evil in "".join(ElementTree.fromstring(hostile).itertext())


UNSEEN = "good\u202e5.21 (5.2)\u200b\x9b31m\u2028"
"""It turns what stands behind it, so that 12.5 reads as 5.21, and colours a terminal."""


def unseen(several: Released) -> Released:
    """A release with such a text wherever others choose one."""
    result = several.release.results[0]
    group = msgspec.structs.replace(result.groups[0], values=(UNSEEN,), label=f"ward={UNSEEN}")
    small = HiddenGroup(f"ward={UNSEEN}", (UNSEEN,), "noisy-count-below-minimum", "12.5", 46)
    results = (msgspec.structs.replace(result, groups=(group,), hidden=(small,)), several.release.results[1])
    notes = (DatasetNote("hospital-1", "stays-hospital-1", UNSEEN),)
    release = msgspec.structs.replace(several.release, results=results, notes=notes)
    return Released(several.query, release, encode(release), (), several.declared, True)


def test_no_text_turns_what_stands_beside_it(
    several: Released, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    hostile = unseen(several)
    for language in ("en", "zh"):
        page = hostile.page(language)
        assert all(part.isprintable() for part in page.splitlines()) and page.count("good\ufffd5.21") == 4
    file = tmp_path / "release.evidence"
    file.write_bytes(hostile.data)
    show_file(file)
    show_released(hostile, as_json=True)
    for line in capsysbinary.readouterr().out.decode().split("\n"):
        assert line.isprintable()


def test_an_exact_release_as_a_page(several: Released) -> None:
    """It says that it is exact, shows no intervals that have no width, and each hidden group in its own row."""
    release, result = several.release, several.release.results[0]
    shown = result.groups[0]
    hidden = tuple(
        HiddenGroup(label, (ward,), reason, count, minimum)
        for label, ward, reason, count, minimum in (
            ("ward=west", "west", "perhaps-small", "12.5", 46),
            ("ward=other", "other", "perhaps-small", "-1.5", 46),
            ("ward=north", "north", "protects-another", "80", 46),
        )
    )
    results = (msgspec.structs.replace(result, groups=(shown,), hidden=hidden),)
    query = msgspec.structs.replace(release.query, exact=True)
    exact = msgspec.structs.replace(release, query=query, results=results)
    for language, small, protects in (
        ("en", "hidden: perhaps small", "hidden: protects a small group"),
        ("zh", "已隐藏：可能过小", "已隐藏：用于保护小分组"),
    ):
        page = Released(several.query, exact, b"", (), several.declared, True).page(language)
        tree = ElementTree.fromstring(page)
        texts = "".join(tree.itertext())
        assert exact.protection(language) in texts and "95 %" not in texts and "95%" not in texts
        rows = {row.findtext("td"): "".join(row.itertext()) for row in tree.iter("tr")}
        assert small in rows["west"] and "12.5" in rows["west"] and protects in rows["north"]
        assert shown.mean.value in rows["east"] and shown.mean.low not in rows["east"]
        lines = ["".join(one.itertext()) for one in tree.iter("p") if one.get("class") == "why"]
        assert lines == list(hidden_words(hidden, language)) and len(lines) == 2


@pytest.mark.chromium
def test_a_browser_shows_the_page(several: Released, tmp_path: Path) -> None:
    browser = next(found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name)))
    file, picture = tmp_path / "release.html", tmp_path / "release.png"
    file.write_text(f'<!doctype html><meta charset="utf-8">{several.page()}', encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,1400", f"--screenshot={picture}"]
    home = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([browser, *flags, file.as_uri()], capture_output=True, timeout=120, check=True, env=home)
    assert picture.stat().st_size > 30_000
    file.write_text(f'{HEAD}{several.page()}<script>document.title = "a script ran"</script>', encoding="utf-8")
    flags[-1] = "--dump-dom"
    seen = subprocess.run([browser, *flags, file.as_uri()], capture_output=True, timeout=120, check=True, env=home)
    assert b"<title>medveil</title>" in seen.stdout and several.query.encode() in seen.stdout
