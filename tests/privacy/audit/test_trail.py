"""No log, no release: entries are on disk first, chained, batched, and nothing of them can change unseen."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pytest

from privacy.audit import (
    START,
    UNKNOWN,
    AccessBatch,
    AuditTrail,
    Entry,
    Use,
    use_of,
    verify_batch,
    verify_chain,
    verify_entry,
)
from privacy.decide import UseRequest, decide
from privacy.grants.terms import GrantTerms
from wire import evidence
from wire.canonical import decode, encode
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError

USE = Use("university", "claims-1", "query", "HRESCH", "grant-1", b"q" * 32, True, "granted")
DENIED = msgspec.structs.replace(USE, allowed=False, rule="purpose")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        self.now += 10
        return self.now


@pytest.fixture
def trail(tmp_path: Path) -> Iterator[AuditTrail]:
    with AuditTrail(tmp_path / "audit.sqlite", "hospital-1", clock=Clock()) as made:
        yield made


def reopened(tmp_path: Path) -> AuditTrail:
    return AuditTrail(tmp_path / "audit.sqlite", "hospital-1", clock=Clock())


def fill(trail: AuditTrail, uses: int = 3) -> None:
    for _ in range(uses):
        trail.outcome(trail.intent(USE), "released")
    trail.outcome(trail.intent(DENIED), "denied")


def edit(tmp_path: Path, statement: str, *parameters: object) -> None:
    with sqlite3.connect(tmp_path / "audit.sqlite") as database:
        assert database.execute(statement, parameters).rowcount > 0
    database.close()


def test_every_use_leaves_an_intent_and_an_outcome(trail: AuditTrail) -> None:
    first = trail.intent(USE)
    assert trail.unfinished() == (first,)
    second = trail.intent(DENIED)
    trail.outcome(second, "denied")
    trail.outcome(first, "released")
    assert trail.unfinished() == ()
    entries = trail.entries()
    assert [(entry.sequence, entry.intent, entry.outcome) for entry in entries] == [
        (1, 0, ""),
        (2, 0, ""),
        (3, 2, "denied"),
        (4, 1, "released"),
    ]
    assert [entry.time for entry in entries] == [1010, 1020, 1030, 1040]
    assert entries[0].previous == START
    assert verify_chain(entries) == trail.verify() == entries[-1].head()


@pytest.mark.parametrize("outcome", ["released", "aborted", "failed", "", "lost"])
def test_a_denied_use_ends_as_denied_only(trail: AuditTrail, outcome: Any) -> None:
    intent = trail.intent(DENIED)
    with pytest.raises(MedveilError):
        trail.outcome(intent, outcome)
    assert trail.unfinished() == (intent,)


def test_outcomes_are_given_once_and_to_what_was_begun(trail: AuditTrail) -> None:
    intent = trail.intent(USE)
    ended = trail.outcome(intent, "aborted")
    for again in (intent, ended, 99, 0):
        with pytest.raises(Refused) as raised:
            trail.outcome(again, "released")
        assert raised.value.code == "privacy.audit_outcome"
    with pytest.raises(Refused):
        trail.outcome(trail.intent(USE), "denied")


def test_an_intent_under_its_own_nonce_is_written_once(trail: AuditTrail, tmp_path: Path) -> None:
    first = trail.intent(USE, b"a" * 16)
    other = trail.intent(USE, b"b" * 16)
    assert trail.intent(USE, b"a" * 16) == first != other
    trail.close()
    with reopened(tmp_path) as again:
        assert again.intent(USE, b"b" * 16) == other
        with pytest.raises(ValueError, match="two uses"):
            again.intent(DENIED, b"b" * 16)
        assert [entry.nonce for entry in again.entries()] == [b"a" * 16, b"b" * 16]
        with pytest.raises(DecodeError):
            again.intent(USE, b"short")
        assert len(again.entries()) == 2


def test_what_was_begun_under_a_nonce_is_found_until_it_ends(trail: AuditTrail, tmp_path: Path) -> None:
    first, other = trail.intent(USE, b"a" * 16), trail.intent(USE, b"b" * 16)
    assert (trail.begun(b"a" * 16), trail.begun(b"b" * 16), trail.begun(b"c" * 16)) == (first, other, None)
    trail.outcome(first, "aborted")
    trail.close()
    with reopened(tmp_path) as again:
        assert (again.begun(b"a" * 16), again.begun(b"b" * 16)) == (None, other)


def test_how_a_use_ended_and_how_many_entries_wait(trail: AuditTrail) -> None:
    assert trail.waiting() == 0
    intent = trail.intent(USE)
    assert trail.ending(intent) == ""
    end = trail.outcome(intent, "aborted")
    assert trail.ending(intent) == "aborted"
    assert trail.waiting() == 2
    for unknown in (0, end, 99):
        with pytest.raises(Refused):
            trail.ending(unknown)
    batch = trail.batch()
    assert batch is not None and trail.waiting() == 2, "on its way is not there"
    trail.anchored(batch)
    trail.intent(USE)
    assert trail.waiting() == 1


def test_an_intent_survives_a_process_that_is_killed(tmp_path: Path) -> None:
    """SIGKILL right after intent() returned: the entry is there, without an outcome."""
    code = (
        "import sys, os, signal, msgspec; from pathlib import Path\n"
        "from privacy.audit import AuditTrail, Use\n"
        "trail = AuditTrail(Path(sys.argv[1]), 'hospital-1')\n"
        "use = Use('university', 'claims-1', 'query', 'HRESCH', 'grant-1', b'', True, 'granted')\n"
        "trail.outcome(trail.intent(use), 'released')\n"
        "print(trail.intent(use), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "audit.sqlite")]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == -signal.SIGKILL, run.stderr
    assert run.stdout.strip() == "3"
    with reopened(tmp_path) as trail:
        assert trail.unfinished() == (3,)
        assert len(trail.entries()) == 3
        trail.outcome(3, "failed")
        trail.verify()


def test_commits_wait_for_the_disk(trail: AuditTrail) -> None:
    assert trail._store.rows("PRAGMA synchronous") == [(2,)]
    assert trail._store.rows("PRAGMA journal_mode") == [("wal",)]


def test_no_log_no_release(trail: AuditTrail) -> None:
    """A full disk: intent raises, and nothing is half-written."""
    trail._store.rows("PRAGMA max_page_count = 6")
    with pytest.raises(Unavailable):
        for _ in range(200):
            trail.intent(USE)
    count = len(trail.entries())
    assert len(trail.unfinished()) == count < 200
    trail.verify()


def test_a_second_process_is_told(trail: AuditTrail, tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as raised:
        reopened(tmp_path)
    assert raised.value.code == "privacy.store_in_use"


def test_a_clock_that_goes_back_is_held(tmp_path: Path) -> None:
    times = iter([50, 40, 60])
    with AuditTrail(tmp_path / "a", "hospital-1", clock=lambda: next(times)) as trail:
        for _ in range(3):
            trail.intent(USE)
        assert [entry.time for entry in trail.entries()] == [50, 50, 60]
        trail.verify()


def test_threads_share_a_trail(trail: AuditTrail) -> None:
    threads = [Thread(target=fill, args=(trail, 5)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(trail.entries()) == 4 * 12
    trail.verify()


def test_batches_follow_each_other(trail: AuditTrail, tmp_path: Path) -> None:
    assert trail.batch() is None
    fill(trail)
    first = trail.batch()
    assert first is not None
    assert (first.first, first.last, first.previous_head) == (1, 8, START)
    verify_batch(first)
    fill(trail)
    assert trail.batch() == first  # until it is anchored
    trail.close()
    with reopened(tmp_path) as again:
        assert encode(again.batch()) == encode(first)  # type: ignore[arg-type]
        again.anchored(first)
        with pytest.raises(Refused):
            again.anchored(first)
        second = again.batch()
        assert second is not None
        assert (second.first, second.last, second.previous_head) == (9, 16, first.head)
        verify_batch(second)
        with pytest.raises(Refused):
            again.anchored(first)
        again.anchored(second)
        assert again.batch() is None
        assert again.batches() == (first, second)


def test_a_batch_has_a_thousand_entries_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privacy.audit.trail.LARGEST_BATCH", 10)
    with AuditTrail(tmp_path / "a", "hospital-1") as trail:
        fill(trail, 11)
        sizes = []
        while (batch := trail.batch()) is not None:
            sizes.append(len(batch.entries))
            trail.anchored(batch)
        assert sizes == [10, 10, 4]


def test_single_entries_are_shown_with_their_proofs(trail: AuditTrail) -> None:
    fill(trail)
    batch = trail.batch()
    assert batch is not None
    for sequence in range(batch.first, batch.last + 1):
        shown = batch.proof(sequence)
        assert shown.root == batch.root
        verify_entry(evidence.read(encode(shown)))
        for other in batch.entries:
            if other != shown.entry:
                with pytest.raises(VerificationError):
                    verify_entry(msgspec.structs.replace(shown, entry=other))
    with pytest.raises(ValueError, match="not in this batch"):
        batch.proof(9)


def test_every_byte_of_a_batch_counts(trail: AuditTrail) -> None:
    """Whatever still verifies after a change is not what the ledger holds."""
    fill(trail, 1)
    batch = trail.batch()
    assert batch is not None

    def anchored(found: AccessBatch) -> tuple[object, ...]:
        return found.organisation, found.first, found.last, found.previous_head, found.head, found.root

    data = encode(batch)
    for position in range(len(data)):
        try:
            found = evidence.read(data[:position] + bytes([data[position] ^ 0x01]) + data[position + 1 :])
            verify_batch(found)
        except (DecodeError, VerificationError):
            continue
        assert anchored(found) != anchored(batch), position


def test_every_byte_of_a_shown_entry_counts(trail: AuditTrail) -> None:
    """Under the anchored root no other entry verifies."""
    fill(trail)
    batch = trail.batch()
    assert batch is not None
    shown = batch.proof(3)
    data = encode(shown)
    for position in range(len(data)):
        try:
            found = evidence.read(data[:position] + bytes([data[position] ^ 0x01]) + data[position + 1 :])
            verify_entry(found)
        except (DecodeError, VerificationError):
            continue
        assert found.root != batch.root or found.entry == shown.entry, position


def test_a_batch_that_does_not_hold_together(trail: AuditTrail) -> None:
    fill(trail)
    batch = trail.batch()
    assert batch is not None
    entries = batch.entries
    lie = msgspec.structs.replace(entries[1], outcome="aborted")
    for change in (
        {"entries": entries[:-1]},
        {"entries": entries[1:], "first": 2},
        {"entries": (entries[1], entries[0], *entries[2:])},
        {"entries": (entries[0], lie, *entries[2:])},
        {"entries": (), "last": 0},
        {"organisation": "hospital-2"},
        {"head": bytes(32)},
        {"root": bytes(32)},
        {"previous_head": b"x" * 32},
        {"first": 0},
    ):
        with pytest.raises(VerificationError):
            verify_batch(msgspec.structs.replace(batch, **change))


def test_the_chain_refuses_what_no_trail_writes(trail: AuditTrail) -> None:
    trail.intent(USE)
    trail.intent(DENIED)
    one, two = trail.entries()

    def chained(**change: Any) -> list[Entry]:
        entry = msgspec.structs.replace(two, **({"sequence": 3, "previous": two.head()} | change))
        return [one, two, entry]

    verify_chain(chained(intent=1, outcome="released", use=USE))
    for change in (
        {"intent": 2, "outcome": "released"},  # a denied use released
        {"intent": 1, "outcome": "released", "use": msgspec.structs.replace(USE, dataset="claims-2")},  # another use
        {"intent": 1, "outcome": ""},
        {"intent": 0, "outcome": "released"},
        {"intent": 3, "outcome": "released"},
        {"sequence": 4},
        {"previous": bytes(32)},
        {"time": one.time - 1},
        {"organisation": "hospital-2"},
        {"version": 2},
    ):
        with pytest.raises(VerificationError):
            verify_chain(chained(**change))
    ended = chained(intent=1, outcome="released", use=USE)
    twice = msgspec.structs.replace(ended[2], sequence=4, previous=ended[2].head())
    with pytest.raises(VerificationError) as raised:
        verify_chain([*ended, twice])
    assert raised.value.facts["sequence"] == 4


FIRST = "(SELECT {} FROM entries e WHERE e.sequence = 1)"
TAMPERING = {
    "an entry changed": f"UPDATE entries SET entry = {FIRST.format('entry')} WHERE sequence = 5",
    "an entry and its head changed": f"UPDATE entries SET entry = {FIRST.format('entry')},"
    f" head = {FIRST.format('head')} WHERE sequence = 5",
    "an entry removed": "DELETE FROM entries WHERE sequence = 5",
    "a head changed": "UPDATE entries SET head = zeroblob(32) WHERE sequence = 5",
    "an intent renumbered": "UPDATE entries SET intent = 0 WHERE sequence = 4",
    "rubbish": "UPDATE entries SET entry = x'00' WHERE sequence = 5",
}


@pytest.mark.parametrize("name", TAMPERING)
def test_a_tampered_tail_does_not_open(name: str, trail: AuditTrail, tmp_path: Path) -> None:
    fill(trail)
    trail.close()
    edit(tmp_path, TAMPERING[name])
    with pytest.raises(VerificationError) as raised:
        reopened(tmp_path)
    assert raised.value.code == "privacy.audit_chain"
    assert raised.value.facts["sequence"] in (4, 5)


@pytest.mark.parametrize("name", TAMPERING)
def test_tampering_before_the_last_batch_is_found(name: str, trail: AuditTrail, tmp_path: Path) -> None:
    fill(trail)
    batch = trail.batch()
    assert batch is not None
    trail.anchored(batch)
    fill(trail)
    trail.close()
    edit(tmp_path, TAMPERING[name])
    with pytest.raises(MedveilError) as raised, reopened(tmp_path) as again:
        again.verify()
    assert isinstance(raised.value, (VerificationError, DecodeError))


def test_anchored_entries_cannot_be_cut_off(trail: AuditTrail, tmp_path: Path) -> None:
    fill(trail)
    batch = trail.batch()
    assert batch is not None
    trail.anchored(batch)
    trail.close()
    edit(tmp_path, "DELETE FROM entries WHERE sequence >= 6")
    with pytest.raises(VerificationError):
        reopened(tmp_path)
    edit(tmp_path, "DELETE FROM batches WHERE first = 1")
    with reopened(tmp_path) as again:  # consistent in itself: only the ledger knows better
        cut = again.batch()
        assert cut is not None
        assert cut.head != batch.head


def test_another_organisations_trail_is_not_continued(trail: AuditTrail, tmp_path: Path) -> None:
    fill(trail)
    trail.close()
    with pytest.raises(VerificationError):
        AuditTrail(tmp_path / "audit.sqlite", "hospital-2")


def test_nothing_private_goes_in(terms: GrantTerms, request_: UseRequest, issue: Any, trail: AuditTrail) -> None:
    """A requester cannot plant text either: unknown purposes are not repeated."""
    grant, state = issue(terms)
    request = msgspec.structs.replace(request_, purpose="ask about Wang Wu")
    decision = decide(request, [grant], state, 2_000_000)
    trail.outcome(trail.intent(use_of(request, decision)), "denied")
    allowed = decide(request_, [grant], state, 2_000_000)
    trail.outcome(trail.intent(use_of(request_, allowed, b"h" * 32)), "released")
    batch = trail.batch()
    assert batch is not None
    data = encode(batch)
    assert batch.entries[0].use.purpose == UNKNOWN
    for planted in (b"Wang Wu", b"visits", b"health", b"consents/2025-07"):
        assert planted not in data
    assert batch.entries[2].use == Use(
        "university", "claims-1", "query", "HRESCH", "grant-1", b"h" * 32, True, "granted"
    )
    with pytest.raises(ValueError, match="32 bytes"):
        use_of(request_, allowed, b"short")


def test_what_could_not_be_read_back_is_never_written(trail: AuditTrail) -> None:
    for change in ({"recipient": "Bad Name"}, {"purpose": "free text"}, {"query": b"q" * 33}, {"kind": "stroll"}):
        with pytest.raises(DecodeError):
            trail.intent(msgspec.structs.replace(USE, **change))  # type: ignore[arg-type]
    assert trail.entries() == ()
    assert trail.unfinished() == ()


def test_equal_uses_have_unequal_entries(trail: AuditTrail) -> None:
    """The nonce: someone who holds only the ledger's root cannot confirm a guess."""
    trail.intent(USE)
    trail.intent(USE)
    one, two = trail.entries()
    assert one.nonce != two.nonce
    assert decode(Entry, encode(one)) == one


def test_a_restored_trail_takes_back_what_others_hold(trail: AuditTrail, tmp_path: Path) -> None:
    """From batches that were anchored since: all of their entries, once; then the chain goes on."""
    fill(trail)
    first = trail.batch()
    assert first is not None
    trail.anchored(first)
    fill(trail, 1)
    began = trail.intent(USE)
    kept = trail.batch()  # not anchored yet: another batch may be, in the end
    assert kept is not None and kept.last == 13
    old = tmp_path / "old"
    old.mkdir()
    with sqlite3.connect(tmp_path / "audit.sqlite") as source, sqlite3.connect(old / "audit.sqlite") as copy:
        source.backup(copy)
    copy.close()
    source.close()
    trail.outcome(began, "released")
    trail.anchored(kept)
    fill(trail)
    later = trail.batch()
    assert later is not None
    trail.anchored(later)
    with AuditTrail(old / "audit.sqlite", "hospital-1", clock=Clock()) as restored:
        with pytest.raises(VerificationError):
            restored.take_back(later)  # before those that it lacks
        wrong = msgspec.structs.replace(kept, organisation="hospital-2")
        with pytest.raises(VerificationError):
            restored.take_back(wrong)
        assert restored.last == 13
        assert restored.take_back(first) == 0 and restored.take_back(kept) == 0
        assert restored.take_back(later) == 9 and restored.take_back(later) == 0
        assert restored.last == trail.last == 22 and restored.verify() == trail.verify()
        assert restored.batches() == trail.batches() and restored.unfinished() == ()
        fill(restored, 1)
        following = restored.batch()
        assert following is not None and following.first == 23
    with AuditTrail(tmp_path / "new.sqlite", "hospital-1", clock=Clock()) as nothing:
        assert [nothing.take_back(batch) for batch in trail.batches()] == [8, 5, 9]
        assert nothing.verify() == trail.verify()


def test_another_chain_is_not_taken_back(trail: AuditTrail, tmp_path: Path) -> None:
    with AuditTrail(tmp_path / "other.sqlite", "hospital-1", clock=Clock()) as other:
        fill(other)
        found = other.batch()
        assert found is not None
        fill(trail, 1)
        with pytest.raises(VerificationError):
            trail.take_back(found)
        assert trail.last == 4 and trail.batches() == ()


def test_a_held_trail_writes_nothing(trail: AuditTrail) -> None:
    began = trail.intent(USE)
    trail.hold(lambda: Unavailable("privacy.store_in_use", path="x", retry_after=5))
    for _ in range(2):
        with pytest.raises(Unavailable):
            trail.intent(USE)
    with pytest.raises(Unavailable):
        trail.outcome(began, "released")
    assert trail.last == 1 and trail.unfinished() == (began,)
    trail.hold(None)
    trail.outcome(began, "released")
    assert trail.last == 2
