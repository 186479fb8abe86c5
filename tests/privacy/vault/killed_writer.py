"""Kills a process with -9 at every step of an operation on a vault, and looks at what it left. Run by test_killed.py.

    python killed_writer.py OPERATION FOLDER [URL]

For each step: a process makes a vault, a second one runs the operation and dies there, a third one opens what is left.
One line for each, "STEP NUMBER ok" or what was wrong; "STEP NUMBER ended" for the last, which nothing stopped.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa

from privacy.keys import Argon2Cost, FileKeyProvider
from privacy.vault import Vault
from wire.errors import Refused

PEOPLE = [f"p{number % 7}" for number in range(30)]
OLD = pa.table({"n": pa.array(range(30), pa.int64()), "t": ["old"] * 30})
NEW = pa.table({"n": pa.array(range(100, 140), pa.int64()), "t": ["new"] * 40})
NEW_PEOPLE = [f"p{number % 9}" for number in range(40)]
ERASED = "p3"


def keys_of(folder: Path) -> FileKeyProvider:
    return FileKeyProvider(folder / "keys", "correct horse")


def opened(folder: Path, url: str, fault: Callable[[str], None] = lambda _place: None) -> Vault:
    return Vault.open(folder / "vault", keys_of(folder), "hospital-1", database=url, fault=fault)


def base(folder: Path, url: str) -> None:
    """The vault before the operation."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if url:
        import psycopg

        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("DROP SCHEMA IF EXISTS medveil_vault CASCADE")
    provider = FileKeyProvider.create(folder / "keys", "correct horse", cost=Argon2Cost(1, 8, 1))
    with Vault.create(folder / "vault", provider, "hospital-1", database=url) as vault:
        for name in ("d", "e"):
            vault.ingest(name, OLD, PEOPLE)
        vault.put_document("grant", "g", b"terms")
        vault.put_person_note("hold", "p1", b"case")
        vault.restrict([key.key for key in vault.keys_of("p1") if key.dataset == "e"])
    shutil.copy(folder / "safeguards", folder / "safeguards.base")


def load(vault: Vault) -> None:
    batches = pa.RecordBatchReader.from_batches(NEW.schema, NEW.to_batches(max_chunksize=15))
    vault.ingest("new", batches, NEW_PEOPLE, replace=True)


def replace(vault: Vault) -> None:
    vault.ingest("d", NEW, NEW_PEOPLE, replace=True)


def append(vault: Vault) -> None:
    vault.ingest("d", NEW, NEW_PEOPLE, append=True)


def destroy(vault: Vault) -> None:
    vault.destroy([key.key for key in vault.keys_of(ERASED)], b"r" * 32)


def rotate(vault: Vault) -> None:
    vault.rotate()


def document(vault: Vault) -> None:
    vault.put_document("grant", "g", b"other terms")


def hold(vault: Vault) -> None:
    vault.put_document("legal-hold", "h", b"a reference")


def opt_out(vault: Vault) -> None:
    vault.put_person_note("opt-out", "p2", b"all")


def restrict(vault: Vault) -> None:
    vault.restrict([key.key for key in vault.keys_of("p2")])


OPERATIONS: dict[str, Callable[[Vault], None]] = {
    each.__name__: each for each in (load, replace, append, destroy, rotate, document, hold, opt_out, restrict)
}


def check(operation: str, folder: Path, url: str, ended: bool) -> None:
    """What the vault may look like: as before, or as after; after, if the operation ended."""
    begun = (folder / "erased").exists()
    noted = (folder / "safeguards").stat().st_size > (folder / "safeguards.base").stat().st_size
    for _ in range(2):
        with opened(folder, url) as vault:
            before, after = look(vault, "before", operation), look(vault, "after", operation)
            if not (after or (before and not ended)):
                raise AssertionError("neither as before nor as after")
            if operation in ("hold", "opt_out", "restrict") and noted and before:
                raise AssertionError("the log of safeguards has what is not there")
            if operation == "destroy" and begun and before:
                raise AssertionError("the register names what is there")
            if operation == "rotate" and ended and len(keys_of(folder).epochs()) != 1:
                raise AssertionError("an older epoch is there")
    with opened(folder, url) as vault:  # and it goes on
        if operation != "append" or look(vault, "before", operation):
            OPERATIONS[operation](vault)
        if not look(vault, "after", operation):
            raise AssertionError("the operation does not go on")


def look(vault: Vault, when: str, operation: str) -> bool:
    """Whether the vault is as it must be before the operation, or after it."""
    done = when == "after"
    gone = ERASED if operation == "destroy" and done else ""
    rows = {
        "d": [(n, "old", p) for n, p in enumerate(PEOPLE) if p != gone],
        "e": [(n, "old", p) for n, p in enumerate(PEOPLE) if p not in (gone, "p1")],
    }
    if operation == "restrict" and done:
        rows = {name: [row for row in some if row[2] != "p2"] for name, some in rows.items()}
    new = list(zip(range(100, 140), ["new"] * 40, NEW_PEOPLE, strict=True))
    if done and operation in ("load", "replace", "append"):
        rows |= {"load": {"new": new}, "replace": {"d": new}, "append": {"d": rows["d"] + new}}[operation]
    if [info.name for info in vault.datasets()] != sorted(rows):
        return False
    for name, expected in rows.items():
        found = vault.read(name, "p")
        kept = list(zip(*(found[column].to_pylist() for column in ("n", "t", "p")), strict=True))
        if kept != expected:
            return False
        total = sum(key.rows for key in vault.data_keys(name))
        if total != vault.info(name).rows:
            raise AssertionError("rows that nobody counts")
    if operation == "destroy":
        held = vault.keys_of(ERASED)
        if bool(held) == done or len(held) not in (0, 2):
            raise AssertionError("half erased")
        try:
            vault.salt_key("d", ERASED)
        except Refused:
            if not done:
                raise
    protected = list(vault.documents("legal-hold")), dict(vault.person_notes("opt-out"))
    if protected != (
        ["h"] if done and operation == "hold" else [],
        {vault.person_id("p2"): b"all"} if done and operation == "opt_out" else {},
    ):
        return False
    content = vault.document("grant", "g")
    return content == (b"other terms" if done and operation == "document" else b"terms") and list(
        vault.person_notes("hold")
    ) == [(vault.person_id("p1"), b"case")]


def forked(work: Callable[[], None]) -> int:
    """Run `work` in a process of its own; returns its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc(file=sys.stdout)
            sys.stdout.flush()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def main(operation: str, folder: Path, url: str) -> None:
    """Step after step."""
    number, status = 0, -1
    while status != 0:
        number += 1
        steps = folder.with_name(folder.name + ".step")

        def work(stop: int = number, noted: Path = steps) -> None:
            count = 0

            def fault(place: str) -> None:
                nonlocal count
                count += 1
                if count == stop:
                    noted.write_text(place)
                    os.kill(os.getpid(), signal.SIGKILL)

            vault = opened(folder, url)
            vault._opened.fault = fault
            OPERATIONS[operation](vault)

        steps.write_text("ended")
        if forked(lambda: base(folder, url)) != 0:
            return
        status = forked(work)
        if status > 0:
            return
        ended = status == 0
        left = forked(partial(check, operation, folder, url, ended))
        print(steps.read_text(), number, "ok" if left == 0 else "WRONG", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "")
