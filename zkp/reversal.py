"""Reversal: the holder takes a reversed payment back into her account, once, with a voucher of the ledger.

The ledger reverses a payment from the highest layer down and posts a `zkp.payments.Voucher` {bill, payer, layer,
year, C_R, C_d, v}. Redeeming spends the *current* serial of an account of that payer, layer and year: cap and
deductible get back what C_R and C_d hold, visits lose v. Who may: whoever made the payment. One secret stands in the
encounter credential of that bill, in the account, and in the payment's own commitment C_S: a hospital that signs
a second patient into the bill does not give her the voucher.

    encounter: bill and hospital disclosed          account: payer, layer, year, serial disclosed      one secret
    C_S = secret G + b'' H;  C_R = R G + b H;  C_d = d G + b' H, where there is one
    C_N + v H_visits = secret H_secret + visits H_visits + (cap + R) H_cap + (deductible + d) H_deductible
                       + share H_serial + blind H_blind

No range proof: R and d were taken off an ancestor of the account, and a voucher is redeemed once, so that the
sums are at most what the bureau signed first. docs/protocols/settlement.md says what follows if it signed two.

Parties: the holder proves, ledger and auditors verify against their own `Redemption`. Adversary: a holder who wants
another's voucher, one twice, or more than it holds (soundness as `zkp.settlement`; once: the ledger's state).
Linkable on purpose: the spent serial and the bill. Not reviewed by outsiders. Spec: DESIGN section 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec

from wire import canonical
from wire.canonical import Wire
from wire.domains import REDEMPTION, digest
from wire.errors import DecodeError, Refused, VerificationError
from wire.evidence import Header, register
from wire.identifiers import Hash, Name
from zkp import account, bbs_presentation, payments, pedersen, sigma
from zkp.attributes import SECRET, Credential, Value
from zkp.batch import Check, settle
from zkp.bbs_presentation import Issued, Shown
from zkp.claim import EncodedKey, Purpose, integers
from zkp.credentials import ACCOUNT, ENCOUNTER
from zkp.groups import Backend, Point, R, Rand, backend
from zkp.payments import EncodedPoint, Voucher
from zkp.relations import Folded, Item
from zkp.settlement import Derive
from zkp.settlement_proof import Reader, following_relation, opened, point_of
from zkp.sigma import SigmaProof
from zkp.transcript import Transcript


class Redemption(Wire, frozen=True, tag="zkp.redemption"):
    """What is redeemed, under which keys. Public; a verifier makes its own. keys: 96 bytes; serial: the spent one."""

    chain: Name
    encounter_key: EncodedKey
    account_key: EncodedKey
    voucher: Voucher
    hospital: Name
    audience: Name
    nonce: Hash
    purpose: Purpose
    grant: Name
    serial: Hash

    @property
    def issuers(self) -> dict[str, Issued]:
        """The issuers of the two credentials, by the prefix under which each is shown."""
        return {"encounter": Issued(ENCOUNTER, self.encounter_key), "account": Issued(ACCOUNT, self.account_key)}

    @property
    def disclosed(self) -> dict[str, dict[str, Value]]:
        """What is said of each credential in the open."""
        paid = self.voucher.payment
        return {
            "encounter": {"bill": self.voucher.handle, "hospital": self.hospital},
            "account": {"payer": paid.payer, "layer": paid.layer, "year": paid.year, "serial": self.serial},
        }


class Redeemed(Wire, frozen=True, tag="zkp.redeemed"):
    """The op's message: evidence of kind "redemption". It holds no secret. following: C_N; proof: flat bytes."""

    header: Header
    redemption: Redemption
    following: EncodedPoint
    proof: Annotated[bytes, msgspec.Meta(max_length=4096)]


HEADER = register("redemption", 1, Redeemed)


@dataclass(frozen=True, repr=False)
class Holdings:
    """What the holder redeems from. Secret. paid, deducted: value and blinding of C_R and C_d ((0, 0) without C_d);
    owner_blinding: of C_S."""

    encounter: Credential
    account: Credential
    paid: tuple[int, int]
    deducted: tuple[int, int]
    owner_blinding: int


def encoded(redemption: Redemption) -> bytes:
    """The canonical bytes. Raises DecodeError for one that no decoder would accept."""
    try:
        data = canonical.encode(redemption)
    except OverflowError:
        raise DecodeError("wire.not_canonical", kind="Redemption") from None
    canonical.decode(Redemption, data)
    return data


def redemption_id(redemption: Redemption) -> bytes:
    """32 bytes over the whole of it: what the wallet derives from. Raises DecodeError."""
    return digest(REDEMPTION, encoded(redemption))


# ------------------------------------------------------------------------------- statement, for both sides


def _openings(redemption: Redemption) -> dict[str, bytes]:
    """The voucher's commitments by the name of the value."""
    paid = redemption.voucher.payment
    return {"paid": paid.amount} | ({"deducted": paid.deductible} if paid.deductible is not None else {})


def _transcript(redemption: Redemption, shown: Mapping[str, Shown], following: bytes) -> Transcript:
    transcript = Transcript(b"redemption/v1")
    transcript.append_bytes(b"header", canonical.encode(HEADER))
    transcript.append_bytes(b"redemption", encoded(redemption))
    for part in shown.values():
        part.append_to(transcript)
    transcript.append_point(b"next account", following)
    return transcript


def _statement(redemption: Redemption, shown: Mapping[str, Shown], following: Point, group: Backend) -> list[Item]:
    commitments = _openings(redemption)
    names = {"cap": "paid", "deductible": "deducted"}
    changes = {attribute: (1, value) for attribute, value in names.items() if value in commitments}
    visits = -redemption.voucher.payment.visits
    links = [opened(name, name, point_of(data, group)) for name, data in commitments.items()]
    links.append(opened("owner", SECRET, point_of(redemption.voucher.payment.owner, group)))
    return [
        *(relation for part in shown.values() for relation in part.relations()),
        following_relation(shown["account"], following, changes, visits),
        Folded(b"commitments", links),
    ]


# ---------------------------------------------------------------------------------------------- prover


def following_of(redemption: Redemption, holdings: Holdings, derive: Derive, group: Backend) -> account.Next:
    """Holder: the account as it will be. Secret but for its commitment. Raises DecodeError for impossible numbers."""
    own = holdings.account.named(ACCOUNT)
    cap, deductible, visits = (own[name] for name in ("cap", "deductible", "visits"))
    assert isinstance(cap, int) and isinstance(deductible, int) and isinstance(visits, int)
    numbers = cap + holdings.paid[0], deductible + holdings.deducted[0], visits - redemption.voucher.payment.visits
    return account.successor(
        holdings.account,
        cap=numbers[0],
        deductible=numbers[1],
        visits=numbers[2],
        serial_share=int.from_bytes(derive(f"serial of {numbers}"), "big") % R,
        blind=int.from_bytes(derive(f"blind of {numbers}"), "big") % R,
        group=group,
    )


def prove(
    redemption: Redemption, holdings: Holdings, derive: Derive, rand: Rand, group: Backend | None = None
) -> tuple[Redeemed, account.Next]:
    """Holder: redeem a voucher. P -> V: the `Redeemed`; the next account is the wallet's.

    Raises Refused with what does not hold, VerificationError for openings that are not the voucher's, DecodeError.
    """
    group = group or backend()
    encoded(redemption)
    payments.check_redeemable(redemption.voucher)
    held = {"encounter": holdings.encounter, "account": holdings.account}
    values = {prefix: one.named(redemption.issuers[prefix].schema) for prefix, one in held.items()}
    if values["encounter"][SECRET] != values["account"][SECRET]:
        raise Refused("settlement.other_holder")
    for prefix, disclosed in redemption.disclosed.items():
        for name, value in disclosed.items():
            if values[prefix][name] != value:
                raise Refused("settlement.other_attribute", credential=prefix, attribute=name)
    for name, data in _openings(redemption).items():
        value, blinding = holdings.paid if name == "paid" else holdings.deducted
        pedersen.check_opening(group.decode(data), value, blinding, group)
    secret = holdings.account.scalars(ACCOUNT)[ACCOUNT.index(SECRET)]
    owner = group.decode(redemption.voucher.payment.owner)
    pedersen.check_opening(owner, secret, holdings.owner_blinding, group)
    return _prove(redemption, holdings, derive, rand, group)


def _prove(
    redemption: Redemption, holdings: Holdings, derive: Derive, rand: Rand, group: Backend
) -> tuple[Redeemed, account.Next]:
    hedge = Transcript(b"redemption/v1/blindings")
    hedge.append_bytes(b"redemption", encoded(redemption))
    rand = hedge.prover_randomness(holdings.account.scalars(ACCOUNT), rand)
    shown: dict[str, Shown] = {}
    witness: dict[str, int] = {}
    held = {"encounter": holdings.encounter, "account": holdings.account}
    for prefix, issued in redemption.issuers.items():
        disclose = tuple(redemption.disclosed[prefix])
        shown[prefix], known = bbs_presentation.show(held[prefix], issued, prefix, disclose, rand, group)
        witness |= known
    following = following_of(redemption, holdings, derive, group)
    witness |= {f"next.{name}": following.scalars[name] for name in ("serial", "blind")}
    for name in _openings(redemption):
        value, blinding = holdings.paid if name == "paid" else holdings.deducted
        witness |= {name: value, f"link.{name}": blinding}
    witness["link.owner"] = holdings.owner_blinding
    transcript = _transcript(redemption, shown, following.commitment)
    statement = _statement(redemption, shown, group.decode(following.commitment), group)
    proof = sigma.prove(transcript, statement, witness, rand, group)
    parts = [part.encoded for part in shown.values()]
    flat = b"".join((*parts, proof.commitments, proof.responses))
    return Redeemed(HEADER, redemption, following.commitment, flat), following


# -------------------------------------------------------------------------------------------- verifier


def check(redeemed: Redeemed, redemption: Redemption, group: Backend | None = None) -> Check:
    """Verifier: what must hold for `redeemed` to prove `redemption`, the verifier's own; to be settled with others.

    That the voucher is posted as it stands here, and the serial not spent, is the ledger's to check. Raises
    VerificationError or DecodeError, also for a voucher that has been redeemed. *Nothing is proved before the check is
    settled.*
    """
    group = group or backend()
    if redeemed.header != HEADER:
        raise VerificationError("zkp.unknown_suite", suite=redeemed.header.suite)
    for field in Redemption.__struct_fields__:
        if getattr(redeemed.redemption, field) != getattr(redemption, field):
            raise VerificationError("zkp.not_as_asked", field=field)
    encoded(redemption)
    try:
        payments.check_redeemable(redemption.voucher)
    except Refused as refused:
        raise VerificationError(refused.code, **refused.facts) from None
    canonical.decode(Redeemed, canonical.encode(redeemed))
    reader = Reader(redeemed.proof)
    shown = {
        prefix: bbs_presentation.read(
            reader.take(bbs_presentation.POINTS_BYTES),
            issued,
            prefix,
            integers(issued.schema, redemption.disclosed[prefix]),
            group,
        )
        for prefix, issued in redemption.issuers.items()
    }
    following = point_of(redeemed.following, group)
    transcript = _transcript(redemption, shown, redeemed.following)
    statement = _statement(redemption, shown, following, group)
    commitments, _ = sigma.proof_bytes(statement)
    found = Check(group)
    for part in shown.values():
        part.add_to(found)
    sigma.verify(transcript, statement, SigmaProof(reader.take(commitments), reader.rest()), found)
    return found


def verify(redeemed: Redeemed, redemption: Redemption, group: Backend | None = None) -> None:
    """Verifier: check one redemption alone. Raises VerificationError or DecodeError."""
    group = group or backend()
    settle([check(redeemed, redemption, group)], group)
