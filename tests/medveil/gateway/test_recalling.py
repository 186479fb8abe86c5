"""Extracts that have to be deleted elsewhere: found, told, deleted, said; once, whatever is cut short."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from medveil.gateway import erasing, granting, recalling
from medveil.gateway.organisation import Organisation
from medveil.gateway.recalling import Arrived
from privacy.audit import Use
from privacy.erasure import recalls, steps
from privacy.erasure.deletion import DeleteNotice, Deletion, sign_deletion, sign_notice
from tests.medveil.gateway.cutting import Cut, Killed
from tests.medveil.gateway.extracts_world import watch_lists
from wire.canonical import encode
from wire.errors import MedveilError, Refused, Unavailable, VerificationError

Play = Callable[[Callable[[Any], Any]], Any]
HOLDER, RECIPIENT, OTHER = "hospital-1", "researcher", "insurer"
DATASET = "visits"


class Shelf:
    """Extracts in a folder, and what is known of those that came."""

    def __init__(self, folder: Path, clock: Callable[[], int]) -> None:
        self.folder, self.clock = folder, clock
        self.known: dict[bytes, Arrived] = {}
        self.withdrawn: list[bytes] = []
        self.back: list[int] = []
        self.here: set[bytes] = set()
        self.read: set[bytes] = set()
        folder.mkdir(exist_ok=True)

    def come(self, extract: bytes, opened: bool = False) -> Path:
        """An extract of the holder comes here."""
        self.known[extract] = Arrived(extract, HOLDER, 0, "due")
        self.read |= {extract} if opened else set()
        self.path(extract).write_bytes(b"sealed")
        return self.path(extract)

    def path(self, extract: bytes) -> Path:
        return self.folder / extract.hex()

    def arrived(self) -> list[Arrived]:
        return list(self.known.values())

    def came(self, extract: bytes) -> Arrived | None:
        return self.known.get(extract)

    def opened(self, extract: bytes) -> bool:
        return extract in self.read

    def forget(self, extract: bytes, why: str) -> None:
        self.path(extract).unlink(missing_ok=True)
        if not self.known[extract].deleted:
            self.known[extract] = self.known[extract]._replace(deleted=self.clock())

    def withdraw(self, extract: bytes) -> None:
        self.withdrawn.append(extract)

    def taken_back(self) -> list[int]:
        return self.back

    def may_have_left(self, extract: bytes) -> bool:
        return extract not in self.here


class Scene:
    """A holder that gave extracts away, their recipient, and the messages between them."""

    def __init__(self, world: Any, folder: Path) -> None:
        self.world, self.later = world, 0
        self.holder: Organisation = world[HOLDER]
        self.recipient: Organisation = world[RECIPIENT]
        self.made, self.held = Shelf(folder / "made", world.now), Shelf(folder / "held", world.now)

    def clock(self) -> int:
        return self.world.now() + self.later

    async def grant(self, name: str = "copies", **changes: Any) -> None:
        terms = self.world.terms(name, HOLDER, RECIPIENT, **({"dataset": DATASET, "uses": ("extract",)} | changes))
        await granting.issue(self.holder, terms, self.world.steps())

    def give(self, grant: str = "copies", outcome: Any = "released", came: bool = True) -> bytes:
        """Release an extract under a grant; returns its id."""
        extract = secrets.token_bytes(16)
        use = Use(RECIPIENT, DATASET, "extract", "HMB", grant, b"", True, "granted")
        entry = self.holder.audit.intent(use, extract)
        if outcome:
            self.holder.audit.outcome(entry, outcome)
        if came and outcome == "released":
            self.held.come(extract)
        return extract

    def load(self) -> None:
        self.holder.vault.ingest(DATASET, pa.table({"cost": [1, 2, 3]}), persons=["wang", "li", "wang"])

    def erase(self, person: str = "wang") -> str:
        """Erase a person; returns the erasure's id."""
        name = erasing.plan(self.holder, person, self.clock()).name
        erasing.apply(self.holder, name, self.clock)
        return name

    async def round(self, fault: Any = recalling.no_fault) -> None:
        """The holder looks round; what it sent is taken; the recipient looks round; what it sent is taken."""
        await recalling.keep_up(self.holder, self.made, self.clock, fault)
        for sender, notice in await sent(self.recipient, DeleteNotice):
            await recalling.take_notice(self.recipient, self.held, sender, notice, self.clock, fault)
        await recalling.keep_up(self.recipient, self.held, self.clock, fault)
        for sender, deletion in await sent(self.holder, Deletion):
            await recalling.take_deletion(self.holder, self.made, sender, deletion, self.clock(), fault)

    def recall(self, extract: bytes) -> recalls.Recall:
        found = recalls.recall_of(self.holder.vault, extract)
        assert found is not None
        return found

    def given(self, name: str) -> list[tuple[int, int]]:
        return [(one.told, one.deleted) for one in steps.erasure(self.holder.vault, name).given]


async def sent(organisation: Organisation, kind: Any) -> list[tuple[str, Any]]:
    """What was sent to an organisation of one kind, and is forgotten now."""
    found = []
    openings = organisation.openings(kind)
    try:
        while True:
            sender, session, message = await asyncio.wait_for(anext(openings), 0.2)
            found.append((sender, message))
            await organisation.forget(session, sender)
    except TimeoutError:
        return found


def scene(play: Play, folder: Path, story: Callable[[Scene], Any]) -> None:
    async def played(world: Any) -> None:
        one = Scene(world, folder)
        one.load()
        await one.grant()
        await story(one)

    play(played)


def test_an_erasure_has_the_extracts_deleted(play: Play, tmp_path: Path) -> None:
    async def story(one: Scene) -> None:
        await one.grant("duty", legal_basis="statutory-duty")
        first, second, kept = one.give(), one.give(came=False), one.give("duty")
        one.give(outcome="aborted")
        one.held.come(first, opened=True)
        name = one.erase()
        assert one.given(name) == [(0, 0), (0, 0)]
        await one.round()
        assert not one.held.path(first).exists() and one.held.path(kept).exists()
        assert one.made.withdrawn == [first, second]
        said, missing = one.recall(first), one.recall(second)
        assert said.heard is not None and missing.heard is not None
        assert (said.why, said.heard.found, said.heard.beyond) == ("erasure", "deleted", ("opened", "copies"))
        assert (missing.heard.found, missing.deleted) == ("not-held", 0)
        assert one.given(name) == [(said.told, said.deleted), (missing.told, 0)] and said.told and said.deleted
        receipt = erasing.receipt_of(one.holder, name, one.clock())
        assert [(to.told, to.acknowledged) for to in receipt.recipients] == one.given(name)
        before = encode(said)
        for _ in range(2):
            await recalling.keep_up(one.holder, one.made, one.clock)
            assert await sent(one.recipient, DeleteNotice) == [], "who has answered is not asked again"
        assert encode(one.recall(first)) == before
        # Another erasure that lists the extract finds it deleted.
        assert one.given(one.erase("li")) == [(said.told, said.deleted), (missing.told, 0)]
        await recalling.keep_up(one.holder, one.made, one.clock)
        assert await sent(one.recipient, DeleteNotice) == []

    scene(play, tmp_path, story)


def test_a_revoked_consent_has_them_deleted(play: Play, tmp_path: Path) -> None:
    async def story(one: Scene) -> None:
        await one.grant("duty", legal_basis="statutory-duty")
        await one.grant("other")
        mine, kept = one.give(), [one.give("duty"), one.give("other")]
        late = one.give(outcome="")
        await one.round()
        assert one.held.path(mine).exists() and recalls.recalls(one.holder.vault) == ()
        for name in ("copies", "duty"):
            await granting.revoke(one.holder, name)
        await one.round()
        assert not one.held.path(mine).exists() and all(one.held.path(extract).exists() for extract in kept)
        assert (one.recall(mine).why, bool(one.recall(mine).deleted)) == ("consent-revoked", True)
        # One that was being made ends now; another revocation would end it otherwise.
        (entry,) = one.holder.audit.unfinished()
        one.holder.audit.outcome(entry, "released")
        one.held.come(late)
        await one.round()
        assert not one.held.path(late).exists()

    scene(play, tmp_path, story)


def test_a_recall_that_could_not_be_kept_is_kept_in_the_next_round(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(one: Scene) -> None:
        mine = one.give()
        await granting.revoke(one.holder, "copies")

        def full(*_: Any) -> Any:
            raise Unavailable("privacy.store_failed", path="vault", reason="no room", retry_after=1)

        with monkeypatch.context() as disk:
            disk.setattr(recalls, "recall", full)
            with pytest.raises(Unavailable):
                await one.round()
        assert one.held.path(mine).exists() and recalls.recalls(one.holder.vault) == ()
        await one.round()
        assert not one.held.path(mine).exists() and one.recall(mine).why == "consent-revoked"

    scene(play, tmp_path, story)


def test_one_that_is_being_made_while_somebody_is_erased(play: Play, tmp_path: Path) -> None:
    async def story(one: Scene) -> None:
        made, lost = one.give(outcome=""), one.give(outcome="")
        name = one.erase()
        assert [given.released for given in steps.erasure(one.holder.vault, name).given] == [0, 0]
        await one.round()
        assert recalls.recalls(one.holder.vault) == ()
        first, second = one.holder.audit.unfinished()
        one.holder.audit.outcome(first, "released")
        one.holder.audit.outcome(second, "failed")
        one.held.come(made)
        await one.round()
        assert not one.held.path(made).exists() and recalls.recall_of(one.holder.vault, lost) is None
        assert [bool(deleted) for _, deleted in one.given(name)] == [True]

    scene(play, tmp_path, story)


def test_what_comes_after_its_notice_is_deleted_too(play: Play, tmp_path: Path) -> None:
    async def story(one: Scene) -> None:
        extract = one.give(came=False)
        one.erase()
        assert not recalling.is_recalled(one.recipient, HOLDER, extract)
        await one.round()
        assert recalling.is_recalled(one.recipient, HOLDER, extract)
        heard = one.recall(extract).heard
        assert heard is not None and heard.found == "not-held"
        path = one.held.come(extract)
        await one.round()
        assert not path.exists() and one.recall(extract).deleted

    scene(play, tmp_path, story)


def test_who_deletes_on_the_day_says_so_unasked(play: Play, tmp_path: Path) -> None:
    async def story(one: Scene) -> None:
        extract = one.give()
        one.held.forget(extract, "due")
        await one.round()
        await one.round()
        said = one.recall(extract)
        assert said.heard is not None
        assert (said.why, said.heard.notice, said.told) == ("due", b"", 0) and said.deleted
        name = one.erase()
        assert one.given(name) == [(0, said.deleted)]
        await recalling.keep_up(one.holder, one.made, one.clock)
        assert await sent(one.recipient, DeleteNotice) == []

    scene(play, tmp_path, story)


def test_a_notice_that_is_not_answered_is_sent_again_after_a_day(play: Play, tmp_path: Path) -> None:
    async def story(one: Scene) -> None:
        extract, start = one.give(), one.clock()
        one.erase()
        seen = []
        for hours in (0, 1, 23, 25, 48):
            at = start + hours * 3_600_000
            await recalling.keep_up(one.holder, one.made, lambda at=at: at)
            seen.append(len(notices := await sent(one.recipient, DeleteNotice)))
        assert seen == [1, 0, 0, 1, 0]
        assert (one.recall(extract).told, one.recall(extract).asked) == (start, start + 25 * 3_600_000)
        assert notices == []

    scene(play, tmp_path, story)


def test_who_cannot_be_reached_is_tried_once_a_round(play: Play, tmp_path: Path) -> None:
    """With a full post each try may take a minute; the others are told all the same."""

    async def story(one: Scene) -> None:
        extracts = [one.give() for _ in range(3)]
        one.erase()
        send, tried = one.holder.send, []

        async def full(recipient: str, session: bytes, message: Any) -> None:
            tried.append(recipient)
            raise Unavailable("network.undelivered", organisation=recipient)

        one.holder.send = full  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await recalling.keep_up(one.holder, one.made, one.clock)
        assert tried == [RECIPIENT] and not any(one.recall(extract).told for extract in extracts)
        one.holder.send = send  # type: ignore[method-assign]
        await one.round()
        assert all(one.recall(extract).deleted for extract in extracts)

    scene(play, tmp_path, story)


def test_what_is_forged_or_not_theirs_is_refused(play: Play, tmp_path: Path) -> None:
    async def story(one: Scene) -> None:
        extract = one.give()
        one.erase()
        await recalling.keep_up(one.holder, one.made, one.clock)
        ((_, notice),) = await sent(one.recipient, DeleteNotice)
        other = one.world[OTHER]
        wrong = msgspec.structs.replace
        for sender, forged in (
            (HOLDER, wrong(notice, extract=bytes(16))),
            (HOLDER, wrong(notice, recipient=OTHER)),
            (HOLDER, sign_notice(notice, other.signer)),
            (OTHER, notice),
            (OTHER, sign_notice(notice, other.signer)),
        ):
            with pytest.raises(MedveilError) as raised:
                await recalling.take_notice(one.recipient, one.held, sender, forged, one.clock)
            assert raised.value.code in ("privacy.erasure_signature", "privacy.no_notice")
        # Another member's own notice about this extract reaches nothing.
        theirs = sign_notice(wrong(notice, organisation=OTHER), other.signer)
        said = await recalling.take_notice(one.recipient, one.held, OTHER, theirs, one.clock)
        assert said.found == "not-held" and one.held.path(extract).exists()
        deletion = await recalling.take_notice(one.recipient, one.held, HOLDER, notice, one.clock)
        assert not one.held.path(extract).exists()
        assert deletion.at == one.held.known[extract].deleted, "the one instant, whenever it is said"
        for sender, answer in (
            (RECIPIENT, wrong(deletion, at=deletion.at - 1)),
            (RECIPIENT, wrong(deletion, organisation=OTHER)),
            (RECIPIENT, sign_deletion(deletion, other.signer)),
            (OTHER, deletion),
            (OTHER, sign_deletion(wrong(deletion, recipient=OTHER), other.signer)),
            (RECIPIENT, sign_deletion(wrong(deletion, extract=bytes(16)), one.recipient.signer)),
            (RECIPIENT, sign_deletion(wrong(deletion, organisation=OTHER), one.recipient.signer)),
        ):
            with pytest.raises((VerificationError, Refused)):
                await recalling.take_deletion(one.holder, one.made, sender, answer, one.clock())
            assert one.recall(extract).heard is None
        await recalling.take_deletion(one.holder, one.made, RECIPIENT, deletion, one.clock())
        later = sign_deletion(wrong(deletion, at=deletion.at + 5, found="not-held"), one.recipient.signer)
        await recalling.take_deletion(one.holder, one.made, RECIPIENT, later, one.clock())
        assert one.recall(extract).heard == deletion, "what was said first stays"

    scene(play, tmp_path, story)


def test_notices_about_nothing_are_bounded(play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recalling, "MOST_NOTICES", 3)

    async def story(one: Scene) -> None:
        extract = one.give()
        one.erase()
        await recalling.keep_up(one.holder, one.made, one.clock)
        ((_, notice),) = await sent(one.recipient, DeleteNotice)
        made = [
            sign_notice(msgspec.structs.replace(notice, extract=secrets.token_bytes(16)), one.holder.signer)
            for _ in range(4)
        ]
        unsealed = watch_lists(one.recipient, monkeypatch)
        for each in made[:3]:
            await recalling.take_notice(one.recipient, one.held, HOLDER, each, one.clock)
        assert unsealed == ["delete-notice"], "once, not for each notice"
        with pytest.raises(Refused) as raised:
            await recalling.take_notice(one.recipient, one.held, HOLDER, made[3], one.clock)
        assert raised.value.code == "gateway.too_many_notices"
        await recalling.take_notice(one.recipient, one.held, HOLDER, notice, one.clock)
        assert not one.held.path(extract).exists(), "one that is held is heard all the same"

    scene(play, tmp_path, story)


def test_a_round_reads_erasures_once_however_many_there_are(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each extract is in each erasure of its table: to read all of them for each would take hours some day."""

    async def story(one: Scene) -> None:
        for _ in range(3):
            one.give()
        for person in ("wang", "li"):
            one.erase(person)
        await recalling.keep_up(one.holder, one.made, one.clock)
        one.give()
        one.holder.vault.ingest(DATASET, pa.table({"cost": [4]}), persons=["zhao"], append=True)
        last = one.erase("zhao")
        await recalling.keep_up(one.holder, one.made, one.clock)
        assert [given.told > 0 for given in steps.erasure(one.holder.vault, last).given] == [True] * 4
        read, looked_up = watch_lists(one.holder, monkeypatch), list[int]()
        entries = one.holder.audit.entries

        def looking_up(first: int, until: int) -> Any:
            looked_up.append(first)
            return entries(first, until)

        monkeypatch.setattr(one.holder.audit, "entries", looking_up)
        await recalling.keep_up(one.holder, one.made, one.clock)
        assert read.count("erasure") == 1 and len(looked_up) == len(set(looked_up)) == 4

    scene(play, tmp_path, story)


def test_cut_short_at_every_write_it_ends_once(play: Play, tmp_path: Path) -> None:
    async def story(one: Scene) -> None:
        async def hear() -> None:
            for sender, deletion in messages:
                await recalling.take_deletion(one.holder, one.made, sender, deletion, one.clock())

        at, points = 0, 1
        while at < points:
            at += 1
            extract, person = one.give(), f"person-{at}"
            one.holder.vault.ingest(DATASET, pa.table({"cost": [at]}), persons=[person], append=True)
            name = one.erase(person)
            cut = Cut(one.holder, at)
            await cut.run(lambda steps: recalling.keep_up(one.holder, one.made, one.clock))
            cut.heal()
            points = max(points, len(cut.cuts.passed))
            cut = Cut(one.recipient, at)
            for sender, notice in await sent(one.recipient, DeleteNotice):
                take = partial(recalling.take_notice, one.recipient, one.held, sender, notice, one.clock)
                await cut.run(lambda steps, take=take: take())
            cut.heal()
            points = max(points, len(cut.cuts.passed))
            messages = await sent(one.holder, Deletion)
            cut = Cut(one.holder, at)
            await cut.run(lambda steps: hear())
            cut.heal()
            points = max(points, len(cut.cuts.passed))
            assert not one.held.path(extract).exists() and one.recall(extract).deleted, at
            assert all(deleted for _, deleted in one.given(name)), at
            assert len(recalls.recalls(one.holder.vault)) == at
        assert points > 5

    scene(play, tmp_path, story)


@pytest.mark.parametrize("step", ["recalled", "sent", "told", "kept", "deleted", "said", "answered", "heard"])
def test_killed_after_each_step_it_goes_on(play: Play, tmp_path: Path, step: str) -> None:
    async def story(one: Scene) -> None:
        extract = one.give()
        name = one.erase()
        struck = []

        def strike(at: str) -> None:
            if at == step and not struck:
                struck.append(at)
                raise Killed(at)

        for _ in range(3):  # each goes on from what is on disk; what a kill left unsaid is asked for again
            try:
                await one.round(strike)
            except Killed:
                one.later += recalling.AGAIN_MS
        assert struck == [step]
        assert not one.held.path(extract).exists() and one.recall(extract).deleted
        assert [bool(deleted) for _, deleted in one.given(name)] == [True]
        assert len(recalls.recalls(one.holder.vault)) == 1

    scene(play, tmp_path, story)
