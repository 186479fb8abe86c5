"""Who used what: the organisation's audit trail, evidence folders, and the service itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from medveil.client.downloads import download
from medveil.client.exchange import Exchange, M, Part, verb
from medveil.client.frames import Instant, Rows
from medveil.client.jobs import Job, Progress, begin, wait
from medveil.client.line import fetch, get, post
from medveil.client.queries import UseView


class AuditEntry(msgspec.Struct, frozen=True):
    """One entry of the trail. intent: 0 in an intent, otherwise the number of the one that this outcome ends."""

    sequence: int
    time: Instant
    use: UseView
    intent: int
    outcome: str
    head: str


class AuditPage(Rows, frozen=True):
    """Entries in order. next: first of the next page, or None; anchored: last entry that is on the ledger."""

    entries: tuple[AuditEntry, ...]
    next: int | None
    anchored: int

    def rows(self) -> tuple[AuditEntry, ...]:
        """The entries."""
        return self.entries


class Flow(msgspec.Struct, frozen=True):
    """A use from intent to outcome. outcome: empty while it is under way, or where the process was killed."""

    intent: int
    began: Instant
    ended: int | None
    use: UseView
    outcome: str


class FlowList(Rows, frozen=True):
    """Uses, the oldest first. next: number of the first entry to go on from, or None."""

    flows: tuple[Flow, ...]
    next: int | None

    def rows(self) -> tuple[Flow, ...]:
        """The uses."""
        return self.flows


class Folder(msgspec.Struct, frozen=True):
    """An evidence folder that the gateway keeps. files: how many; bytes: in all."""

    evidence: str
    files: int
    bytes: int


class FolderList(Rows, frozen=True):
    """Evidence folders."""

    evidence: tuple[Folder, ...]

    def rows(self) -> tuple[Folder, ...]:
        """The folders."""
        return self.evidence


class Batch(msgspec.Struct, frozen=True):
    """Entries first to last, anchored by `root`."""

    first: int
    last: int
    head: str
    root: str


class Batches(Rows, frozen=True):
    """What was anchored."""

    batches: tuple[Batch, ...]

    def rows(self) -> tuple[Batch, ...]:
        """The batches."""
        return self.batches


class Service(msgspec.Struct, frozen=True):
    """How the gateway stands. jobs: counts of running and waiting ones.

    catching_up: it came back from a backup, and cosigns and uses nothing yet.
    """

    organisation: str
    version: str
    data_version: int
    chain: str
    genesis: str
    height: int
    sequencer: bool
    started: Instant
    jobs: dict[str, int]
    data_folder: bool
    catching_up: bool


class Audit(Part[M]):
    """``/v1/audit``."""

    @verb
    def entries(self, *, first: int = 1, limit: int = 100) -> Exchange[AuditPage]:
        """Entries of this organisation's own trail."""
        return (yield from fetch(self._line, get("audit", "entries", first=first, limit=limit), AuditPage))

    @verb
    def flows(
        self, *, first: int = 1, limit: int = 100, recipient: str = "", grant: str = "", dataset: str = ""
    ) -> Exchange[FlowList]:
        """Who used what, for which purpose, under which grant. recipient, grant, dataset: only those of these names."""
        named = {"recipient": recipient, "grant": grant, "dataset": dataset}
        asked = {name: value for name, value in named.items() if value}
        return (yield from fetch(self._line, get("audit", "flows", first=first, limit=limit, **asked), FlowList))

    @verb
    def anchor(self) -> Exchange[Batches]:
        """Put what is not there yet on the ledger."""
        return (yield from fetch(self._line, post("audit", "anchor"), Batches))


class Evidence(Part[M]):
    """``/v1/evidence``: folders for ``medveil verify``."""

    @verb
    def export(
        self, *, collect: bool = False, key: str = "", told: Callable[[Progress], None] | None = None
    ) -> Exchange[str]:
        """Write an evidence folder at the gateway; returns its id. collect: with what the other members keep."""
        job = yield from begin(self._line, post("evidence", body={"collect": collect}), key)
        done = yield from wait(self._line, job.job, told)
        return done.name

    @verb
    def list(self) -> Exchange[FolderList]:
        """Folders that are there."""
        return (yield from fetch(self._line, get("evidence"), FolderList))

    @verb
    def fetch(self, folder: str, out: Path | str) -> Exchange[Path]:
        """Fetch a folder as a .zip file to `out`, which must not be there yet; whole or not at all.

        Only its owner may read it: it tells who used what, and why.
        """
        call = get("evidence", folder)._replace(accept="application/zip")
        return (yield from download(self._line, call, Path(out)))


class ServicePart(Part[M]):
    """``/v1/service``."""

    @verb
    def get(self) -> Exchange[Service]:
        """How the gateway stands."""
        return (yield from fetch(self._line, get("service"), Service))

    @verb
    def backup(self, *, key: str = "", told: Callable[[Progress], None] | None = None) -> Exchange[Job]:
        """Have the gateway write a backup of itself while it runs.

        The job's `result` is its path on the gateway's machine, as gateway.toml has it: relative to the home, or not.
        """
        job = yield from begin(self._line, post("service", "backup"), key)
        return (yield from wait(self._line, job.job, told))
