"""Long work as jobs: begun now, done later, known after a restart.

A job waits until there is room (so many in all, so many of one owner), runs, and ends as done, failed or
cancelled. Its work is a coroutine that takes a `Journal`; what it did is recorded step by step. When the process
stops, running jobs stop at a step boundary and stay "running" in the table; the next start takes them up again,
as it does after a kill.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from medveil.service.api.events import Streams
from medveil.service.logs import Log, Vocabulary, about
from medveil.service.metrics import Metrics
from medveil.service.traces import Traces
from medveil.service.work.job_tables import ENDED, Event, Job, JobStore, Secret, State
from medveil.service.work.journal import (
    SEED,
    Clock,
    Control,
    Guard,
    JobCancelled,
    JobPaused,
    Journal,
    Sealer,
    sealed_under,
)
from wire.errors import DecodeError, MedveilError, Refused, VerificationError

Work = Callable[[Journal], Awaitable[str | None]]
"""A kind of job's work: returns the reference of its result. Whatever it does goes through `Journal.once`."""


_DIGEST = "request-digest"
"""Under which the digest of what an ended job was asked is sealed: the plain one could be guessed from."""

PEER = "organisation:"
"""What the owner of a job begins with that another organisation began; its name follows."""
PERSON = "person:"
"""The same of a person's; a program's begins otherwise."""


Sent = Callable[[bytes], bytes]
"""What a caller sent, from what the job is asked: by that a repeated request is known again."""


def _whole(request: bytes) -> bytes:
    return request


class Kind(NamedTuple):
    """A kind of job. steps: how many there will be, if known. guard: asked before each step; what it raises ends
    the job (a grant that was revoked). sent: where what is asked was worked out from more than the caller sent."""

    work: Work
    steps: int | None
    guard: Guard | None
    sent: Sent


@dataclass(frozen=True, kw_only=True)
class JobLimits:
    """How many run at once, in all and of one owner, and how many of one owner may wait.

    Other organisations' are counted apart from those of the own people: flows that answer mostly wait for each other,
    and with few places two gateways could each run what the other lets wait. One of a person or an organisation that
    has none running always runs: what waits in every place keeps nobody else from an erasure.
    """

    running: int = 16
    per_owner: int = 4
    of_peers: int = 128
    per_peer: int = 32
    waiting: int = 32


class Jobs:
    """The jobs of one organisation's process.

    clock: ms UTC. rand: random bytes, for ids and seeds. sealer: for what jobs were asked, gave and drew.
    """

    def __init__(
        self,
        store: JobStore,
        streams: Streams,
        *,
        sealer: Sealer,
        clock: Clock,
        rand: Callable[[int], bytes],
        log: Log,
        metrics: Metrics,
        traces: Traces,
        vocabulary: Vocabulary,
        limits: JobLimits | None = None,
    ) -> None:
        self.store = store
        self.streams = streams
        self.limits = limits or JobLimits()
        self._sealer = sealer
        self._clock = clock
        self._rand = rand
        self._log = log
        self._metrics = metrics
        self._traces = traces
        self._vocabulary = vocabulary
        self._kinds: dict[str, Kind] = {}
        self._waiting: dict[str, Job] = {}  # in the order they came
        self._running: dict[str, asyncio.Task[None]] = {}
        self._controls: dict[str, Control] = {}
        self._of_owner: Counter[str] = Counter()
        self._of_kind: Counter[bool] = Counter()  # of peers, of own people
        self._closing = False

    @property
    def counts(self) -> tuple[int, int]:
        """How many jobs run in this process, and how many wait."""
        return len(self._running), len(self._waiting)

    def register(
        self, kind: str, work: Work, steps: int | None = None, guard: Guard | None = None, sent: Sent = _whole
    ) -> None:
        """Make a kind of job known. Do so before `resume`. kind: a name from the source, never from a caller."""
        self._kinds[kind] = Kind(work, steps, guard, sent)
        self._vocabulary.add(kind)

    async def resume(self) -> int:
        """Take up what had not ended when the process last stopped, and is not known here. Returns how many jobs."""
        found = list(await asyncio.to_thread(self.store.unfinished))
        found = [job for job in found if job.id not in self._waiting and job.id not in self._running]
        for job in found:
            self._metrics.job_moved(job.kind, None, job.state)
            self._waiting[job.id] = job
            self._log.info("job.resumed", job=job.id, kind=job.kind, state=job.state)
        self._admit()
        return len(found)

    async def start(self, kind: str, owner: str, request: bytes, key: str | None = None) -> Job:
        """Begin a job; it is durable when this returns.

        request: what the work is asked (secret, sealed in the table). key: the caller's name for this very use; a
        second call with it returns the job of the first, for as long as that is kept. Raises Refused if that one was
        asked something else, Unavailable if too many of the owner's are waiting, ValueError for a kind that was not
        registered.
        """
        if kind not in self._kinds:
            raise ValueError(f"no kind of job {kind!r}")
        identity = self._rand(16).hex()
        secret = Secret(
            self._sealer.seal(sealed_under(identity, "request"), request),
            self._sealer.seal(sealed_under(identity, "seed"), self._rand(SEED)),
        )
        now = self._clock()
        most = (self.limits.per_peer if owner.startswith(PEER) else self.limits.per_owner) + self.limits.waiting
        total = self._kinds[kind].steps
        job = Job(identity, kind, owner, "waiting", False, now, now, 0, total, None, None, None, 0)
        kept, event = await asyncio.to_thread(self.store.add, job, secret, key, most)
        if event is not None:
            self._metrics.job_moved(kind, None, "waiting")
            self._log.info("job.waiting", job=kept.id, kind=kind)
            self._waiting[kept.id] = kept
            self._admit()
        else:
            await self._check_same(kept, kind, self._kinds[kind].sent(request))
        return kept

    async def begun(self, kind: str, owner: str, key: str, sent: bytes) -> Job | None:
        """The job that an earlier request under `key` began, if there is one: before its request is worked out anew.

        sent: what the caller sends now, as the kind's `sent` has it. Raises Refused if that one was sent another.
        """
        kept = await asyncio.to_thread(self.store.find, owner, key)
        if kept is not None:
            await self._check_same(kept, kind, sent)
        return kept

    async def _check_same(self, kept: Job, kind: str, sent: bytes) -> None:
        if kept.kind != kind or not await self._was_sent(kept, sent):
            raise Refused("jobs.key_used", job=kept.id)

    async def _was_sent(self, job: Job, sent: bytes) -> bool:
        """Whether that is what a job's caller sent, also where it has ended."""
        sealed = (await asyncio.to_thread(self.store.secret, job.id)).request
        if not sealed:  # a restore ended it
            return True
        try:
            return self._sealer.open(sealed_under(job.id, _DIGEST), sealed) == _digest(sent)
        except VerificationError:  # it has not ended
            return self._kinds[job.kind].sent(self._opened(job.id, sealed)) == sent

    def _opened(self, job: str, sealed: bytes) -> bytes:
        """What a job that has not ended was asked (secret)."""
        try:
            return self._sealer.open(sealed_under(job, "request"), sealed)
        except VerificationError:
            raise VerificationError("jobs.bad_record", job=job, step="request") from None

    async def _sealed_digest(self, job: Job) -> bytes:
        """What stays of a request when its job ends; nothing where it cannot be read."""
        sealed = (await asyncio.to_thread(self.store.secret, job.id)).request
        kind = self._kinds.get(job.kind)
        try:
            request = self._opened(job.id, sealed)
            sent = request if kind is None else kind.sent(request)
        except (VerificationError, DecodeError):
            return b""
        return self._sealer.seal(sealed_under(job.id, _DIGEST), _digest(sent))

    async def get(self, job: str, owner: str) -> Job:
        """One job of its owner. Raises Refused if there is none."""
        return await asyncio.to_thread(self.store.get, job, owner)

    async def page(
        self, owner: str, state: State | None = None, limit: int = 50, after: str | None = None
    ) -> list[Job]:
        """An owner's jobs, the newest first; after: the last one of the page before."""
        return await asyncio.to_thread(self.store.page, owner, state, limit, after)

    async def past(self, job: str, number: int) -> list[Event]:
        """A job's events after `number`, at most 500."""
        return await asyncio.to_thread(self.store.events_after, job, number)

    async def cancel(self, job: str, owner: str) -> Job:
        """Let a job end: a waiting one now, a running one at its next step; one that has ended stays as it is."""
        found = await self.get(job, owner)
        if found.state in ENDED:
            return found
        asked = await self._sealed_digest(found)
        found, event = await asyncio.to_thread(self.store.ask_to_cancel, job, owner, self._clock(), asked)
        if job in self._controls:
            self._controls[job].cancelling = True
        if event is not None:
            self._waiting.pop(job, None)
            self._told(found.kind, job, event, "waiting", "cancelled")
        return found

    def fault(self, error: Exception) -> None:
        """Say that a job could not be begun by a fault of this program."""
        self._metrics.faults.inc()
        self._log.error("fault", part="reception", **about(error))

    def put_off(self) -> None:
        """Say that what an organisation begins is put off: the trail names whom it denied so often."""
        self._log.warning("peers.put_off")

    async def close(self, grace: float) -> None:
        """Stop: running jobs at their next step, within `grace` seconds; later ones in the middle of a step, which
        runs again when the process does."""
        self._closing = True
        for control in self._controls.values():
            control.pausing = True
        tasks = set(self._running.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _admit(self) -> None:
        """Run whoever may run now, in the order they came; an owner at its limit lets others pass."""
        if self._closing:
            return
        for job in list(self._waiting.values()):
            peer = job.owner.startswith(PEER)
            most, each = (
                (self.limits.of_peers, self.limits.per_peer) if peer else (self.limits.running, self.limits.per_owner)
            )
            own = self._of_owner[job.owner]
            first = own == 0 and job.owner.startswith((PEER, PERSON))  # a person may have any number of programs
            if own >= each or (self._of_kind[peer] >= most and not first):
                continue
            del self._waiting[job.id]
            self._of_owner[job.owner] += 1
            self._of_kind[peer] += 1
            self._controls[job.id] = Control(job.cancelling)
            task = asyncio.create_task(self._run(job), name=f"job {job.id}")
            self._running[job.id] = task
            task.add_done_callback(lambda done, job=job: self._left(job, done))  # type: ignore[misc]

    def _left(self, job: Job, task: asyncio.Task[None]) -> None:
        self._running.pop(job.id, None)
        self._controls.pop(job.id, None)
        self._of_owner[job.owner] -= 1
        self._of_kind[job.owner.startswith(PEER)] -= 1
        if not self._of_owner[job.owner]:
            del self._of_owner[job.owner]
        error = None if task.cancelled() else task.exception()
        if error is not None:  # the table could not be written: the job is still there at the next start
            self._metrics.faults.inc()
            self._log.error("fault", job=job.id, kind=job.kind, **about(error))
        self._admit()

    async def _run(self, job: Job) -> None:
        """One job from here to its end, or to the end of this process."""
        control = self._controls[job.id]
        event = await asyncio.to_thread(self.store.begin, job.id, self._clock())
        if event is not None:
            self._told(job.kind, job.id, event, "waiting", "running")
        current = await asyncio.to_thread(self.store.get, job.id)
        if current.state != "running":
            return  # cancelled while it was being taken up
        control.cancelling = control.cancelling or current.cancelling
        state: State = "done"
        result, why = None, None
        try:
            with self._traces.span(f"job {self._vocabulary.known(job.kind)}") as span:
                span.note("medveil.job", job.id)
                span.note("medveil.job.kind", job.kind)
                result = await self._work(job, control, resumed=event is None)
        except BaseException as group:
            error = _first(group)
            if isinstance(error, JobPaused):
                self._log.info("job.paused", job=job.id, kind=job.kind)
                return
            if isinstance(error, asyncio.CancelledError) and self._closing:
                raise
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            if isinstance(error, JobCancelled):
                state = "cancelled"
            elif isinstance(error, MedveilError):
                state, why = "failed", error
            else:
                self._metrics.faults.inc()
                self._log.error("fault", job=job.id, kind=job.kind, **about(error))
                state, why = "failed", MedveilError("jobs.ended_by_fault", job=job.id)
        asked = await self._sealed_digest(job)
        ended = await asyncio.to_thread(self.store.end, job.id, self._clock(), state, asked, result, why)
        self._told(job.kind, job.id, ended, "running", state, why)

    async def _work(self, job: Job, control: Control, resumed: bool) -> str | None:
        kind = self._kinds.get(job.kind)
        if kind is None:
            raise MedveilError("jobs.unknown_kind", job=job.id, kind=job.kind)
        secret = await asyncio.to_thread(self.store.secret, job.id)
        request = self._opened(job.id, secret.request)
        try:
            seed = self._sealer.open(sealed_under(job.id, "seed"), secret.seed)
        except VerificationError:
            raise VerificationError("jobs.bad_record", job=job.id, step="seed") from None
        journal = Journal(
            job.id,
            job.owner,
            request,
            seed,
            store=self.store,
            sealer=self._sealer,
            clock=self._clock,
            control=control,
            told=lambda event: self.streams.publish(job.id, event),
            guard=kind.guard,
        )
        if not resumed:  # else the work itself hears that it was cancelled: it may have begun what it must end
            await journal.boundary()
        return await kind.work(journal)

    def _told(
        self, kind: str, job: str, event: Event, before: State, after: State, why: MedveilError | None = None
    ) -> None:
        self._metrics.job_moved(kind, before, after)
        self._log.info(f"job.{after}", job=job, kind=kind, reason=None if why is None else why.code)
        self.streams.publish(job, event)


def _digest(request: bytes) -> bytes:
    return hashlib.sha256(request).digest()


_ORDER = (KeyboardInterrupt, SystemExit, JobPaused, JobCancelled, MedveilError, Exception)


def _first(error: BaseException) -> BaseException:
    """The error that decides: of a task group's errors the one that says most about why the work stopped."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    for kind in _ORDER:
        found: BaseException | None = error.subgroup(kind)
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        if found is not None:
            return found
    return error
