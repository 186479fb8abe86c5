"""Secure sums, a site's side: the coordinator learns the sum of the survivors' vectors and nothing else.

Parties: n >= 3 sites (the roster), a coordinator who carries messages between them (`mpc.sum_coordinator`), and the
ledger, a board whose final, cosigned state every site reads for itself. t = floor(2n/3) + 1. One run is one phase of
one query:

    1  S_i -> all    RoundKeys         two fresh X25519 keys: a_i for masks, e_i for shares; signed over the session
    2  S_i -> S_j    DealtShare        Shamir shares (t of n) of the self seed b_i and of a_i's secret, sealed to e_j
       S_i -> board  H(query, phase, i, C_i, salt_i)                        verified mode
    3  C -> board    Parties           who dealt and announced, at least t; under which keys
    4  S_i -> C      Masked            only after the site has read the parties on the board
       S_i -> board  C_i, salt_i                                            verified mode
    5  C -> board    Survivors         whose vectors came, at least t: fixed, and the budget is spent
    6  S_i -> C      Unmasking         survivors alone, once: for each survivor a share of b_j, for each other party one
                                       of a_j's secret
    7  C -> board    X, R              sum C_i = Com(X, R), which anybody checks       verified mode

with, for the cells u_i and the blinding r_i of site i, over the parties j (`mpc.masks`),

    C_i = sum_j u_ij G_j + r_i H                                            (mpc.vector_commitment)
    k_ij = HKDF-SHA256(X25519(a_i, A_j); salt = session, info = parties, i, j)            256 bits
    y_i = u_i + PRG(b_i) + sum_{j > i} PRG(k_ij) - sum_{j < i} PRG(k_ij)    mod 2^64, cell by cell
    s_i = r_i + (the same with PRG's first 48 bytes)                        mod the group's order

The session binds chain, query handle, salted query hash, phase, mode, roster and the layout of the cells (which binds
bounds, noise scales and, in phase 2, the groups that passed). *Bulk mode* leaves out commitments: a changed number is
not detected, and its result says so.

**Adversary.** Confidentiality against min(t - 1, 2t - n - 1) malicious sites with the coordinator and the ledger: they
learn the sum of the honest survivors' noised cells, for one set of at least t survivors, at most once for each
(query, phase). Against t - 1 sites as long as the board shows every honest site the same final state. If X25519, HKDF,
AES and SHA-256 hold and envelope keys are genuine. (How much noise that sum carries is `mpc.budget`'s matter.)
Integrity in verified mode against anyone: a released X that is not the sum of the survivors' committed vectors is
detected, if discrete logarithms hold.

What a lying coordinator meets: keys swapped, added, changed or replayed: a signature or the digest on the board fails.
Two views of keys or parties: masks bind what the board says. Two views of the survivors: they are read from the board,
and two boards need more colluding sites than 2t - n - 1 to bring t shares to both. Both seeds of one party: a site
answers one list of survivors and is done. Masked vectors asked for again: the same bytes, since all randomness of a run
is drawn at its start; a key is never used for another session.
What a lying site can do: bring false numbers or no noise (a commitment shows consistency, not truth); stop the run if
fewer than t are left without it; spoil the sum, which verified mode detects without a name, because naming the liar
safely needs openings that could expose an honest site. A share that is not the one that was dealt is detected and
named, by the digests that its dealer signed. It cannot adapt its vector to others': C_i is announced before any is
shown, and a copied announcement cannot be opened: it binds its site's name.

**Sources.** Bonawitz et al., Practical Secure Aggregation, CCS 2017 (double masking, sections 4 and 6). Departures: the
board replaces the round of consistency signatures; shares are digested and signed, so that wrong ones have a name;
verified mode with announced vector commitments, and the sum of blindings in a lane of its own.
Long-term confidentiality rests on X25519: who records masked vectors and keys today and has a quantum computer later
can unmask them. Python erases nothing reliably and is not constant-time. Review: internal only.

A state is a value: a step that raises leaves it usable, and no step can be taken out of order. A site that has sent
anything of a (query, phase) starts it again, after a crash, with the same cells and the same `rand` or not at all: with
the same it says the same, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mpc import masks, secret_sharing
from mpc.cells import LANE_ROOM
from mpc.generator_table import LONGEST
from mpc.masks import Lanes
from mpc.query import SALT_BYTES
from mpc.secret_sharing import SHARE_BYTES
from mpc.sum_messages import (
    PAIRS,
    SELF,
    Announcement,
    Contribution,
    DealtShare,
    Masked,
    Parties,
    RoundKeys,
    ShownShare,
    SumSession,
    Survivors,
    Unmasking,
    check_dealt,
    check_keys,
    check_listed,
    check_session,
    keys_digest,
    masked_digest,
    one_each,
    seed_digest,
    share_digest,
    signed,
    unsigned,
)
from mpc.vector_commitment import commit
from wire.commitment import contribution_digest
from wire.domains import PAIR_MASK, SHARE_SEAL, digest
from wire.errors import DecodeError, ProtocolAbort
from wire.signing import Signer, VerifyKey
from zkp.groups import ARKWORKS, encode_scalar, random_scalar
from zkp.groups import backend as group

Rand = Callable[[int], bytes]


@dataclass(frozen=True)
class _Own:
    """What a site keeps through its run. All but session, site, members, backend, keys and point is secret."""

    session: SumSession
    site: str
    signer: Signer
    members: Mapping[str, VerifyKey]
    backend: str
    cells: Lanes = field(repr=False)
    blinding: int = field(repr=False)
    mask: X25519PrivateKey = field(repr=False)
    seal: X25519PrivateKey = field(repr=False)
    seed: bytes = field(repr=False)
    above: tuple[tuple[int, ...], tuple[int, ...]] = field(repr=False)
    keys: RoundKeys
    point: bytes
    salt: bytes = field(repr=False)

    @property
    def verified(self) -> bool:
        return self.session.mode == "verified"

    def announcement(self) -> Announcement | None:
        """What is announced in verified mode."""
        if not self.verified:
            return None
        said = contribution_digest(self.session.query, self.session.phase, self.site, self.point, self.salt)
        return Announcement(self.session.query, self.session.phase, self.site, said)

    def contribution(self) -> Contribution | None:
        """What is contributed in verified mode."""
        if not self.verified:
            return None
        return Contribution(self.session.query, self.session.phase, self.site, self.point, self.salt)


def start(
    session: SumSession,
    site: str,
    cells: Sequence[int] | Lanes,
    signer: Signer,
    members: Mapping[str, VerifyKey],
    rand: Rand,
    backend: str = ARKWORKS,
) -> tuple[Started, RoundKeys]:
    """Site, step 1. cells: its noised values (secret), 0 <= u and n * u < 2^62; an
    array that nobody can write to is taken as it is, any other is copied.

    signer: its envelope key. members: envelope keys of the roster (public, from the ledger). rand: fresh secret bytes,
    for all of the run: two keys, the self seed, the coefficients of two polynomials, blinding and salt.
    """
    check_session(session, members)
    if site not in session.roster or members[site] != signer.key:
        raise ValueError("the site must be of the roster and sign with its envelope key")
    room = (LANE_ROOM - 1) // len(session.roster)
    if isinstance(cells, np.ndarray):
        fits = cells.dtype == np.uint64 and cells.ndim == 1 and (not len(cells) or int(cells.max()) <= room)
    else:
        fits = all(0 <= u <= room for u in cells)
    if len(cells) != session.cells or not fits:
        raise ValueError("cells must be as many as the session says, and their sum must fit its lane")
    given_away = isinstance(cells, np.ndarray) and not cells.flags.writeable
    lanes: Lanes = np.asarray(cells, np.uint64) if given_away else np.array(cells, np.uint64)
    mask, seal = X25519PrivateKey.from_private_bytes(rand(32)), X25519PrivateKey.from_private_bytes(rand(32))
    seed = rand(masks.SEED_BYTES)
    above = secret_sharing.coefficients(session.threshold, rand), secret_sharing.coefficients(session.threshold, rand)
    of_seed = seed_digest(session.id(), site, seed)
    keys = RoundKeys(session.id(), site, _public(mask), _public(seal), of_seed, unsigned())
    blinding, point, salt = 0, b"", b""
    if session.mode == "verified":
        if session.cells > LONGEST:
            raise ValueError(f"verified mode has at most {LONGEST} cells")
        blinding, salt = random_scalar(rand), rand(SALT_BYTES)
        point = commit(lanes.tolist(), blinding, backend)
    keys = signed(keys, signer)
    own = _Own(session, site, signer, members, backend, lanes, blinding, mask, seal, seed, above, keys, point, salt)
    return Started(own), keys  # S -> all


class _Shared(NamedTuple):
    """What a site agreed on with another one's two keys (secret)."""

    mask: bytes
    seal: bytes

    def __repr__(self) -> str:
        return "_Shared()"


@dataclass(frozen=True)
class Started:
    """Site, after step 1: waits for the others' keys."""

    _own: _Own

    def receive(self, keys: Sequence[RoundKeys]) -> tuple[Dealt, tuple[DealtShare, ...], Announcement | None]:
        """Step 2. keys: of at least t sites, own one included, in any order.

        Returns a sealed share for every site but itself, and what is announced in verified mode. Raises ProtocolAbort
        if a key is of another session, wrongly signed, used twice or of small order, or if the own one was changed.
        """
        own, session = self._own, self._own.session
        listed = check_keys(session, own.members, keys)
        if listed.get(own.site) != own.keys:
            raise ProtocolAbort("mpc.own_key_altered", round="mask keys", parties=[own.site])
        numbers = [session.number(site) for site in listed]
        of_seed = secret_sharing.split(own.seed, own.above[0], numbers)
        of_mask = secret_sharing.split(own.mask.private_bytes_raw(), own.above[1], numbers)
        dealt = []
        shared: dict[str, _Shared] = {}
        for holder, theirs in listed.items():
            if holder == own.site:
                continue
            # A point of small order shows now, before anything depends on it.
            agreed = shared[holder] = _Shared(
                _agreed(own.mask, theirs.mask, holder), _agreed(own.seal, theirs.seal, holder)
            )
            both = of_seed[session.number(holder)], of_mask[session.number(holder)]
            sealed = _sealing(own, own.site, holder, theirs, agreed.seal).encrypt(bytes(12), b"".join(both), b"")
            of_self = share_digest(session.id(), own.site, holder, SELF, both[0])
            of_pairs = share_digest(session.id(), own.site, holder, PAIRS, both[1])
            share = DealtShare(session.id(), own.site, holder, sealed, of_self, of_pairs, unsigned())
            dealt.append(signed(share, own.signer))
        mine = of_seed[session.number(own.site)], of_mask[session.number(own.site)]
        return Dealt(own, listed, mine, shared), tuple(dealt), own.announcement()  # S -> each S; S -> board


@dataclass(frozen=True)
class Dealt:
    """Site, after step 2: waits for the parties to be fixed on the board, and for their shares."""

    _own: _Own
    _keys: Mapping[str, RoundKeys] = field(repr=False)
    _mine: tuple[bytes, bytes] = field(repr=False)
    _shared: Mapping[str, _Shared] = field(repr=False)

    def receive(
        self, parties: Parties, shares: Sequence[DealtShare], announcements: Sequence[Announcement] = ()
    ) -> tuple[Sent, Masked, Contribution | None]:
        """Step 4. parties: read from the board's final state; shares: what each of the others dealt to this site.

        announcements: in verified mode, of all parties, as the board has them. Raises ProtocolAbort unless the parties
        are of this run, this site among them, at least t, under the very keys that it saw, with a good share of each.
        """
        own, session = self._own, self._own.session
        if (parties.query, parties.phase) != (session.query, session.phase):
            raise ProtocolAbort("mpc.wrong_session", round="parties", parties=())
        check_listed(session, parties.sites, tuple(self._keys), "parties")
        if own.site not in parties.sites:
            raise ProtocolAbort("mpc.left_out", round="parties", parties=[own.site])
        if parties.keys != keys_digest(self._keys):
            raise ProtocolAbort("mpc.keys_differ", round="parties", parties=())
        announced = self._check_announced(parties, announcements) if own.verified else {}
        held = {own.site: self._mine, **self._opened(parties, shares)}
        plus: list[bytes] = [own.seed]
        minus: list[bytes] = []
        for other in parties.sites:
            if other != own.site:
                seed = pair_seed(session, parties, own.site, other, self._shared[other].mask)
                (plus if other > own.site else minus).append(seed)
        hashed = masked_digest(session.id())
        lanes = masks.masked(own.cells, plus, minus, hashed.update)
        blinding = encode_scalar(own.blinding + lanes.blinding) if own.verified else encode_scalar(0)
        masked = Masked(session.id(), own.site, parties.digest(), lanes.data, blinding, unsigned())
        return Sent(own, parties, held, announced), signed(masked, own.signer, hashed.digest()), own.contribution()

    def _opened(self, parties: Parties, shares: Sequence[DealtShare]) -> dict[str, tuple[bytes, bytes]]:
        own, session = self._own, self._own.session
        held: dict[str, tuple[bytes, bytes]] = {}
        for one in shares:
            check_dealt(session, own.members, one, held)
            if one.dealer not in parties.sites or one.dealer == own.site or one.holder != own.site:
                raise ProtocolAbort("mpc.wrong_share", round="shares", parties=[one.dealer])
            try:
                sealing = _sealing(own, one.dealer, own.site, self._keys[one.dealer], self._shared[one.dealer].seal)
                both = sealing.decrypt(bytes(12), one.sealed, b"")
            except InvalidTag:
                raise ProtocolAbort("mpc.wrong_share", round="shares", parties=[one.dealer]) from None
            pair = both[:SHARE_BYTES], both[SHARE_BYTES:]
            for what, share, said in zip((SELF, PAIRS), pair, (one.self_digest, one.pairs_digest), strict=True):
                if share_digest(session.id(), one.dealer, own.site, what, share) != said:
                    raise ProtocolAbort("mpc.wrong_share", round="shares", parties=[one.dealer])
            held[one.dealer] = pair
        missing = [site for site in parties.sites if site != own.site and site not in held]
        if missing:
            raise ProtocolAbort("mpc.incomplete", round="shares", parties=missing)
        return held

    def _check_announced(self, parties: Parties, announcements: Sequence[Announcement]) -> Mapping[str, Announcement]:
        own = self._own
        by_site = one_each(own.session, announcements, parties.sites, "announcements")
        if by_site[own.site] != own.announcement():
            raise ProtocolAbort("mpc.own_post_altered", round="announcements", parties=[own.site])
        return by_site


@dataclass(frozen=True)
class Sent:
    """Site, after step 4: waits for the survivors to be fixed on the board. Holds shares of the others' seeds."""

    _own: _Own
    _parties: Parties
    _held: Mapping[str, tuple[bytes, bytes]] = field(repr=False)
    _announcements: Mapping[str, Announcement] = field(repr=False)

    def receive(self, survivors: Survivors) -> tuple[Finished, Unmasking]:
        """Step 6. survivors: read from the board's final state at a checkpoint of k cosigners.

        Raises ProtocolAbort unless they are of this run and of its parties, at least t, this site among them, and every
        contribution opens its announcement. Deterministic: called again with the same it gives the same bytes; whoever
        keeps a site's flow calls it with one list of survivors alone.
        """
        own, session = self._own, self._own.session
        if (survivors.query, survivors.phase) != (session.query, session.phase):
            raise ProtocolAbort("mpc.wrong_session", round="survivors", parties=())
        check_listed(session, survivors.sites, self._parties.sites, "survivors")
        if own.site not in survivors.sites:
            raise ProtocolAbort("mpc.left_out", round="survivors", parties=[own.site])
        self._check_contributions(survivors)
        shares = tuple(
            ShownShare(party, self._held[party][0 if party in survivors.sites else 1]) for party in self._parties.sites
        )
        message = Unmasking(session.id(), own.site, survivors.digest(), shares, unsigned())
        return Finished(session), signed(message, own.signer)  # S -> C

    def _check_contributions(self, survivors: Survivors) -> None:
        own = self._own
        if not own.verified:
            if survivors.contributions:
                raise ProtocolAbort("mpc.wrong_session", round="survivors", parties=())
            return
        contributions = one_each(own.session, survivors.contributions, survivors.sites, "survivors")
        if contributions[own.site] != own.contribution():
            raise ProtocolAbort("mpc.own_post_altered", round="survivors", parties=[own.site])
        for site, posted in contributions.items():
            announced = contribution_digest(posted.query, posted.phase, site, posted.point, posted.salt)
            if announced != self._announcements[site].digest:
                raise ProtocolAbort("mpc.contribution_mismatch", round="survivors", parties=[site])
            try:
                group(own.backend).decode(posted.point)
            except DecodeError:
                raise ProtocolAbort("mpc.bad_point", round="survivors", parties=[site]) from None


@dataclass(frozen=True)
class Finished:
    """Site, done: holds no secret."""

    session: SumSession


# --- keys ---------------------------------------------------------------------------------------


def pair_seed(session: SumSession, parties: Parties, one: str, other: str, shared: bytes) -> bytes:
    """The seed (32 bytes, secret) of the mask of two parties. shared: X25519 of their mask keys."""
    pair = "\n".join(sorted((one, other))).encode()
    return HKDF(SHA256(), 32, salt=session.id(), info=digest(PAIR_MASK, parties.digest(), pair)).derive(shared)


def _public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def _agreed(key: X25519PrivateKey, public: bytes, whose: str) -> bytes:
    try:
        return key.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # the shared secret is zero: a point of small order
        raise ProtocolAbort("mpc.bad_mask_key", round="mask keys", parties=[whose]) from None


def _sealing(own: _Own, dealer: str, holder: str, theirs: RoundKeys, shared: bytes) -> AESGCM:
    """The key for what `dealer` deals to `holder`, one of whom is this site: for one message, hence under one nonce.

    shared: what this site agreed on with the other's sealing key.
    """
    mine = own.keys.seal
    both = (mine, theirs.seal) if dealer == own.site else (theirs.seal, mine)
    info = digest(SHARE_SEAL, dealer.encode(), holder.encode(), *both)
    return AESGCM(HKDF(SHA256(), 32, salt=own.session.id(), info=info).derive(shared))
