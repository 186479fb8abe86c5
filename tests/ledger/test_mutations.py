"""Mutation campaigns: whatever is changed in what the ledger reads, it is refused, with the right kind of error.

500 mutations in the normal run, 10,000 behind `long`. They are drawn from a fixed seed: a failure names
its own number, and comes back.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ledger.contracts import AnchorAccess, AnchorGrant, Leave, RegisterBill, RevokeGrant
from ledger.contracts.grants import grant_key
from ledger.envelope import SignedEnvelope
from ledger.export import EXPORT, LedgerExport, verify_export
from ledger.handovers import extend
from ledger.machine import Machine
from ledger.receipts import PROVEN_VALUE, RECEIPT, ProvenValue, Receipt, verify_receipt, verify_value
from ledger.snapshots import SNAPSHOT, LedgerSnapshot, take_snapshot, verify_snapshot
from wire import evidence
from wire.canonical import decode, encode
from wire.checkpoint import (
    inclusion_proof,
    leaf_hash,
    parse_note,
    verify_checkpoint,
    verify_consistency,
    verify_inclusion,
)
from wire.errors import DecodeError, MedveilError, QuorumNotMet, Refused, VerificationError

SEED = 20_261_122
KINDS = (
    "envelope",
    "block",
    "log-proof",
    "checkpoint",
    "receipt",
    "proven-value",
    "absence",
    "export",
    "snapshot",
    "handover",
)
NORMAL, LONG = 500, 10_000


def mutate(data: bytes, draw: random.Random) -> tuple[str, bytes]:
    """One change of `data`, never none: its name and the changed bytes."""
    while True:
        at = draw.randrange(len(data))
        end = min(len(data), at + draw.choice((1, 1, 2, 4, 32)))
        name, changed = draw.choice(
            (
                ("a bit", data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]),
                ("a byte", data[:at] + draw.randbytes(1) + data[at + 1 :]),
                ("bytes", data[:at] + draw.randbytes(end - at) + data[end:]),
                ("zeroes", data[:at] + bytes(end - at) + data[end:]),
                ("taken out", data[:at] + data[end:]),
                ("put in", data[:at] + draw.randbytes(end - at) + data[at:]),
                ("repeated", data[:end] + data[at:end] + data[end:]),
                ("cut off", data[:at]),
                ("put behind", data + draw.randbytes(end - at)),
                ("two swapped", _swapped(data, at, draw.randrange(len(data)))),
            )
        )
        if changed != data:
            return name, changed


def _swapped(data: bytes, one: int, other: int) -> bytes:
    swapped = bytearray(data)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    return bytes(swapped)


class Target:
    """Something that is read: its bytes, how it is read, and which errors of that reading are right."""

    def __init__(self, data: bytes, read: Callable[[bytes], object], right: Callable[[bytes, MedveilError], bool]):
        self.data, self.read, self.right = data, read, right


def _decodes(kind: type[Any], data: bytes) -> bool:
    try:
        decode(kind, data)
    except DecodeError:
        return False
    return True


def _evidence(kind: type[Any], check: Callable[[Any], object]) -> tuple[Any, Any]:
    """Reading of an evidence file: bytes that are no such struct are a DecodeError, all else does not verify."""

    def read(data: bytes) -> object:
        struct = evidence.read(data)
        if not isinstance(struct, kind):
            raise VerificationError("ledger.bad_receipt", part="header")
        return check(struct)

    def right(data: bytes, error: MedveilError) -> bool:
        if not _decodes(kind, data):
            return isinstance(error, DecodeError)
        header = decode(kind, data).header
        if header not in (RECEIPT, PROVEN_VALUE, EXPORT, SNAPSHOT):
            return isinstance(error, DecodeError)
        return isinstance(error, (VerificationError, QuorumNotMet))

    return read, right


@pytest.fixture
def world_targets(make_world: Callable[[], Any]) -> dict[str, list[Target]]:
    """A small history with exactly k cosigners, so that no byte of it is to spare."""
    world = make_world()
    for number in range(12):
        world.act("hospital-1", AnchorGrant(f"grant-{number}", bytes(32), 0, world.start * 2, 0))
    world.block(
        world.envelope("hospital-2", AnchorAccess(1, 2, bytes(32), b"h" * 32, b"r" * 32)),
        world.envelope("hospital-3", RegisterBill(b"b" * 16, bytes(48), "CNY")),
        world.envelope("insurer", RevokeGrant("grant-1")),
        world.envelope("hospital-1", RevokeGrant("grant-2"), RevokeGrant("grant-3")),
    )
    found, other = _targets(world), make_world()
    other.act("researcher", Leave())
    reading = _evidence(ProvenValue, lambda struct: extend(other.trust, (struct,)))
    found["handover"].append(Target(encode(other.handover()), *reading))
    return found


def _targets(world: Any) -> dict[str, list[Target]]:
    trust, machine, note = world.trust, world.machine, world.note().format()
    last = world.blocks[-1]
    before = Machine(world.founding)
    for block in world.blocks[:-1]:
        before.replay(block)
    results = before.execute(last.header.height, last.header.time, last.envelopes).outcome.results
    leaves = [leaf_hash(encode(result)) for result in results]
    path = machine.log.inclusion_proof(last.header.height)
    found: dict[str, list[Target]] = {kind: [] for kind in KINDS}

    def not_authentic(data: bytes, error: MedveilError) -> bool:
        if not _decodes(SignedEnvelope, data):
            return isinstance(error, DecodeError)
        # Well-formed: the signature no longer holds, or names no member, another chain, an unknown version.
        if isinstance(error, Refused):
            return error.code == "ledger.unknown_sender"
        return isinstance(error, VerificationError) or error.code == "ledger.envelope_version"

    def replay(entry: int) -> tuple[Callable[[bytes], object], Callable[[bytes, MedveilError], bool]]:
        def read(data: bytes) -> object:
            envelopes = (*last.envelopes[:entry], data, *last.envelopes[entry + 1 :])
            return before.execute(last.header.height, last.header.time, envelopes)

        def right(_: bytes, error: MedveilError) -> bool:
            named = (error.code, error.facts.get("height"), error.facts.get("entry"))
            return isinstance(error, VerificationError) and named == ("ledger.bad_entry", last.header.height, entry)

        return read, right

    for entry, data in enumerate(last.envelopes):
        found["envelope"].append(Target(data, before.authenticate, not_authentic))
        found["block"].append(Target(data, *replay(entry)))
        receipt = Receipt(RECEIPT, data, results[entry], inclusion_proof(leaves, entry), last.header, path, note)
        checks = _evidence(Receipt, lambda struct: verify_receipt(struct, trust))
        found["receipt"].append(Target(encode(receipt), *checks))

    for kind, key in (("proven-value", grant_key("grant-4")), ("absence", grant_key("none"))):
        value = machine.state.get(key)
        proof = ProvenValue(PROVEN_VALUE, key, value, machine.state.prove(key), machine.header, path, note)
        checks = _evidence(ProvenValue, lambda struct: verify_value(struct, trust, newer_than=0))
        found[kind].append(Target(encode(proof), *checks))

    log = machine.log
    header = leaf_hash(encode(last.header))
    for proof_bytes, verify in (
        (b"".join(path), lambda proof: verify_inclusion(log.root(), log.size, last.header.height, header, proof)),
        (
            b"".join(log.consistency_proof(5)),
            lambda proof: verify_consistency(5, log.root(5), log.size, log.root(), proof),
        ),
    ):
        found["log-proof"].append(
            Target(
                proof_bytes,
                lambda data, verify=verify: verify([data[at : at + 32] for at in range(0, len(data), 32)]),  # type: ignore[misc]
                lambda _, error: isinstance(error, VerificationError),
            )
        )

    found["checkpoint"].append(
        Target(
            note,
            lambda data: verify_checkpoint(data, trust),
            lambda data, error: isinstance(error, QuorumNotMet if _thinned(data, note) else VerificationError),
        )
    )
    export = LedgerExport(EXPORT, world.founding, tuple(world.blocks), (), note)
    found["export"].append(
        Target(encode(export), *_evidence(LedgerExport, lambda struct: verify_export(struct, trust)))
    )
    snapshot = take_snapshot(world.founding, machine.header, machine.state, machine.log, (), world.note())
    found["snapshot"].append(
        Target(encode(snapshot), *_evidence(LedgerSnapshot, lambda struct: verify_snapshot(struct, trust)))
    )
    return found


def _thinned(data: bytes, note: bytes) -> bool:
    """Whether `data` is the note with whole cosignatures missing, and nothing else."""
    try:
        left, whole = parse_note(data), parse_note(note)
    except DecodeError:
        return False
    return left.checkpoint == whole.checkpoint and set(left.lines) < set(whole.lines)


def campaign(targets: list[Target], kind: str, count: int) -> Counter[str]:
    """Mutate `count` times; returns how often each kind of error was met."""
    met: Counter[str] = Counter()
    for target in targets:
        target.read(target.data)  # unchanged, it holds
    draw = random.Random(f"{SEED}/{kind}")
    for number in range(count):
        target = targets[number % len(targets)]
        name, changed = mutate(target.data, draw)
        try:
            target.read(changed)
        except MedveilError as error:
            assert target.right(changed, error), (
                f"{kind} {number}: {name} is refused as {type(error).__name__} {error.code}"
            )
            met[type(error).__name__] += 1
        else:
            raise AssertionError(f"{kind} {number}: {name} is accepted")
    return met


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_changed_is_refused_with_the_right_error(world_targets: dict[str, list[Target]], kind: str) -> None:
    count = -(-NORMAL // len(KINDS))
    assert campaign(world_targets[kind], kind, count).total() == count


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_changes(world_targets: dict[str, list[Target]], kind: str) -> None:
    count = LONG // len(KINDS)
    assert campaign(world_targets[kind], f"long/{kind}", count).total() == count


def test_the_campaign_would_notice() -> None:
    """A reader that accepts everything, or refuses with the wrong error, fails the campaign."""
    with pytest.raises(AssertionError, match="is accepted"):
        campaign([Target(b"data", lambda data: None, lambda data, error: True)], "none", 1)

    def wrong(data: bytes) -> None:
        if data != b"data":
            raise DecodeError("ledger.unknown_op", op="x")

    with pytest.raises(AssertionError, match="is refused as"):
        campaign([Target(b"data", wrong, lambda data, error: isinstance(error, VerificationError))], "wrong", 1)
