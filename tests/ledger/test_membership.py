"""Joining, leaving, new keys: who may, from which block on, and what the cosigning rule becomes."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from ledger.contracts import (
    AnchorGrant,
    Leave,
    RegisterPopulation,
    RevokeGrant,
    RotateKeys,
    VoteAdmission,
    VoteBudget,
    VoteRemoval,
    VoteSuspension,
    VoteVersion,
)
from ledger.contracts import organisations as contract
from ledger.contracts.datasets import PopulationState, population_key
from ledger.contracts.membership import (
    MEMBERS,
    Consortium,
    MemberState,
    ballot_key,
    changes_at,
    consortium,
    consortium_key,
    keys_at,
    member_key,
    removal_key,
)
from ledger.contracts.organisations import Application, Ballot
from wire.checkpoint.membership import needed_cosigners
from wire.errors import Refused, VerificationError
from wire.keyset import KeySet
from wire.sealing import SealKey

VOTERS = ("bureau", "hospital-1", "hospital-2", "hospital-3", "hospital-4", "insurer")
replace = msgspec.structs.replace


def grant(world: Any, name: str) -> AnchorGrant:
    return AnchorGrant(name, bytes(32), world.start, world.start + 10**9, 0)


def admit(world: Any, application: Application) -> None:
    for voter in VOTERS:
        if world.act(voter, VoteAdmission(application)) == ("organisations.admitted",):
            return


def members(world: Any) -> list[str]:
    return [member.organisation for member in world.machine.trust.members]


# --- joining ---------------------------------------------------------------------------------------


def test_joining(world: Any) -> None:
    application = world.application("pharmacy", ("pharmacy",), tier="city")
    with pytest.raises(VerificationError):
        world.act("pharmacy", grant(world, "early"), signer=world.signer("pharmacy", "envelope-1"))
    for voter in VOTERS[:5]:
        assert world.act(voter, VoteAdmission(application)) == ("organisations.voted",)
    assert world.act("insurer", VoteAdmission(application)) == ("organisations.admitted",)
    height = world.machine.height + 1
    assert "pharmacy" not in members(world)  # from the next block on
    assert keys_at(world.machine.view(), "pharmacy", height - 1) is None
    assert keys_at(world.machine.view(), "pharmacy", height) is not None
    world.act("pharmacy", grant(world, "first"), signer=world.signer("pharmacy", "envelope-1"))
    state = world.machine.get(member_key("pharmacy"), MemberState)
    assert (state.roles, state.tier, state.re_executes, state.suspended) == (("pharmacy",), "city", True, False)
    assert {getattr(state.keys, use).valid_from for use in KeySet.__struct_fields__} == {height}
    trust = world.machine.trust
    assert trust.at(height).find("pharmacy") is not None and trust.at(height - 1).find("pharmacy") is None
    assert trust.k == consortium(world.machine.view()).k == max(6, needed_cosigners(9))
    assert world.refused("bureau", VoteAdmission(application)).code == "organisations.member_already"
    assert world.act("pharmacy", VoteSuspension("insurer", True), signer=world.signer("pharmacy", "envelope-1"))


def test_members_vote_for_exactly_one_application(world: Any) -> None:
    one = world.application("pharmacy", ("pharmacy",))
    other = world.application("pharmacy", ("pharmacy", "regulator"), generation="2")
    for voter in VOTERS[:5]:
        world.act(voter, VoteAdmission(one))
    assert world.refused("bureau", VoteAdmission(one)).code == "organisations.voted"
    assert world.act("insurer", VoteAdmission(other)) == ("organisations.voted",)
    assert world.act("bureau", VoteAdmission(other)) == ("organisations.voted",)  # in place of its earlier vote
    assert world.act("regulator", VoteAdmission(one)) == ("organisations.voted",)
    assert world.act("insurer", VoteAdmission(one)) == ("organisations.admitted",)


def test_only_those_that_re_execute_vote(world: Any) -> None:
    light = world.application("bystander", ("researcher",), re_executes=False)
    admit(world, light)
    world.act("bureau", grant(world, "g"))
    assert consortium(world.machine.view()).cosigners == 8 and consortium(world.machine.view()).members == 9
    signer = world.signer("bystander", "envelope-1")
    another = VoteAdmission(world.application("pharmacy", ("pharmacy",)))
    for op in (another, VoteRemoval("insurer"), VoteSuspension("insurer", True)):
        assert world.refused("bystander", op, signer=signer).code == "organisations.no_vote"


@pytest.mark.parametrize(
    "change,code",
    [
        (lambda w, a: replace(a, member=replace(a.member, roles=("king",))), "organisations.bad_application"),
        (lambda w, a: replace(a, member=replace(a.member, roles=())), "organisations.bad_application"),
        (lambda w, a: replace(a, member=replace(a.member, organisation="maker")), "organisations.key_not_held"),
        (lambda w, a: replace(a, member=replace(a.member, roles=("bureau",))), "organisations.key_not_held"),
        (lambda w, a: replace(a, member=replace(a.member, tier="national")), "organisations.key_not_held"),
        (lambda w, a: replace(a, member=replace(a.member, re_executes=False)), "organisations.key_not_held"),
        (lambda w, a: replace(a, possession=a.possession[::-1]), "organisations.key_not_held"),
        (lambda w, a: w.application("pharmacy", chain=bytes(32)), "organisations.key_not_held"),
        (lambda w, a: w.application("insurer"), "organisations.member_already"),
        (
            lambda w, a: w.application("pharmacy", keys=w.founding.members[1].keys),
            "organisations.used_key",
        ),
        (
            lambda w, a: w.application("pharmacy", change={"tls": a.member.keys.http}),
            "organisations.used_key",
        ),
        (
            lambda w, a: w.application("pharmacy", change={"seal": w.founding.members[1].keys.seal}),
            "organisations.used_key",
        ),
        (
            lambda w, a: w.application("pharmacy", change={"tls": replace(a.member.keys.tls, valid_from=1)}),
            "organisations.key_height",
        ),
        (
            lambda w, a: w.application(
                "pharmacy", change={"seal": replace(a.member.keys.seal, key=SealKey(1, bytes(5)))}
            ),
            "organisations.bad_application",
        ),
    ],
    ids=range(14),
)
def test_applications_that_are_refused(world: Any, change: Any, code: str) -> None:
    application = change(world, world.application("pharmacy", ("pharmacy",)))
    assert world.refused("bureau", VoteAdmission(application)).code == code


# --- leaving ---------------------------------------------------------------------------------------


def test_leaving(world: Any) -> None:
    world.act("insurer", VoteSuspension("researcher", True))
    world.act("insurer", VoteRemoval("researcher"))
    height = world.machine.height + 1
    assert world.act("researcher", Leave()) == ("organisations.leaves",)
    assert "researcher" in members(world)  # still, in this block
    with pytest.raises(VerificationError) as caught:
        world.act("researcher", grant(world, "late"))
    assert caught.value.code == "ledger.bad_entry" and caught.value.facts["reason"] == "ledger.unknown_sender"
    world.act("bureau", grant(world, "g"))
    assert world.machine.get(member_key("researcher"), MemberState) is None
    assert world.machine.get(ballot_key("researcher"), Ballot) is None  # a later member of that name starts anew
    assert world.machine.get(removal_key("researcher"), Ballot) is None
    state = world.machine.get(consortium_key(), Consortium)
    assert (state.members, state.cosigners, state.k, state.latest, state.pending) == (7, 7, 5, height + 1, ())
    assert world.machine.trust.at(height).find("researcher") and not world.machine.trust.at(height + 1).find(
        "researcher"
    )
    assert world.refused("bureau", VoteRemoval("researcher")).code == "organisations.unknown"


def test_coming_back(world: Any) -> None:
    """Under the old name, with new keys; its nonces go on, so that nothing of before can be played again."""
    old = world.envelope("researcher", grant(world, "played-again"))
    world.block(old)
    world.act("researcher", Leave())
    admit(world, world.application("researcher", ("researcher",)))
    signer = world.signer("researcher", "envelope-1")
    assert world.machine.next_nonce("researcher") == 2
    world.act("researcher", RevokeGrant("played-again"), signer=signer)
    with pytest.raises(VerificationError):
        world.block(old)  # the key of before


def test_removal_by_vote(world: Any) -> None:
    for voter in VOTERS[:5]:
        assert world.act(voter, VoteRemoval("regulator")) == ("organisations.voted",)
    assert world.refused("bureau", VoteRemoval("regulator")).code == "organisations.voted"
    assert world.act("insurer", VoteRemoval("regulator")) == ("organisations.leaves",)
    world.act("bureau", grant(world, "g"))
    assert "regulator" not in members(world)


def test_votes_of_those_that_left_do_not_count(world: Any) -> None:
    for voter in VOTERS[:4]:
        world.act(voter, VoteRemoval("regulator"))
        world.act(voter, VoteVersion("grants", 2, 1000))
    world.act("hospital-3", Leave())
    assert world.act("hospital-4", VoteRemoval("regulator")) == ("organisations.voted",)
    assert world.act("hospital-4", VoteVersion("grants", 2, 1000)) == ("versions.voted",)
    assert world.machine.trust.k == 5  # of seven: as many may be missing as before
    assert world.act("insurer", VoteRemoval("regulator")) == ("organisations.leaves",)
    assert world.act("insurer", VoteVersion("grants", 2, 1000)) == ("versions.agreed",)


def test_votes_of_retired_keys_and_of_earlier_members_do_not_count(world: Any) -> None:
    """Whoever stole a key, or was somebody else under that name, decides nothing later."""
    for voter in VOTERS[:5]:
        world.act(voter, VoteRemoval("regulator"))
    world.act("hospital-1", world.rotation("hospital-1", only=("envelope",)))
    world.act("hospital-2", Leave())
    admit_by = ("bureau", "hospital-3", "hospital-4", "insurer", "researcher")
    again = world.application("hospital-2", ("hospital",))
    for voter in admit_by:
        world.act(voter, VoteAdmission(again))
    for voter in ("insurer",):
        assert world.act(voter, VoteRemoval("regulator")) == ("organisations.voted",)
    one, two = (world.signer(name, "envelope-1") for name in ("hospital-1", "hospital-2"))
    assert world.act("hospital-1", VoteRemoval("regulator"), signer=one) == ("organisations.voted",)
    assert world.act("hospital-2", VoteRemoval("regulator"), signer=two) == ("organisations.leaves",)


def test_one_vote_on_an_applicant_an_envelope(world: Any) -> None:
    """Each makes everybody check four signatures: hundreds of them in one envelope would hold the ledger up."""
    two = tuple(VoteAdmission(world.application("pharmacy", generation=which)) for which in ("1", "2"))
    with pytest.raises(VerificationError) as caught:
        world.act("bureau", *two)
    assert caught.value.facts["reason"] == "ledger.costly_ops"


def test_leaving_that_is_refused(world: Any) -> None:
    assert world.refused("bureau", Leave()).code == "organisations.sequencer_stays"
    assert world.refused("insurer", VoteRemoval("bureau")).code == "organisations.sequencer_stays"
    assert world.refused("insurer", VoteRemoval("insurer")).code == "organisations.own_case"
    twice = world.block(world.envelope("insurer", Leave()), world.envelope("insurer", Leave(), nonce=5))
    assert twice.results[0].code == "" and twice.results[1].code == "ledger.nonce"


def test_somebody_must_re_execute(world: Any) -> None:
    for name in list(world.members)[2:]:
        world.act(name, Leave())
    world.act("bureau", grant(world, "g"))
    both = world.block(world.envelope("hospital-1", Leave()), world.envelope("bureau", grant(world, "h")))
    assert both.results[0].code == ""
    world.act("bureau", grant(world, "i"))
    state = consortium(world.machine.view())
    assert (state.cosigners, state.k, members(world)) == (1, 1, ["bureau"])
    admit_alone = world.application("insurer", ("insurer",), re_executes=False)
    assert world.act("bureau", VoteAdmission(admit_alone)) == ("organisations.admitted",)


def test_all_but_one_may_leave_in_one_block(world: Any) -> None:
    """The sequencer stays, and it re-executes here: so k is never 0."""
    outcome = world.block(*(world.envelope(name, Leave()) for name in list(world.members)[1:]))
    assert {result.code for result in outcome.results} == {""}
    world.act("bureau", grant(world, "g"))
    assert world.machine.trust.k == 1


@pytest.mark.parametrize("kind", ["admission", "removal"])
def test_a_ballot_is_counted_anew_when_a_vote_is_repeated(world: Any, kind: str) -> None:
    application = world.application("pharmacy", ("pharmacy",))
    op = VoteAdmission(application) if kind == "admission" else VoteRemoval("researcher")
    voters = ("bureau", "hospital-1", "hospital-2", "hospital-3", "hospital-4", "regulator")
    world.act("insurer", op)
    for voter in voters:
        world.act(voter, VoteSuspension("insurer", True))
    for voter in voters[:5]:
        assert world.act(voter, op) == ("organisations.voted",)
    assert world.refused("bureau", op).code == "organisations.voted"
    for voter in voters:
        world.act(voter, VoteSuspension("insurer", False))
    done = "organisations.admitted" if kind == "admission" else "organisations.leaves"
    assert world.act("bureau", op) == (done,)


def test_an_owner_that_left_has_no_vote_on_the_budget(world: Any) -> None:
    world.act("hospital-1", RegisterPopulation("heart", "row", 1, 1, ("hospital-1", "hospital-2", "hospital-3")))
    world.act("hospital-3", VoteBudget("heart", 5))
    world.act("hospital-3", Leave())
    assert world.act("hospital-1", VoteBudget("heart", 7)) == ("datasets.vote",)
    assert world.act("hospital-2", VoteBudget("heart", 7)) == ("datasets.budget",)
    state = world.machine.get(population_key("heart"), PopulationState)
    assert state.budget == 7 and state.owners == ("hospital-1", "hospital-2", "hospital-3")


# --- new keys --------------------------------------------------------------------------------------


def test_rotation(world: Any) -> None:
    before = world.machine.get(member_key("insurer"), MemberState)
    assert world.act("insurer", world.rotation("insurer")) == ("organisations.rotates",)
    height = world.machine.height + 1
    assert world.machine.get(member_key("insurer"), MemberState) == before
    with pytest.raises(VerificationError):
        world.act("insurer", grant(world, "old key"))
    world.act("insurer", grant(world, "new-key"), signer=world.signer("insurer", "envelope-1"))
    after = world.machine.get(member_key("insurer"), MemberState)
    assert replace(after, keys=before.keys) == before
    assert after.keys.envelope.key == world.signer("insurer", "envelope-1").key
    assert after.keys.envelope.valid_from == height
    assert world.machine.trust.at(height - 1).member("insurer").keys == before.keys
    assert world.machine.trust.at(height).member("insurer").keys == after.keys


def test_a_rotation_of_one_key_keeps_the_others(world: Any) -> None:
    before = world.machine.get(member_key("insurer"), MemberState).keys
    world.act("insurer", world.rotation("insurer", only=("tls",)))
    world.act("insurer", grant(world, "g"))
    after = world.machine.get(member_key("insurer"), MemberState).keys
    assert replace(after, tls=before.tls) == before and after.tls.valid_from == world.machine.height


def test_a_rotation_announced_ahead(world: Any) -> None:
    world.act("insurer", world.rotation("insurer", from_height=5))
    world.act("regulator", world.rotation("regulator", from_height=3))
    assert consortium(world.machine.view()).pending == (3, 5)
    assert changes_at(world.machine.view(), 5).previous == 3
    assert changes_at(world.machine.view(), 3).previous == 0
    assert world.refused("insurer", world.rotation("insurer", "2")).code == "organisations.rotation_pending"
    world.act("insurer", grant(world, "g4"))
    world.act("insurer", grant(world, "g5"), signer=world.signer("insurer", "envelope-1"))
    assert [change.from_height for change in world.machine.trust.changes] == [3, 5]
    assert changes_at(world.machine.view(), 5).previous == 3


def test_leaving_takes_an_announced_rotation_back(world: Any) -> None:
    world.act("insurer", world.rotation("insurer", from_height=6))
    world.act("regulator", world.rotation("regulator", from_height=6))
    world.act("hospital-1", world.rotation("hospital-1", from_height=8))
    world.act("insurer", Leave())
    assert consortium(world.machine.view()).pending == (5, 6, 8)
    world.act("hospital-1", Leave())
    assert consortium(world.machine.view()).pending == (6,)
    assert [change.organisation for change in changes_at(world.machine.view(), 6).changes] == [
        "regulator",
        "hospital-1",
    ]
    for number in range(4):
        world.act("bureau", grant(world, f"g{number}"))
    assert [change.from_height for change in world.machine.trust.changes] == [5, 6]
    assert {"insurer", "hospital-1"}.isdisjoint(members(world))


@pytest.mark.parametrize(
    "make,code",
    [
        (lambda w: w.rotation("insurer", from_height=1), "organisations.rotation_height"),
        (lambda w: w.rotation("insurer", from_height=10**6), "organisations.rotation_height"),
        (lambda w: w.rotation("insurer", only=()), "organisations.no_change"),
        (lambda w: w.rotation("insurer", chain=bytes(32)), "organisations.key_not_held"),
        (lambda w: replace(w.rotation("insurer"), from_height=9, possession=()), None),
        (lambda w: replace(w.rotation("insurer"), keys=w.rotation("regulator").keys), "organisations.key_not_held"),
        (
            lambda w: w.rotation("insurer", change={"cosign": w.founding.members[0].keys.cosign}),
            "organisations.used_key",
        ),
        (
            lambda w: w.rotation(
                "insurer",
                only=(),
                change={
                    "envelope": w.founding.members[5].keys.http,
                    "http": w.founding.members[5].keys.envelope,
                },
            ),
            "organisations.used_key",
        ),
    ],
    ids=range(8),
)
def test_rotations_that_are_refused(world: Any, make: Any, code: str | None) -> None:
    world.act("insurer", grant(world, "g"))
    op = make(world)
    if code is None:  # cannot even be written
        with pytest.raises(VerificationError) as caught:
            world.act("insurer", op)
        assert caught.value.facts["reason"] == "wire.not_canonical"
        return
    assert world.refused("insurer", op).code == code


def test_a_key_never_comes_back(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "ROTATION_PAUSE", 1)
    world.act("insurer", world.rotation("insurer"))
    one, two = world.signer("insurer", "envelope-1"), world.signer("insurer", "envelope-2")
    world.act("insurer", world.rotation("insurer", "2"), signer=one)
    assert world.refused("insurer", world.rotation("insurer", "1"), signer=two).code == "organisations.used_key"
    world.act("insurer", Leave(), signer=two)
    back = world.application("insurer", ("insurer",), generation="2")
    world.act("bureau", grant(world, "g"))
    assert world.refused("bureau", VoteAdmission(back)).code == "organisations.used_key"


def test_rotations_have_a_pause(world: Any) -> None:
    world.act("insurer", world.rotation("insurer"))
    signer = world.signer("insurer", "envelope-1")
    error = world.refused("insurer", world.rotation("insurer", "2"), signer=signer)
    assert error.code == "organisations.rotated_lately"
    later = world.rotation("insurer", "2", from_height=int(error.facts["height"]))
    assert world.act("insurer", later, signer=signer) == ("organisations.rotates",)


def test_a_suspended_member_stays_so_whatever_its_keys(world: Any) -> None:
    world.act("insurer", world.rotation("insurer", from_height=10))
    for voter in ("bureau", "hospital-1", "hospital-2", "hospital-3", "hospital-4", "researcher"):
        world.act(voter, VoteSuspension("insurer", True))
    while world.machine.height < 10:
        world.act("bureau", grant(world, f"g{world.machine.height}"))
    assert world.machine.get(member_key("insurer"), MemberState).suspended
    new = world.signer("insurer", "envelope-1")
    assert world.refused("insurer", grant(world, "x"), signer=new).code == "ledger.suspended"


def test_rewinding_forgets_changes(world: Any) -> None:
    mark = world.machine.mark()
    world.act("researcher", Leave())
    world.act("bureau", grant(world, "g"))
    assert "researcher" not in members(world)
    world.machine.rewind(mark)
    assert "researcher" in members(world) and world.machine.trust.changes == ()


def test_too_many_heights(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.act("insurer", grant(world, "g"))  # types take their limits when they are first read
    monkeypatch.setattr("ledger.contracts.membership.MOST_PENDING", 1)
    world.act("insurer", world.rotation("insurer", from_height=9))
    assert (
        world.refused("regulator", world.rotation("regulator", from_height=8)).code == "organisations.too_many_changes"
    )


def test_who_names_a_refusal_names_no_key(world: Any) -> None:
    error = world.refused("bureau", VoteAdmission(world.application("pharmacy", chain=bytes(32))))
    assert isinstance(error, Refused) and isinstance(world.rotation("insurer"), RotateKeys)
    assert world.signer("pharmacy", "envelope-1").key.public.hex() not in error.text()


@pytest.mark.parametrize("seed", range(4))
def test_state_and_trust_file_agree_after_any_history(
    make_world: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members, keys and k as the contract keeps them are those that the changes imply to an outsider."""
    monkeypatch.setattr(contract, "ROTATION_PAUSE", 1)
    chance, world = random.Random(seed), make_world()
    signs: dict[str, int] = {}  # generation of a member's keys

    def signer(name: str) -> Any:
        return world.signer(name, f"envelope-{signs[name]}" if name in signs else "envelope")

    for step in range(1, 41):
        present = members(world)
        name = chance.choice(present[1:])
        kind = chance.choice(("rotate", "leave", "join", "join"))
        if kind == "rotate":
            world.act(name, world.rotation(name, str(step)), signer=signer(name))
            signs[name] = step
        elif kind == "leave" and len(present) > 3:
            world.act(name, Leave(), signer=signer(name))
        else:
            newcomer = f"newcomer-{step}"
            application = world.application(newcomer, generation=str(step), re_executes=chance.random() < 0.7)
            for voter in [member.organisation for member in world.machine.trust.members if member.re_executes]:
                if world.act(voter, VoteAdmission(application), signer=signer(voter)) == ("organisations.admitted",):
                    break
            signs[newcomer] = step
        world.act("bureau", grant(world, f"g{step}"), signer=signer("bureau"))
        trust, state = world.machine.trust, consortium(world.machine.view())
        assert (trust.k, len(trust.members), len(trust.latest.re_executing)) == (
            state.k,
            state.members,
            state.cosigners,
        )
        for member in trust.members:
            kept = world.machine.get(member_key(member.organisation), MemberState)
            assert (kept.keys, kept.roles, kept.re_executes) == (member.keys, member.roles, member.re_executes)
        assert sum(1 for _ in world.machine.items(MEMBERS, MemberState)) == state.members
