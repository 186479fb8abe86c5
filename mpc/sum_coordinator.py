"""Secure sums, the coordinator's side: who carries the messages, names the parties and the survivors, and adds up.

It holds nothing secret before the survivors unmask: masked vectors say nothing, and shares pass through it sealed. What
it does at each step of `mpc.secure_aggregation`:

    1  `begin`               takes keys; `Gathering.close`    hands all of them to whoever sent one
    2  `Dealing`             takes shares; `close`            names the parties, and what to hand to each
    4  `Masking`             takes masked vectors; `close`    names the survivors
    6  `Unmaskings`          takes shares; `finish`           the sum, once t survivors have unmasked

A site that says nothing is left out as long as t are left; one that says something wrong is named, and its message is
not taken: the run goes on without it in the same way. What nobody can say without opening an honest site's vector is
who spoiled a verified sum: then nothing is released and nobody is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from mpc import masks, secret_sharing
from mpc.cells import LANE_ROOM
from mpc.masks import LANE_BYTES, Lanes
from mpc.secure_aggregation import pair_seed
from mpc.sum_messages import (
    PAIRS,
    SELF,
    Contribution,
    DealtShare,
    Masked,
    Opened,
    Parties,
    RoundKeys,
    SumSession,
    Survivors,
    Unmasking,
    check_dealt,
    check_enough,
    check_keys,
    check_sender,
    check_session,
    check_signed,
    keys_digest,
    one_each,
    seed_digest,
    share_digest,
)
from mpc.vector_commitment import check_sum
from wire.errors import DecodeError, ProtocolAbort, VerificationError
from wire.signing import VerifyKey
from zkp.groups import ARKWORKS, R, decode_scalar, encode_scalar
from zkp.groups import backend as group


@dataclass(frozen=True)
class BulkSum:
    """The sum of a run in bulk mode, checked against nothing. sites: whose vectors are in it; cells: mod 2^64."""

    session: SumSession
    sites: tuple[str, ...]
    cells: Lanes
    verified: bool = field(default=False, init=False)


def begin(session: SumSession, members: Mapping[str, VerifyKey]) -> Gathering:
    """Coordinator, step 1. members: envelope keys of the roster."""
    check_session(session, members)
    return Gathering(session, members, {})


@dataclass(frozen=True)
class Gathering:
    """Takes the sites' keys."""

    session: SumSession
    _members: Mapping[str, VerifyKey] = field(repr=False)
    _keys: Mapping[str, RoundKeys]

    @property
    def missing(self) -> tuple[str, ...]:
        """Sites whose keys have not come."""
        return tuple(site for site in self.session.roster if site not in self._keys)

    def receive(self, keys: RoundKeys) -> Gathering:
        """Take one site's keys. Raises ProtocolAbort naming it."""
        check_sender(self.session, keys.session, keys.site, self._keys, "mask keys")
        check_signed(keys, keys.site, self._members, "mask keys")
        if keys.mask == keys.seal:
            raise ProtocolAbort("mpc.shared_mask_key", round="mask keys", parties=[keys.site])
        for public in (keys.mask, keys.seal):
            try:  # with any key at all: a point of small order would stop every site that is shown it
                X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public))
            except ValueError:
                raise ProtocolAbort("mpc.bad_mask_key", round="mask keys", parties=[keys.site]) from None
        for site, other in self._keys.items():
            if {keys.mask, keys.seal} & {other.mask, other.seal}:
                raise ProtocolAbort("mpc.shared_mask_key", round="mask keys", parties=[site, keys.site])
        return replace(self, _keys={**self._keys, keys.site: keys})

    def close(self, able: Sequence[str] | None = None) -> tuple[Dealing, tuple[RoundKeys, ...]]:
        """Go on with whoever has sent keys: to be handed to each of them. Raises ProtocolAbort for fewer than t.

        able: who may take part besides having sent some.
        """
        sent = [keys for site, keys in self._keys.items() if able is None or site in able]
        listed = check_keys(self.session, self._members, sent)
        return Dealing(self.session, self._members, listed, {}), tuple(listed.values())


@dataclass(frozen=True)
class Dealing:
    """Takes what each site dealt."""

    session: SumSession
    _members: Mapping[str, VerifyKey] = field(repr=False)
    _keys: Mapping[str, RoundKeys]
    _dealt: Mapping[str, Mapping[str, DealtShare]] = field(repr=False)

    @property
    def missing(self) -> tuple[str, ...]:
        """Sites whose shares have not come."""
        return tuple(site for site in self._keys if site not in self._dealt)

    def receive(self, dealer: str, shares: Sequence[DealtShare]) -> Dealing:
        """Take all that one site dealt. Raises ProtocolAbort naming it: one is missing, or not its own."""
        if dealer not in self._keys:
            raise ProtocolAbort("mpc.not_in_roster", round="shares", parties=[dealer])
        by_holder: dict[str, DealtShare] = {}
        for one in shares:
            if one.dealer != dealer:
                raise ProtocolAbort("mpc.wrong_share", round="shares", parties=[dealer])
            check_dealt(self.session, self._members, one, self._dealt)
            if one.holder not in self._keys or one.holder == dealer or one.holder in by_holder:
                raise ProtocolAbort("mpc.wrong_share", round="shares", parties=[dealer])
            by_holder[one.holder] = one
        if len(by_holder) != len(self._keys) - 1:
            raise ProtocolAbort("mpc.incomplete", round="shares", parties=[dealer])
        return replace(self, _dealt={**self._dealt, dealer: by_holder})

    def close(self, able: Sequence[str] | None = None) -> tuple[Masking, Parties, dict[str, tuple[DealtShare, ...]]]:
        """Step 3: the parties, for the board, and what is to be handed to each of them.

        able: who may take part besides having dealt: in verified mode those who have announced on the board. Raises
        ProtocolAbort for fewer than t.
        """
        sites = tuple(site for site in self._keys if site in self._dealt and (able is None or site in able))
        check_enough(self.session, sites, "shares")
        parties = Parties(self.session.query, self.session.phase, sites, keys_digest(self._keys))
        handed = {
            holder: tuple(self._dealt[dealer][holder] for dealer in sites if dealer != holder) for holder in sites
        }
        return Masking(self.session, self._members, parties, self._keys, self._dealt, {}), parties, handed


@dataclass(frozen=True)
class Masking:
    """Takes masked vectors: each alone says nothing, nor do all of them before the survivors unmask."""

    session: SumSession
    _members: Mapping[str, VerifyKey] = field(repr=False)
    parties: Parties
    _keys: Mapping[str, RoundKeys] = field(repr=False)
    _dealt: Mapping[str, Mapping[str, DealtShare]] = field(repr=False)
    _masked: Mapping[str, Masked] = field(repr=False)

    @property
    def missing(self) -> tuple[str, ...]:
        """Parties whose masked vector has not come."""
        return tuple(site for site in self.parties.sites if site not in self._masked)

    def receive(self, masked: Masked) -> Masking:
        """Take one site's masked vector. Raises ProtocolAbort naming the site."""
        session, site = self.session, masked.site
        check_sender(session, masked.session, site, self._masked, "masked vectors")
        if site not in self.parties.sites:
            raise ProtocolAbort("mpc.not_in_roster", round="masked vectors", parties=[site])
        check_signed(masked, site, self._members, "masked vectors")
        if masked.parties != self.parties.digest():
            raise ProtocolAbort("mpc.other_keys", round="masked vectors", parties=[site])
        try:
            decode_scalar(masked.blinding)
        except DecodeError:
            raise ProtocolAbort("mpc.masked_shape", round="masked vectors", parties=[site]) from None
        if len(masked.cells) != LANE_BYTES * session.cells:
            raise ProtocolAbort("mpc.masked_shape", round="masked vectors", parties=[site])
        return replace(self, _masked={**self._masked, site: masked})

    def close(self, contributions: Sequence[Contribution] = ()) -> tuple[Unmaskings, Survivors]:
        """Step 5: the survivors, for the board: whose vectors came and, in verified mode, who has contributed there.

        Raises ProtocolAbort for fewer than t.
        """
        session = self.session
        posted = {one.site: one for one in contributions if is_point(one.point)}
        verified = session.mode == "verified"
        sites = tuple(one for one in self.parties.sites if one in self._masked and (not verified or one in posted))
        check_enough(session, sites, "masked vectors")
        theirs = tuple(posted[site] for site in sites) if verified else ()
        survivors = Survivors(session.query, session.phase, sites, theirs)
        if verified:
            one_each(session, theirs, sites, "survivors")
        vectors = {site: self._masked[site] for site in sites}
        out = Unmaskings(session, self._members, self.parties, survivors, self._keys, self._dealt, vectors, {})
        return out, survivors


@dataclass(frozen=True)
class Unmaskings:
    """Takes the survivors' shares: with t of them the sum opens."""

    session: SumSession
    _members: Mapping[str, VerifyKey] = field(repr=False)
    parties: Parties
    survivors: Survivors
    _keys: Mapping[str, RoundKeys] = field(repr=False)
    _dealt: Mapping[str, Mapping[str, DealtShare]] = field(repr=False)
    _masked: Mapping[str, Masked] = field(repr=False)
    _shown: Mapping[str, Mapping[str, bytes]] = field(repr=False)

    @property
    def enough(self) -> bool:
        """Whether the sum can be opened by now."""
        return len(self._shown) >= self.session.threshold

    @property
    def missing(self) -> tuple[str, ...]:
        """Survivors who have not unmasked."""
        return tuple(site for site in self.survivors.sites if site not in self._shown)

    def receive(self, unmasking: Unmasking) -> Unmaskings:
        """Take one survivor's shares, each held to its dealer's digest. Raises ProtocolAbort naming the survivor.

        Its share of its own seeds nobody signed for: it is taken as it is, and used last.
        """
        session, site = self.session, unmasking.site
        check_sender(session, unmasking.session, site, self._shown, "unmasking")
        if site not in self.survivors.sites:
            raise ProtocolAbort("mpc.not_in_roster", round="unmasking", parties=[site])
        check_signed(unmasking, site, self._members, "unmasking")
        if unmasking.survivors != self.survivors.digest():
            raise ProtocolAbort("mpc.survivors_differ", round="unmasking", parties=[site])
        if tuple(one.dealer for one in unmasking.shares) != self.parties.sites:
            raise ProtocolAbort("mpc.wrong_share", round="unmasking", parties=[site])
        for one in unmasking.shares:
            if one.dealer == site:
                continue
            dealt, alive = self._dealt[one.dealer][site], one.dealer in self.survivors.sites
            what, said = (SELF, dealt.self_digest) if alive else (PAIRS, dealt.pairs_digest)
            if share_digest(session.id(), one.dealer, site, what, one.share) != said:
                raise ProtocolAbort("mpc.wrong_share", round="unmasking", parties=[site])
        shown = {one.dealer: one.share for one in unmasking.shares}
        return replace(self, _shown={**self._shown, site: shown})

    def finish(self, backend: str = ARKWORKS) -> Opened | BulkSum:
        """Step 7: the sum; in verified mode checked against the commitments on the board, or nothing.

        Raises ProtocolAbort: fewer than t have unmasked, a dealer's shares are no shares of its key (named), or the
        sum does not open (some site lied; which one cannot be said safely).
        """
        session = self.session
        if not self.enough:
            raise ProtocolAbort("mpc.incomplete", round="unmasking", parties=self.missing)
        plus, minus = self._left_over()
        lanes: Lanes = np.zeros(session.cells, dtype=np.uint64)
        blinding = 0
        for one in self._masked.values():
            np.add(lanes, np.frombuffer(one.cells, dtype="<u8"), out=lanes)
            blinding += decode_scalar(one.blinding)
        bare = masks.masked(lanes, minus, plus)
        lanes = masks.from_bytes(bare.data)
        if session.mode == "bulk":
            return BulkSum(session, self.survivors.sites, lanes)
        opened = Opened(tuple(lanes.tolist()), encode_scalar((blinding + bare.blinding) % R))
        try:
            check_opening(session, self.survivors, opened, backend)
        except (VerificationError, DecodeError):
            raise ProtocolAbort("mpc.sum_aborted", round="opening", parties=()) from None
        return opened

    def _left_over(self) -> tuple[list[bytes], list[bytes]]:
        """Seeds whose masks stand in the sum of the vectors: those that were added, and those that were taken away."""
        session, alive = self.session, self.survivors.sites
        plus: list[bytes] = []
        minus: list[bytes] = []
        known: dict[tuple[str, ...], dict[int, int]] = {}
        for party in self.parties.sites:
            # Its own word on its own seeds comes last: nobody signed for it.
            holders = tuple(sorted(self._shown, key=lambda site: site == party)[: session.threshold])
            if holders not in known:
                known[holders] = secret_sharing.weights(session.number(site) for site in holders)
            by = known[holders]
            try:
                seed = secret_sharing.join({session.number(site): self._shown[site][party] for site in holders}, by)
            except ValueError:
                raise ProtocolAbort("mpc.wrong_share", round="unmasking", parties=[party]) from None
            keys = self._keys[party]
            if party in alive:
                if seed_digest(session.id(), party, seed) != keys.seed_digest:
                    raise ProtocolAbort("mpc.wrong_share", round="unmasking", parties=[party])
                plus.append(seed)
                continue
            key = X25519PrivateKey.from_private_bytes(seed)
            if key.public_key().public_bytes_raw() != keys.mask:
                raise ProtocolAbort("mpc.wrong_share", round="unmasking", parties=[party])
            for site in alive:
                shared = key.exchange(X25519PublicKey.from_public_bytes(self._keys[site].mask))
                pair = pair_seed(session, self.parties, site, party, shared)
                (plus if party > site else minus).append(pair)
        return plus, minus


def is_point(data: bytes, backend: str = ARKWORKS) -> bool:
    """Whether a contribution's bytes are a point that sites will take: the ledger looks at their length alone."""
    try:
        group(backend).decode(data)
    except DecodeError:
        return False
    return True


def check_opening(session: SumSession, survivors: Survivors, opened: Opened, backend: str = ARKWORKS) -> None:
    """Check that `opened` is the sum of what the survivors committed to. Anybody can; sites must, before phase 2
    follows from phase 1. Raises VerificationError or DecodeError.
    """
    try:
        contributions = one_each(session, survivors.contributions, survivors.sites, "survivors")
        check_enough(session, survivors.sites, "survivors")
    except ProtocolAbort:
        raise VerificationError("mpc.not_the_roster", phase=session.phase) from None
    if any(site not in session.roster for site in survivors.sites):
        raise VerificationError("mpc.not_the_roster", phase=session.phase)
    if len(opened.totals) != session.cells:
        raise VerificationError("mpc.totals_shape", phase=session.phase, cells=session.cells, totals=len(opened.totals))
    if any(not 0 <= total < LANE_ROOM for total in opened.totals):
        raise VerificationError("mpc.sum_mismatch")
    points = [contributions[site].point for site in survivors.sites]
    check_sum(points, opened.totals, decode_scalar(opened.blinding), backend)
