"""Split views: a sequencer that signs two histories is convicted by its own signatures, an honest one never."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.contracts import AnchorGrant
from ledger.machine import Machine
from ledger.replicas import Replica
from ledger.split_view import SplitView, compare_heads, find_split, verify_split_view
from ledger.trees.log import Log
from wire import evidence
from wire.canonical import encode
from wire.checkpoint import Note, cosign_checkpoint, sign_checkpoint, trust_of
from wire.errors import DecodeError, VerificationError
from wire.signing import Signer


def grown(world: Any, blocks: int, prefix: str) -> Any:
    for number in range(blocks):
        world.act("hospital-1", AnchorGrant(f"{prefix}{number}", bytes(32), world.start, world.start + 10**9, 0))
    return world


def head(world: Any, log: Log | None = None, size: int | None = None, signer: str = "bureau") -> Note:
    log = world.machine.log if log is None else log
    size = log.size if size is None else size
    return sign_checkpoint(world.signer(signer, "cosign"), world.trust.origin, size, log.root(size))


def follower(world: Any, **options: Any) -> Replica:
    return Replica(world.founding, "insurer", world.signer("insurer", "cosign"), lambda: world.time, **options)


Make = Callable[[], Any]


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5, 7, 8])
def test_a_running_replica_that_is_shown_another_history(make_world: Make, blocks: int) -> None:
    """Shorter, as long, or longer than what it cosigned at height 4: with the other blocks, in any case."""
    true, other = grown(make_world(), 4, "true"), grown(make_world(), blocks, "other")
    reported: list[SplitView] = []
    replica = follower(true, report=reported.append)
    replica.follow(true.blocks, head(true))
    with pytest.raises(VerificationError) as caught:
        replica.follow(other.blocks, head(other))
    assert caught.value.code == "ledger.fork" and replica.height == 4
    assert replica.split_view is not None and reported == [replica.split_view]
    assert verify_split_view(evidence.read(encode(replica.split_view)), true.trust) == ()
    grown(true, 1, "more")
    with pytest.raises(VerificationError):  # it has stopped
        replica.follow(true.blocks, head(true))


def test_the_other_head_alone_is_enough_up_to_its_own_size(make_world: Make) -> None:
    true, other = grown(make_world(), 6, "true"), grown(make_world(), 6, "other")
    for size in range(2, 8):
        replica = follower(true)
        replica.follow(true.blocks, head(true))
        with pytest.raises(VerificationError) as caught:
            replica.follow((), head(other, size=size))
        assert caught.value.code == "ledger.fork" and replica.split_view is not None
        verify_split_view(replica.split_view, true.trust)


def test_a_replica_that_was_restarted(make_world: Make, tmp_path: Path) -> None:
    for blocks in (3, 5):
        true, other = grown(make_world(), 3, "true"), grown(make_world(), blocks, "other")
        memory = tmp_path / f"memory-{blocks}"
        follower(true, memory=memory).follow(true.blocks, head(true))
        other.time = true.time = max(true.time, other.time)
        again = follower(true, memory=memory)
        with pytest.raises(VerificationError) as caught:
            again.follow(other.blocks, head(other))
        assert caught.value.code == "ledger.fork" and again.split_view is not None
        # what it remembers is signed by itself too, so the evidence says that it cosigned one of the two
        assert verify_split_view(again.split_view, true.trust) == ()


def test_what_is_wrong_but_no_split_view(make_world: Make) -> None:
    true = grown(make_world(), 4, "true")
    replica = follower(true)
    replica.follow(true.blocks, head(true))
    stale = head(true, size=3)
    forged = sign_checkpoint(true.signer("insurer", "cosign"), true.trust.origin, 5, bytes(32))
    unknown = sign_checkpoint(true.signer("bureau", "cosign"), true.trust.origin, 9, bytes(32))
    for note in (stale, forged, unknown):
        with pytest.raises(VerificationError) as caught:
            replica.follow((), note)
        assert caught.value.code != "ledger.fork" and replica.split_view is None
    grown(true, 1, "more")
    assert replica.follow(true.blocks, head(true)) is not None


def test_members_that_cosigned_both_are_named(make_world: Make) -> None:
    true, other = grown(make_world(), 3, "true"), grown(make_world(), 3, "other")
    one = true.note(["insurer", "regulator", "hospital-1"])
    two = other.note(["hospital-2", "regulator", "insurer"])
    split = compare_heads(one.format(), two.format(), true.trust, true.machine.log)
    assert split is not None and set(verify_split_view(split, true.trust)) == {"insurer", "regulator"}


def test_an_auditor_compares_heads(make_world: Make) -> None:
    true, other = grown(make_world(), 5, "true"), grown(make_world(), 3, "other")
    log = true.machine.log
    assert compare_heads(head(true).format(), head(true, size=2).format(), true.trust, log) is None
    split = compare_heads(head(true).format(), head(other).format(), true.trust, log)
    assert split is not None
    verify_split_view(split, true.trust)
    assert compare_heads(head(true).format(), head(other).format(), true.trust, other.machine.log) is None
    stranger = head(true, signer="insurer").format()
    bad = cosign_checkpoint(true.signer("insurer", "cosign"), "insurer", head(other), 1)
    for wrong in (stranger, b"", head(true).with_line(bad).format()):
        with pytest.raises(VerificationError):
            compare_heads(wrong, head(other).format(), true.trust, log)


def _example(make_world: Make) -> tuple[Any, SplitView]:
    true, other = grown(make_world(), 6, "true"), grown(make_world(), 4, "other")
    split = find_split(true.note(["insurer"]), other.note(["regulator"]), true.machine.log)
    assert split is not None
    return true, split


def _mutations(make_world: Make, count: int) -> None:
    world, split = _example(make_world)
    data = encode(split)
    chance = random.Random(5)
    for at in chance.sample(range(len(data)), min(count, len(data))):
        with pytest.raises((DecodeError, VerificationError)):
            changed = data[:at] + bytes([data[at] ^ chance.randint(1, 255)]) + data[at + 1 :]
            verify_split_view(evidence.read(changed), world.trust)


def test_changed_bytes_are_refused(make_world: Make) -> None:
    _mutations(make_world, 500)


@pytest.mark.long
def test_every_changed_byte_is_refused(make_world: Make) -> None:
    for _ in range(10):
        _mutations(make_world, 10_000)


def test_an_honest_sequencer_is_not_framed(make_world: Make) -> None:
    world, split = _example(make_world)
    log = world.machine.log
    change = msgspec.structs.replace
    honest = change(
        split,
        smaller=head(world, size=3).format(),
        larger=head(world).format(),
        prefix_root=log.root(3),
        proof=log.consistency_proof(3),
    )
    cases = (
        honest,
        change(honest, prefix_root=bytes(32)),
        change(honest, proof=()),
        change(honest, proof=honest.proof[::-1]),
        change(honest, smaller=honest.larger),
        change(honest, larger=honest.smaller),
        change(honest, smaller=honest.larger, larger=honest.larger, prefix_root=log.root(), proof=()),
        change(split, smaller=split.larger, larger=split.smaller),
        change(split, header=change(split.header, version=2)),
    )
    for case in cases:
        with pytest.raises(VerificationError):
            verify_split_view(case, world.trust)
    other = change(world.founding, chain="other-chain")
    with pytest.raises(VerificationError):
        verify_split_view(split, trust_of(other))
    assert Machine(other).height == 0


@settings(max_examples=60, deadline=None)
@given(common=st.integers(1, 20), one=st.integers(0, 12), two=st.integers(0, 12), data=st.data())
def test_found_exactly_where_the_logs_differ(common: int, one: int, two: int, data: st.DataObject) -> None:
    logs = [Log.of(bytes([0, n]) * 16 for n in range(common)) for _ in range(2)]
    for which, (log, more) in enumerate(zip(logs, (one, two), strict=True), 1):
        for n in range(more):
            log.append(bytes([which, n]))
    sizes = [data.draw(st.integers(1, log.size)) for log in logs]

    heads = [
        sign_checkpoint(Signer(bytes(32)), "c/" + "0" * 64, s, log.root(s)) for s, log in zip(sizes, logs, strict=True)
    ]
    larger = logs[0] if sizes[0] >= sizes[1] else logs[1]
    assert (find_split(*heads, larger) is not None) == (min(sizes) > common)
