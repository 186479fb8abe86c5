"""A gateway whose home came back from a backup, until it is an ordinary one again.

What it forgot it could contradict (`medveil.service.home.restore` lists how). So, in this order:

* before anything runs: jobs of the backup end as failed, since randomness that they drew was used in ways that nobody
  here remembers; messages of the backup are dropped; sessions, tokens, invitations and recovery codes end, some of
  which were ended or used up since. A signed call covers its token, so that none of before the restore passes again;
* the sequencer asks the members for the heads that they cosigned and takes back the blocks under them. With
  k > (n + f)/2 the heads of k others contain every head that ever was final; the rest have `GRACE` to answer;
* its replica replays and cosigns nothing, and no use is begun, until the members have made final without it a block
  that is dated later than any which it may have cosigned before: a replica cosigns no block that is dated more than
  `FUTURE` ahead of its clock. A head that it cosigned before is part of that history, or can never be final. Where
  everybody's cosignature is needed, the heads of all the others stand for that;
* then it compares its audit trail with what the ledger anchored: a trail that is shorter is held for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
from sqlalchemy import delete

from ledger.contracts import access
from ledger.engines.recovery import Recovery
from ledger.replicas import FUTURE
from medveil.gateway.ledger_account import FinalState, LedgerAccount
from medveil.gateway.organisation import Clock, Organisation
from medveil.network.ledger_door import Blocks
from medveil.network.post import incoming, outgoing
from medveil.network.remote_engine import Line
from medveil.network.replica_door import Shown
from medveil.service.accounts import ways_in
from medveil.service.database import Database
from medveil.service.home.home import Home
from medveil.service.home.restore import Restored, lift_mark, read_mark, write_mark
from medveil.service.work.job_tables import JobStore
from wire.checkpoint import Note, parse_note
from wire.checkpoint.membership import Membership
from wire.checkpoint.note import COSIGNATURE, key_id, verify_cosignature
from wire.errors import DecodeError, MedveilError, Refused, Unavailable, VerificationError
from wire.keyset import Founding

PATIENCE = 120.0
"""Seconds for which a restored sequencer waits for the heads of k members before it gives up."""
GRACE = 30.0
"""Seconds that it gives to the others after that."""
_PAUSE = 1.0
_FOR_GOOD = 10 * 365 * 86_400.0


class Return:
    """The mark of a restored home, and what is left to do."""

    def __init__(self, home: Home, clock: Clock, mark: Restored) -> None:
        self.mark = mark
        self._folder = home.folder
        self._organisation = home.organisation
        self._clock = clock

    @classmethod
    def of(cls, home: Home, clock: Clock) -> Return | None:
        """What is left to do for `home`; None for one that did not come back. Its audit trail is held from here on."""
        mark = read_mark(home.folder)
        if mark is None:
            return None
        home.organisation.audit.hold(lambda: Unavailable("restore.not_yet", retry_after=60))
        return cls(home, clock, mark)

    def settle(self, database: Database) -> None:
        """See to the service's tables, once. Synchronous. Raises what the database raises."""
        if self.mark.settled:
            return
        now, store = self._clock(), JobStore(database)
        for job in store.unfinished():
            store.end(job.id, now, "failed", b"", None, Refused("restore.job_ended", job=job.id))
        with database.transaction() as connection:
            connection.execute(delete(incoming))
            connection.execute(delete(outgoing))
            ways_in.end_all(connection, now, "restored")
        self._note(settled=True)

    def _note(self, **changes: bool) -> None:
        self.mark = msgspec.structs.replace(self.mark, **changes)
        try:
            write_mark(self._folder, self.mark)
        except OSError:
            raise Unavailable("home.unwritable", folder=str(self._folder)) from None

    # --- the sequencer ---------------------------------------------------------------------------

    async def recover_ledger(
        self,
        path: Path,
        founding: Founding,
        line_to: Callable[[str], Line],
        patience: float = PATIENCE,
        grace: float = GRACE,
    ) -> None:
        """The sequencer's ledger file is what it had shown, before an engine opens it; once.

        Raises Unavailable if too few members show their heads, or none shows the blocks under one; Refused if the
        members changed since; VerificationError if there are two histories.
        """
        if self.mark.recovered:
            return
        recovery = await asyncio.to_thread(Recovery, path, founding)
        try:
            others = _others(recovery.members, self._organisation.name)
            needed = min(recovery.members.k, len(others))
            _say(f"restored from a backup; asking {len(others)} members for the heads that they cosigned")
            shown = await _heads(recovery, others, needed, line_to, patience, grace)
            before = recovery.height
            for name in sorted(shown, key=lambda name: -shown[name].height):
                await _take_blocks(recovery, line_to(name))
            for one in shown.values():
                note = None if one.note is None else parse_note(one.note)
                if note is not None and not recovery.check_reached(note):
                    raise Unavailable("restore.blocks_missing", retry_after=60, size=note.checkpoint.size)
            _say(f"took back {recovery.height - before} blocks; the ledger stands at {recovery.height}")
        finally:
            recovery.close()
        await asyncio.to_thread(self._note, recovered=True)

    # --- every member ----------------------------------------------------------------------------

    async def wait(self, account: LedgerAccount, line_to: Callable[[str], Line]) -> None:
        """Returns once nothing that this organisation cosigned before can contradict what it cosigns now."""
        others = _others(account.trust.latest, self._organisation.name)
        if account.trust.latest.k <= len(others):
            limit = self.mark.restored + FUTURE
            await account.until(
                lambda state: True if state.header.time > limit else None, "a block of after the restore", _FOR_GOOD
            )
            return
        heads: dict[str, Note] = {}
        while len(heads) < len(others):
            for name in others:
                with contextlib.suppress(Unavailable, VerificationError, DecodeError):
                    shown = await line_to(name).ask("GET", "/peer/v1/replica/head", Shown)
                    if shown.note is not None:
                        heads[name] = _cosigned(account.trust.latest, name, parse_note(shown.note))
                    elif shown.height == 0:
                        others = [other for other in others if other != name]
            await asyncio.sleep(_PAUSE if len(heads) < len(others) else 0)
        log = account.replica.machine.log
        while any(note.checkpoint.size > log.size for note in heads.values()):
            await asyncio.sleep(_PAUSE)
        for note in heads.values():
            if log.root(note.checkpoint.size) != note.checkpoint.root:
                raise VerificationError("ledger.fork", organisation=self._organisation.name, size=note.checkpoint.size)

    def done(self) -> None:
        """It is an ordinary home again. Synchronous."""
        try:
            lift_mark(self._folder)
        except OSError:
            raise Unavailable("home.unwritable", folder=str(self._folder)) from None
        _say("the restored home is caught up: it cosigns again")


def _others(members: Membership, own: str) -> list[str]:
    return [member.organisation for member in members.members if member.re_executes and member.organisation != own]


def _cosigned(members: Membership, name: str, note: Note) -> Note:
    """`note`, if the member `name` cosigned it. Raises VerificationError."""
    key = members.member(name).keys.cosign.key
    for line in note.lines[1:]:
        if line.name == name and line.key_id == key_id(name, COSIGNATURE, key.public):
            verify_cosignature(key, note, line)
            return note
    raise VerificationError("checkpoint.unknown_signer", name=name)


async def _heads(
    recovery: Recovery,
    others: list[str],
    needed: int,
    line_to: Callable[[str], Line],
    patience: float,
    grace: float,
) -> dict[str, Shown]:
    """What the others show, of `needed` at least."""
    shown: dict[str, Shown] = {}
    clock = asyncio.get_running_loop().time
    began, enough = clock(), 0.0
    while len(shown) < len(others):
        for name in others:
            if name in shown:
                continue
            with contextlib.suppress(Unavailable, VerificationError, DecodeError):
                found = await line_to(name).ask("GET", "/peer/v1/replica/head", Shown, timeout=10.0)
                if found.note is not None:
                    recovery.check_shown(_cosigned(recovery.members, name, parse_note(found.note)))
                shown[name] = found
        if len(shown) >= needed:
            enough = enough or clock()
            if clock() - enough >= grace:
                break
        elif clock() - began >= patience:
            raise Unavailable("restore.heads_missing", retry_after=60, shown=len(shown), needed=needed)
        if len(shown) < len(others):
            await asyncio.sleep(min(_PAUSE, grace or _PAUSE))
    return shown


async def _take_blocks(recovery: Recovery, line: Line) -> None:
    """Take what a member has and this ledger has not. One that stops answering, or shows nonsense, is left."""
    with contextlib.suppress(Unavailable, DecodeError):
        while True:
            answer = await line.ask("GET", f"/peer/v1/replica/blocks?after={recovery.height}", Blocks)
            for one in answer.blocks:
                try:
                    await asyncio.to_thread(recovery.append, one.block, parse_note(one.note))
                except VerificationError:
                    return
            if not answer.blocks:
                return


def audit_trouble(organisation: Organisation, state: FinalState) -> Callable[[], MedveilError] | None:
    """What keeps an organisation's audit trail from going on: the ledger has anchored more, or something else."""
    chain = state.get(access.chain_key(organisation.name), access.ChainState)
    if chain is None:
        return None
    found, last = organisation.audit.entries(chain.last, chain.last), organisation.audit.last
    anchored = chain.last
    if not found:
        return lambda: Refused("restore.audit_behind", organisation=organisation.name, last=last, anchored=anchored)
    if found[0].head() != chain.head:
        return lambda: VerificationError("restore.audit_other", organisation=organisation.name, anchored=anchored)
    return None


def _say(sentence: str) -> None:
    print(f"medveil: {sentence}", file=sys.stderr, flush=True)
