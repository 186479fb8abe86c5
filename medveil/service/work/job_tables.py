"""Where jobs stand: three tables, and each change of a job as one transaction.

    jobs         one row a job: whose, what kind, which state, how far; its request and its seed, sealed; when it has
                 ended, no seed, and a sealed digest in place of the request
    job_steps    what each durable step gave, sealed; gone when the job has ended
    job_events   what its listeners are told, numbered from 1 for each job, so that a stream can be taken up again

A change and its event are written together: no listener learns what is not durable. All functions are
synchronous; callers run them in a thread.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol

import sqlalchemy as sa

from medveil.service.database import metadata
from wire import errors
from wire.errors import Fact, MedveilError, ProtocolAbort, Refused, Unavailable

State = Literal["waiting", "running", "done", "failed", "cancelled"]
ENDED: frozenset[str] = frozenset({"done", "failed", "cancelled"})


jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("kind", sa.String(60), nullable=False),
    sa.Column("owner", sa.String(128), nullable=False),
    sa.Column("key", sa.String(128)),
    sa.Column("state", sa.String(12), nullable=False, index=True),
    sa.Column("cancelling", sa.Boolean, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("changed", sa.BigInteger, nullable=False),
    sa.Column("steps", sa.Integer, nullable=False),
    sa.Column("total", sa.Integer),
    sa.Column("step", sa.String(100)),
    sa.Column("result", sa.String(200)),
    sa.Column("problem", sa.Text),
    sa.Column("events", sa.Integer, nullable=False),
    sa.Column("request", sa.LargeBinary, nullable=False),
    sa.Column("seed", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("owner", "key", name="jobs_once"),
    sa.Index("jobs_of_owner", "owner", "created", "id"),
)
job_steps = sa.Table(
    "job_steps",
    metadata,
    sa.Column("job", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("step", sa.String(100), primary_key=True),
    sa.Column("record", sa.LargeBinary, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
)
job_events = sa.Table(
    "job_events",
    metadata,
    sa.Column("job", sa.String(32), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(12), nullable=False),
    sa.Column("data", sa.Text, nullable=False),
)


class Database(Protocol):
    """The store of the service, as far as this file needs it."""

    def transaction(self) -> AbstractContextManager[sa.Connection]:
        """One durable writing transaction, alone."""
        ...

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """One reading transaction."""
        ...


class Job(NamedTuple):
    """A job as its owner may see it. created, changed: ms UTC. steps: how many were recorded, of `total` if known."""

    id: str
    kind: str
    owner: str
    state: State
    cancelling: bool
    created: int
    changed: int
    steps: int
    total: int | None
    step: str | None
    result: str | None
    problem: MedveilError | None
    events: int


class Secret(NamedTuple):
    """What a job was asked, or a digest of it once it has ended, and its seed: both sealed."""

    request: bytes
    seed: bytes


class Event(NamedTuple):
    """What a listener is told. number: from 1, without gaps. name: "state" or "step". data: JSON, no secrets."""

    number: int
    name: str
    data: str

    @property
    def last(self) -> bool:
        """Whether nothing follows."""
        return self.name == "state" and json.loads(self.data)["state"] in ENDED


_LONGEST_KEY = 128
"""Characters of the column `key`. SQLite would take more, PostgreSQL refuses them."""

_VISIBLE = [column for column in jobs.c if column.name not in {"key", "request", "seed"}]


def _job(row: Any) -> Job:
    return Job(**{**row._mapping, "problem": _revived(row.problem)})


def _kept(error: MedveilError) -> str:
    return json.dumps({"kind": type(error).__name__, "code": error.code, "facts": error.facts})


def _revived(kept: str | None) -> MedveilError | None:
    if kept is None:
        return None
    parts = json.loads(kept)
    facts: dict[str, Fact] = parts["facts"]
    kind: type[MedveilError] = getattr(errors, parts["kind"], MedveilError)
    if kind is ProtocolAbort:
        parties = [name for name in str(facts.pop("parties")).split(", ") if name != "-"]
        return ProtocolAbort(parts["code"], round=str(facts.pop("round")), parties=parties, **facts)
    if kind is Unavailable:
        return Unavailable(parts["code"], retry_after=0, **facts)
    return kind(parts["code"], **facts)


def _tell(connection: sa.Connection, job: str, name: str, at: int, **changes: Any) -> Event:
    """Change a job's row and write the event that says so."""
    row = connection.execute(
        jobs.update().where(jobs.c.id == job).values(events=jobs.c.events + 1, changed=at, **changes).returning(*_TOLD)
    ).one()
    return _told(connection, job, name, at, row)


def _told(connection: sa.Connection, job: str, name: str, at: int, row: Any) -> Event:
    """Write the event that says what a job's row is now."""
    told: dict[str, Any] = {"job": job, "state": row.state, "steps": row.steps, "total": row.total, "at": at}
    if row.step is not None:
        told["step"] = row.step
    if row.state == "done":
        told["result"] = row.result
    if row.state == "failed":
        told["code"] = json.loads(row.problem)["code"]
    event = Event(row.events, name, json.dumps(told))
    connection.execute(_SAY, {"job": job, **event._asdict()})
    return event


_TOLD = [jobs.c[name] for name in ("events", "state", "steps", "total", "step", "result", "problem")]
# Made once: to put a statement together costs more than to run it.
_RECORD, _SAY = job_steps.insert(), job_events.insert()
_ANOTHER_STEP = (
    jobs.update()
    .where(jobs.c.id == sa.bindparam("of"))
    .values(events=jobs.c.events + 1, changed=sa.bindparam("at"), steps=jobs.c.steps + 1, step=sa.bindparam("last"))
    .returning(*_TOLD)
)
_RECORDED = sa.select(job_steps.c.step).where(job_steps.c.job == sa.bindparam("of"))


def _stored(key: str) -> str:
    """How a key stands in the table."""
    return key if len(key) <= _LONGEST_KEY else f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


class JobStore:
    """The jobs of one organisation's process."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, job: Job, secret: Secret, key: str | None, most_unfinished: int) -> tuple[Job, Event | None]:
        """Keep a new job. The event is None where `key` names a job of this owner already, which is returned.

        A key that is too long for the table stands there as its hash. Raises Unavailable if `most_unfinished` of the
        owner's have not ended.
        """
        key = None if key is None else _stored(key)
        with self._database.transaction() as connection:
            if key is not None:
                found = connection.execute(
                    sa.select(*_VISIBLE).where(jobs.c.owner == job.owner, jobs.c.key == key)
                ).one_or_none()
                if found is not None:
                    return _job(found), None
            count = sa.select(sa.func.count()).where(
                jobs.c.owner == job.owner, jobs.c.state.in_(("waiting", "running"))
            )
            unfinished = connection.execute(count).scalar_one()
            if unfinished >= most_unfinished:
                raise Unavailable("jobs.too_many", retry_after=10, unfinished=unfinished)
            row = {**job._asdict(), "key": key, "problem": None, **secret._asdict()}
            connection.execute(jobs.insert().values(row))
            event = _tell(connection, job.id, "state", job.created)
        return job._replace(events=1), event

    def find(self, owner: str, key: str) -> Job | None:
        """The job of an owner under `key`, if there is one."""
        query = sa.select(*_VISIBLE).where(jobs.c.owner == owner, jobs.c.key == _stored(key))
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _job(row)

    def get(self, job: str, owner: str | None = None) -> Job:
        """One job, of `owner` if that is given. Raises Refused if there is none."""
        query = sa.select(*_VISIBLE).where(jobs.c.id == job)
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise Refused("jobs.unknown", job=job)
        return _job(row)

    def secret(self, job: str) -> Secret:
        """What a job was asked and its seed, sealed; once it has ended, as `end` left it."""
        with self._database.reading() as connection:
            return Secret(*connection.execute(sa.select(jobs.c.request, jobs.c.seed).where(jobs.c.id == job)).one())

    def page(self, owner: str, state: State | None, limit: int, after: str | None) -> list[Job]:
        """An owner's jobs, the newest first. after: the last one of the page before."""
        query = sa.select(*_VISIBLE).where(jobs.c.owner == owner)
        if state is not None:
            query = query.where(jobs.c.state == state)
        with self._database.reading() as connection:
            if after is not None:
                place = connection.execute(
                    sa.select(jobs.c.created).where(jobs.c.id == after, jobs.c.owner == owner)
                ).scalar_one_or_none()
                if place is None:
                    raise Refused("jobs.unknown", job=after)
                query = query.where(sa.or_(jobs.c.created < place, sa.and_(jobs.c.created == place, jobs.c.id < after)))
            rows = connection.execute(query.order_by(jobs.c.created.desc(), jobs.c.id.desc()).limit(limit)).all()
        return [_job(row) for row in rows]

    def unfinished(self) -> Sequence[Job]:
        """Jobs that had not ended, the oldest first: those that ran before those that waited."""
        query = sa.select(*_VISIBLE).where(jobs.c.state.in_(("waiting", "running")))
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(jobs.c.state, jobs.c.created, jobs.c.id)).all()
        return [_job(row) for row in rows]

    def begin(self, job: str, at: int) -> Event | None:
        """It runs now; None if it was not waiting (it was cancelled first, or ran before)."""
        with self._database.transaction() as connection:
            state = connection.execute(sa.select(jobs.c.state).where(jobs.c.id == job)).scalar_one()
            return _tell(connection, job, "state", at, state="running") if state == "waiting" else None

    def ask_to_cancel(self, job: str, owner: str, at: int, asked: bytes) -> tuple[Job, Event | None]:
        """Its owner wants no more of it: waiting, it ends at once; running, at its next step; ended, it stays so.

        asked: as in `end`.
        """
        with self._database.transaction() as connection:
            own = sa.select(jobs.c.state).where(jobs.c.id == job, jobs.c.owner == owner)
            state = connection.execute(own).scalar_one_or_none()
            if state is None:
                raise Refused("jobs.unknown", job=job)
            event = None
            if state == "waiting":
                event = self._end(connection, job, at, "cancelled", asked, cancelling=True)
            elif state == "running":
                connection.execute(jobs.update().where(jobs.c.id == job).values(cancelling=True, changed=at))
            after = connection.execute(sa.select(*_VISIBLE).where(jobs.c.id == job)).one()
        return _job(after), event

    def end(
        self, job: str, at: int, state: State, asked: bytes, result: str | None = None, why: MedveilError | None = None
    ) -> Event:
        """It ended. Its steps, its request and its seed are erased: only the result's reference stays.

        asked: a sealed digest, by which the same request is known again.
        """
        kept = None if why is None else _kept(why)
        with self._database.transaction() as connection:
            return self._end(connection, job, at, state, asked, result=result, problem=kept)

    def _end(self, connection: sa.Connection, job: str, at: int, state: State, asked: bytes, **changes: Any) -> Event:
        connection.execute(job_steps.delete().where(job_steps.c.job == job))
        return _tell(connection, job, "state", at, state=state, request=asked, seed=b"", **changes)

    def recorded(self, job: str) -> set[str]:
        """The names of a job's recorded steps."""
        with self._database.reading() as connection:
            return set(connection.execute(_RECORDED, {"of": job}).scalars())

    def record_of(self, job: str, step: str) -> bytes | None:
        """What a step gave, sealed, or None if it has not been recorded."""
        query = sa.select(job_steps.c.record).where(job_steps.c.job == job, job_steps.c.step == step)
        with self._database.reading() as connection:
            return connection.execute(query).scalar_one_or_none()

    def record(self, job: str, step: str, record: bytes, at: int) -> Event:
        """Keep what a step gave. Raises ValueError, or the engine's error, if it was recorded before."""
        with self._database.transaction() as connection:
            connection.execute(_RECORD, {"job": job, "step": step, "record": record, "at": at})
            row = connection.execute(_ANOTHER_STEP, {"of": job, "at": at, "last": step}).one()
            return _told(connection, job, "step", at, row)

    def events_after(self, job: str, number: int, limit: int = 500) -> list[Event]:
        """A job's events from `number` + 1 on, in order."""
        query = sa.select(job_events.c.number, job_events.c.name, job_events.c.data)
        query = query.where(job_events.c.job == job, job_events.c.number > number).order_by(job_events.c.number)
        with self._database.reading() as connection:
            return [Event(*row) for row in connection.execute(query.limit(limit)).all()]

    def forget(self, before: int) -> int:
        """Erase jobs that ended before this instant (ms UTC), with their events. Returns how many."""
        old = sa.select(jobs.c.id).where(jobs.c.state.in_(sorted(ENDED)), jobs.c.changed < before)
        with self._database.transaction() as connection:
            ids = list(connection.execute(old).scalars())
            for table, column in ((job_events, job_events.c.job), (job_steps, job_steps.c.job), (jobs, jobs.c.id)):
                connection.execute(table.delete().where(column.in_(ids)))
        return len(ids)
