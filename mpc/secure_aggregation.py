"""Secure sums in verified mode: the coordinator learns the sum of the sites' vectors and nothing else.

Parties: n >= 3 sites (the roster), a coordinator who carries messages between them, and the ledger,
a board on which every party posts under its own name and whose final, cosigned state every site reads
for itself. One run is one phase of one query:

    1  S_i -> all    MaskKey           fresh X25519 key, signed over the session
    2  S_i -> board  H(query, phase, i, C_i, salt_i)       (wire.commitment.contribution_digest)
    3  S_i -> board  C_i, salt_i       only after all of the roster have announced
    4  board         survivors         fixed: here the whole roster, or nothing
    5  S_i -> C      Masked            only after the site has read the survivors on the board
    6  C -> board    X, R              sum C_i = Com(X, R), which anybody checks

with, for the cells u_i and the blinding r_i of site i,

    C_i = sum_j u_ij G_j + r_i H                                            (mpc.vector_commitment)
    k_ij = HKDF-SHA256(X25519(a_i, A_j); salt = session, info = all keys, i, j)          256 bits
    y_i = u_i + sum_{j > i} PRG(k_ij) - sum_{j < i} PRG(k_ij)    mod 2^64, cell by cell
    s_i = r_i + (the same with PRG's first 48 bytes)             mod the group's order
    X = sum y_i,  R = sum s_i;                PRG = AES-256-CTR, full 256-bit seeds, used once

The session binds chain, query handle, salted query hash, phase, roster and the layout of the cells
(which in turn binds bounds, noise scales and, in phase 2, the groups that passed).

**Adversary.** Confidentiality against a malicious coordinator, a malicious reader of the board and up
to n - 2 malicious sites together: they learn the sum of the honest sites' noised cells, at most once
for each (query, phase), and nothing else, if X25519, HKDF and AES hold, the board shows every honest
site the same final state, and envelope keys are genuine. (How much noise that sum carries is
`mpc.budget`'s matter: with more than the query's colluders it is less than promised.) Integrity
against anyone: a released X that is not the sum of the committed vectors is detected, if discrete
logarithms hold.

What a lying coordinator can do: stop the run, or not publish. If it swaps, drops, adds or replays
mask keys, a signature or the roster fails; if it shows different sites different genuine keys (which
a malicious site must have signed), masks do not cancel, since every seed binds the whole list of
keys, and the sum fails its check. It cannot ask for masked vectors early, or of a subset: a site
takes the survivors from the board and refuses any list but the roster. That list must come from final
state: a site fooled into sending before the board has spent the query's budget gives the sum (nothing
else: no subset ever opens) for a reservation that may still be returned.
What a lying site can do: bring false numbers or no noise (a commitment shows consistency, not
truth); stop the run; spoil it, which is detected without a name, because naming the liar safely
needs openings that could expose an honest site. It cannot adapt its vector to others': step 2 fixes
C_i before any C_j is shown, and a copied announcement cannot be opened.

**Departures** from Bonawitz et al. 2017 (CCS, "Practical Secure Aggregation"): no dropouts, hence no
self masks and no secret shares: one missing site ends the run before anything opens (step 5 needs all
of step 3; after it, a missing Masked message leaves only masked vectors behind). Verified mode is
ours: Pedersen vector commitments with announced hashes, and the sum of blindings in its own lane.
Long-term confidentiality rests on X25519: who records masked vectors and mask keys today and has a
quantum computer later can unmask them. Python erases nothing reliably and is not constant-time.
Review: internal only.

A state is a value: a step that raises leaves it usable, and no step can be taken out of order.
A site that has announced a (query, phase) starts it again, after a crash, with the same cells and the same
`rand` or not at all: other cells would carry new noise under the same approval, and other randomness
could not open what it announced. With the same it says the same, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mpc.cells import LANE_ROOM, Layout
from mpc.query import FEWEST_SITES, SALT_BYTES, Query, Salt, salted_hash
from mpc.vector_commitment import LONGEST, check_sum, commit
from wire.canonical import Wire, encode
from wire.commitment import contribution_digest
from wire.domains import MASK_KEY, MASK_KEYS, MASKED, PAIR_MASK, SUM_SESSION, digest
from wire.errors import DecodeError, ProtocolAbort, VerificationError
from wire.identifiers import Handle, Hash, Name
from wire.signing import Signature, Signer, VerifyKey, verify
from zkp.groups import ARKWORKS, POINT_BYTES, SCALAR_BYTES, R, decode_scalar, encode_scalar, random_scalar
from zkp.groups import backend as group

Rand = Callable[[int], bytes]

LANE_BYTES = 8
_WIDE = 48
"""Bytes of a mask of the blinding lane: reduced mod the order they are uniform up to 2^-128."""

PointBytes = Annotated[bytes, msgspec.Meta(min_length=POINT_BYTES, max_length=POINT_BYTES)]
Key = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class SumSession(Wire, frozen=True, tag="mpc.sum_session"):
    """What one run is about, public. Every party computes it from what it approved and the board shows.

    query: handle on the ledger; query_hash: salted hash there; layout: digest of what the cells mean.
    roster: sorted, at least three.
    """

    chain: Name
    query: Handle
    query_hash: Hash
    phase: Annotated[int, msgspec.Meta(ge=1, le=4)]
    roster: tuple[Name, ...]
    layout: Hash
    cells: Annotated[int, msgspec.Meta(ge=0, le=LONGEST)]

    def id(self) -> bytes:
        """32 bytes that every signature and every seed of the run binds."""
        return digest(SUM_SESSION, encode(self))


def session_for(query: Query, salt: bytes, handle: bytes, layout: Layout) -> SumSession:
    """The session of one phase, from the approved query, its salt, its handle and the phase's layout."""
    return SumSession(
        query.chain, handle, salted_hash(query, salt), layout.phase, query.roster, layout.digest(), layout.cells
    )


class MaskKey(Wire, frozen=True, tag="mpc.mask_key"):
    """Step 1: a site's fresh X25519 key for one session, signed by its envelope key."""

    session: Hash
    site: Name
    public: Key
    signature: Signature


class Announcement(Wire, frozen=True, tag="mpc.announcement"):
    """Step 2, as the board has it."""

    query: Handle
    phase: int
    site: Name
    digest: Hash


class Contribution(Wire, frozen=True, tag="mpc.contribution"):
    """Step 3, as the board has it: the commitment of one site and the salt of its announcement."""

    query: Handle
    phase: int
    site: Name
    point: PointBytes
    salt: Salt


class Survivors(Wire, frozen=True, tag="mpc.survivors"):
    """Step 4, as a site reads it from the board's final state, never from the coordinator."""

    query: Handle
    phase: int
    sites: tuple[Name, ...]
    contributions: tuple[Contribution, ...]


class Masked(Wire, frozen=True, tag="mpc.masked"):
    """Step 5: a site's masked cells (8 big-endian bytes each) and masked blinding, signed.

    keys: digest of the mask keys it used.
    """

    session: Hash
    site: Name
    keys: Hash
    cells: bytes
    blinding: Annotated[bytes, msgspec.Meta(min_length=SCALAR_BYTES, max_length=SCALAR_BYTES)]
    signature: Signature


class Opened(Wire, frozen=True, tag="mpc.opened"):
    """Step 6: the sums of the cells and of the blindings. Public."""

    totals: tuple[int, ...]
    blinding: Annotated[bytes, msgspec.Meta(min_length=SCALAR_BYTES, max_length=SCALAR_BYTES)]


# --- site ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Own:
    """What a site keeps through its run. cells, blinding, key: secret."""

    session: SumSession
    site: str
    signer: Signer
    members: Mapping[str, VerifyKey]
    backend: str
    cells: tuple[int, ...] = field(repr=False)
    blinding: int = field(repr=False)
    key: X25519PrivateKey = field(repr=False)
    mine: MaskKey
    point: bytes
    salt: bytes = field(repr=False)


def start(
    session: SumSession,
    site: str,
    cells: Sequence[int],
    signer: Signer,
    members: Mapping[str, VerifyKey],
    rand: Rand,
    backend: str = ARKWORKS,
) -> tuple[Started, MaskKey]:
    """Site, step 1. cells: its noised values (secret), 0 <= u and n * u < 2^62.

    signer: its envelope key. members: envelope keys of the roster (public, from the ledger).
    rand: 112 fresh secret bytes (mask key, blinding, salt).
    """
    _check_session(session, members)
    if site not in session.roster or members[site] != signer.key:
        raise ValueError("the site must be of the roster and sign with its envelope key")
    if len(cells) != session.cells or any(not 0 <= u * len(session.roster) < LANE_ROOM for u in cells):
        raise ValueError("cells must be as many as the session says, and their sum must fit its lane")
    key = X25519PrivateKey.from_private_bytes(rand(32))
    blinding = random_scalar(rand)
    salt = rand(SALT_BYTES)
    public = key.public_key().public_bytes_raw()
    mine = MaskKey(session.id(), site, public, signer.sign(MASK_KEY, _key_message(session.id(), site, public)))
    point = commit(cells, blinding, backend)
    own = _Own(session, site, signer, members, backend, tuple(cells), blinding, key, mine, point, salt)
    return Started(own), mine  # S -> all


@dataclass(frozen=True)
class Started:
    """Site, after step 1: waits for the mask keys of the whole roster."""

    _own: _Own

    def receive(self, keys: Sequence[MaskKey]) -> tuple[Announced, Announcement]:
        """Step 2. keys: of the whole roster, own one included, in any order.

        Raises ProtocolAbort if one is missing, added, of another session, wrongly signed, used by two
        sites or of small order, or if the own one was changed.
        """
        own = self._own
        listed = _check_keys(own.session, own.members, keys)
        if listed[own.site] != own.mine:
            raise ProtocolAbort("mpc.own_key_altered", round="mask keys", parties=[own.site])
        digest_of_keys = _keys_digest(listed)
        seeds: dict[str, bytes] = {}
        for site, key in listed.items():
            if site != own.site:
                try:
                    shared = own.key.exchange(X25519PublicKey.from_public_bytes(key.public))
                except ValueError:  # the shared secret is zero: a point of small order
                    raise ProtocolAbort("mpc.bad_mask_key", round="mask keys", parties=[site]) from None
                pair = "\n".join(sorted((own.site, site))).encode()
                seeds[site] = HKDF(
                    SHA256(), 32, salt=own.session.id(), info=digest(PAIR_MASK, digest_of_keys, pair)
                ).derive(shared)
        announcement = Announcement(
            own.session.query,
            own.session.phase,
            own.site,
            contribution_digest(own.session.query, own.session.phase, own.site, own.point, own.salt),
        )
        return Announced(own, digest_of_keys, seeds, announcement), announcement  # S -> board


@dataclass(frozen=True)
class Announced:
    """Site, after step 2: waits until all of the roster have announced."""

    _own: _Own
    _keys: bytes
    _seeds: Mapping[str, bytes] = field(repr=False)
    _announcement: Announcement = field(repr=False)

    def receive(self, announcements: Sequence[Announcement]) -> tuple[Contributed, Contribution]:
        """Step 3. announcements: as the board has them, of the whole roster.

        Raises ProtocolAbort if one is missing, added, of another run, copied, or not the own one.
        """
        own = self._own
        by_site = _one_each(own.session, announcements, "announcements")
        if by_site[own.site] != self._announcement:
            raise ProtocolAbort("mpc.own_post_altered", round="announcements", parties=[own.site])
        for (one, first), (other, second) in pairwise(sorted(by_site.items(), key=lambda item: item[1].digest)):
            if first.digest == second.digest:
                raise ProtocolAbort("mpc.copied_announcement", round="announcements", parties=[one, other])
        mine = Contribution(own.session.query, own.session.phase, own.site, own.point, own.salt)
        return Contributed(own, self._keys, self._seeds, by_site, mine), mine  # S -> board


@dataclass(frozen=True)
class Contributed:
    """Site, after step 3: waits for the survivors to be fixed on the board."""

    _own: _Own
    _keys: bytes
    _seeds: Mapping[str, bytes] = field(repr=False)
    _announcements: Mapping[str, Announcement] = field(repr=False)
    _mine: Contribution = field(repr=False)

    def receive(self, survivors: Survivors) -> tuple[Sent, Masked]:
        """Step 5. survivors: read from the board's final state at a checkpoint of k cosigners.

        Raises ProtocolAbort unless they are of this run, exactly the roster, and every contribution
        opens its announcement. Deterministic: called again it gives the same bytes.
        """
        own = self._own
        contributions = _check_survivors(own.session, survivors)
        if contributions[own.site] != self._mine:
            raise ProtocolAbort("mpc.own_post_altered", round="survivors", parties=[own.site])
        for site, posted in contributions.items():
            announced = contribution_digest(posted.query, posted.phase, site, posted.point, posted.salt)
            if announced != self._announcements[site].digest:
                raise ProtocolAbort("mpc.contribution_mismatch", round="survivors", parties=[site])
            _decode_point(posted, own.backend)
        cells = np.array(own.cells, dtype=np.uint64)
        blinding = own.blinding
        for site, seed in self._seeds.items():
            stream = _keystream(seed, _WIDE + LANE_BYTES * len(own.cells))
            lanes = np.frombuffer(stream, dtype=">u8", offset=_WIDE).astype(np.uint64)
            wide = int.from_bytes(stream[:_WIDE], "big")
            if site > own.site:
                cells, blinding = cells + lanes, blinding + wide
            else:
                cells, blinding = cells - lanes, blinding - wide
        data, scalar = cells.astype(">u8").tobytes(), encode_scalar(blinding)
        message = _masked_message(own.session.id(), own.site, self._keys, data, scalar)
        signature = own.signer.sign(MASKED, message)
        return Sent(own.session), Masked(own.session.id(), own.site, self._keys, data, scalar, signature)  # S -> C


@dataclass(frozen=True)
class Sent:
    """Site, done: holds no secret."""

    session: SumSession


# --- coordinator --------------------------------------------------------------------------------


def collect(session: SumSession, members: Mapping[str, VerifyKey], keys: Sequence[MaskKey]) -> Collecting:
    """Coordinator, before it relays the mask keys: checks them as every site will. Raises ProtocolAbort."""
    _check_session(session, members)
    listed = _check_keys(session, members, keys)
    return Collecting(session, members, _keys_digest(listed), {})


@dataclass(frozen=True)
class Collecting:
    """Coordinator, step 5: holds the masked vectors received so far (each alone says nothing)."""

    session: SumSession
    _members: Mapping[str, VerifyKey] = field(repr=False)
    _keys: bytes = field(repr=False)
    _masked: Mapping[str, Masked] = field(repr=False)

    @property
    def missing(self) -> tuple[str, ...]:
        """Sites whose masked vector has not come."""
        return tuple(site for site in self.session.roster if site not in self._masked)

    def receive(self, masked: Masked) -> Collecting:
        """Take one site's masked vector. Raises ProtocolAbort naming the site where it can be named."""
        session, site = self.session, masked.site
        if site not in session.roster:
            raise ProtocolAbort("mpc.not_in_roster", round="masked vectors", parties=[site])
        if masked.session != session.id():
            raise ProtocolAbort("mpc.wrong_session", round="masked vectors", parties=[site])
        message = _masked_message(masked.session, site, masked.keys, masked.cells, masked.blinding)
        try:
            verify(self._members[site], MASKED, message, masked.signature)
        except VerificationError:
            raise ProtocolAbort("mpc.bad_signature", round="masked vectors", parties=[site]) from None
        if site in self._masked:
            raise ProtocolAbort("mpc.sent_twice", round="masked vectors", parties=[site])
        if masked.keys != self._keys:
            raise ProtocolAbort("mpc.other_keys", round="masked vectors", parties=[site])
        try:
            decode_scalar(masked.blinding)
        except DecodeError:
            raise ProtocolAbort("mpc.masked_shape", round="masked vectors", parties=[site]) from None
        if len(masked.cells) != LANE_BYTES * session.cells:
            raise ProtocolAbort("mpc.masked_shape", round="masked vectors", parties=[site])
        return Collecting(session, self._members, self._keys, {**self._masked, site: masked})

    def finish(self, survivors: Survivors, backend: str = ARKWORKS) -> Opened:
        """Step 6: the sums, checked against the commitments on the board. Releases nothing otherwise.

        Raises ProtocolAbort: a vector is missing, the survivors are not the roster, or the sum does
        not open (some site lied; which one cannot be said safely).
        """
        contributions = _check_survivors(self.session, survivors)
        if self.missing:
            raise ProtocolAbort("mpc.incomplete", round="masked vectors", parties=self.missing)
        cells: npt.NDArray[np.uint64] = np.zeros(self.session.cells, dtype=np.uint64)
        blinding = 0
        for masked in self._masked.values():
            cells = cells + np.frombuffer(masked.cells, dtype=">u8").astype(np.uint64)
            blinding += decode_scalar(masked.blinding)
        opened = Opened(tuple(int(total) for total in cells), encode_scalar(blinding % R))
        try:
            check_opening(self.session, list(contributions.values()), opened, backend)
        except (VerificationError, DecodeError):
            raise ProtocolAbort("mpc.sum_aborted", round="opening", parties=()) from None
        return opened


def check_opening(
    session: SumSession, contributions: Sequence[Contribution], opened: Opened, backend: str = ARKWORKS
) -> None:
    """Check that `opened` is the sum of what the whole roster committed to. Anybody can; sites must,
    before phase 2 follows from phase 1. Raises VerificationError or DecodeError.
    """
    of_run = [c for c in contributions if (c.query, c.phase) == (session.query, session.phase)]
    if sorted(c.site for c in contributions) != list(session.roster) or len(of_run) != len(contributions):
        raise VerificationError("mpc.not_the_roster", phase=session.phase)
    if len(opened.totals) != session.cells:
        raise VerificationError("mpc.totals_shape", phase=session.phase, cells=session.cells, totals=len(opened.totals))
    if any(not 0 <= total < LANE_ROOM for total in opened.totals):
        raise VerificationError("mpc.sum_mismatch")
    check_sum([c.point for c in contributions], opened.totals, decode_scalar(opened.blinding), backend)


_Post = TypeVar("_Post", Announcement, Contribution)

# --- shared -------------------------------------------------------------------------------------


class _KeyBody(Wire, frozen=True, tag="mpc.mask_key_body"):
    session: bytes
    site: str
    public: bytes


class _MaskedBody(Wire, frozen=True, tag="mpc.masked_body"):
    session: bytes
    site: str
    keys: bytes
    cells: bytes
    blinding: bytes


def _key_message(session: bytes, site: str, public: bytes) -> bytes:
    return encode(_KeyBody(session, site, public))


def _masked_message(session: bytes, site: str, keys: bytes, cells: bytes, blinding: bytes) -> bytes:
    return encode(_MaskedBody(session, site, keys, cells, blinding))


def _keystream(seed: bytes, length: int) -> bytes:
    """AES-256-CTR from zero: the seed is fresh for this pair and session, and used once."""
    return Cipher(AES(seed), CTR(bytes(16))).encryptor().update(bytes(length))


def _keys_digest(listed: Mapping[str, MaskKey]) -> bytes:
    return digest(MASK_KEYS, *(encode(listed[site]) for site in sorted(listed)))


def _check_session(session: SumSession, members: Mapping[str, VerifyKey]) -> None:
    roster = session.roster
    if len(roster) < FEWEST_SITES or list(roster) != sorted(set(roster)) or any(site not in members for site in roster):
        raise ValueError("a session needs a sorted roster of at least three known sites")


def _check_keys(session: SumSession, members: Mapping[str, VerifyKey], keys: Sequence[MaskKey]) -> dict[str, MaskKey]:
    listed: dict[str, MaskKey] = {}
    for key in keys:
        if key.site not in session.roster:
            raise ProtocolAbort("mpc.not_in_roster", round="mask keys", parties=[key.site])
        if key.site in listed:
            raise ProtocolAbort("mpc.sent_twice", round="mask keys", parties=[key.site])
        if key.session != session.id():
            raise ProtocolAbort("mpc.wrong_session", round="mask keys", parties=[key.site])
        try:
            verify(members[key.site], MASK_KEY, _key_message(key.session, key.site, key.public), key.signature)
        except VerificationError:
            raise ProtocolAbort("mpc.bad_signature", round="mask keys", parties=[key.site]) from None
        for site, other in listed.items():
            if other.public == key.public:
                raise ProtocolAbort("mpc.shared_mask_key", round="mask keys", parties=[site, key.site])
        listed[key.site] = key
    missing = [site for site in session.roster if site not in listed]
    if missing:
        raise ProtocolAbort("mpc.incomplete", round="mask keys", parties=missing)
    return {site: listed[site] for site in session.roster}


def _one_each(session: SumSession, posts: Sequence[_Post], round: str) -> dict[str, _Post]:
    """Posts of this run by site: one of each member of the roster, no other."""
    by_site: dict[str, _Post] = {}
    for post in posts:
        if (post.query, post.phase) != (session.query, session.phase):
            raise ProtocolAbort("mpc.wrong_session", round=round, parties=[post.site])
        if post.site not in session.roster:
            raise ProtocolAbort("mpc.not_in_roster", round=round, parties=[post.site])
        if post.site in by_site:
            raise ProtocolAbort("mpc.sent_twice", round=round, parties=[post.site])
        by_site[post.site] = post
    missing = [site for site in session.roster if site not in by_site]
    if missing:
        raise ProtocolAbort("mpc.incomplete", round=round, parties=missing)
    return {site: by_site[site] for site in session.roster}


def _check_survivors(session: SumSession, survivors: Survivors) -> dict[str, Contribution]:
    if (survivors.query, survivors.phase) != (session.query, session.phase):
        raise ProtocolAbort("mpc.wrong_session", round="survivors", parties=())
    if survivors.sites != session.roster:
        differing = sorted(set(survivors.sites) ^ set(session.roster))
        raise ProtocolAbort("mpc.survivors_differ", round="survivors", parties=differing)
    return _one_each(session, survivors.contributions, "survivors")


def _decode_point(posted: Contribution, backend: str) -> None:
    try:
        group(backend).decode(posted.point)
    except DecodeError:
        raise ProtocolAbort("mpc.bad_point", round="survivors", parties=[posted.site]) from None
