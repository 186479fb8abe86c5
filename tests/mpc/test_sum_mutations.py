"""Secure sums under mutated messages of every step: a wrong sum never, a crash never, a reason always.

Two kinds of hand: a network that changes bytes, and a malicious site or coordinator that signs what it changed. In
verified mode a run that still ends gives the sum of what was committed to; every other end is an abort with a round.
"""

from __future__ import annotations

import random

import msgspec
import pytest

from mpc.sum_messages import (
    Announcement,
    Contribution,
    DealtShare,
    Masked,
    Parties,
    RoundKeys,
    ShownShare,
    Survivors,
    Unmasking,
    signed,
)
from wire import canonical
from wire.errors import DecodeError, MedveilError, ProtocolAbort
from wire.signing import Signer

STEPS = (RoundKeys, DealtShare, Parties, Announcement, Masked, Contribution, Survivors, Unmasking)
SITES = 5  # t = 4: one may be lost


@pytest.fixture
def five(consortium):
    signers = {f"site-{i}": Signer(bytes([i + 1]) * 32) for i in range(SITES)}
    consortium.signers = signers
    vectors = {site: (1000 + i, 7 * i, 2**50) for i, site in enumerate(signers)}
    return consortium, vectors


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Bytes as a bad network has them."""
    match rng.randrange(4):
        case 0:
            at = rng.randrange(len(data))
            return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        case 1:
            return data[: rng.randrange(len(data))]
        case 2:
            return data + rng.randbytes(rng.randrange(1, 9))
        case _:
            at, other = rng.randrange(len(data)), rng.randbytes(8)
            return data[:at] + other + data[at + 8 :]


def lied(message, others, rng: random.Random):
    """A field changed by somebody who knows the format: other bytes of its length, another's value, none, doubled."""
    name = rng.choice([one for one in message.__struct_fields__ if one != "signature"])
    value, theirs = getattr(message, name), getattr(rng.choice(others), name)
    if isinstance(value, memoryview):
        value, theirs = bytes(value), bytes(theirs)
    if isinstance(value, bytes):
        new = rng.choice([theirs, bytes(len(value)), rng.randbytes(len(value)), value[::-1]])
    elif isinstance(value, tuple):
        turned = list(value)
        rng.shuffle(turned)
        new = rng.choice([theirs, tuple(turned), value[1:], value + value[:1], ()])
        if new and isinstance(new[0], ShownShare) and rng.randrange(2):
            new = (ShownShare(new[0].dealer, rng.randbytes(66)), *new[1:])
    elif isinstance(value, int):
        new = rng.choice([value + 1, 1, 4])
    else:
        new = rng.choice([theirs, "site-0", "site-4", "site-9"])
    return msgspec.structs.replace(message, **{name: new})


class Hand:
    """Changes one message of one kind on its way, once."""

    def __init__(self, kind, number: int, rng: random.Random, signers):
        self.kind, self.left, self.rng, self.signers, self.changed = kind, number, rng, signers, False

    def __call__(self, message, others):
        if not isinstance(message, self.kind) or self.changed:
            return message
        if self.left:
            self.left -= 1
            return message
        self.changed = True
        if self.rng.randrange(2):
            found = canonical.decode(self.kind, flipped(canonical.encode(message), self.rng))
        else:
            found = lied(message, others, self.rng)
            sender = getattr(message, "dealer", getattr(message, "site", ""))
            if hasattr(message, "signature") and self.rng.randrange(2):
                found = signed(found, self.signers[sender])
            found = canonical.decode(self.kind, canonical.encode(found))
        return found


def play(run, hand: Hand):
    """A run in which every message passes the hand; a party that refuses one goes on without who sent it."""
    run.start()
    state, sites = run.coordinator, run.states
    for keys in run.keys:
        state = taken(state, lambda s, keys=keys: s.receive(hand(keys, run.keys)))
    state, listed = state.close()
    live, announced = [], []
    for site in [keys.site for keys in listed]:
        shown = [hand(keys, run.keys) for keys in listed]
        try:
            sites[site], run.dealt[site], said = sites[site].receive(shown)
        except ProtocolAbort:
            continue
        live.append(site)
        announced.append(hand(said, [said]))
    for site in live:
        shares = [hand(share, run.dealt[site]) for share in run.dealt[site]]
        state = taken(state, lambda s, site=site, shares=shares: s.receive(site, shares))
    state, parties, handed = state.close([one.site for one in announced])
    masked, posted = [], []
    for site in parties.sites:
        mine = [hand(share, handed[site]) for share in handed[site]]
        theirs = [one for one in announced if one.site in parties.sites]
        try:
            sites[site], one, said = sites[site].receive(hand(parties, [parties]), mine, theirs)
        except ProtocolAbort:
            continue
        masked.append(one)
        posted.append(hand(said, [said]))
    for one in masked:
        state = taken(state, lambda s, one=one: s.receive(hand(one, masked)))
    state, survivors = state.close(posted)
    out = []
    for site in survivors.sites:
        try:
            _, one = sites[site].receive(hand(survivors, [survivors]))
        except ProtocolAbort:
            continue
        out.append(one)
    for one in out:
        state = taken(state, lambda s, one=one: s.receive(hand(one, out)))
    return state.finish(), survivors


def taken(state, step):
    """The coordinator's next state; a message that it refuses is as none."""
    try:
        return step(state)
    except ProtocolAbort as error:
        assert error.round
        return state


def campaign(five, count: int, seed: int) -> None:
    consortium, vectors = five
    rng = random.Random(seed)
    ends = {"sum": 0, "abort": 0, "bytes": 0}
    for number in range(count):
        kind = STEPS[number % len(STEPS)]
        hand = Hand(
            kind, rng.randrange(SITES if kind is not DealtShare else SITES * (SITES - 1)), rng, consortium.signers
        )
        run = consortium.run(vectors)
        try:
            opened, survivors = play(run, hand)
        except ProtocolAbort as error:
            assert error.round and error.text("zh")
            ends["abort"] += 1
        except DecodeError:
            ends["bytes"] += 1
        except MedveilError as error:  # pragma: no cover - no other kind may end a run
            pytest.fail(f"{kind.__name__}: {error.code}")
        else:
            want = tuple(sum(column) for column in zip(*(vectors[site] for site in survivors.sites), strict=True))
            assert opened.totals == want
            ends["sum"] += 1
    assert min(ends.values()) > count // 50, ends  # the campaign reaches all of them


def test_500_mutated_messages_give_no_wrong_sum(five):
    campaign(five, 500, 11)


@pytest.mark.long
def test_10_000_mutated_messages_give_no_wrong_sum(five):
    campaign(five, 10_000, 12)


def test_every_message_of_a_run_is_in_the_campaign(consortium):
    """Each kind that a run says is mutated above."""
    run = consortium.run().unmask()
    said = {type(one) for one in (*run.keys, *run.announcements, run.parties, *run.masked, *run.contributions)}
    said |= {type(one) for shares in run.dealt.values() for one in shares} | {type(run.survivors)}
    said |= {type(one) for one in run.unmaskings}
    assert said == set(STEPS)
