"""The ledger beside the bare signature checks that no ledger can do without."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from nacl import bindings

from benchmarks.machine import peer
from benchmarks.measure import Figure, beside, effort, in_turn
from ledger.contracts.grants import AnchorGrant
from ledger.engines import EmbeddedEngine, attend, commit
from ledger.envelope import Envelope, SignedEnvelope, sign_envelope
from ledger.machine import Machine
from ledger.replicas import Replica
from wire.canonical import decode, encode
from wire.checkpoint import founding_hash
from wire.domains import ENVELOPE, framed
from wire.keyset import Founding, KeySet, Member, SealingKey, SignatureKey
from wire.sealing import X25519, OpenKey
from wire.signing import Signer

ORGANISATIONS = ("bureau-1", "hospital-1", "hospital-2", "hospital-3", "hospital-4", "insurer-1", "regulator-1")


def signer(organisation: str, use: str) -> Signer:
    """A key of the bench's consortium."""
    return Signer(hashlib.sha256(f"{organisation}/{use}".encode()).digest())


def founding() -> Founding:
    """Seven organisations that all re-execute; the bureau sequences."""
    members = []
    for name in ORGANISATIONS:
        envelope, cosign, http, tls = (
            SignatureKey(signer(name, use).key, 0) for use in ("envelope", "cosign", "http", "tls")
        )
        seal = SealingKey(OpenKey(X25519, hashlib.sha256(name.encode()).digest()).key, 0)
        members.append(Member(name, (name.split("-")[0],), KeySet(envelope, cosign, http, tls, seal), True))
    return Founding("bench", tuple(members), "bureau-1", 5, "Asia/Shanghai", 1_700_000_000_000)


def signed(genesis: bytes, first: int, count: int) -> list[bytes]:
    """Fresh envelopes of one grant each, from the four hospitals in turn: never seen, so nothing is cached."""
    made = []
    for number in range(first, first + count):
        sender = ORGANISATIONS[1 + number % 4]
        op = AnchorGrant(f"grant-{number}", secrets.token_bytes(32), 0, 2**41, 0)
        made.append(
            sign_envelope(signer(sender, "envelope"), Envelope(1, genesis, sender, number // 4, 1_000_000, (op,)))
        )
    return made


def run(quick: bool) -> Iterator[Figure]:
    """Envelopes through the machine in blocks of 100; through the whole engine until final, 1 and 100 at once."""
    members = founding()
    machine = Machine(members)
    genesis = founding_hash(members)
    size = 100

    def fresh() -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
        envelopes = signed(genesis, machine.height * size, size)
        bare = []
        for data in envelopes:
            one = decode(SignedEnvelope, data)
            key = signer(one.envelope.sender, "envelope").key.public
            bare.append((one.signature.value + framed(ENVELOPE, encode(one.envelope)), key))
        return envelopes, bare

    def apply(given: tuple[list[bytes], list[tuple[bytes, bytes]]]) -> None:
        outcome = machine.apply_block(machine.height + 1, machine.time + 1, given[0])
        assert all(result.accepted for result in outcome.results)

    def check(given: tuple[list[bytes], list[tuple[bytes, bytes]]]) -> None:
        for message, key in given[1]:
            bindings.crypto_sign_open(message, key)

    rounds = in_turn(apply, check, fresh, effort(quick))
    yield beside("apply-block", "envelopes/s", peer("pynacl", "ed25519 checks alone"), rounds, size)
    yield from _final(quick, members, genesis)


def _now() -> int:
    return int(time.time() * 1000)


def _final(quick: bool, members: Founding, genesis: bytes) -> Iterator[Figure]:
    """The embedded engine, seven replicas that replay and cosign, beside one durable insert.

    All in this process, where a signature is checked once and not by each replica; no network.
    """
    bare = f"SQLite {sqlite3.sqlite_version} (the bytes alone, synchronous=FULL)"
    with TemporaryDirectory(prefix="medveil-bench-") as name, asyncio.Runner() as runner:
        sequencer = signer("bureau-1", "cosign")
        engine = runner.run(EmbeddedEngine.open(Path(name) / "ledger.sqlite", members, sequencer, _now))
        replicas = [Replica(members, one, signer(one, "cosign"), _now) for one in ORGANISATIONS]

        async def until_final(envelopes: list[bytes]) -> None:
            following = [asyncio.create_task(attend(engine, replica)) for replica in replicas]
            await asyncio.gather(*(commit(engine, envelope, 60) for envelope in envelopes))
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)

        done = 0
        with closing(sqlite3.connect(Path(name) / "bare.sqlite", isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("CREATE TABLE envelopes (number INTEGER PRIMARY KEY, bytes BLOB) STRICT")

            def insert(envelopes: list[bytes]) -> None:
                database.execute("BEGIN")
                database.executemany("INSERT INTO envelopes (bytes) VALUES (?)", [(one,) for one in envelopes])
                database.execute("COMMIT")

            for figure, unit, count in (("final-one", "ms", 1), ("final-hundred", "envelopes/s", 100)):

                def fresh(count: int = count) -> list[bytes]:
                    nonlocal done
                    done += count
                    return signed(genesis, done - count, count)

                rounds = in_turn(lambda given: runner.run(until_final(given)), insert, fresh, effort(quick))
                yield beside(figure, unit, bare, rounds, count)
        runner.run(engine.close())
