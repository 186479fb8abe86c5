"""mpc.secure_aggregation: exact sums, and every message mutated, dropped, doubled, replayed, swapped."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpc import secure_aggregation as sums
from mpc.vector_commitment import commit
from wire import canonical
from wire.domains import MASK_KEY, MASK_KEYS, MASKED, PAIR_MASK, digest
from wire.errors import DecodeError, MedveilError, ProtocolAbort, VerificationError
from wire.signing import Signer, verify
from zkp.groups import R

SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")
VECTORS = Path(__file__).resolve().parent.parent / "vectors" / "secure_aggregation"
OTHER = b"another query..."


def aborts(code: str, *parties: str):
    """The abort of that code, naming exactly these parties and its round, in both languages."""

    class Context:
        def __enter__(self):
            self.raises = pytest.raises(ProtocolAbort)
            self.caught = self.raises.__enter__()
            return self

        def __exit__(self, *details):
            done = self.raises.__exit__(*details)
            error = self.caught.value
            assert error.code == code
            assert error.parties == parties
            assert error.round and error.message != code and error.text("zh") != error.text("en")
            return done

    return Context()


def changed(struct, **fields):
    return msgspec.structs.replace(struct, **fields)


def resigned_key(run, site, **fields):
    """A mask key of `site` with fields changed and signed again by its true envelope key: a malicious site."""
    key = changed(next(k for k in run.keys if k.site == site), **fields)
    message = sums._key_message(key.session, key.site, key.public)
    return changed(key, signature=run.signers[site].sign(MASK_KEY, message))


def resigned_masked(run, site, **fields):
    masked = changed(next(m for m in run.masked if m.site == site), **fields)
    message = sums._masked_message(masked.session, site, masked.keys, masked.cells, masked.blinding)
    return changed(masked, signature=run.signers[site].sign(MASKED, message))


def coordinator(run, masked=None):
    state = sums.collect(run.session, run.members, run.keys)
    for one in run.masked if masked is None else masked:
        state = state.receive(one)
    return state


# --- what it is for -----------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.integers(3, 4), st.integers(0, 6), st.data())
def test_the_sum_is_exact(consortium, sites, length, data):
    cell = st.integers(0, (2**62 - 1) // sites)
    vectors = {site: data.draw(st.lists(cell, min_size=length, max_size=length)) for site in SITES[:sites]}
    run = consortium.run(vectors)
    opened = run.open()
    assert opened.totals == tuple(sum(column) for column in zip(*vectors.values(), strict=True))
    sums.check_opening(run.session, run.contributions, opened)


def test_every_message_travels(consortium):
    run = consortium.run()
    opened = run.open()
    for message in (*run.keys, *run.announcements, *run.contributions, *run.masked, run.survivors(), opened):
        data = canonical.encode(message)
        assert canonical.decode(type(message), data) == message
        with pytest.raises(DecodeError):
            canonical.decode(type(message), data + b"\0")


def test_a_second_writing_of_the_masks_gives_the_same_bytes(consortium, replay):
    """The paper's equations with other code: HKDF by hmac, CTR by ECB, Python ints; full 256-bit seeds."""
    run = consortium.run().mask()
    session = run.session.id()
    secrets, blindings = {}, {}
    for site in SITES:
        rand = replay(f"run/{site}")
        secrets[site] = rand(32)
        blindings[site] = int.from_bytes(rand(48), "big") % R
    public = {key.site: key.public for key in run.keys}
    keys = digest(MASK_KEYS, *(canonical.encode(key) for key in sorted(run.keys, key=lambda k: k.site)))

    def keystream(one: str, other: str) -> bytes:
        shared = X25519PrivateKey.from_private_bytes(secrets[one]).exchange(
            X25519PublicKey.from_public_bytes(public[other])
        )
        extracted = hmac.new(session, shared, hashlib.sha256).digest()
        info = digest(PAIR_MASK, keys, "\n".join(sorted((one, other))).encode())
        seed = hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()
        blocks = Cipher(AES(seed), ECB()).encryptor().update(b"".join(i.to_bytes(16, "big") for i in range(8)))
        return blocks[: 48 + 3 * 8]

    for masked in run.masked:
        cells, blinding = list(run.vectors[masked.site]), blindings[masked.site]
        for other in SITES:
            if other == masked.site:
                continue
            sign = 1 if other > masked.site else -1
            stream = keystream(masked.site, other)
            blinding += sign * int.from_bytes(stream[:48], "big")
            for i in range(3):
                cells[i] += sign * int.from_bytes(stream[48 + 8 * i : 56 + 8 * i], "big")
        assert masked.cells == b"".join((c % 2**64).to_bytes(8, "big") for c in cells)
        assert masked.blinding == (blinding % R).to_bytes(32, "big")
        point = next(c.point for c in run.contributions if c.site == masked.site)
        assert commit(run.vectors[masked.site], blindings[masked.site], "reference") == point


def test_the_run_replays_as_our_vector_says(consortium):
    """tests/vectors/secure_aggregation: one whole run, byte for byte."""
    vector = json.loads((VECTORS / "four-sites.json").read_text())
    run = consortium.run({site: [int(u) for u in cells] for site, cells in vector["cells"].items()})
    opened = run.open()
    assert canonical.encode(run.session).hex() == vector["session"]
    assert run.session.id().hex() == vector["session_id"]
    for name, messages in (
        ("mask_keys", run.keys),
        ("announcements", run.announcements),
        ("contributions", run.contributions),
        ("masked", run.masked),
    ):
        assert [canonical.encode(message).hex() for message in messages] == vector[name]
    assert canonical.encode(opened).hex() == vector["opened"]
    assert [str(total) for total in opened.totals] == vector["totals"]


def test_keys_masks_and_blindings_are_fresh_for_each_run(consortium):
    one, other = consortium.run().mask(), replace(consortium.run(), seed="again").mask()
    for site in range(4):
        assert one.keys[site].public != other.keys[site].public
        assert one.contributions[site].point != other.contributions[site].point
        assert one.masked[site].cells != other.masked[site].cells


def test_masked_vectors_of_fewer_than_all_say_nothing_about_the_sum(consortium):
    """The lanes of any proper subset look uniform: here, that they differ from the plain sum in high bits."""
    run = consortium.run(dict.fromkeys(SITES, (1, 2, 3, 4))).mask()
    for size in (1, 2, 3):
        for subset in combinations(run.masked, size):
            for lane in range(4):
                total = sum(int.from_bytes(m.cells[8 * lane : 8 * lane + 8], "big") for m in subset) % 2**64
                assert 2**20 < total < 2**64 - 2**20  # a pinned, replayable run


def test_the_same_vector_in_another_phase_is_masked_anew(consortium):
    one, other = consortium.run().mask(), consortium.run(phase=2).mask()
    assert one.keys[0].public == other.keys[0].public  # the tests' rand repeats; the session does not
    assert all(a.cells != b.cells for a, b in zip(one.masked, other.masked, strict=True))


def test_states_and_messages_show_no_secret(consortium):
    run = consortium.run(dict.fromkeys(SITES, (123456789,)))
    for step in ("start", "announce", "contribute", "mask"):
        fresh = replace(run, states={}, keys=[], announcements=[], contributions=[], masked=[])
        getattr(fresh, step)()
        assert "123456789" not in repr(fresh.states)
        assert "seed" not in repr(fresh.states)


# --- step 1: mask keys --------------------------------------------------------------------------


def test_a_missing_key_stops_the_run(consortium):
    run = consortium.run().start()
    with aborts("mpc.incomplete", "hospital-3"):
        run.states["hospital-1"].receive([k for k in run.keys if k.site != "hospital-3"])
    with aborts("mpc.incomplete", "hospital-3"):
        sums.collect(run.session, run.members, [k for k in run.keys if k.site != "hospital-3"])


def test_a_swapped_key_is_caught_by_its_signature(consortium):
    run = consortium.run().start()
    evil = X25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().public_bytes_raw()
    for fields in ({"public": evil}, {"site": "hospital-3"}):
        keys = [changed(k, **fields) if k.site == "hospital-2" else k for k in run.keys]
        keys = [k for i, k in enumerate(keys) if k.site not in {o.site for o in keys[:i]}]
        with pytest.raises(ProtocolAbort):
            run.states["hospital-1"].receive(keys)
    signed_by_other = changed(run.keys[1], public=evil)
    message = sums._key_message(signed_by_other.session, "hospital-2", evil)
    mallory = Signer(bytes(32))
    keys = [run.keys[0], changed(signed_by_other, signature=mallory.sign(MASK_KEY, message)), *run.keys[2:]]
    with aborts("mpc.bad_signature", "hospital-2"):
        run.states["hospital-1"].receive(keys)


def test_a_key_of_another_session_is_caught(consortium):
    run = consortium.run().start()
    for fields in (
        {"query": OTHER},
        {"phase": 2},
        {"chain": "other-chain"},
        {"query_hash": bytes(31) + b"\1"},
        {"layout": bytes(31) + b"\1"},
        {"cells": 2},
    ):
        vectors = {site: (1,) * fields.get("cells", 3) for site in SITES}
        replayed = consortium.run(vectors, **fields).start().keys[1]
        with aborts("mpc.wrong_session", "hospital-2"):
            run.states["hospital-1"].receive([run.keys[0], replayed, *run.keys[2:]])


def test_another_roster_is_another_session(consortium):
    four = consortium.run().start()
    three = consortium.run(dict.fromkeys(SITES[:3], (1, 2, 3))).start()
    with aborts("mpc.wrong_session", "hospital-1"):
        four.states["hospital-2"].receive([*three.keys, four.keys[3]])
    with aborts("mpc.not_in_roster", "hospital-4"):
        three.states["hospital-2"].receive([*three.keys, four.keys[3]])


def test_a_key_sent_twice_shared_or_of_small_order_is_caught(consortium):
    run = consortium.run().start()
    state = run.states["hospital-1"]
    with aborts("mpc.sent_twice", "hospital-2"):
        state.receive([*run.keys, run.keys[1]])
    copied = resigned_key(run, "hospital-3", public=run.keys[1].public)
    with aborts("mpc.shared_mask_key", "hospital-2", "hospital-3"):
        state.receive([run.keys[0], run.keys[1], copied, run.keys[3]])
    small = resigned_key(run, "hospital-3", public=bytes(32))
    with aborts("mpc.bad_mask_key", "hospital-3"):
        state.receive([run.keys[0], run.keys[1], small, run.keys[3]])


def test_a_site_notices_another_key_under_its_own_name(consortium):
    """Even one that it signed itself, in an earlier try of the same session."""
    run = consortium.run().start()
    earlier = replace(consortium.run(), seed="earlier").start()
    with aborts("mpc.own_key_altered", "hospital-1"):
        run.states["hospital-1"].receive([earlier.keys[0], *run.keys[1:]])


def test_two_genuine_keys_of_a_malicious_site_open_nothing(consortium):
    """hospital-4 signs two keys; the coordinator shows one to hospital-1 and the other to the rest."""
    run = consortium.run().start()
    second = X25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().public_bytes_raw()
    for site in SITES:
        keys = [*run.keys[:3], resigned_key(run, "hospital-4", public=second)] if site == "hospital-1" else run.keys
        run.states[site], out = run.states[site].receive(keys)
        run.announcements.append(out)
    for site in SITES:
        run.states[site], contribution = run.states[site].receive(run.announcements)
        run.contributions.append(contribution)
    for site in SITES:
        run.states[site], masked = run.states[site].receive(run.survivors())
        run.masked.append(masked)
    with aborts("mpc.other_keys", "hospital-1"):
        coordinator(run)
    # a coordinator that overlooks it, or hides it with hospital-1's help, still opens nothing
    forged = resigned_masked(run, "hospital-1", keys=run.masked[1].keys)
    with aborts("mpc.sum_aborted"):
        coordinator(run, [forged, *run.masked[1:]]).finish(run.survivors())


# --- steps 2 and 3: announce, contribute --------------------------------------------------------


def test_nothing_is_shown_before_all_have_announced(consortium):
    run = consortium.run().announce()
    with aborts("mpc.incomplete", "hospital-2"):
        run.states["hospital-1"].receive([a for a in run.announcements if a.site != "hospital-2"])


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
    run = consortium.run().announce()
    posts = [changed(a, **fields) if a.site == "hospital-2" else a for a in run.announcements]
    with pytest.raises(ProtocolAbort) as caught:
        run.states["hospital-1"].receive(posts)
    assert caught.value.code == code


def test_a_site_notices_a_changed_or_copied_announcement(consortium):
    run = consortium.run().announce()
    state, posts = run.states["hospital-1"], run.announcements
    with aborts("mpc.own_post_altered", "hospital-1"):
        state.receive([changed(posts[0], digest=bytes(32)), *posts[1:]])
    with aborts("mpc.copied_announcement", "hospital-1", "hospital-2"):
        state.receive([posts[0], changed(posts[1], digest=posts[0].digest), *posts[2:]])


def test_a_commitment_that_was_not_announced_is_caught(consortium):
    run = consortium.run().contribute()
    state, posts = run.states["hospital-1"], run.contributions
    survivors = run.survivors()
    other = commit((1, 2, 3), 5)
    for fields in ({"point": other}, {"salt": bytes(32)}):
        mutated = changed(survivors, contributions=(posts[0], changed(posts[1], **fields), *posts[2:]))
        with aborts("mpc.contribution_mismatch", "hospital-2"):
            state.receive(mutated)
    mutated = changed(survivors, contributions=(changed(posts[0], point=other), *posts[1:]))
    with aborts("mpc.own_post_altered", "hospital-1"):
        state.receive(mutated)


def test_a_site_that_announces_no_point_is_caught_before_masks_are_sent(consortium):
    from wire.commitment import contribution_digest

    for point in (b"\xc0" + bytes(47), b"\xff" * 48, bytes(48)):
        run = consortium.run().announce()
        posted = sums.Contribution(run.session.query, 1, "hospital-4", point, bytes(32))
        forged = contribution_digest(run.session.query, 1, "hospital-4", point, bytes(32))
        announcements = [*run.announcements[:3], changed(run.announcements[3], digest=forged)]
        for site in SITES[:3]:
            run.states[site], out = run.states[site].receive(announcements)
            run.contributions.append(out)
        run.contributions.append(posted)
        with aborts("mpc.bad_point", "hospital-4"):
            run.states["hospital-1"].receive(run.survivors())


# --- steps 4 and 5: survivors, masked vectors ---------------------------------------------------


def test_no_masked_vector_for_any_list_but_the_roster(consortium):
    """Comparing {1,2,3,4} with {2,3,4} would show hospital-1."""
    run = consortium.run().contribute()
    survivors = run.survivors()
    for sites, differing in (
        (SITES[1:], ("hospital-1",)),
        (SITES[:2], ("hospital-3", "hospital-4")),
        ((), SITES),
        ((*SITES, "hospital-5"), ("hospital-5",)),
    ):
        kept = tuple(c for c in run.contributions if c.site in sites)
        for state in run.states.values():
            with aborts("mpc.survivors_differ", *differing):
                state.receive(changed(survivors, sites=sites, contributions=kept))
    with aborts("mpc.survivors_differ"):
        run.states["hospital-1"].receive(changed(survivors, sites=SITES[::-1]))
    with aborts("mpc.incomplete", "hospital-4"):
        run.states["hospital-1"].receive(changed(survivors, contributions=survivors.contributions[:3]))
    with aborts("mpc.sent_twice", "hospital-1"):
        run.states["hospital-2"].receive(changed(survivors, contributions=(*run.contributions, run.contributions[0])))


def test_survivors_of_another_query_or_phase_are_refused(consortium):
    run = consortium.run().contribute()
    for fields in ({"query": OTHER}, {"phase": 2}):
        with aborts("mpc.wrong_session"):
            run.states["hospital-1"].receive(changed(run.survivors(), **fields))
        posts = tuple(changed(c, **fields) for c in run.contributions)
        with aborts("mpc.wrong_session", "hospital-1"):
            run.states["hospital-1"].receive(changed(run.survivors(), contributions=posts))


def test_asking_again_gives_the_same_bytes_not_a_second_mask(consortium):
    run = consortium.run().contribute()
    first = run.states["hospital-1"].receive(run.survivors())
    second = run.states["hospital-1"].receive(run.survivors())
    assert first == second


def test_the_coordinator_takes_each_site_once(consortium):
    run = consortium.run().mask()
    state = coordinator(run, run.masked[:2])
    assert state.missing == ("hospital-3", "hospital-4")
    with aborts("mpc.sent_twice", "hospital-1"):
        state.receive(run.masked[0])
    with aborts("mpc.sent_twice", "hospital-1"):
        state.receive(resigned_masked(run, "hospital-1", cells=bytes(24)))
    with aborts("mpc.incomplete", "hospital-3", "hospital-4"):
        state.finish(run.survivors())
    # the state that refused is still good
    for masked in run.masked[2:]:
        state = state.receive(masked)
    assert state.finish(run.survivors()).totals == (42, 4 * 2**50 + 6, 0)


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("mpc.bad_signature", {"cells": bytes(24)}),
        ("mpc.bad_signature", {"blinding": bytes(32)}),
        ("mpc.bad_signature", {"keys": bytes(32)}),
        ("mpc.wrong_session", {"session": bytes(32)}),
        ("mpc.not_in_roster", {"site": "hospital-9"}),
        ("mpc.bad_signature", {"site": "hospital-1"}),
    ],
)
def test_a_masked_vector_changed_on_its_way_is_caught(consortium, code, fields):
    run = consortium.run().mask()
    mutated = changed(run.masked[1], **fields)
    with pytest.raises(ProtocolAbort) as caught:
        coordinator(run, []).receive(mutated)
    assert (caught.value.code, caught.value.parties) == (code, (mutated.site,))


def test_a_masked_vector_of_another_phase_cannot_be_replayed(consortium):
    run, other = consortium.run().mask(), consortium.run(phase=2).mask()
    with aborts("mpc.wrong_session", "hospital-2"):
        coordinator(run, []).receive(other.masked[1])


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("mpc.other_keys", {"keys": bytes(32)}),
        ("mpc.masked_shape", {"cells": bytes(16)}),
        ("mpc.masked_shape", {"cells": bytes(25)}),
        ("mpc.masked_shape", {"blinding": b"\xff" * 32}),
        ("mpc.wrong_session", {"session": bytes(32)}),
    ],
)
def test_a_malicious_sites_malformed_vector_names_it(consortium, code, fields):
    run = consortium.run().mask()
    with aborts(code, "hospital-2"):
        coordinator(run, []).receive(resigned_masked(run, "hospital-2", **fields))


# --- step 6: opening ----------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.integers(0, 3), st.integers(0, 23), st.integers(1, 255))
def test_a_site_that_sends_other_numbers_than_it_committed_to_is_detected(consortium, which, byte, flip):
    run = consortium.run().mask()
    cells = bytearray(run.masked[which].cells)
    cells[byte] ^= flip
    lied = resigned_masked(run, SITES[which], cells=bytes(cells))
    with aborts("mpc.sum_aborted"):
        coordinator(run, [lied if m.site == lied.site else m for m in run.masked]).finish(run.survivors())


def test_a_changed_blinding_is_detected(consortium):
    run = consortium.run().mask()
    blinding = (int.from_bytes(run.masked[0].blinding, "big") + 1) % R
    lied = resigned_masked(run, "hospital-1", blinding=blinding.to_bytes(32, "big"))
    with aborts("mpc.sum_aborted"):
        coordinator(run, [lied, *run.masked[1:]]).finish(run.survivors())


def test_a_published_sum_is_checked_by_anybody(consortium):
    run = consortium.run()
    opened = run.open()
    session, posts = run.session, run.contributions
    sums.check_opening(session, posts, opened, "reference")
    totals = opened.totals
    for wrong in (
        changed(opened, totals=(totals[0] + 1, *totals[1:])),
        changed(opened, totals=(totals[1], totals[0], totals[2])),
        changed(opened, totals=totals[:2]),
        changed(opened, totals=(*totals, 0)),
        changed(opened, totals=(-1, *totals[1:])),
        changed(opened, totals=(2**62, *totals[1:])),
        changed(opened, blinding=bytes(32)),
    ):
        with pytest.raises(VerificationError):
            sums.check_opening(session, posts, wrong)
    with pytest.raises(DecodeError):
        sums.check_opening(session, posts, changed(opened, blinding=b"\xff" * 32))
    for wrong_posts in (
        posts[:3],
        [*posts, posts[0]],
        [*posts[:3], changed(posts[3], site="hospital-9")],
        [*posts[:3], changed(posts[3], phase=2)],
        [*posts[:3], changed(posts[3], point=posts[0].point)],
    ):
        with pytest.raises(VerificationError):
            sums.check_opening(session, wrong_posts, opened)


def test_a_sum_that_opens_but_passes_the_lanes_room_is_refused(consortium):
    """A site that commits to 2^63 and sends it: the algebra holds, the range does not."""
    session = consortium.run(dict.fromkeys(SITES, (0,))).session
    huge = [2**63, 1, 1, 1]
    posts = [
        sums.Contribution(session.query, 1, site, commit((u,), 5), bytes(32))
        for site, u in zip(SITES, huge, strict=True)
    ]
    with pytest.raises(VerificationError) as caught:
        sums.check_opening(session, posts, sums.Opened((sum(huge),), (20).to_bytes(32, "big")))
    assert caught.value.code == "mpc.sum_mismatch"
    small = [changed(posts[0], point=commit((7,), 5)), *posts[1:]]
    sums.check_opening(session, small, sums.Opened((10,), (20).to_bytes(32, "big")))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.integers(0, 2), st.data())
def test_one_flipped_byte_in_any_message_never_yields_a_sum(consortium, kind, data):
    """Tamper with the encoding of one message on its way: it is refused somewhere, or nothing changed."""
    run = consortium.run().mask()
    survivors = run.survivors()
    message = (run.keys[1], survivors, run.masked[1])[kind]
    encoded = bytearray(canonical.encode(message))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(MedveilError):
        mutated = canonical.decode(type(message), bytes(encoded))
        if kind == 0:
            consortium.run().start().states["hospital-1"].receive([run.keys[0], mutated, *run.keys[2:]])
        elif kind == 1:
            consortium.run().contribute().states["hospital-1"].receive(mutated)
        else:
            coordinator(run, []).receive(mutated)


# --- a caller's bugs ----------------------------------------------------------------------------


def test_a_callers_bugs_are_value_errors(consortium, replay):
    run = consortium.run()
    session, members, signers = run.session, run.members, run.signers

    def begin(session=session, site="hospital-1", cells=(1, 2, 3), signer=signers["hospital-1"], members=members):
        return sums.start(session, site, cells, signer, members, replay("bug"))

    begin()
    for arguments in (
        {"session": changed(session, roster=SITES[:2])},
        {"session": changed(session, roster=SITES[::-1])},
        {"session": changed(session, roster=(*SITES[:3], SITES[2]))},
        {"site": "hospital-9"},
        {"signer": signers["hospital-2"]},
        {"cells": (1, 2)},
        {"cells": (-1, 2, 3)},
        {"cells": (2**60, 2, 3)},
        {"members": {"hospital-1": members["hospital-1"]}},
    ):
        with pytest.raises(ValueError, match=r"site|cells|roster"):
            begin(**arguments)


def test_signatures_bind_their_domain(consortium):
    run = consortium.run().mask()
    key, masked = run.keys[0], run.masked[0]
    message = sums._key_message(key.session, key.site, key.public)
    verify(run.members["hospital-1"], MASK_KEY, message, key.signature)
    with pytest.raises(VerificationError):
        verify(run.members["hospital-1"], MASKED, message, key.signature)
    assert masked.signature != key.signature
