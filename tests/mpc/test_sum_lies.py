"""Secure sums among liars: every message swapped, dropped, doubled, replayed, forged; each lie is caught and named."""

from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mpc import secret_sharing, sum_coordinator
from mpc.secure_aggregation import _agreed, _sealing
from mpc.sum_messages import ShownShare, seed_digest, share_digest, signed
from mpc.vector_commitment import commit
from wire.commitment import contribution_digest
from wire.errors import ProtocolAbort
from wire.signing import Signer

SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")
OTHER = b"another query..."
EVIL = X25519PrivateKey.from_private_bytes(bytes(range(32)))
EVIL_KEY = EVIL.public_key().public_bytes_raw()


class Aborts:
    """The abort of that code, naming exactly these parties and its round, in both languages."""

    def __init__(self, code: str, *parties: str):
        self._code, self._parties, self._raises = code, parties, pytest.raises(ProtocolAbort)

    def __enter__(self):
        self._caught = self._raises.__enter__()

    def __exit__(self, *details):
        done = self._raises.__exit__(*details)
        error = self._caught.value
        assert error.code == self._code
        assert error.parties == self._parties
        assert error.round and error.message != self._code and error.text("zh") != error.text("en")
        return done


def changed(struct, **fields):
    return msgspec.structs.replace(struct, **fields)


def resigned(run, message, **fields):
    """A message with fields changed and signed again by its sender's true envelope key: a malicious site."""
    sender = getattr(message, "dealer", None) or message.site
    return signed(changed(message, **fields), run.signers[sender])


def swapped(messages, place, new):
    return [*messages[:place], new, *messages[place + 1 :]]


# --- keys ---------------------------------------------------------------------------------------


def test_a_swapped_key_is_caught_by_its_signature(consortium):
    run = consortium.run().start()
    state, mallory = run.states["hospital-1"], Signer(bytes(32))
    forged = signed(changed(run.keys[1], mask=EVIL_KEY), mallory)
    for wrong in (changed(run.keys[1], mask=EVIL_KEY), changed(run.keys[1], seal=EVIL_KEY), forged):
        with Aborts("mpc.bad_signature", "hospital-2"):
            state.receive(swapped(run.keys, 1, wrong))
        with Aborts("mpc.bad_signature", "hospital-2"):
            run.coordinator.receive(wrong)


def test_a_key_of_another_session_is_caught(consortium):
    run = consortium.run().start()
    for fields in (
        {"query": OTHER},
        {"phase": 2},
        {"chain": "other-chain"},
        {"query_hash": bytes(31) + b"\1"},
        {"layout": bytes(31) + b"\1"},
        {"cells": 2},
        {"mode": "bulk"},
    ):
        vectors = {site: (1,) * fields.get("cells", 3) for site in SITES}
        replayed = consortium.run(vectors, **fields).start().keys[1]
        with Aborts("mpc.wrong_session", "hospital-2"):
            run.states["hospital-1"].receive(swapped(run.keys, 1, replayed))
        with Aborts("mpc.wrong_session", "hospital-2"):
            run.coordinator.receive(replayed)


def test_another_roster_is_another_session(consortium):
    four = consortium.run().start()
    three = consortium.run(dict.fromkeys(SITES[:3], (1, 2, 3))).start()
    with Aborts("mpc.wrong_session", "hospital-1"):
        four.states["hospital-2"].receive([*three.keys, four.keys[3]])
    with Aborts("mpc.not_in_roster", "hospital-4"):
        three.states["hospital-2"].receive([*three.keys, four.keys[3]])


def test_a_key_sent_twice_shared_or_of_small_order_is_caught(consortium):
    run = consortium.run().start()
    state = run.states["hospital-1"]
    with Aborts("mpc.sent_twice", "hospital-2"):
        state.receive([*run.keys, run.keys[1]])
    for fields in ({"mask": run.keys[1].mask}, {"seal": run.keys[1].mask}, {"seal": run.keys[1].seal}):
        copied = resigned(run, run.keys[2], **fields)
        with Aborts("mpc.shared_mask_key", "hospital-2", "hospital-3"):
            state.receive(swapped(run.keys, 2, copied))
        with Aborts("mpc.shared_mask_key", "hospital-2", "hospital-3"):
            run.coordinator.receive(run.keys[1]).receive(copied)
    twice = resigned(run, run.keys[2], seal=run.keys[2].mask)
    with Aborts("mpc.shared_mask_key", "hospital-3", "hospital-3"):
        state.receive(swapped(run.keys, 2, twice))
    for fields in ({"mask": bytes(32)}, {"seal": bytes(32)}, {"mask": bytes(31) + b"\x80"}):
        small = resigned(run, run.keys[2], **fields)
        with Aborts("mpc.bad_mask_key", "hospital-3"):
            state.receive(swapped(run.keys, 2, small))


def test_a_site_notices_another_key_under_its_own_name(consortium):
    """Even one that it signed itself, in an earlier try of the same session; and that its key is left out."""
    run = consortium.run().start()
    earlier = consortium.run()
    earlier.seed = "earlier"
    earlier.start()
    with Aborts("mpc.own_key_altered", "hospital-1"):
        run.states["hospital-1"].receive(swapped(run.keys, 0, earlier.keys[0]))
    with Aborts("mpc.own_key_altered", "hospital-1"):
        run.states["hospital-1"].receive(run.keys[1:])


def test_two_genuine_keys_of_a_malicious_site_open_nothing(consortium):
    """hospital-4 signs two keys; the coordinator shows one to hospital-1 and the other to the rest."""
    run = consortium.run().start()
    second = resigned(run, run.keys[3], mask=EVIL_KEY)
    for keys in run.keys:
        run.coordinator = run.coordinator.receive(keys)
    run.coordinator, run.listed = run.coordinator.close()
    for site in SITES:
        shown = swapped(list(run.listed), 3, second) if site == "hospital-1" else run.listed
        run.states[site], run.dealt[site], said = run.states[site].receive(shown)
        run.announcements.append(said)
    for site, shares in run.dealt.items():
        run.coordinator = run.coordinator.receive(site, shares)
    _, parties, handed = run.coordinator.close()
    with Aborts("mpc.keys_differ"):
        run.states["hospital-1"].receive(parties, handed["hospital-1"], run.announcements)


# --- shares -------------------------------------------------------------------------------------


def handed_to(run, site):
    """What the coordinator hands to a site, and the state that takes it."""
    run.deal()
    for dealer, shares in run.dealt.items():
        run.coordinator = run.coordinator.receive(dealer, shares)
    run.coordinator, run.parties, run.handed = run.coordinator.close()
    return run.states[site], list(run.handed[site])


def test_a_share_that_was_changed_swapped_or_forged_is_caught(consortium):
    run = consortium.run()
    state, shares = handed_to(run, "hospital-1")
    announced = run.announced()
    flipped = bytes([shares[0].sealed[0] ^ 1]) + shares[0].sealed[1:]
    cases = [
        (changed(shares[0], sealed=flipped), "mpc.bad_signature"),
        (resigned(run, shares[0], sealed=flipped), "mpc.wrong_share"),  # the dealer itself sent nonsense
        (resigned(run, shares[0], self_digest=bytes(32)), "mpc.wrong_share"),
        (resigned(run, shares[0], pairs_digest=bytes(32)), "mpc.wrong_share"),
        (resigned(run, shares[0], self_digest=shares[0].pairs_digest), "mpc.wrong_share"),
        (next(s for s in run.dealt["hospital-2"] if s.holder == "hospital-3"), "mpc.wrong_share"),
        (resigned(run, shares[0], holder="hospital-9"), "mpc.not_in_roster"),
        (resigned(run, shares[0], session=bytes(32)), "mpc.wrong_session"),
    ]
    for wrong, code in cases:
        with Aborts(code, "hospital-2"):
            state.receive(run.parties, swapped(shares, 0, wrong), announced)
    with Aborts("mpc.sent_twice", "hospital-2"):
        state.receive(run.parties, [*shares, shares[0]], announced)
    with Aborts("mpc.incomplete", "hospital-2"):
        state.receive(run.parties, shares[1:], announced)
    state.receive(run.parties, shares, announced)  # and nothing of that has spoiled it


def test_a_share_of_a_dealer_that_is_no_party_is_not_taken(consortium):
    """The parties are those of the ledger: whoever was lost before has nothing to say, true or not."""
    run = seven(consortium)
    run.deal()
    for site, shares in run.dealt.items():
        run.coordinator = run.coordinator.receive(site, shares)
    run.coordinator, run.parties, run.handed = run.coordinator.close(run.session.roster[:6])
    late = next(one for one in run.dealt["site-6"] if one.holder == "site-0")
    with Aborts("mpc.wrong_share", "site-6"):
        run.states["site-0"].receive(run.parties, [*run.handed["site-0"], late], run.announced())


def test_the_coordinator_takes_only_all_that_a_site_dealt(consortium):
    run = consortium.run().deal()
    for keys in run.keys:
        assert keys.site
    shares = run.dealt["hospital-2"]
    for wrong in (shares[1:], (*shares[1:], shares[1])):
        with pytest.raises(ProtocolAbort) as caught:
            run.coordinator.receive("hospital-2", wrong)
        assert caught.value.parties == ("hospital-2",)
    for wrong in (run.dealt["hospital-3"], [*shares, run.dealt["hospital-3"][0]], [*shares, shares[0]]):
        with Aborts("mpc.wrong_share", "hospital-2"):
            run.coordinator.receive("hospital-2", wrong)
    with Aborts("mpc.not_in_roster", "hospital-9"):
        run.coordinator.receive("hospital-9", shares)
    with Aborts("mpc.sent_twice", "hospital-2"):
        run.coordinator.receive("hospital-2", shares).receive("hospital-2", shares)


# --- parties ------------------------------------------------------------------------------------


def test_parties_of_another_run_too_few_or_under_other_keys_are_refused(consortium):
    run = consortium.run()
    state, shares = handed_to(run, "hospital-1")
    announced, parties = run.announced(), run.parties
    cases = [
        (changed(parties, query=OTHER), "mpc.wrong_session"),
        (changed(parties, phase=2), "mpc.wrong_session"),
        (changed(parties, keys=bytes(32)), "mpc.keys_differ"),
        (changed(parties, sites=parties.sites[::-1]), "mpc.listed_wrongly"),
        (changed(parties, sites=(*parties.sites, "hospital-4")), "mpc.listed_wrongly"),
        (changed(parties, sites=(*parties.sites, "hospital-9")), "mpc.not_in_roster"),
        (changed(parties, sites=parties.sites[:2]), "mpc.incomplete"),
        (changed(parties, sites=parties.sites[1:]), "mpc.left_out"),
    ]
    for wrong, code in cases:
        with pytest.raises(ProtocolAbort) as caught:
            state.receive(wrong, shares, announced)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("mpc.wrong_session", {"query": OTHER}),
        ("mpc.wrong_session", {"phase": 2}),
        ("mpc.not_in_roster", {"site": "hospital-9"}),
        ("mpc.sent_twice", {"site": "hospital-3"}),
    ],
)
def test_announcements_of_another_run_or_site_are_caught(consortium, code, fields):
    run = consortium.run()
    state, shares = handed_to(run, "hospital-1")
    posts = [changed(a, **fields) if a.site == "hospital-2" else a for a in run.announcements]
    with pytest.raises(ProtocolAbort) as caught:
        state.receive(run.parties, shares, posts)
    assert caught.value.code == code


def test_a_site_notices_a_missing_or_changed_announcement(consortium):
    run = consortium.run()
    state, shares = handed_to(run, "hospital-1")
    posts = run.announcements
    with Aborts("mpc.incomplete", "hospital-2"):
        state.receive(run.parties, shares, [a for a in posts if a.site != "hospital-2"])
    with Aborts("mpc.own_post_altered", "hospital-1"):
        state.receive(run.parties, shares, swapped(posts, 0, changed(posts[0], digest=bytes(32))))


def test_a_copied_announcement_costs_the_copier_alone(consortium):
    """It cannot be opened: it binds the name of its site. The others go on."""
    run = seven(consortium).deal()
    posts = {one.site: one for one in run.announcements}
    posts["site-6"] = changed(posts["site-5"], site="site-6")
    for site, shares in run.dealt.items():
        run.coordinator = run.coordinator.receive(site, shares)
    run.coordinator, run.parties, run.handed = run.coordinator.close()
    posted = []
    for site in run.session.roster[:6]:
        out = run.states[site].receive(run.parties, run.handed[site], list(posts.values()))
        run.states[site], masked, contribution = out
        run.coordinator = run.coordinator.receive(masked)
        posted.append(contribution)
    run.coordinator, run.survivors = run.coordinator.close(posted)
    for site in run.survivors.sites:
        run.coordinator = run.coordinator.receive(run.states[site].receive(run.survivors)[1])
    assert run.coordinator.finish().totals[0] == sum(range(6))
    copied = changed(posted[5], site="site-6")
    said = contribution_digest(copied.query, copied.phase, "site-6", copied.point, copied.salt)
    assert said != posts["site-6"].digest


def test_keys_that_nobody_could_use_are_not_handed_on(consortium):
    """One key for both, or of small order: the coordinator leaves that site out, and the others go on."""
    run = seven(consortium).start()
    bad = {"seal": run.keys[6].mask}, {"mask": bytes(32)}, {"seal": bytes(32)}, {"mask": bytes(31) + b"\x80"}
    for fields in bad:
        with pytest.raises(ProtocolAbort) as caught:
            run.coordinator.receive(resigned(run, run.keys[6], **fields))
        assert set(caught.value.parties) == {"site-6"}


def test_a_contribution_that_is_no_point_is_no_survivors(consortium):
    run = seven(consortium).mask()
    for masked in run.masked:
        run.coordinator = run.coordinator.receive(masked)
    identity = b"\xc0" + bytes(47)
    for point in (b"\xff" * 48, identity, bytes(48)):
        posted = [*run.contributions[:6], changed(run.contributions[6], point=point)]
        _, survivors = run.coordinator.close(posted)
        assert survivors.sites == run.session.roster[:6]


# --- masked vectors -----------------------------------------------------------------------------


def test_masked_vectors_that_are_forged_changed_or_replayed_are_caught(consortium):
    run = consortium.run().mask()
    one = run.masked[1]
    cells = bytes(one.cells)
    flipped = bytes([cells[0] ^ 1]) + cells[1:]
    cases = [
        (changed(one, cells=flipped), "mpc.bad_signature", "hospital-2"),
        (changed(one, blinding=bytes(32)), "mpc.bad_signature", "hospital-2"),
        (changed(one, site="hospital-3"), "mpc.bad_signature", "hospital-3"),
        (changed(one, site="hospital-9"), "mpc.not_in_roster", "hospital-9"),
        (resigned(run, one, session=bytes(32)), "mpc.wrong_session", "hospital-2"),
        (resigned(run, one, parties=bytes(32)), "mpc.other_keys", "hospital-2"),
        (resigned(run, one, cells=cells[:-8]), "mpc.masked_shape", "hospital-2"),
        (resigned(run, one, cells=cells + bytes(1)), "mpc.masked_shape", "hospital-2"),
        (resigned(run, one, blinding=b"\xff" * 32), "mpc.masked_shape", "hospital-2"),
    ]
    for wrong, code, named in cases:
        with Aborts(code, named):
            run.coordinator.receive(wrong)
    with Aborts("mpc.sent_twice", "hospital-2"):
        run.coordinator.receive(one).receive(one)


def test_a_site_that_was_left_out_of_the_parties_has_no_say(consortium):
    run = consortium.run()
    run.lost = {"hospital-4": "deal"}
    run.mask()
    stranger = resigned(run, run.masked[1], site="hospital-2")
    run.coordinator = run.coordinator.receive(stranger)
    with Aborts("mpc.not_in_roster", "hospital-4"):
        run.coordinator.receive(signed(changed(run.masked[0], site="hospital-4"), run.signers["hospital-4"]))


def test_a_changed_number_is_detected_and_nothing_is_released(consortium):
    """The liar signs it: nobody can be named safely."""
    for fields in ({"cells": bytes(24)}, {"blinding": bytes(32)}):
        run = consortium.run().mask()
        run.masked[1] = resigned(run, run.masked[1], **fields)
        for masked in run.masked:
            run.coordinator = run.coordinator.receive(masked)
        run.coordinator, run.survivors = run.coordinator.close(run.contributions)
        for site in SITES:
            _, out = run.states[site].receive(run.survivors)
            run.coordinator = run.coordinator.receive(out)
        with Aborts("mpc.sum_aborted"):
            run.coordinator.finish()


# --- survivors ----------------------------------------------------------------------------------


def seven(consortium):
    signers = {f"site-{i}": Signer(bytes([i]) * 32) for i in range(7)}
    vectors = {site: (i, 2, 3) for i, site in enumerate(signers)}
    consortium.signers = signers
    return consortium.run(vectors)


def test_survivors_of_another_run_too_few_or_strangers_are_refused(consortium):
    run = seven(consortium).unmask()
    again = consortium.run(dict(run.vectors)).mask()
    for masked in again.masked:
        again.coordinator = again.coordinator.receive(masked)
    _, survivors = again.coordinator.close(again.contributions)
    state = again.states["site-0"]
    few = changed(survivors, sites=survivors.sites[:4], contributions=survivors.contributions[:4])
    cases = [
        (changed(survivors, query=OTHER), "mpc.wrong_session"),
        (changed(survivors, phase=2), "mpc.wrong_session"),
        (few, "mpc.incomplete"),
        (changed(survivors, sites=survivors.sites[1:]), "mpc.left_out"),
        (changed(survivors, sites=(*survivors.sites[:-1], "site-9")), "mpc.not_in_roster"),
        (changed(survivors, sites=survivors.sites[::-1]), "mpc.listed_wrongly"),
        (changed(survivors, contributions=survivors.contributions[:-1]), "mpc.incomplete"),
        (changed(survivors, contributions=()), "mpc.incomplete"),
        (changed(survivors, contributions=(*survivors.contributions, survivors.contributions[0])), "mpc.sent_twice"),
    ]
    for wrong, code in cases:
        with pytest.raises(ProtocolAbort) as caught:
            state.receive(wrong)
        assert caught.value.code == code


def test_a_sum_in_bulk_mode_has_no_commitments(consortium):
    run = consortium.run(mode="bulk").mask()
    for masked in run.masked:
        run.coordinator = run.coordinator.receive(masked)
    _, survivors = run.coordinator.close()
    posted = consortium.run().mask().contributions
    with Aborts("mpc.wrong_session"):
        run.states["hospital-1"].receive(changed(survivors, contributions=tuple(posted)))
    run.states["hospital-1"].receive(survivors)


def test_who_took_no_part_is_no_survivor(consortium):
    run = seven(consortium)
    run.lost = {"site-6": "deal"}
    run.mask()
    for masked in run.masked:
        run.coordinator = run.coordinator.receive(masked)
    _, survivors = run.coordinator.close(run.contributions)
    with Aborts("mpc.not_in_roster", "site-6"):
        run.states["site-0"].receive(changed(survivors, sites=(*survivors.sites, "site-6")))


def test_a_commitment_that_was_not_announced_is_caught(consortium):
    run = consortium.run().mask()
    for masked in run.masked:
        run.coordinator = run.coordinator.receive(masked)
    _, survivors = run.coordinator.close(run.contributions)
    state, posts = run.states["hospital-1"], survivors.contributions
    other = commit((1, 2, 3), 5)
    for fields in ({"point": other}, {"salt": bytes(32)}):
        wrong = changed(survivors, contributions=tuple(swapped(posts, 1, changed(posts[1], **fields))))
        with Aborts("mpc.contribution_mismatch", "hospital-2"):
            state.receive(wrong)
    wrong = changed(survivors, contributions=tuple(swapped(posts, 0, changed(posts[0], point=other))))
    with Aborts("mpc.own_post_altered", "hospital-1"):
        state.receive(wrong)


@pytest.mark.parametrize("point", [b"\xff" * 48, b"\xc0" + bytes(47), bytes(48)])
def test_no_share_is_shown_for_a_contribution_that_is_no_point(consortium, point):
    """A site may announce one, and a coordinator count it: the others would show their shares for nothing."""
    run = consortium.run().deal()
    session, salt = run.session, bytes(range(32))
    digest = contribution_digest(session.query, session.phase, "hospital-2", point, salt)
    lie = changed(next(one for one in run.announcements if one.site == "hospital-2"), digest=digest)
    for site, shares in run.dealt.items():
        run.coordinator = run.coordinator.receive(site, shares)
    run.coordinator, run.parties, run.handed = run.coordinator.close()
    told = [lie if one.site == "hospital-2" else one for one in run.announced()]
    own = {site: run.announced() if site == "hospital-2" else told for site in SITES}
    out = {site: run.states[site].receive(run.parties, run.handed[site], own[site]) for site in SITES}
    for _, masked, _ in out.values():
        run.coordinator = run.coordinator.receive(masked)
    _, survivors = run.coordinator.close([contribution for _, _, contribution in out.values()])
    posts = [
        changed(one, point=point, salt=salt) if one.site == "hospital-2" else one for one in survivors.contributions
    ]
    with Aborts("mpc.bad_point", "hospital-2"):
        out["hospital-1"][0].receive(changed(survivors, contributions=tuple(posts)))


# --- unmasking ----------------------------------------------------------------------------------


def test_two_lists_of_survivors_do_not_bring_both_seeds_together(consortium):
    """A coordinator that asks some sites with a party alive and others with it lost: fewer than t of either kind.

    t = 5 of 7; six survivors besides the victim split 3 and 3 can bring no more, and each site answers one list alone.
    """
    run = seven(consortium).mask()
    for masked in run.masked:
        run.coordinator = run.coordinator.receive(masked)
    alive, survivors = run.coordinator.close(run.contributions)
    without = changed(survivors, sites=survivors.sites[:-1], contributions=survivors.contributions[:-1])
    first = [run.states[f"site-{i}"].receive(survivors)[1] for i in range(3)]
    second = [run.states[f"site-{i}"].receive(without)[1] for i in range(3, 6)]
    of_self = [one.shares[6].share for one in first]
    of_pairs = [one.shares[6].share for one in second]
    assert len(of_self) < run.session.threshold and len(of_pairs) < run.session.threshold
    for unmasking in first:
        alive = alive.receive(unmasking)
    for unmasking in second:
        with Aborts("mpc.survivors_differ", unmasking.site):
            alive.receive(unmasking)
    with Aborts("mpc.incomplete", "site-3", "site-4", "site-5", "site-6"):
        alive.finish()


def test_a_finished_site_has_nothing_more_to_say(consortium):
    run = consortium.run().unmask()
    for state in run.states.values():
        assert not hasattr(state, "receive") and vars(state) == {"session": run.session}


def test_unmaskings_that_are_forged_changed_or_wrong_are_caught(consortium):
    run = seven(consortium)
    run.lost = {"site-6": "mask"}
    run.unmask()
    one = run.unmaskings[1]
    wrong_share = ShownShare("site-0", bytes(66))
    gone = ShownShare("site-6", bytes(66))
    cases = [
        (changed(one, shares=(wrong_share, *one.shares[1:])), "mpc.bad_signature"),
        (resigned(run, one, shares=(wrong_share, *one.shares[1:])), "mpc.wrong_share"),
        (resigned(run, one, shares=(*one.shares[:-1], gone)), "mpc.wrong_share"),
        (resigned(run, one, shares=one.shares[1:]), "mpc.wrong_share"),
        (resigned(run, one, shares=one.shares[::-1]), "mpc.wrong_share"),
        (resigned(run, one, survivors=bytes(32)), "mpc.survivors_differ"),
        (resigned(run, one, session=bytes(32)), "mpc.wrong_session"),
    ]
    for wrong, code in cases:
        with Aborts(code, "site-1"):
            run.coordinator.receive(wrong)
    with Aborts("mpc.sent_twice", "site-1"):
        run.coordinator.receive(one).receive(one)
    lost = signed(changed(one, site="site-6"), run.signers["site-6"])
    with Aborts("mpc.not_in_roster", "site-6"):
        run.coordinator.receive(lost)


def test_a_survivor_that_shows_the_other_seed_is_caught(consortium):
    """Its share of the key of a survivor, in the place of the share of its self mask: the digest says which it is."""
    run = seven(consortium).unmask()
    held = run.states  # finished: what they held is gone
    assert all(vars(state) == {"session": run.session} for state in held.values())
    again = seven(consortium).mask()
    pairs = again.states["site-1"]._held["site-0"][1]
    one = run.unmaskings[1]
    with Aborts("mpc.wrong_share", "site-1"):
        run.coordinator.receive(resigned(run, one, shares=(ShownShare("site-0", pairs), *one.shares[1:])))


@pytest.mark.parametrize("what", ["self", "pairs", "no seed"])
def test_a_dealer_whose_shares_are_of_no_seed_is_named(consortium, what):
    """site-6 deals shares of another seed than it said, each with the digest that fits: its holders cannot know."""
    run = seven(consortium).deal()
    session = run.session
    own = run.states["site-6"]._own
    wrong = secret_sharing.split(bytes(32), own.above[0], range(1, 8))
    if what == "no seed":  # shares of a number of 33 bytes
        size = secret_sharing.SHARE_BYTES
        beyond = {x: (int.from_bytes(one, "big") + (1 << 256)) % secret_sharing.PRIME for x, one in wrong.items()}
        wrong = {x: one.to_bytes(size, "big") for x, one in beyond.items()}
    kept = list(run.dealt["site-6"])
    for place, share in enumerate(kept):
        number = session.number(share.holder)
        good = [
            secret_sharing.split(own.seed, own.above[0], [number])[number],
            secret_sharing.split(own.mask.private_bytes_raw(), own.above[1], [number])[number],
        ]
        good[1 if what == "pairs" else 0] = wrong[number]
        keys = next(one for one in run.keys if one.site == share.holder)
        agreed = _agreed(own.seal, keys.seal, share.holder)
        sealed = _sealing(own, "site-6", share.holder, keys, agreed).encrypt(bytes(12), b"".join(good), b"")
        digests = [
            share_digest(session.id(), "site-6", share.holder, name, value)
            for name, value in zip(("self", "pairs"), good, strict=True)
        ]
        kept[place] = resigned(run, share, sealed=sealed, self_digest=digests[0], pairs_digest=digests[1])
    run.dealt["site-6"] = tuple(kept)
    for site, shares in run.dealt.items():
        run.coordinator = run.coordinator.receive(site, shares)
    run.coordinator, run.parties, run.handed = run.coordinator.close()
    lost = {"site-6"} if what == "pairs" else set()
    for site in session.roster:
        run.states[site], masked, contribution = run.states[site].receive(
            run.parties, run.handed[site], run.announced()
        )
        if site not in lost:
            run.coordinator = run.coordinator.receive(masked)
        run.contributions.append(contribution)
    run.coordinator, run.survivors = run.coordinator.close(run.contributions)
    for site in run.survivors.sites:
        run.coordinator = run.coordinator.receive(run.states[site].receive(run.survivors)[1])
    with Aborts("mpc.wrong_share", "site-6"):
        run.coordinator.finish()


def test_the_digest_of_a_seed_is_of_one_session_and_site():
    seen = {seed_digest(s, site, bytes(32)) for s in (bytes(32), bytes([1]) * 32) for site in ("a", "b")}
    assert len(seen) == 4


# --- callers' bugs ------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [(1, 2), (1, 2, 2**62), (1, 2, -1), (2**60, 0, 0)])
def test_cells_that_do_not_fit_are_a_callers_bug(consortium, cells):
    with pytest.raises(ValueError, match="cells"):
        consortium.run(dict.fromkeys(SITES, cells), cells=3).start()


def test_a_roster_of_two_unsorted_or_unknown_is_a_callers_bug(consortium):
    with pytest.raises(ValueError, match="roster"):
        consortium.run(dict.fromkeys(SITES[:2], (1,))).start()
    for roster in (SITES[::-1], (*SITES[:3], SITES[2]), (*SITES, "hospital-9")):
        with pytest.raises(ValueError, match="roster"):
            sum_coordinator.begin(consortium.run(roster=roster).session, consortium.members)
