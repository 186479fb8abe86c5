"""zkp.membership and zkp.nullifier: in the set and not, whose filing, and what a proof gives away."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

import pytest

from wire import canonical
from wire.errors import DecodeError, Refused, VerificationError
from zkp import bbs_presentation, membership, nullifier, sigma
from zkp.batch import Check, settle
from zkp.groups import Backend, R, backend
from zkp.membership import Filing, Member, PublishedSet, SetKey
from zkp.pedersen import G, H
from zkp.sigma import Relation
from zkp.transcript import Transcript

GROUP = backend()
HANDLES = [hashlib.sha256(bytes([i])).digest()[:16] for i in range(6)]
MEMBERS: dict[str, list[Member]] = {
    "active": list(HANDLES),
    "covered": ["I10", "I10.x00x002", "E11.900"],
    "filed": [
        Filing(HANDLES[0], "I10", 10, 65535),
        Filing(HANDLES[1], "I10", 10, 400),
        Filing(HANDLES[0], "E11", 5, 9),
    ],
}
KINDS = list(MEMBERS)


def rand(length: int) -> bytes:
    return hashlib.shake_256(b"membership tests").digest(length)


def published(kind: str, version: int = 1) -> PublishedSet:
    def draw(length: int) -> bytes:
        return hashlib.shake_256(f"{kind}/{version}".encode()).digest(length)

    y, key = membership.new_version(kind, "a-set", version, draw)  # type: ignore[arg-type]
    return membership.publish(y, key, [*MEMBERS[kind], MEMBERS[kind][0]])


SETS = {kind: published(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_each_member_finds_its_row(kind: str) -> None:
    whole = SETS[kind]
    assert len(whole) == len(MEMBERS[kind])
    assert canonical.decode(PublishedSet, canonical.encode(whole)) == whole
    rows = [membership.find(whole, member) for member in MEMBERS[kind]]
    assert len({row.signature for row in rows}) == len(rows)
    assert all(repr(row).startswith("<") for row in rows)


@pytest.mark.parametrize(
    "kind, member",
    [
        ("active", bytes(16)),
        ("covered", "I10.x"),
        ("filed", Filing(HANDLES[1], "E11", 5, 9)),
        ("filed", Filing(HANDLES[0], "I10", 10, 400)),
    ],
)
def test_not_in_the_set(kind: str, member: Member) -> None:
    with pytest.raises(Refused) as caught:
        membership.find(SETS[kind], member)
    assert caught.value.code == "membership.not_in_set"


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_sets(kind: str) -> None:
    whole, member = SETS[kind], MEMBERS[kind][0]
    with pytest.raises(DecodeError):
        membership.find(PublishedSet(whole.key, whole.rows[:-1]), member)
    with pytest.raises(Refused):
        membership.find(PublishedSet(whole.key, b""), member)
    other = published(kind, version=2)
    with pytest.raises(Refused):  # tags depend on the key
        membership.find(PublishedSet(other.key, whole.rows), member)
    width = whole.row_bytes
    at = whole.rows.index(membership.tag(whole.key, member))
    next_row = (at + width) % len(whole.rows)
    signature = whole.rows[next_row + 16 : next_row + width]
    swapped = whole.rows[: at + 16] + signature + whole.rows[at + width :]
    with pytest.raises(VerificationError):
        membership.find(PublishedSet(whole.key, swapped), member)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_set_is_not_published(kind: str) -> None:
    y, key = membership.new_version(kind, "empty", 3, rand)  # type: ignore[arg-type]
    with pytest.raises(Refused) as caught:
        membership.publish(y, key, iter(()))
    assert (caught.value.code, caught.value.facts["version"]) == ("membership.empty_set", 3)


@pytest.mark.parametrize(
    "kind, member",
    [("active", "I10"), ("covered", HANDLES[0]), ("filed", HANDLES[0]), ("active", Filing(HANDLES[0], "I10", 1, 2))],
)
def test_a_member_of_another_kind(kind: str, member: Member) -> None:
    with pytest.raises(ValueError):
        membership.values(SETS[kind].key, member)


@pytest.mark.parametrize("filing", [Filing(HANDLES[0], "", 1, 2), Filing(HANDLES[0], "I10", 3, 2)])
def test_no_filing(filing: Filing) -> None:
    with pytest.raises((DecodeError, ValueError)):
        membership.values(SETS["filed"].key, filing)
    assert repr(filing) == "Filing(...)"


# --------------------------------------------------------------------------------------- in a proof


class Part(Protocol):
    def append_to(self, transcript: Transcript) -> None: ...
    def relations(self) -> list[Relation]: ...


def transcript_of(parts: Sequence[Part]) -> Transcript:
    transcript = Transcript(b"test")
    for part in parts:
        part.append_to(transcript)
    return transcript


def committed(value: int, variable: str) -> Relation:
    """The value also stands in a commitment, so that there is something to be tied to."""
    point = GROUP.msm([G[0].point(GROUP, 0), G[0].point(GROUP, 1)], [value, 5])
    return Relation(b"committed", [(variable, [(1, G)]), ("opening", [(1, H)])], [(1, point)])


def prove(kind: str, member: Member, value: int, group: Backend = GROUP) -> tuple[bytes, sigma.SigmaProof, Relation]:
    row = membership.find(SETS[kind], member, group)
    standing, witness = membership.show(row, "set", "value", rand, group)
    tie = committed(value, "value")
    (m,) = membership.values(row.key, member)
    statement = [*standing.relations(), tie]
    return (
        standing.encoded,
        sigma.prove(transcript_of([standing]), statement, {**witness, "value": m, "opening": 5}, rand, group),
        tie,
    )


def verify(encoded: bytes, proof: sigma.SigmaProof, tie: Relation, key: SetKey) -> None:
    standing = membership.read(encoded, key, "set", "value", GROUP)
    check = Check(GROUP)
    sigma.verify(transcript_of([standing]), [*standing.relations(), tie], proof, check)
    standing.add_to(check)
    settle([check], GROUP)


@pytest.mark.parametrize("kind", ["active", "covered"])
def test_proved(kind: str) -> None:
    member = MEMBERS[kind][1]
    (m,) = membership.values(SETS[kind].key, member)
    whole = prove(kind, member, m)
    verify(*whole, SETS[kind].key)
    for key in (published(kind, version=2).key, replace_version(SETS[kind].key)):
        with pytest.raises(VerificationError):
            verify(*whole, key)
    with pytest.raises(VerificationError):  # a row of the set, but of another value than the commitment's
        verify(*prove(kind, member, m + 1), SETS[kind].key)


def replace_version(key: SetKey) -> SetKey:
    return SetKey(key.kind, key.name, key.version + 1, key.key)


def test_the_identity_and_malformed_points() -> None:
    """A' = Abar = O satisfies relation (rho = m = 0 aside) and pairing: it must not be read at all."""
    (m,) = membership.values(SETS["active"].key, HANDLES[0])
    encoded, proof, tie = prove("active", HANDLES[0], m)
    identity = b"\xc0" + bytes(47)
    wrong = [identity + encoded[48:], encoded[:48] + identity, 2 * identity, encoded[:-1], encoded + b"\0", b""]
    for changed in wrong:
        with pytest.raises(VerificationError):
            verify(changed, proof, tie, SETS["active"].key)


def test_a_forged_row_is_refused_by_the_pairing_alone() -> None:
    """A cheat with sigma of her own: the relation holds, e(A', Y) e(-Abar, P2) does not."""
    key, stranger = SETS["active"].key, bytes(16)
    row = membership.Row(key, stranger, GROUP.encode(GROUP.generator()))
    standing, witness = membership.show(row, "set", "value", rand, GROUP)
    tie = committed(0, "value")
    full = {**witness, "value": 0, "opening": 5}
    proof = sigma.prove(transcript_of([standing]), [*standing.relations(), tie], full, rand, GROUP)
    with pytest.raises(VerificationError) as caught:
        verify(standing.encoded, proof, tie, key)
    assert caught.value.code == "zkp.bad_proof"


def show_filing(filing: Filing, handle: int, code: int) -> None:
    """A proof over a filing whose handle and code are those of two commitments: somebody's credentials."""
    row = membership.find(SETS["filed"], filing)
    shared = {"handle": "person.handle", "code": "encounter.diagnosis"}
    shown, witness = bbs_presentation.show(row.credential, row.key.issued, "filing", [], rand, GROUP, shared)
    ties = [
        Relation(label, [(name, [(1, G)]), (label.decode(), [(1, H)])], [(value, G), (5, H)])
        for label, name, value in [(b"a", "person.handle", handle), (b"b", "encounter.diagnosis", code)]
    ]
    full = {**witness, "a": 5, "b": 5}
    proof = sigma.prove(transcript_of([shown]), [*shown.relations(), *ties], full, rand, GROUP)
    again = bbs_presentation.read(shown.encoded, SETS["filed"].key.issued, "filing", {}, GROUP, shared)
    check = Check(GROUP)
    sigma.verify(transcript_of([again]), [*again.relations(), *ties], proof, check)
    again.add_to(check)
    settle([check], GROUP)


def test_a_filing_belongs_to_its_holder() -> None:
    mine = Filing(HANDLES[0], "I10", 10, 65535)
    handle, code, *_ = membership.values(SETS["filed"].key, mine)
    show_filing(mine, handle, code)
    theirs = int.from_bytes(HANDLES[1], "big")
    with pytest.raises(VerificationError):
        show_filing(mine, theirs, code)
    with pytest.raises(VerificationError):
        show_filing(mine, handle, code + 1)
    # what one packed number would have allowed: a diagnosis outside its range that makes up for the other handle
    for shift in (32, 96, 120, 160):
        with pytest.raises(VerificationError):
            show_filing(mine, theirs, (code + (handle - theirs) * pow(2, shift, R)) % R)


def test_filings_and_values_are_shown_differently() -> None:
    row = membership.find(SETS["active"], HANDLES[0])
    with pytest.raises(ValueError):
        _ = row.credential
    with pytest.raises(ValueError):
        _ = SETS["active"].key.issued
    filing = membership.find(SETS["filed"], MEMBERS["filed"][0])
    with pytest.raises(ValueError):
        membership.show(filing, "set", "value", rand, GROUP)
    with pytest.raises(ValueError):
        membership.read(bytes(96), SETS["filed"].key, "set", "value", GROUP)


def test_the_reference_backend_agrees(reference: Backend) -> None:
    y, key = membership.new_version("active", "a-set", 1, rand, reference)
    assert (y, key) == membership.new_version("active", "a-set", 1, rand)
    assert membership.publish(y, key, HANDLES[:1], reference) == membership.publish(y, key, HANDLES[:1])
    membership.find(membership.publish(y, key, HANDLES[:1]), HANDLES[0], reference)


@pytest.mark.long
def test_a_hundred_thousand_members() -> None:
    handles = [hashlib.sha256(i.to_bytes(4, "big")).digest()[:16] for i in range(100_000)]
    y, key = membership.new_version("active", "epoch", 1, rand)
    whole = membership.publish(y, key, handles)
    assert len(whole) == 100_000
    membership.find(whole, handles[77_777])


# ---------------------------------------------------------------------------------------- nullifiers


def prove_nullifier(secret: int, committed_secret: int, scope: bytes) -> tuple[bytes, sigma.SigmaProof, Relation]:
    tag, tie = nullifier.make(secret, scope, GROUP), committed(committed_secret, "secret")
    full = {"secret": secret, "opening": 5}
    return tag.encoded, sigma.prove(transcript_of([tag]), [*tag.relations(), tie], full, rand, GROUP), tie


def verify_nullifier(encoded: bytes, proof: sigma.SigmaProof, tie: Relation, scope: bytes) -> None:
    tag = nullifier.read(encoded, scope, GROUP)
    check = Check(GROUP)
    sigma.verify(transcript_of([tag]), [*tag.relations(), tie], proof, check)
    settle([check], GROUP)


def test_nullifiers() -> None:
    encoded, proof, tie = prove_nullifier(77, 77, b"2026/basic")
    verify_nullifier(encoded, proof, tie, b"2026/basic")
    assert encoded == nullifier.make(77, b"2026/basic", GROUP).encoded
    assert encoded not in {
        nullifier.make(77, b"2027/basic", GROUP).encoded,
        nullifier.make(78, b"2026/basic", GROUP).encoded,
    }
    with pytest.raises(VerificationError):
        verify_nullifier(encoded, proof, tie, b"2027/basic")
    with pytest.raises(VerificationError):  # another's secret than the credential's
        verify_nullifier(*prove_nullifier(78, 77, b"2026/basic"), b"2026/basic")
    for wrong in (b"\xc0" + bytes(47), encoded[:-1], nullifier.make(77, b"2027/basic", GROUP).encoded):
        with pytest.raises(VerificationError):
            verify_nullifier(wrong, proof, tie, b"2026/basic")
    for secret, scope in ((0, b"x"), (1, b"")):
        with pytest.raises(ValueError):
            nullifier.make(secret, scope, GROUP)
