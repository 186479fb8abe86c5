"""Envelopes: one encoding, one signature, and a code of its own for each way to be wrong."""

from __future__ import annotations

import types
import typing
from typing import Any

import msgspec
import pytest

import ledger.envelope as envelope_module
from ledger.contracts import CONTRACTS, AnchorGrant, Op, Release, RevokeGrant, VoteBudget
from ledger.envelope import (
    LARGEST,
    MOST_OPS,
    VERSION,
    Envelope,
    SignedEnvelope,
    check_chain,
    check_signature,
    envelope_id,
    open_envelope,
    sign_envelope,
)
from mpc.query import Nano
from wire.canonical import check_type, decode, encode
from wire.domains import ENVELOPE
from wire.errors import DecodeError, VerificationError

OPS: tuple[Any, ...] = typing.get_args(Op)


def envelope(**change: Any) -> Envelope:
    fields: dict[str, Any] = {
        "version": VERSION,
        "chain": bytes(32),
        "sender": "hospital-1",
        "nonce": 0,
        "expiry_height": 10,
        "ops": (RevokeGrant("grant-1"),),
    }
    return Envelope(**(fields | change))


def test_round_trip(world: Any) -> None:
    signer = world.signer("hospital-1")
    data = sign_envelope(signer, envelope())
    signed = open_envelope(data)
    assert signed.envelope == envelope() and encode(signed) == data
    check_signature(signed, signer.key)
    check_chain(signed, bytes(32))
    assert len(envelope_id(data)) == 32
    with pytest.raises(VerificationError):
        check_signature(signed, world.signer("hospital-2").key)
    with pytest.raises(VerificationError):
        check_chain(signed, b"\x01" * 32)


def test_a_failed_check_is_not_remembered_as_good(world: Any) -> None:
    signed = open_envelope(sign_envelope(world.signer("hospital-1"), envelope()))
    for _ in range(2):
        with pytest.raises(VerificationError):
            check_signature(signed, world.signer("hospital-2").key)
        check_signature(signed, world.signer("hospital-1").key)


def test_whether_an_envelope_is_atomic_is_signed(world: Any) -> None:
    signer = world.signer("hospital-1")
    signed = open_envelope(sign_envelope(signer, envelope(atomic=False)))
    assert envelope().atomic and not signed.envelope.atomic
    other = SignedEnvelope(msgspec.structs.replace(signed.envelope, atomic=True), signed.signature)
    with pytest.raises(VerificationError):
        check_signature(other, signer.key)
    without = msgspec.msgpack.decode(encode(signed))
    without[1] = without[1][:-1]  # no default stands in for what was left out
    with pytest.raises(DecodeError):
        open_envelope(msgspec.msgpack.encode(without))


def test_the_signature_is_under_the_envelope_domain(world: Any) -> None:
    signer = world.signer("hospital-1")
    for domain in (b"medveil/v1/grant", ENVELOPE + b"2"):
        signed = SignedEnvelope(envelope(), signer.sign(domain, encode(envelope())))
        with pytest.raises(VerificationError):
            check_signature(signed, signer.key)


def test_every_op_belongs_to_one_contract_and_is_canonical() -> None:
    by_contract = [op for contract in CONTRACTS for op in contract.ops]
    assert isinstance(Op, types.UnionType)
    assert sorted(op.__name__ for op in by_contract) == sorted(op.__name__ for op in OPS)
    check_type(SignedEnvelope)
    tags = [op.__struct_config__.tag for op in OPS]
    assert len(set(tags)) == len(tags)
    for contract in CONTRACTS:
        for op in contract.ops:
            assert op.__struct_config__.tag.startswith(contract.name + ".")


@pytest.mark.parametrize("ops", [(), (RevokeGrant("grant-1"),) * (MOST_OPS + 1)])
def test_one_to_256_ops(world: Any, ops: tuple[Any, ...]) -> None:
    with pytest.raises(DecodeError):
        open_envelope(sign_envelope(world.signer("hospital-1"), envelope(ops=ops)))


def test_unknown_op(world: Any) -> None:
    data = sign_envelope(world.signer("hospital-1"), envelope())
    for tag, shown in ((b"grants.revokf", "grants.revokf"), ("grants.r\u00e9vok".encode(), "?")):
        assert len(tag) == len(b"grants.revoke")
        with pytest.raises(DecodeError) as caught:
            open_envelope(data.replace(b"grants.revoke", tag))
        assert caught.value.code == "ledger.unknown_op" and caught.value.facts["op"] == shown


def test_oversize(world: Any) -> None:
    with pytest.raises(DecodeError) as caught:
        open_envelope(bytes(LARGEST + 1))
    assert caught.value.code == "ledger.envelope_too_large"
    big = AnchorGrant("g" * 64, bytes(32), 0, 1, 0)
    assert len(sign_envelope(world.signer("hospital-1"), envelope(ops=(big,) * MOST_OPS))) < LARGEST


def test_the_largest_budget_is_what_a_release_can_state(world: Any) -> None:
    def vote(rho_nano: int) -> bytes:
        return sign_envelope(world.signer("hospital-1"), envelope(ops=(VoteBudget("heart", rho_nano),)))

    assert msgspec.convert(2**53 - 1, Nano) == 2**53 - 1
    open_envelope(vote(2**53 - 1))
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(2**53, Nano)
    with pytest.raises(DecodeError):
        open_envelope(vote(2**53))


def test_the_largest_phase_fits_into_an_envelope(world: Any) -> None:
    """A query that may be asked can be released: 2^17 cells below 2^62, 9 bytes each."""
    release = Release(bytes(16), 2, (2**62 - 1,) * 2**17, bytes(32))
    data = sign_envelope(world.signer("researcher"), envelope(sender="researcher", ops=(release,)))
    assert open_envelope(data).envelope.ops == (release,)


@pytest.mark.parametrize(
    "change",
    [
        {"sender": "Hospital"},
        {"sender": "a\n"},
        {"chain": bytes(31)},
        {"nonce": -1},
        {"nonce": 2**63},
        {"expiry_height": -1},
    ],
)
def test_fields_out_of_range(world: Any, change: dict[str, Any]) -> None:
    data = encode(SignedEnvelope(envelope(**change), world.signer("hospital-1").sign(ENVELOPE, b"")))
    with pytest.raises(DecodeError):
        open_envelope(data)


def test_other_encodings_of_the_same_envelope_are_refused(world: Any) -> None:
    data = sign_envelope(world.signer("hospital-1"), envelope())
    plain = msgspec.msgpack.decode(data)
    assert msgspec.msgpack.encode(plain) == data
    at = data.index(b"\xaahospital-1")
    longer = data[:at] + b"\xd9\x0a" + data[at + 1 :]  # the same text with a longer length
    assert msgspec.msgpack.decode(longer) == plain
    for bad in (longer, data + b"\x00", data[:-1], b"", b"\xc1", b"\x91" * 2000):
        with pytest.raises(DecodeError):
            open_envelope(bad)


def test_decoding_gives_the_declared_types(world: Any) -> None:
    data = sign_envelope(world.signer("hospital-1"), envelope())
    assert isinstance(decode(SignedEnvelope, data).envelope.ops[0], RevokeGrant)


def test_what_is_remembered_is_bounded_and_a_failure_is_not_remembered(world: Any) -> None:
    recent = envelope_module._Recent[int](3)
    for number in range(10):
        recent.put(b"%d" % number, number, 1)
    assert recent.get(b"9") == 9 and recent.get(b"0") is None
    assert sum(recent.get(b"%d" % number) is not None for number in range(10)) <= 6
    recent.clear()
    assert recent.get(b"9") is None

    good = open_envelope(world.envelope("hospital-1", RevokeGrant("g")))
    key = world.signer("hospital-1").key
    for _ in range(2):
        check_signature(good, key)
        with pytest.raises(VerificationError):
            check_signature(good, world.signer("hospital-2").key)
        with pytest.raises(VerificationError):
            check_signature(msgspec.structs.replace(good, envelope=envelope(nonce=5)), key)


def test_what_a_stranger_sent_is_not_kept(world: Any) -> None:
    """Opened, an envelope may take many times its length: only authentic ones stay, and only short ones."""
    envelope_module.forget()
    strange = world.envelope("hospital-1", RevokeGrant("g"), signer=world.signer("insurer"))
    with pytest.raises(VerificationError):
        world.machine.authenticate(strange)
    long = world.envelope("researcher", Release(bytes(16), 1, (2**62,) * 8000, bytes(32)))
    short = world.envelope("hospital-1", RevokeGrant("g"))
    world.machine.authenticate(long)
    first = world.machine.authenticate(short)
    assert open_envelope(strange) is not open_envelope(strange)
    assert open_envelope(long) is not open_envelope(long)
    assert open_envelope(short) is first


def test_the_name_of_an_unknown_op_is_looked_for_in_short_envelopes_only(world: Any) -> None:
    many = msgspec.msgpack.encode(["ledger.signed_envelope", ["x"] * 6 + [[["no.op"], {}] + [{}] * 100_000]])
    with pytest.raises(DecodeError) as caught:
        open_envelope(many)
    assert caught.value.code == "wire.not_canonical"
    with pytest.raises(DecodeError) as caught:
        open_envelope(msgspec.msgpack.encode(["ledger.signed_envelope", ["x"] * 6 + [[["no.op"]]]]))
    assert caught.value.code == "ledger.unknown_op"
