"""Key sets, members and the founding: canonical, bounded, every byte counts."""

from __future__ import annotations

import msgspec
import pytest

from wire.canonical import decode, encode
from wire.errors import DecodeError
from wire.keyset import Founding, KeySet, Member, SealingKey, SignatureKey
from wire.sealing import OpenKey
from wire.signing import Signer


def _member(organisation: str, seed: int) -> Member:
    signers = [SignatureKey(Signer(bytes([seed, use]) * 16).key, 0) for use in range(4)]
    seal = SealingKey(OpenKey(1, bytes([seed]) * 32).key, 0)
    return Member(organisation, ("hospital",), KeySet(*signers, seal), True)


FOUNDING = Founding("chain-1", (_member("hospital-1", 1), _member("bureau", 2)), "bureau", 2, "Asia/Shanghai", 0)


def test_round_trip() -> None:
    assert decode(Founding, encode(FOUNDING)) == FOUNDING


def test_every_changed_byte_is_refused_or_another_founding() -> None:
    data = encode(FOUNDING)
    for position in range(len(data)):
        changed = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        try:
            assert decode(Founding, changed) != FOUNDING
        except DecodeError:
            pass


@pytest.mark.parametrize(
    "change",
    [{"k": 0}, {"k": 1001}, {"chain": "Chain"}, {"chain": ""}, {"sequencer": "bureau\n"}, {"time": 2**63}],
    ids=str,
)
def test_bounds(change: dict[str, object]) -> None:
    with pytest.raises(DecodeError):
        decode(Founding, encode(msgspec.structs.replace(FOUNDING, **change)))


def test_a_height_is_not_negative() -> None:
    key = SignatureKey(Signer(bytes(32)).key, -1)
    with pytest.raises(DecodeError):
        decode(SignatureKey, encode(key))
