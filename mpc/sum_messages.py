"""What the parties of a secure sum say to each other, and the checks that each makes of what it is told.

The order and the meaning: `mpc.secure_aggregation`. Whatever fails a check ends the run for who made it, with the round
and the parties that it can name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Literal, TypeVar

import msgspec
from blake3 import blake3

from mpc.cells import Layout
from mpc.query import Query, Salt, salted_hash
from mpc.secret_sharing import SHARE_BYTES
from wire.canonical import Wire, encode
from wire.domains import (
    DEALT_SHARE,
    MASK_KEY,
    MASK_KEYS,
    MASK_SHARE,
    MASKED,
    MASKED_CELLS,
    SUM_PARTIES,
    SUM_SESSION,
    SUM_SURVIVORS,
    UNMASKING,
    Domain,
    digest,
    framed,
)
from wire.errors import ProtocolAbort, VerificationError
from wire.identifiers import Handle, Hash, Name
from wire.secure_sum import FEWEST_SITES, threshold
from wire.signing import Signature, Signer, VerifyKey, verify
from zkp.groups import POINT_BYTES, SCALAR_BYTES

MOST_BULK_CELLS = 2**27
"""Cells of one vector in bulk mode: 1 GiB of lanes."""

Mode = Literal["verified", "bulk"]
PointBytes = Annotated[bytes, msgspec.Meta(min_length=POINT_BYTES, max_length=POINT_BYTES)]
Scalar = Annotated[bytes, msgspec.Meta(min_length=SCALAR_BYTES, max_length=SCALAR_BYTES)]
Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
Share = Annotated[bytes, msgspec.Meta(min_length=SHARE_BYTES, max_length=SHARE_BYTES)]
Sites = tuple[Name, ...]

SELF: Literal["self"] = "self"
PAIRS: Literal["pairs"] = "pairs"
"""Of what a share is: of the seed of a site's self mask, or of the key of its masks with the others."""


class SumSession(Wire, frozen=True, tag="mpc.sum_session"):
    """What one run is about, public. Every party computes it from what it approved and the board shows.

    query: handle on the ledger; query_hash: salted hash there; layout: digest of what the cells mean. roster: sorted,
    at least three. mode: "bulk" sums are not checked against anything, and say so.
    """

    chain: Name
    query: Handle
    query_hash: Hash
    phase: Annotated[int, msgspec.Meta(ge=1, le=4)]
    roster: Sites
    layout: Hash
    cells: Annotated[int, msgspec.Meta(ge=0, le=MOST_BULK_CELLS)]
    mode: Mode = "verified"

    def id(self) -> bytes:
        """32 bytes that every signature and every seed of the run binds."""
        return _session_digest(self)

    @property
    def threshold(self) -> int:
        """t: the fewest parties, and survivors, with whom a sum is opened."""
        return threshold(len(self.roster))

    def number(self, site: str) -> int:
        """Under which number a site holds shares: its place in the roster, from 1."""
        return self.roster.index(site) + 1


@lru_cache(maxsize=64)  # every message of a run binds it
def _session_digest(session: SumSession) -> bytes:
    return digest(SUM_SESSION, encode(session))


def session_for(query: Query, salt: bytes, handle: bytes, layout: Layout) -> SumSession:
    """The session of one phase, from the approved query, its salt, its handle and the phase's layout."""
    return SumSession(
        query.chain, handle, salted_hash(query, salt), layout.phase, query.roster, layout.digest(), layout.cells
    )


class RoundKeys(Wire, frozen=True, tag="mpc.round_keys"):
    """Step 1: a site's two fresh X25519 keys for one session, signed by its envelope key.

    mask: for its masks with the others; a dropout reveals its secret half. seal: for the shares that it is dealt.
    seed_digest: of the seed of its self mask, so that shares of another are its dealer's fault, by name.
    """

    session: Hash
    site: Name
    mask: Key
    seal: Key
    seed_digest: Hash
    signature: Signature


class DealtShare(Wire, frozen=True, tag="mpc.dealt_share"):
    """Step 2: a dealer's two shares for one holder, sealed, with the digest of each: whoever shows one is held to it.

    Signed by the dealer."""

    session: Hash
    dealer: Name
    holder: Name
    sealed: Annotated[bytes, msgspec.Meta(min_length=2 * SHARE_BYTES + 16, max_length=2 * SHARE_BYTES + 16)]
    self_digest: Hash
    pairs_digest: Hash
    signature: Signature


class Parties(Wire, frozen=True, tag="mpc.sum_parties"):
    """Step 3, as a site reads it from the board's final state: who takes part, under which keys.

    sites: in the roster's order, at least t; each has dealt its shares and, in verified mode, announced. keys: digest
    of all keys that shares were dealt under.
    """

    query: Handle
    phase: int
    sites: Sites
    keys: Hash

    def digest(self) -> bytes:
        """32 bytes that the masks of a party bind."""
        return _parties_digest(self)


@lru_cache(maxsize=64)  # every pair of a run binds it
def _parties_digest(parties: Parties) -> bytes:
    return digest(SUM_PARTIES, encode(parties))


class Announcement(Wire, frozen=True, tag="mpc.announcement"):
    """Verified mode, as the board has it: a digest of what a site will contribute."""

    query: Handle
    phase: int
    site: Name
    digest: Hash


class Contribution(Wire, frozen=True, tag="mpc.contribution"):
    """Verified mode, as the board has it: the commitment of one site and the salt of its announcement."""

    query: Handle
    phase: int
    site: Name
    point: PointBytes
    salt: Salt


class Masked(Wire, frozen=True, tag="mpc.masked"):
    """Step 4: a site's masked cells (8 little-endian bytes each) and masked blinding, signed.

    parties: digest of those with whom it masked. cells: of a message that came, a part of its bytes, not copied.
    blinding: 0 in bulk mode.
    """

    session: Hash
    site: Name
    parties: Hash
    cells: memoryview
    blinding: Scalar
    signature: Signature


class Survivors(Wire, frozen=True, tag="mpc.survivors"):
    """Step 5, as a site reads it from the board's final state, never from the coordinator: whose vectors are summed.

    sites: in the roster's order, at least t. contributions: theirs, in verified mode.
    """

    query: Handle
    phase: int
    sites: Sites
    contributions: tuple[Contribution, ...]

    def digest(self) -> bytes:
        """32 bytes that whoever unmasks binds."""
        return digest(SUM_SURVIVORS, encode(self))


class ShownShare(Wire, frozen=True, tag="mpc.shown_share"):
    """A share that a survivor shows: of a survivor's self mask, or of the key of a party that was lost."""

    dealer: Name
    share: Share

    def __repr__(self) -> str:
        return f"ShownShare({self.dealer!r})"


class Unmasking(Wire, frozen=True, tag="mpc.unmasking"):
    """Step 6: a survivor's share of one seed of each party, never of both. Signed."""

    session: Hash
    site: Name
    survivors: Hash
    shares: tuple[ShownShare, ...]
    signature: Signature


class Opened(Wire, frozen=True, tag="mpc.opened"):
    """Step 7, verified mode: the sums of the cells and of the blindings. Public."""

    totals: tuple[int, ...]
    blinding: Scalar


# --- checks -------------------------------------------------------------------------------------

_Signed = TypeVar("_Signed", RoundKeys, DealtShare, Masked, Unmasking)
_Post = TypeVar("_Post", Announcement, Contribution)

_UNSIGNED = Signature(0, b"", b"")
_DOMAINS: dict[type, Domain] = {RoundKeys: MASK_KEY, DealtShare: DEALT_SHARE, Masked: MASKED, Unmasking: UNMASKING}


def masked_digest(session: bytes) -> blake3:
    """What stands for a masked vector's cells where it is signed, once it was fed with them: they may be gigabytes.

    BLAKE3, which takes a quarter of the time of SHA-256 and less where a processor has no instructions for that one: it
    was more of a site's work in bulk mode than its masks (docs/adr/0022-blake3-of-masked-cells.md).
    """
    return blake3(framed(MASKED_CELLS, session))


def _body(message: RoundKeys | DealtShare | Masked | Unmasking, cells: bytes = b"") -> bytes:
    """What is signed: all of it but the signature. cells: the digest of a masked vector's, if it is known already."""
    if isinstance(message, Masked):
        if not cells:
            hashed = masked_digest(message.session)
            hashed.update(message.cells)
            cells = hashed.digest()
        message = msgspec.structs.replace(message, cells=cells)
    return encode(msgspec.structs.replace(message, signature=_UNSIGNED))


def signed(message: _Signed, signer: Signer, cells: bytes = b"") -> _Signed:
    """The message under its sender's envelope key. cells: `masked_digest` of a masked vector's, to spare hashing it."""
    return msgspec.structs.replace(message, signature=signer.sign(_DOMAINS[type(message)], _body(message, cells)))


def unsigned() -> Signature:
    """Stands where the signature will be."""
    return _UNSIGNED


def check_signed(message: _Signed, sender: str, members: Mapping[str, VerifyKey], round: str) -> None:
    """Raises ProtocolAbort unless `sender` signed it."""
    try:
        verify(members[sender], _DOMAINS[type(message)], _body(message), message.signature)
    except VerificationError:
        raise ProtocolAbort("mpc.bad_signature", round=round, parties=[sender]) from None


def check_session(session: SumSession, members: Mapping[str, VerifyKey]) -> None:
    """Raises ValueError: a caller's bug."""
    roster = session.roster
    if len(roster) < FEWEST_SITES or list(roster) != sorted(set(roster)) or any(site not in members for site in roster):
        raise ValueError("a session needs a sorted roster of at least three known sites")


def check_sender(session: SumSession, of: bytes, site: str, known: Mapping[str, object], round: str) -> None:
    """Raises ProtocolAbort unless `site` is of the roster, speaks of this session, and speaks for the first time."""
    if site not in session.roster:
        raise ProtocolAbort("mpc.not_in_roster", round=round, parties=[site])
    if of != session.id():
        raise ProtocolAbort("mpc.wrong_session", round=round, parties=[site])
    if site in known:
        raise ProtocolAbort("mpc.sent_twice", round=round, parties=[site])


def check_enough(session: SumSession, sites: Sequence[str], round: str) -> None:
    """Raises ProtocolAbort, naming who is missing, where fewer than t are there."""
    if len(sites) < session.threshold:
        missing = [site for site in session.roster if site not in sites]
        raise ProtocolAbort("mpc.incomplete", round=round, parties=missing)


def check_keys(
    session: SumSession, members: Mapping[str, VerifyKey], keys: Sequence[RoundKeys]
) -> dict[str, RoundKeys]:
    """Keys by site, in the roster's order; at least t of them. Raises ProtocolAbort."""
    listed: dict[str, RoundKeys] = {}
    owner: dict[bytes, str] = {}
    for one in keys:
        check_sender(session, one.session, one.site, listed, "mask keys")
        check_signed(one, one.site, members, "mask keys")
        for public in (one.mask, one.seal):
            if public in owner:
                raise ProtocolAbort("mpc.shared_mask_key", round="mask keys", parties=[owner[public], one.site])
            owner[public] = one.site
        listed[one.site] = one
    check_enough(session, list(listed), "mask keys")
    return {site: listed[site] for site in session.roster if site in listed}


def keys_digest(listed: Mapping[str, RoundKeys]) -> bytes:
    """32 bytes over all keys, in order."""
    return digest(MASK_KEYS, *(encode(one) for one in listed.values()))


def share_digest(session: bytes, dealer: str, holder: str, what: str, share: bytes) -> bytes:
    """What a dealer signs of one share: hiding, since a share has the entropy of its seed."""
    return digest(MASK_SHARE, session, dealer.encode(), holder.encode(), what.encode(), share)


def seed_digest(session: bytes, site: str, seed: bytes) -> bytes:
    """What a site signs of the seed of its self mask: hiding, since it has 256 random bits."""
    return digest(MASK_SHARE, session, site.encode(), seed)


def check_dealt(
    session: SumSession, members: Mapping[str, VerifyKey], one: DealtShare, known: Mapping[str, object]
) -> None:
    """Raises ProtocolAbort unless the dealer signed it for a holder of this session. known: who has dealt already."""
    check_sender(session, one.session, one.dealer, known, "shares")
    if one.holder not in session.roster:
        raise ProtocolAbort("mpc.not_in_roster", round="shares", parties=[one.dealer])
    check_signed(one, one.dealer, members, "shares")


def check_listed(session: SumSession, sites: Sites, of: Sequence[str], round: str) -> None:
    """Raises ProtocolAbort unless `sites` are at least t of `of`, each once, in the roster's order."""
    strangers = [site for site in sites if site not in of]
    if strangers:
        raise ProtocolAbort("mpc.not_in_roster", round=round, parties=strangers)
    if list(sites) != [site for site in session.roster if site in sites]:
        raise ProtocolAbort("mpc.listed_wrongly", round=round, parties=())
    check_enough(session, sites, round)


def one_each(session: SumSession, posts: Sequence[_Post], sites: Sites, round: str) -> dict[str, _Post]:
    """Posts of this run by site: one of each of `sites`, no other. Raises ProtocolAbort."""
    by_site: dict[str, _Post] = {}
    for post in posts:
        if (post.query, post.phase) != (session.query, session.phase):
            raise ProtocolAbort("mpc.wrong_session", round=round, parties=[post.site])
        if post.site not in sites:
            raise ProtocolAbort("mpc.not_in_roster", round=round, parties=[post.site])
        if post.site in by_site:
            raise ProtocolAbort("mpc.sent_twice", round=round, parties=[post.site])
        by_site[post.site] = post
    missing = [site for site in sites if site not in by_site]
    if missing:
        raise ProtocolAbort("mpc.incomplete", round=round, parties=missing)
    return {site: by_site[site] for site in sites}
