"""Secure sums that go as they should: exact, with sites lost at every step, replayed, in both modes."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpc.secret_sharing import SHARE_BYTES
from mpc.sum_coordinator import check_opening
from mpc.sum_messages import Parties
from mpc.vector_commitment import commit
from wire import canonical
from wire.domains import PAIR_MASK, digest
from wire.errors import DecodeError, ProtocolAbort, VerificationError
from wire.signing import Signer
from zkp.groups import R

STEPS = ("start", "deal", "mask", "unmask")
VECTORS = Path(__file__).resolve().parent.parent / "vectors" / "secure_aggregation"


def many(consortium, sites, cells=3, mode="verified"):
    """A run of that many sites, with vectors that differ."""
    names = [f"site-{i:02d}" for i in range(sites)]
    signers = {name: Signer(hashlib.sha256(name.encode()).digest()) for name in names}
    vectors = {name: tuple(2**40 * (i + 1) + j for j in range(cells)) for i, name in enumerate(names)}
    return replace(consortium, signers=signers).run(vectors, mode=mode)


def totals(run, sites):
    return tuple(sum(column) for column in zip(*(run.vectors[site] for site in sites), strict=True))


# --- exact sums ---------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.integers(3, 4), st.integers(0, 6), st.data())
def test_the_sum_is_exact(consortium, sites, length, data):
    cell = st.integers(0, (2**62 - 1) // sites)
    names = sorted(consortium.signers)[:sites]
    vectors = {site: data.draw(st.lists(cell, min_size=length, max_size=length)) for site in names}
    run = consortium.run(vectors)
    opened = run.open()
    assert opened.totals == totals(run, names)
    check_opening(run.session, run.survivors, opened)


@pytest.mark.parametrize("mode", ["verified", "bulk"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("gone", [0, 1, 2])
def test_sites_may_be_lost_at_any_step_up_to_the_threshold(consortium, mode, step, gone):
    """Seven sites, t = 5: two may be lost. Who had sent a masked vector is in the sum."""
    run = many(consortium, 7, mode=mode)
    run.lost = dict.fromkeys(run.session.roster[1 : 1 + gone], step)
    opened = run.open()
    summed = run.session.roster if step == "unmask" else run.there(step)
    assert tuple(run.survivors.sites) == tuple(summed)
    found = opened.totals if mode == "verified" else tuple(opened.cells.tolist())
    assert found == totals(run, summed)
    if mode == "bulk":
        assert not opened.verified and opened.sites == tuple(summed)


@pytest.mark.parametrize("mode", ["verified", "bulk"])
@pytest.mark.parametrize("step", STEPS)
def test_one_lost_site_more_ends_the_run_and_names_who_is_missing(consortium, mode, step):
    run = many(consortium, 7, mode=mode)
    run.lost = dict.fromkeys(run.session.roster[1:4], step)
    with pytest.raises(ProtocolAbort) as caught:
        run.open()
    assert caught.value.code == "mpc.incomplete" and caught.value.parties == run.session.roster[1:4]


def test_sites_lost_at_different_steps(consortium):
    run = many(consortium, 10)  # t = 7
    run.lost = dict(zip(run.session.roster[3:6], STEPS[1:], strict=True))
    assert run.open().totals == totals(run, [s for s in run.session.roster if run.lost.get(s) in (None, "unmask")])


def test_three_sites_tolerate_no_loss(consortium):
    for step in STEPS:
        run = many(consortium, 3)
        run.lost = {"site-01": step}
        with pytest.raises(ProtocolAbort, match="site-01"):
            run.open()


def test_a_long_vector_in_bulk_mode(consortium):
    names = sorted(consortium.signers)
    rng = np.random.default_rng(7)
    vectors = {site: rng.integers(0, 2**59, 40_001, dtype=np.uint64) for site in names}
    run = consortium.run(vectors, mode="bulk")
    run.lost = {names[2]: "mask"}
    want = sum(vectors[site] for site in names if site != names[2])
    assert (run.open().cells == want).all()


# --- what travels, what shows -------------------------------------------------------------------


def test_every_message_travels(consortium):
    run = consortium.run()
    opened = run.open()
    dealt = [share for shares in run.dealt.values() for share in shares]
    posts = (*run.announcements, *run.contributions, run.parties, run.survivors, opened)
    for message in (*run.keys, *dealt, *run.masked, *run.unmaskings, *posts):
        data = canonical.encode(message)
        assert canonical.decode(type(message), data) == message
        with pytest.raises(DecodeError):
            canonical.decode(type(message), data + b"\0")


def test_states_and_messages_show_no_secret(consortium):
    names = sorted(consortium.signers)
    for step in ("start", "deal", "mask", "unmask"):
        run = consortium.run(dict.fromkeys(names, (123456789,)))
        getattr(run, step)()
        shown = repr((run.states, run.coordinator))
        assert "123456789" not in shown and "X25519PrivateKey" not in shown
        for own in (state._own for state in run.states.values() if hasattr(state, "_own")):
            for secret in (own.seed, own.blinding, own.above[0][0], own.mask.private_bytes_raw()):
                assert repr(secret) not in shown
    for unmasking in run.unmaskings:
        assert not any(repr(one.share) in repr(unmasking) for one in unmasking.shares)


def test_keys_masks_and_shares_are_fresh_for_each_run(consortium):
    one, other = consortium.run().unmask(), replace(consortium.run(), seed="again").unmask()
    for site in range(4):
        assert one.keys[site].mask != other.keys[site].mask and one.keys[site].seal != other.keys[site].seal
        assert one.contributions[site].point != other.contributions[site].point
        assert one.masked[site].cells != other.masked[site].cells
        assert one.unmaskings[site].shares != other.unmaskings[site].shares


def test_the_same_vector_in_another_phase_is_masked_anew(consortium):
    one, other = consortium.run().mask(), consortium.run(phase=2).mask()
    assert one.keys[0].mask == other.keys[0].mask  # the tests' rand repeats; the session does not
    blind = [[(a.sealed, a.self_digest) for shares in run.dealt.values() for a in shares] for run in (one, other)]
    assert not set(blind[0]) & set(blind[1])


def test_a_site_that_starts_again_says_the_same(consortium):
    """After a crash, with the same cells and the same rand: byte for byte."""
    one, other = consortium.run().unmask(), consortium.run().unmask()
    assert (one.keys, one.dealt, one.masked, one.unmaskings) == (
        other.keys,
        other.dealt,
        other.masked,
        other.unmaskings,
    )


def test_masked_vectors_say_nothing_before_the_survivors_unmask(consortium):
    """Not even all of them together: self masks stand in their sum. Here, that it differs in high bits."""
    run = consortium.run(dict.fromkeys(sorted(consortium.signers), (1, 2, 3, 4))).mask()
    for size in (1, 2, 3, 4):
        for subset in combinations(run.masked, size):
            for lane in range(4):
                total = sum(int.from_bytes(m.cells[8 * lane : 8 * lane + 8], "little") for m in subset) % 2**64
                assert 2**20 < total < 2**64 - 2**20  # a pinned, replayable run


def test_a_survivor_shows_one_share_of_each_party_and_never_both(consortium):
    run = many(consortium, 7)
    run.lost = {"site-02": "mask"}
    run.unmask()
    for unmasking in run.unmaskings:
        dealers = [one.dealer for one in unmasking.shares]
        assert dealers == list(run.parties.sites)
        assert all(len(one.share) == SHARE_BYTES for one in unmasking.shares)


# --- as pinned ----------------------------------------------------------------------------------


def test_the_run_replays_as_our_vector_says(consortium):
    """tests/vectors/secure_aggregation: four sites, one of them lost before it masks; byte for byte."""
    vector = json.loads((VECTORS / "four-sites.json").read_text())
    run = consortium.run({site: [int(u) for u in cells] for site, cells in vector["cells"].items()})
    run.lost = {vector["lost"]: "mask"}
    opened = run.open()
    assert said_by(run, opened) == vector["messages"]
    assert run.session.id().hex() == vector["session_id"]
    assert [str(total) for total in opened.totals] == vector["totals"]


def said_by(run, opened) -> dict[str, list[str]]:
    """What a run said, by kind, as it travels."""
    kinds = {
        "session": [run.session],
        "round_keys": run.keys,
        "dealt_shares": [share for site in sorted(run.dealt) for share in run.dealt[site]],
        "announcements": run.announcements,
        "parties": [run.parties],
        "masked": run.masked,
        "contributions": run.contributions,
        "survivors": [run.survivors],
        "unmaskings": run.unmaskings,
        "opened": [opened],
    }
    return {kind: [canonical.encode(one).hex() for one in messages] for kind, messages in kinds.items()}


# --- with other code ----------------------------------------------------------------------------


def test_a_second_writing_of_the_masks_gives_the_same_bytes(consortium, replay):
    """The paper's equations with other code: HKDF by hmac, CTR by ECB, Python ints; full 256-bit seeds."""
    run = consortium.run().mask()
    names, session = run.session.roster, run.session.id()
    secrets, seeds, blindings = {}, {}, {}
    for site in names:
        rand = replay(f"run/{site}")
        secrets[site], _, seeds[site] = rand(32), rand(32), rand(32)
        for _ in range(2 * (run.session.threshold - 1)):
            rand(66)
        blindings[site] = int.from_bytes(rand(48), "big") % R
    public = {key.site: key.mask for key in run.keys}
    bound = digest(b"medveil/v1/sum-parties", canonical.encode(run.parties))

    def stream(seed: bytes) -> bytes:
        blocks = Cipher(AES(seed), ECB()).encryptor().update(b"".join(i.to_bytes(16, "big") for i in range(8)))
        return blocks[: 48 + 3 * 8]

    def pair(one: str, other: str) -> bytes:
        key = X25519PrivateKey.from_private_bytes(secrets[one])
        shared = key.exchange(X25519PublicKey.from_public_bytes(public[other]))
        extracted = hmac.new(session, shared, hashlib.sha256).digest()
        info = digest(PAIR_MASK, bound, "\n".join(sorted((one, other))).encode())
        return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()

    for masked in run.masked:
        cells, blinding = list(run.vectors[masked.site]), blindings[masked.site]
        signed = [(1, seeds[masked.site])]
        signed += [(1 if o > masked.site else -1, pair(masked.site, o)) for o in names if o != masked.site]
        for sign, seed in signed:
            mask = stream(seed)
            blinding += sign * int.from_bytes(mask[:48], "big")
            for i in range(3):
                cells[i] += sign * int.from_bytes(mask[48 + 8 * i : 56 + 8 * i], "little")
        assert masked.cells == b"".join((c % 2**64).to_bytes(8, "little") for c in cells)
        assert masked.blinding == (blinding % R).to_bytes(32, "big")
        point = next(c.point for c in run.contributions if c.site == masked.site)
        assert commit(run.vectors[masked.site], blindings[masked.site], "reference") == point


# --- the opening is anybody's to check ----------------------------------------------------------


def test_a_stranger_checks_the_opening(consortium):
    run = many(consortium, 4)
    run.lost = {"site-03": "mask"}
    opened = run.open()
    check_opening(run.session, run.survivors, opened)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"totals": (opened.totals[0] + 1, *opened.totals[1:])}, "mpc.sum_mismatch"),
        ({"totals": opened.totals[:-1]}, "mpc.totals_shape"),
        ({"totals": (*opened.totals, 0)}, "mpc.totals_shape"),  # as a sum of commitments it would be right
        ({"totals": (2**62, *opened.totals[1:])}, "mpc.sum_mismatch"),
        ({"totals": (opened.totals[0] + R, *opened.totals[1:])}, "mpc.sum_mismatch"),  # this one, too
        ({"blinding": bytes(32)}, "mpc.sum_mismatch"),
    ]
    for changes, code in wrong:
        with pytest.raises((VerificationError, DecodeError)) as found:
            check_opening(run.session, run.survivors, msgspec.structs.replace(opened, **changes))
        assert found.value.code == code, changes
    fewer = msgspec.structs.replace(
        run.survivors, sites=run.survivors.sites[:2], contributions=run.survivors.contributions[:2]
    )
    other = msgspec.structs.replace(run.survivors, contributions=run.survivors.contributions[::-1][:2])
    sites = (*run.survivors.sites[:-1], "site-99")
    last = msgspec.structs.replace(run.survivors.contributions[-1], site="site-99")
    contributions = (*run.survivors.contributions[:-1], last)
    stranger = msgspec.structs.replace(run.survivors, sites=sites, contributions=contributions)
    for survivors in (fewer, other, stranger):
        with pytest.raises(VerificationError) as caught:
            check_opening(run.session, survivors, opened)
        assert caught.value.code == "mpc.not_the_roster"


def test_the_parties_are_those_of_the_board(consortium):
    run = many(consortium, 4)
    run.deal()
    for site, shares in run.dealt.items():
        run.coordinator = run.coordinator.receive(site, shares)
    _, parties, handed = run.coordinator.close(run.session.roster[:3])
    assert parties.sites == run.session.roster[:3] and sorted(handed) == list(parties.sites)
    assert isinstance(parties, Parties) and all(len(shares) == 2 for shares in handed.values())
