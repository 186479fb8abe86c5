"""The account's next state: spent once, renewed blindly, the same answer on every retry.

A payment spends the current account credential (its serial is shown) and commits to the next one:

    H -> ledger   C' = a commitment to all attributes of the next account, under a new holder's share of the serial
                  (cap - R, deductible - d, visits + v; that they follow from the current ones is `zkp.settlement`'s)
    bureau        signs C' of a *final* op, with share = PRF(share key, op id) added to the serial; posted
    H             the next account credential, serial = her share + the bureau's

The bureau cannot recognise the serial when it is spent: it knows its share only, and C' hides hers. It cannot
fork an account by answering a retry otherwise: the answer is a function of op id, C' and its keys, and anybody
can check the posted one (`check_update`). A holder who loses the answer asks again, or reads it from the ledger.

Adversary: a holder who wants two live accounts, or more cap (the ledger refuses a serial twice; the proof fixes
C'); a bureau that wants to link payments of one account. Not reviewed by outsiders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wire.errors import DecodeError
from zkp import blind_issuance
from zkp.attributes import BLIND, SECRET, Credential, Value
from zkp.bbs_presentation import Issued
from zkp.blind_issuance import BlindSignature
from zkp.credentials import ACCOUNT, Issuer, share
from zkp.groups import Backend, Point, backend, encode_scalar
from zkp.sigma import Relation


@dataclass(frozen=True, repr=False)
class Next:
    """An account's next state before the bureau has signed it. Secret but for `commitment` (48 bytes, public).

    values: all attributes, the serial being the holder's share alone.
    """

    values: Mapping[str, Value]
    commitment: bytes

    @property
    def scalars(self) -> dict[str, int]:
        """The integers in C', by attribute. Secret."""
        return {name: ACCOUNT.scalar(name, value) for name, value in self.values.items()}


def successor(
    current: Credential,
    *,
    cap: int,
    deductible: int,
    visits: int,
    serial_share: int,
    blind: int,
    group: Backend | None = None,
) -> Next:
    """Holder: the next state, with what is then left of cap and deductible (minor units) and the visits so far.

    `serial_share` and `blind`: fresh uniform scalars, from the wallet's seed, so that a wallet restored from it can
    finish. Raises DecodeError for numbers outside their types: below zero above all.
    """
    values: dict[str, Value] = current.named(ACCOUNT)
    values |= {"cap": cap, "deductible": deductible, "visits": visits}
    values |= {"serial": encode_scalar(serial_share), BLIND: encode_scalar(blind)}
    scalars = dict(zip(ACCOUNT.names, ACCOUNT.scalars(values), strict=True))
    group = group or backend()
    return Next(values, group.encode(blind_issuance.commit(ACCOUNT, scalars, group)))


def relation(commitment: Point, variables: Mapping[str, str], label: bytes = b"next account") -> Relation:
    """C' opens to the variables of all attributes by name (secret: ``secret``). ValueError unless all are named."""
    if set(variables) != set(ACCOUNT.names) or variables[SECRET] != SECRET:
        raise ValueError("the next account commits to every attribute, under the holder's secret")
    return blind_issuance.commitment_relation(ACCOUNT, variables, commitment, label)


def sign_update(by: Issuer, op_id: bytes, commitment: bytes, group: Backend | None = None) -> BlindSignature:
    """Bureau: sign the next account that the *final* op `op_id` (32 bytes) carries. Deterministic: post it.

    The ledger has verified the op's proof. Raises DecodeError for a malformed commitment; ValueError for an op
    id of another length.
    """
    if len(op_id) != 32:
        raise ValueError("an op id has 32 bytes")
    group = group or backend()
    shares = {"serial": share(by.share_key, b"update", op_id)}
    return blind_issuance.sign(by.sk, by.of, group.decode(commitment), {}, shares, group)


def check_update(of: Issued, commitment: bytes, answer: BlindSignature, group: Backend | None = None) -> None:
    """Anybody: the posted answer is a signature of `of` over this op's commitment and the posted share.

    Raises VerificationError or DecodeError.
    """
    blind_issuance.check(of, commitment, {}, ("serial",), answer, group or backend())


def finish_update(of: Issued, following: Next, answer: BlindSignature, group: Backend | None = None) -> Credential:
    """Holder: the next account credential, its signature checked. Raises VerificationError or DecodeError."""
    return blind_issuance.finish(of, following.values, ("serial",), answer, group or backend())


def spent_serial(credential: Credential) -> bytes:
    """The 32 bytes that a payment shows, and that the ledger takes once. Secret until then. Raises DecodeError."""
    serial = credential.get(ACCOUNT, "serial")
    if not isinstance(serial, bytes):
        raise DecodeError("credentials.bad_value", attribute="serial", kind="scalar")
    return serial
