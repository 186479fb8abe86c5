"""The journal of one job: steps that happen once, and randomness that comes again.

A process can be killed between any two instructions. What it did is then known from what is durable:

* `once` runs a step and keeps what it gave before anybody uses it; in a restarted job it gives that again.
  A step that was killed before it was kept runs again: what it sends must be what it sent before.
* `rand` is what makes it so: a stream from the job's seed, the step's name and a context, the same whenever it
  is asked for. All that a step's messages depend on beside it must be in the context, or be recorded by an
  earlier step: randomness that is used twice on different inputs can give a secret away.

Records and the seed are sealed: they may hold shares and masks. Spec: RFC 5869 (HKDF-Expand, SHA-256) for the
stream's key, RFC 8439 (ChaCha20) for the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from medveil.gateway.steps import FlowCancelled, FlowPaused
from medveil.service.work.job_tables import Event, JobStore
from wire.canonical import Wire, decode, encode
from wire.domains import JOB_RAND, JOB_RECORD, digest
from wire.errors import DecodeError, VerificationError

W = TypeVar("W", bound=Wire)
Clock = Callable[[], int]
Guard = Callable[["Journal"], Awaitable[None]]

SEED = 32
LONGEST_STEP = 100


class Sealer(Protocol):
    """Seals what the organisation alone may read. info: public, must be the same on opening."""

    def seal(self, info: bytes, plaintext: bytes) -> bytes:
        """Sealed `plaintext` (secret)."""
        ...

    def open(self, info: bytes, sealed: bytes) -> bytes:
        """What was sealed. Raises VerificationError if anything does not match."""
        ...


class JobCancelled(FlowCancelled):
    """The owner wants no more of this job."""


class JobPaused(FlowPaused):
    """The process stops; the job goes on at this step when it runs again."""


class Control:
    """What others want of a running job; looked at before each step."""

    def __init__(self, cancelling: bool = False) -> None:
        self.cancelling = cancelling
        self.pausing = False


def sealed_under(job: str, what: str) -> bytes:
    """The info under which a job's record is sealed, so that no record passes for another's."""
    return digest(JOB_RECORD, job.encode(), what.encode())


class Journal:
    """What a job's work is given. job: its id. owner: whose it is. request: what it was asked (secret)."""

    def __init__(
        self,
        job: str,
        owner: str,
        request: bytes,
        seed: bytes,
        *,
        store: JobStore,
        sealer: Sealer,
        clock: Clock,
        control: Control,
        told: Callable[[Event], None],
        guard: Guard | None = None,
    ) -> None:
        self.job = job
        self.owner = owner
        self.request = request
        self._seed = seed
        self._store = store
        self._sealer = sealer
        self._clock = clock
        self._control = control
        self._told = told
        self._guard = guard
        self._active: set[str] = set()
        self._recorded: set[str] | None = None  # names of the steps that are kept; None until they are looked at
        self._writing = asyncio.Lock()  # events are told in the order they were written

    def __repr__(self) -> str:
        return f"Journal({self.job!r})"

    async def boundary(self) -> None:
        """Between two steps: raises JobPaused, JobCancelled, or what the kind's guard raises (a revoked grant)."""
        if self._control.pausing:
            raise JobPaused
        if self._control.cancelling:
            raise JobCancelled
        if self._guard is not None:
            await self._guard(self)

    async def kept(self, step: str) -> bool:
        """Whether that step was recorded, in this life of the job or an earlier one."""
        if self._recorded is None:
            found = await asyncio.to_thread(self._store.recorded, self.job)
            if self._recorded is None:  # else another step has looked, and may have recorded since
                self._recorded = found
        return step in self._recorded

    async def once(self, step: str, kind: type[W], work: Callable[[], Awaitable[W]]) -> W:
        """What `work` gives, or gave when this step was recorded: then it does not run again.

        step: its name in this job, at most 100 characters; steps of different names may run side by side. kind: a
        canonical struct (secret). The record is durable before this returns. Raises what `boundary` and `work`
        raise, VerificationError if the record was changed, ValueError if the step is running already.
        """
        if not 0 < len(step) <= LONGEST_STEP:
            raise ValueError(f"a step's name has 1 to {LONGEST_STEP} characters")
        if step in self._active:
            raise ValueError(f"step {step!r} is running already")
        self._active.add(step)
        try:
            if await self.kept(step):
                record = await asyncio.to_thread(self._store.record_of, self.job, step)
                if record is None:
                    raise VerificationError("jobs.bad_record", job=self.job, step=step)
                return self._opened(step, kind, record)
            await self.boundary()
            value = await work()
            sealed = self._sealer.seal(sealed_under(self.job, "step/" + step), encode(value))
            async with self._writing:
                keeping = asyncio.ensure_future(self._keep(step, sealed))
                try:
                    await asyncio.shield(keeping)
                except asyncio.CancelledError:
                    await keeping  # a record that is on its way is written and told, whoever is cancelled meanwhile
                    raise
            return value
        finally:
            self._active.discard(step)

    async def _keep(self, step: str, sealed: bytes) -> None:
        event = await asyncio.to_thread(self._store.record, self.job, step, sealed, self._clock())
        if self._recorded is not None:
            self._recorded.add(step)
        self._told(event)

    def _opened(self, step: str, kind: type[W], record: bytes) -> W:
        try:
            return decode(kind, self._sealer.open(sealed_under(self.job, "step/" + step), record))
        except (VerificationError, DecodeError):
            raise VerificationError("jobs.bad_record", job=self.job, step=step) from None

    def rand(self, step: str, *context: bytes) -> Callable[[int], bytes]:
        """A fresh reading, from its beginning, of the stream of this job, step and context.

        Returns `rand(n)`: the next n bytes (secret), 2^38 at most in all.
        """
        info = digest(JOB_RAND, self.job.encode(), step.encode(), *context)
        key = HKDFExpand(SHA256(), 32, info).derive(self._seed)
        stream = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
        return lambda length: stream.update(bytes(length))
