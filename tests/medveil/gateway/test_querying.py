"""A query between gateways when somebody is dishonest, absent or unlucky.

Whatever happens: nothing more is released than was agreed, the budget says so, every site's trail is
closed, and those who wait are told why.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from ledger.contracts import (
    AnnounceContribution,
    ApproveQuery,
    CloseQuery,
    Contribute,
    ProposeQuery,
    RevokeGrant,
    VoteBudget,
    queries,
)
from medveil.gateway import asking
from medveil.gateway.query_board import read_query
from medveil.gateway.query_run import KeysOfRound, QueryAnswer, QueryRequest, request_session
from medveil.gateway.serving import serve_query
from medveil.gateway.steps import Passing
from medveil.service.api.query_routes import written_about
from mpc import cells
from mpc.budget import split
from mpc.query import GATE, SUMS, Measure, salted_hash
from mpc.sum_messages import Masked, RoundKeys, Unmasking, signed
from privacy.local import GroupColumn
from privacy.predicate import Compare, Not
from wire.errors import ConsentDenied, ProtocolAbort, Refused

HANDLE = bytes(range(16))
Play = Callable[[Callable[[Any], Any]], Any]


def test_a_query_debits_its_budget_and_at_another_price_again(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        first = await world.released()
        again = await world.released(world.query(rho_nano=world.rho - 1))
        left = world.budget - world.rho
        assert (first.budget_before_nano, first.budget_after_nano) == (world.budget, left)
        assert (again.budget_before_nano, again.budget_after_nano) == (left, left - world.rho + 1)
        assert first.phases[0].opened.totals != again.phases[0].opened.totals, "fresh noise"
        for site in world.hospitals:
            assert world.ended(site) == ["released", "released"]

    play(story)


def test_a_query_whose_groups_are_all_too_small_ends_well(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        release = await world.released(world.query(minimum_group=100_000))
        assert [(len(one.groups), len(one.hidden)) for one in release.results] == [(0, 2)]
        assert release.phases[1].opened.totals == ()

    play(story)


def test_what_was_written_about_a_query_is_looked_for_until_its_sums(play: Play) -> None:
    """Not to the end of all that whoever asks has written since."""

    async def story(world: Any) -> None:
        await world.grant_study()
        first = await world.released()
        for rho in (1_000_000, 1_000_001, 1_000_002):
            await world.released(world.query(rho_nano=rho))
        account, engine = world.researcher.account, world.researcher.account._engine
        every = await written_about(engine, account.state, "researcher", first.handle)
        kinds = ["propose", "fix_parties", "fix_survivors", "release", "fix_parties", "fix_survivors", "release"]
        assert [one.kinds for one in every] == [(f"queries.{kind}",) for kind in kinds]
        read: list[int] = []

        class Counted:
            async def entries(self, *args: Any) -> Any:
                found = await engine.entries(*args)
                read.extend(one.height for one in found)
                return found

        assert await written_about(Counted(), account.state, "researcher", first.handle, 2) == every
        assert len(read) <= len(every) + 2
        assert await written_about(engine, account.state, "hospital-1", first.handle, 3)

    play(story)


# --- denied -------------------------------------------------------------------------------------


def test_one_site_that_denies_ends_it_for_all(play: Play) -> None:
    async def story(world: Any) -> None:
        for site in ("hospital-1", "hospital-3"):
            await world.grant(f"study-{site}", site, "researcher")
        answer, parts = await world.run(world.query(), HANDLE)
        assert isinstance(answer, ConsentDenied)
        assert answer.code == "gateway.site_refused"
        assert answer.facts["organisation"] == "hospital-2"
        assert answer.facts["reason"] == "privacy.deny_no_grant"
        assert "no grant" in answer.text().lower() or "grant" in str(answer.facts["words"])
        assert world.codes(parts)[1] == "denied"
        assert set(world.codes([parts[0], parts[2]])) <= {"gateway.stopped", "gateway.query_closed"}
        await world.check_untouched()
        assert world.ended("hospital-2") == ["denied"]
        assert world.ended("hospital-1") == world.ended("hospital-3") == ["aborted"]

    play(story)


def test_a_use_that_all_deny_is_written_by_all(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        query = world.query(measures=(Measure("age", 0, 120, 1, (0, 60, 120)),))
        answer, parts = await world.run(query, HANDLE)
        assert isinstance(answer, ConsentDenied)
        assert world.codes(parts) == ["denied"] * 3
        await world.check_untouched()
        for site in world.hospitals:
            (intent, outcome) = world.entries(site)
            assert (intent.use.allowed, intent.use.rule, intent.use.recipient) == (False, "fields", "researcher")
            assert intent.use.query == world.state_of(HANDLE).salted_hash
            assert (outcome.intent, outcome.outcome) == (intent.sequence, "denied")

    play(story)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"purpose": "FRAUD"}, "purpose"),
        ({"purpose": "HRESCH"}, "purpose"),
        ({"purpose": "no-such"}, "known-use"),
        ({"filter": Compare("age", "ge", 18)}, "fields"),
    ],
)
def test_uses_beyond_the_grant(play: Play, changes: dict[str, Any], rule: str) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        answer, parts = await world.run(world.query(**changes), HANDLE)
        assert isinstance(answer, ConsentDenied)
        assert [part.rule for part in parts] == [rule] * 3
        await world.check_untouched()

    play(story)


def test_a_grant_that_ran_out(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        world.now.ahead = 2 * 86_400_000
        answer, parts = await world.run(world.query(), HANDLE)
        assert isinstance(answer, ConsentDenied)
        assert [part.rule for part in parts] == ["period"] * 3

    play(story)


# --- revoked under way --------------------------------------------------------------------------


def test_a_grant_revoked_between_the_phases_stops_the_run(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        site = world["hospital-1"]
        masked = []
        world.alter(site, Masked, lambda recipient, message: masked.append(message) or message)

        async def revoking(recipient: str, message: Unmasking) -> Unmasking:
            await site.submit(RevokeGrant("study-hospital-1"))
            return message

        world.alter(site, Unmasking, revoking)
        answer, parts = await world.run(world.query(), HANDLE)
        assert len(masked) == 1, "no second vector left"
        assert isinstance(parts[0], ConsentDenied)
        assert parts[0].code == "gateway.grant_gone"
        assert isinstance(answer, ProtocolAbort)
        assert (answer.code, answer.parties) == ("gateway.stopped", ("hospital-1",))
        assert answer.facts["reason"] == "gateway.grant_gone"
        assert world.codes(parts[1:]) == ["gateway.stopped"] * 2
        await world.check_spent((GATE,))
        for name in world.hospitals:
            assert world.ended(name) == ["released"]  # the counts had left

    play(story)


@pytest.mark.parametrize(("kind", "vectors"), [(AnnounceContribution, 1), (Contribute, 2)])
def test_a_grant_revoked_just_before_the_last_word(play: Play, kind: type[Any], vectors: int) -> None:
    """Before the second vector leaves, none does; before its shares do, the vector that left stays masked."""

    async def story(world: Any) -> None:
        await world.grant_study()
        site = world["hospital-2"]
        said: list[Any] = []
        for one in (Masked, Unmasking):
            world.alter(site, one, lambda recipient, message: said.append(message) or message)

        async def revoke(op: Any) -> None:
            if op.phase == SUMS:
                await site.submit(RevokeGrant("study-hospital-2"))

        world.after(site, kind, revoke)
        answer, parts = await world.run(world.query(), HANDLE)
        assert [type(one) for one in said] == [Masked, Unmasking, Masked][: vectors + 1]
        assert parts[1].code == "gateway.grant_gone"
        assert answer.code == "gateway.stopped"
        await world.check_spent((GATE,))
        assert all(world.ended(name) == ["released"] for name in world.hospitals)  # the counts had left

    play(story)


def test_a_grant_revoked_after_the_approval_costs_nothing(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        site = world["hospital-3"]

        async def revoke(op: ApproveQuery) -> None:
            await site.submit(RevokeGrant("study-hospital-3"))

        world.after(site, ApproveQuery, revoke)
        answer, parts = await world.run(world.query(), HANDLE)
        assert parts[2].code == "gateway.grant_gone"
        assert isinstance(answer, ProtocolAbort)
        await world.check_untouched()

    play(story)


# --- dishonest sites ----------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [GATE, SUMS])
def test_a_site_that_sends_another_vector_than_it_committed_to(play: Play, phase: int) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        site = world["hospital-2"]
        sent = []

        def another(recipient: str, message: Masked) -> Masked:
            sent.append(message)
            if len(sent) != phase:
                return message
            changed = bytes(message.cells[:-1]) + bytes([message.cells[-1] ^ 1])
            return signed(msgspec.structs.replace(message, cells=changed), site.signer)

        world.alter(site, Masked, another)
        answer, parts = await world.run(world.query(), HANDLE)
        assert isinstance(answer, ProtocolAbort)
        assert (answer.code, answer.parties) == ("mpc.sum_aborted", ())
        await world.check_spent(() if phase == GATE else (GATE,))
        assert world.codes(parts) == ["gateway.stopped"] * 3
        assert all(world.ended(name) == ["released"] for name in world.hospitals)  # the vectors had left

    play(story)


def test_a_site_that_signs_for_another(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        site = world["hospital-2"]

        def as_another(recipient: str, message: RoundKeys) -> RoundKeys:
            return signed(msgspec.structs.replace(message, site="hospital-3"), site.signer)

        world.alter(site, RoundKeys, as_another)
        answer, _ = await world.run(world.query(), HANDLE)
        assert isinstance(answer, ProtocolAbort)
        assert (answer.code, answer.parties) == ("mpc.bad_signature", ("hospital-2",))
        await world.check_untouched()

    play(story)


def test_a_site_that_says_no_after_it_approved(play: Play) -> None:
    """What its own engine refuses or breaks on is told at once, and without a value of its table."""

    async def story(world: Any) -> None:
        await world.grant_study()
        serve = world.serve

        class Broken:
            layout = staticmethod(world.tables(world["hospital-1"]).layout)
            names = staticmethod(world.tables(world["hospital-1"]).names)

            def engine(self, dataset: str, without: Any = ()) -> Any:
                raise ValueError("could not convert string to float: 'Zhang San'")

        def serving(site: Any, handle: bytes) -> Any:
            if site.name != "hospital-1":
                return serve(site, handle)
            return serve_query(site, "researcher", request_session(handle), Broken(), Passing(), world.now)

        world.serve = serving
        answer, parts = await world.run(world.query(), HANDLE)
        assert isinstance(parts[0], ValueError)
        assert isinstance(answer, ProtocolAbort)
        assert (answer.code, answer.facts["reason"]) == ("gateway.stopped", "gateway.trouble")
        assert "Zhang" not in answer.text()
        assert world.codes(parts[1:]) == ["gateway.stopped"] * 2
        assert all("Zhang" not in part.text() for part in parts[1:])
        await world.check_untouched()
        assert world.ended("hospital-1") == ["aborted"]

    play(story)


def test_a_member_of_the_roster_that_closes_the_query(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()

        async def close(op: Any) -> None:
            await world["hospital-3"].submit(CloseQuery(HANDLE))

        world.after(world["hospital-3"], queries.AnnounceContribution, close)
        answer, parts = await world.run(world.query(), HANDLE)
        assert {answer.code, *world.codes(parts)} <= {"gateway.query_closed", "gateway.stopped", "queries.status"}
        await world.check_untouched()

    play(story)


# --- dishonest researchers ----------------------------------------------------------------------


def swapped(world: Any, message: KeysOfRound) -> KeysOfRound:
    """hospital-2's key replaced by one of the researcher's own."""
    keys = list(message.keys)
    at = next(place for place, key in enumerate(keys) if key.site == "hospital-2")
    keys[at] = signed(msgspec.structs.replace(keys[at], mask=secrets.token_bytes(32)), world.researcher.signer)
    return KeysOfRound(tuple(keys))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (swapped, "mpc.bad_signature"),
        (lambda world, message: KeysOfRound(message.keys[1:]), "mpc.incomplete"),
        (lambda world, message: KeysOfRound(()), "mpc.incomplete"),
        (lambda world, message: KeysOfRound((*message.keys, message.keys[0])), "mpc.sent_twice"),
    ],
    ids=["swapped", "omitted", "none", "twice"],
)
@pytest.mark.parametrize("victims", [("hospital-1",), ("hospital-1", "hospital-2", "hospital-3")], ids=["one", "all"])
def test_mask_keys_that_the_researcher_changed(
    play: Play, change: Callable[[Any, KeysOfRound], KeysOfRound], code: str, victims: tuple[str, ...]
) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        world.alter(
            world.researcher,
            KeysOfRound,
            lambda recipient, message: change(world, message) if recipient in victims else message,
        )
        answer, parts = await world.run(world.query(), HANDLE)
        assert isinstance(answer, ProtocolAbort)
        assert answer.code == "gateway.stopped"
        first = world.codes(parts)[0]
        assert first == code or (len(victims) > 1 and first in ("gateway.stopped", "gateway.query_closed"))
        assert code in world.codes(parts)
        await world.check_untouched()
        for site in world.hospitals:
            assert world.ended(site) == ["aborted"]

    play(story)


def check_denied(world: Any, datasets: Sequence[str]) -> None:
    """Each site's trail says that it denied the researcher something before there was anything to decide."""
    for site, dataset in zip(world.hospitals, datasets, strict=True):
        intent, outcome = world.entries(site)
        said = intent.use
        assert (said.recipient, said.dataset, said.kind, said.grant) == ("researcher", dataset, "query", ""), said
        assert (said.allowed, said.rule, outcome.intent, outcome.outcome) == (False, "question", 1, "denied")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"salt": bytes(32)}, "mpc.not_as_proposed"),
        ({"handle": bytes(16)}, "gateway.other_query"),
        ({"roster": ("hospital-1", "hospital-2", "hospital-4")}, "mpc.not_as_proposed"),
        ({"rho_nano": 400_000_000}, "mpc.not_as_proposed"),
        ({"population": "others"}, "mpc.not_as_proposed"),
        ({"minimum_group": 11}, "mpc.not_as_proposed"),
        ({"purpose": "FRAUD"}, "mpc.not_as_proposed"),
        ({"max_rows": 200}, "mpc.not_as_proposed"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_request_that_is_not_what_was_proposed(play: Play, changes: dict[str, Any], code: str) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        of_request = {name: value for name, value in changes.items() if name in ("salt", "handle")}
        of_query = {name: value for name, value in changes.items() if name not in of_request}

        def another(recipient: str, message: QueryRequest) -> QueryRequest:
            query = msgspec.structs.replace(message.query, **of_query)
            return msgspec.structs.replace(message, query=query, **of_request)

        world.alter(world.researcher, QueryRequest, another)
        answer, parts = await world.run(world.query(), HANDLE)
        assert isinstance(answer, ConsentDenied)
        assert answer.facts["reason"] == code
        assert world.codes(parts) == [code] * 3
        await world.check_untouched()
        roster = changes.get("roster", world.hospitals)
        check_denied(world, [f"stays-{site}" if site in roster else "unknown" for site in world.hospitals])

    play(story)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"chain": "other-chain"}, "gateway.other_query"),
        ({"unit": "person"}, "mpc.below_terms"),
        ({"colluders": 0}, "mpc.below_terms"),
        ({"minimum_group": 9}, "gateway.small_groups"),
        ({"exact": True, "rho_nano": 10**8, "split": split(10**8, histogram=True, exact=True)}, "mpc.not_public"),
        ({"max_rows": 99}, "gateway.too_few_rows"),
        ({"measures": (Measure("cost", 0, 101, 1, (0, 101)),)}, "gateway.not_declared"),
        ({"measures": (Measure("cost", -1, 100, 1, (-1, 100)),)}, "gateway.not_declared"),
        ({"measures": (Measure("cost", 0, 100, 10, (0, 100)),)}, "gateway.not_declared"),
        ({"measures": (Measure("ward", 0, 100, 1, (0, 100)),)}, "gateway.not_declared"),
        ({"measures": (Measure("salary", 0, 100, 1, (0, 100)),)}, "gateway.not_declared"),
        ({"groups": (GroupColumn("ward", ("east", "north"), other=False),)}, "gateway.not_declared"),
        ({"groups": (GroupColumn("age", ("1", "2"), other=False),)}, "gateway.not_declared"),
        ({"groups": (GroupColumn("name", ("Zhang San",), other=False),)}, "gateway.not_declared"),
        ({"datasets": ("stays-hospital-1", "stays-hospital-1", "stays-hospital-3")}, "gateway.not_its_dataset"),
        ({"datasets": ("stays-hospital-1", "stays-hospital-2", "no-such")}, "gateway.not_its_dataset"),
    ],
)
def test_a_query_beyond_the_declarations(play: Play, changes: dict[str, Any], code: str) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        answer, parts = await world.run(world.query(**changes), HANDLE)
        assert isinstance(answer, ConsentDenied)
        assert answer.facts["reason"] == code
        assert world.codes(parts) == [code] * 3
        await world.check_untouched()
        asked = changes.get("datasets", [f"stays-{site}" for site in world.hospitals])
        own = [f"stays-{site}" for site in world.hospitals]
        check_denied(world, [name if name == own[place] else "unknown" for place, name in enumerate(asked)])

    play(story)


def test_a_price_at_which_no_epsilon_can_be_stated_is_never_paid(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums would be on the ledger, the budget gone, and there would be no release."""

    class Careless:
        """A researcher's gateway that does not look."""

        prove_delta = staticmethod(lambda query: None)

        def __getattr__(self, name: str) -> Any:
            return getattr(cells, name)

    async def story(world: Any) -> None:
        await world.grant_study()
        await asyncio.gather(*(site.submit(VoteBudget("stays", 10**12)) for site in world.sites))
        await world.researcher.account.caught_up()
        dear = world.query(rho_nano=2 * 10**10)
        with pytest.raises(Refused, match="redrawn"):
            await asking.ask(world.researcher, dear, HANDLE, bytes(32), Passing())
        assert read_query(world.researcher.account.state, HANDLE) is None
        monkeypatch.setattr(asking, "cells", Careless())
        answer, parts = await world.run(dear, HANDLE)
        assert isinstance(answer, ConsentDenied) and answer.facts["reason"] == "mpc.delta_too_small"
        assert world.codes(parts) == ["mpc.delta_too_small"] * 3
        await world.check_untouched()

    play(story)


def deep_filter() -> Any:
    """A filter nested deeper than any interpreter would like to walk."""
    node: Any = Compare("cost", "ge", 1)
    for _ in range(500):
        node = Not(node)
    return node


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"measures": ()}, "mpc.budget_split"),
        ({"datasets": ()}, "mpc.one_dataset_a_site"),
        ({"filter": deep_filter()}, "privacy.predicate_too_large"),
        ({"version": 2}, "mpc.query_version"),
        ({"roster": ("hospital-1", "hospital-2")}, "mpc.roster_size"),
    ],
    ids=["no measure, but sums", "no datasets", "deep filter", "version", "two sites"],
)
def test_a_malformed_query_is_refused_in_words(play: Play, changes: dict[str, Any], code: str) -> None:
    """A researcher with a program of its own proposes what `check_query` would never let pass."""

    async def story(world: Any) -> None:
        query = world.query(**changes)
        salt = secrets.token_bytes(32)
        try:
            hashed = salted_hash(query, salt)
        except RecursionError:
            hashed = secrets.token_bytes(32)
        researcher = world.researcher

        async def asking() -> list[QueryAnswer]:
            await researcher.submit(ProposeQuery(HANDLE, hashed, "stays", world.hospitals, world.rho, 2))
            for site in world.hospitals:
                await researcher.send(site, request_session(HANDLE), QueryRequest(HANDLE, query, salt))
            return [(await researcher.receive(QueryAnswer, request_session(HANDLE)))[1] for _ in world.hospitals]

        answers, parts = await world.run(query, HANDLE, asking=asking())
        assert world.codes(parts) == [code] * 3
        assert [answer.refused.code for answer in answers] == [code] * 3

    play(story)


def test_a_filter_that_the_table_cannot_answer_is_refused_before_the_approval(play: Play) -> None:
    async def story(world: Any) -> None:
        await world.grant_study()
        answer, parts = await world.run(world.query(filter=Compare("cost", "eq", "Zhang San")), HANDLE)
        assert isinstance(answer, ConsentDenied)
        assert len(set(world.codes(parts))) == 1 and world.codes(parts)[0].startswith("privacy.predicate")
        assert "Zhang" not in answer.text()
        await world.check_untouched()
        assert world.state_of(HANDLE).approvals == ()
        for site in world.hospitals:
            assert world.ended(site) == ["aborted"]

    play(story)
