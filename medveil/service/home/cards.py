"""Member cards: how an organisation shows its public keys before it is a member, and how cards found a consortium.

A card is an application to the ledger's `organisations` contract, as a file: name, roles, tier, keys, and each
signature key's signature that it is held. Founders exchange cards, compare fingerprints by another way (a call, a
meeting), and one of them makes the trust file of all; a later member hands its card to those who vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ledger.contracts.organisations import Application, possession_message
from wire import evidence
from wire.canonical import Wire, encode
from wire.checkpoint.membership import check_member, needed_cosigners, signature_keys
from wire.domains import APPLICATION, KEY_POSSESSION, digest
from wire.errors import DecodeError, Refused, Unavailable, VerificationError
from wire.evidence import Header, register
from wire.identifiers import Hash
from wire.keyset import Founding, Member
from wire.signing import Signer, verify

_LONGEST = 64 * 1024

FOUNDING = bytes(32)
"""What stands for the chain in a card that is to found one."""


class MemberCard(Wire, frozen=True, tag="medveil.member_card"):
    """A card. chain: hash of the genesis of the consortium that it applies to; zeros: to found one."""

    header: Header
    chain: Hash
    application: Application


CARD = register("member-card", 1, MemberCard)


def make_card(member: Member, chain: bytes, signers: Sequence[Signer]) -> MemberCard:
    """The card of `member`. signers: of its envelope, cosign, http and tls keys, in this order."""
    message = possession_message(chain, member)
    held = tuple(signer.sign(KEY_POSSESSION, message) for signer in signers)
    return MemberCard(CARD, chain, Application(member, held))


def check_card(card: MemberCard, chain: bytes) -> Member:
    """The member that a card shows, if it is for `chain` and holds. Raises VerificationError or DecodeError."""
    member = card.application.member
    if card.header != CARD or card.chain != chain:
        raise VerificationError("cards.other_chain", organisation=member.organisation)
    check_member(member)
    message = possession_message(chain, member)
    for entry, signature in zip(signature_keys(member.keys), card.application.possession, strict=True):
        try:
            verify(entry.key, KEY_POSSESSION, message, signature)
        except VerificationError:
            raise VerificationError("cards.key_not_held", organisation=member.organisation) from None
    return member


def read_card(path: Path) -> MemberCard:
    """The card at `path`, which holds. Raises Unavailable, DecodeError, VerificationError."""
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError:
        raise Unavailable("wire.unreadable", file=str(path)) from None
    card = evidence.read(data)
    if not isinstance(card, MemberCard):
        raise DecodeError("cards.no_card", file=str(path))
    check_card(card, card.chain)
    return card


def fingerprint(card: MemberCard) -> str:
    """What two people compare: 128 bits of the card's digest, in groups of four hexadecimal digits."""
    return grouped(digest(APPLICATION, encode(card.application))[:16])


def grouped(value: bytes) -> str:
    """Hexadecimal digits in groups of four, to be read aloud."""
    text = value.hex()
    return " ".join(text[start : start + 4] for start in range(0, len(text), 4))


def found_consortium(
    chain: str, sequencer: str, zone: str, cards: Sequence[MemberCard], time: int, k: int | None = None
) -> Founding:
    """Genesis of the founders whose cards these are. time: ms UTC; k: by default the least that the rule allows.

    Raises VerificationError for a card that does not hold; Refused: two cards of one name, none of the sequencer.
    """
    members = tuple(check_card(card, FOUNDING) for card in cards)
    names = [member.organisation for member in members]
    if len(set(names)) != len(names):
        raise Refused("cards.same_name", organisation=next(name for name in names if names.count(name) > 1))
    if sequencer not in names:
        raise Refused("cards.no_founder", organisation=sequencer, names=", ".join(sorted(names)))
    n = sum(member.re_executes for member in members)
    return Founding(chain, members, sequencer, k or needed_cosigners(max(n, 1)), zone, time)
