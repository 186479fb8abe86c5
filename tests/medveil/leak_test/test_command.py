"""`medveil leak-test` as people run it: nothing leaks today; and of a product that leaks, every leak is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medveil.leak_test import places
from medveil.leak_test.processes import can_look

pytestmark = [
    pytest.mark.skipif(not can_look(), reason="processes are seen in /proc: run on Linux"),
    pytest.mark.timeout(900),
]

ROOT = Path(__file__).resolve().parents[3]
COMMAND = "import sys; sys.argv[0] = 'medveil'; from medveil.cli import main; main()"


NOT_THERE = {places.TEMPORARY, places.CORES, places.ELSEWHERE}
"""Of which nothing is left where all is well."""


def run(
    *arguments: str, changed: Path | None = None, before: tuple[str, ...] = (), **more: str
) -> tuple[int, dict[str, Any]]:
    """Run it; the exit code and what it says as JSON. changed: a folder whose sitecustomize every process imports;
    before: a command that runs it; more: of the environment."""
    path = [str(changed)] if changed else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, str(ROOT)]), "MEDVEIL_LANGUAGE": "en", **more}
    done = subprocess.run(
        [*before, sys.executable, "-c", COMMAND, "leak-test", "--json", *arguments],
        env=environment, capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_nothing_leaks(tmp_path: Path) -> None:
    code, said = run("--quick")
    verdict = said["verdict"]
    assert (code, said["good"], said["folder"]) == (0, True, None), verdict
    searched = {row["place"]: row for row in verdict["rows"]}
    for place in set(places.PLACES) - NOT_THERE - {places.MEMORY, places.CREDENTIALS, places.OWN}:
        closed = searched[place]["closed"]
        assert searched[place]["bytes"] > 0 or closed, place
    assert verdict["markers"] > 100 and not verdict["faults"] and not verdict["leaks"]


def check_whole(code: int, said: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A whole run found nothing that must not be there, and all that must; what it says of each place."""
    verdict = said["verdict"]
    assert (code, said["good"], verdict["leaks"], verdict["faults"]) == (0, True, [], []), verdict
    searched = {row["place"]: row for row in verdict["rows"]}
    for place in set(places.PLACES) - NOT_THERE:
        assert searched[place]["bytes"] > 0 or searched[place]["closed"], place
    for place in (places.INPUT, places.OWN, places.ANSWERS):
        assert searched[place]["expected"] > 0, place
    return searched


@pytest.mark.long
def test_nothing_leaks_in_a_whole_run() -> None:
    check_whole(*run())


def as_another_user() -> tuple[str, ...]:
    """What runs a command as somebody who may read files and look into no process. Skips where that cannot be."""
    if os.geteuid() != 0:
        return ()
    nobody = ("--reuid", "65534", "--regid", "65534", "--clear-groups")
    rights = [f"--{kind}=-all,+dac_read_search" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    command = ("setpriv", *nobody, *rights)
    try:
        subprocess.run([*command, sys.executable, "-c", ""], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("another user cannot be played here: needs setpriv of util-linux, and the right to set users")
    return command


@pytest.mark.long
def test_nothing_leaks_in_a_run_by_somebody_who_is_not_root(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    before = as_another_user()
    if before:
        os.chown(own, 65534, 65534)
    searched = check_whole(*run(before=before, HOME=str(own), TMPDIR=str(own)))
    for place in (places.PROCESS, places.ELSEWHERE, places.MEMORY):
        assert searched[place]["closed"] == 7, "a gateway keeps its memory to itself"
    assert not list(own.glob("medveil-leak-test-*"))


_LEAKS = '''
"""A product that leaks, in each kind of place: what is patched when its modules are imported."""
import functools, gzip, hashlib, importlib.abc, importlib.util, os, sys, tempfile, time

KEPT = []

def leaking_load(module):
    ingest, declaration = module._ingest, module._declaration
    seen = {}

    def _ingest(organisation, dataset, layout, read, source, table):
        done = ingest(organisation, dataset, layout, read, source, table)
        if source == "" and not dataset.startswith("visits-"):
            return done
        rows = read().to_pylist()
        row = rows[7]
        seen[dataset] = row["identity"]
        print("loaded", row["visit"], file=sys.stderr, flush=True)
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(row["identity"])
            file.flush()
            time.sleep(0.2)
        home = organisation.folder
        (home / "notes.txt").write_bytes(row["identity"].encode("utf-16"))
        (home / "vault" / "index").write_bytes(gzip.compress(repr(row["cost"]).encode() * 9))
        open("core.1", "a").write(row["visit"])
        KEPT.append(open(os.path.join(ELSEWHERE, organisation.name), "w"))
        KEPT[-1].write(row["visit"])
        KEPT[-1].flush()
        LAST.append(row["identity"])
        return done

    def _declaration(organisation, dataset, layout):
        said = declaration(organisation, dataset, layout)
        if dataset in seen:
            import msgspec
            said = msgspec.structs.replace(said, commitment=hashlib.sha256(seen[dataset].encode()).digest())
        return said

    module._ingest, module._declaration = _ingest, _declaration

def leaking_answers(module):
    answer = module.Response.__init__

    @functools.wraps(answer)
    def __init__(self, *given, **named):
        answer(self, *given, **named)
        if LAST:
            import base64
            self.headers["x-last"] = base64.b64encode(LAST[-1].encode()).decode()

    module.Response.__init__ = __init__

def leaking_start(module):
    make = module.Process.__init__

    def __init__(self, folder, member, say, environment=None, cwd=None):
        text = (folder.parent / "tables" / "site-1.csv").read_text().splitlines()[8]
        (folder / "patients.txt").write_text(text)
        make(self, folder, member, say, {**(environment or {}), "FIRST": text}, cwd)

    module.Process.__init__ = __init__

def leaking_memory(module):
    module.keep_own_memory = lambda: None

def leaking_command(module):
    plan = module.plan

    def leaking_plan(organisation, person, *given, **named):
        print("planning for", person, file=sys.stderr)
        return plan(organisation, person, *given, **named)

    module.plan = leaking_plan

def leaking_claim(module):
    case, settle = module._case, module.settle
    seen = []

    def _case(held, encounter, own):
        seen.append(encounter["diagnosis"])
        return case(held, encounter, own)

    def leaking_settle(wallet, *given, **named):
        done = settle(wallet, *given, **named)
        wallet.with_name("claims.log").write_text(seen[-1])
        return done

    module._case, module.settle = _case, leaking_settle

PATCHES = {
    "medveil.credentials.claiming": leaking_claim,
    "medveil.gateway.erasing": leaking_command,
    "medveil.gateway.loading": leaking_load,
    "starlette.responses": leaking_answers,
    "medveil.local.processes": leaking_start,
    "privacy.keys.own_memory": leaking_memory,
}
LAST = []
ELSEWHERE = %(elsewhere)r

class Patching(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name not in PATCHES:
            return None
        patch = PATCHES.pop(name)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            patch(module)

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Patching())
import resource
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (min(hard, 1 << 20) if hard >= 0 else 1 << 20, hard))
'''


@pytest.mark.long
def test_a_product_that_leaks(tmp_path: Path) -> None:
    changed, elsewhere, out = tmp_path / "changed", tmp_path / "elsewhere", tmp_path / "out"
    changed.mkdir()
    elsewhere.mkdir()
    (changed / "sitecustomize.py").write_text(_LEAKS % {"elsewhere": str(elsewhere)})
    code, said = run("--out", str(out), changed=changed)
    assert code == 1 and not said["good"] and said["folder"] == str(out)
    leaks = said["verdict"]["leaks"]
    found = {row["place"]: row["leaks"] for row in said["verdict"]["rows"]}
    assert [place for place in places.PLACES if not found[place]] == [places.OWN, places.INPUT]
    assert not said["verdict"]["faults"]

    def seen(place: str, kind: str, spelling: str = "") -> bool:
        return any(
            leak["place"] == place and leak["what"].startswith(kind) and spelling in leak["spelling"] for leak in leaks
        )

    assert seen(places.LEDGER, "identity number", "bare sha256") and seen(places.EVIDENCE, "identity", "bare sha256")
    assert seen(places.BACKUPS, "identity", "bare sha256") and seen(places.MEMORY, "identity", "bare sha256")
    assert seen(places.HOMES, "identity number", "UTF-16") and seen(places.VAULTS, "cost", "decimal")
    assert seen(places.ANSWERS, "identity number", "base64") and seen(places.ERRORS, "identity number", "base64")
    assert seen(places.PROCESS, "name of patient 1 of hospital-1") and seen(places.OTHER, "address of patient 1")
    for place in (places.LOGS, places.CORES, places.ELSEWHERE):
        assert seen(place, "record id of patient 1"), place
    assert seen(places.CREDENTIALS, "diagnosis of a bill of an insured person", "UTF-8")
    assert seen(places.PRINTED, "identity number of patient 3 of hospital-1")
    assert seen(places.TEMPORARY, "identity number") and seen(places.CORES, "a core of")
    ledgers = {leak["file"].split("/")[2] for leak in leaks if leak["place"] == places.LEDGER}
    assert len(ledgers) == 7, "every organisation's copy"
