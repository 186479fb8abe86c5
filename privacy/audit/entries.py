"""What the trail is made of: uses, chained entries, batches of them, one entry shown alone; and their checks.

Every use leaves two entries: an intent, on disk before anything is released, and an outcome. Entries
form a hash chain; batches of them are anchored on the ledger by the root of an RFC 9162 tree:

    head_0   = 32 zero bytes
    head_n   = H(ACCESS_ENTRY, canonical entry n), the entry holding head_{n-1}
    root     = tree root over the leaves `canonical entry`, first .. last

An entry is made to be shown to outsiders: organisations, dataset, purpose, grant id, salted query
hash, time; nothing about a person, no field, no row count. A random nonce keeps the ledger's root from
confirming a guess at it. What the organisation does to its own data and trail (`erasure`, `pruning`), and
that it opens an extract of another's data (`opening`), is an entry too, with itself as the recipient.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from privacy.decide import Decision, UseRequest
from privacy.grants.purposes import PURPOSES
from privacy.grants.terms import Code, UseKind
from wire import evidence
from wire.canonical import Wire, encode
from wire.checkpoint import inclusion_proof, leaf_hash, tree_root, verify_inclusion
from wire.dates import Instant
from wire.domains import ACCESS_ENTRY, digest
from wire.errors import VerificationError
from wire.evidence import Header
from wire.identifiers import Handle, Hash, Name

VERSION = 1
"""Of an entry."""
START = bytes(32)
"""The head before the first entry."""
LARGEST_BATCH = 1000
"""Most entries in a batch."""

UNKNOWN = "UNKNOWN"
"""Stands for a purpose that is no known code: text that a requester made up is not published."""

EntryId = int
"""Sequence number of an intent: 1, 2, ..."""

OwnKind = Literal["erasure", "pruning", "opening"]
AccessKind = UseKind | Literal["evidence"] | OwnKind
"""What was asked for: a use of data, this organisation's evidence; or what it did at home: to its own data and trail,
or to an extract that it holds."""

OWN_KINDS: tuple[OwnKind, ...] = ("erasure", "pruning", "opening")
"""Kinds of what an organisation does at home: rule and kind are one, there is no grant, it is its own recipient."""

Outcome = Literal["", "released", "denied", "aborted", "failed", "done"]
"""How a use ended; "done" is for `OWN_KINDS`, which release nothing."""


class Use(Wire, frozen=True, tag="privacy.use"):
    """A use about to happen, or one that was asked for and denied.

    purpose: a known code, or `UNKNOWN`. query: salted hash of the query or statement, or empty.
    """

    recipient: Name
    dataset: Name
    kind: AccessKind
    purpose: Code
    grant: Annotated[str, msgspec.Meta(max_length=64)]
    query: Annotated[bytes, msgspec.Meta(max_length=32)]
    allowed: bool
    rule: Annotated[str, msgspec.Meta(max_length=32)]


def own_use(organisation: str, dataset: str, kind: OwnKind, what: bytes = b"") -> Use:
    """What `organisation` is about to do to its own data or trail, or to an extract that it holds.

    what: a salted hash (32 bytes), or empty.
    """
    if len(what) not in (0, 32):
        raise ValueError("a salted hash has 32 bytes")
    return Use(organisation, dataset, kind, UNKNOWN, "", what, True, kind)


def use_of(request: UseRequest, decision: Decision, query: bytes = b"") -> Use:
    """The use that `request` and its decision describe. query: salted hash (32 bytes), or empty."""
    if len(query) not in (0, 32):
        raise ValueError("a salted query hash has 32 bytes")
    return Use(
        request.recipient,
        request.dataset,
        request.kind,
        request.purpose if request.purpose in PURPOSES else UNKNOWN,
        decision.grant,
        query,
        decision.allowed,
        decision.rule,
    )


class Entry(Wire, frozen=True, tag="privacy.audit_entry"):
    """One entry of the chain; public once shown.

    organisation: who keeps the trail and the data. intent: 0 in an intent, otherwise the sequence of
    the intent that this outcome ends. outcome: "" in an intent. previous: the head before it.
    """

    version: Annotated[int, msgspec.Meta(ge=1, le=255)]
    sequence: Annotated[int, msgspec.Meta(ge=1, lt=2**62)]
    time: Instant
    organisation: Name
    use: Use
    intent: Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
    outcome: Outcome
    nonce: Handle
    previous: Hash

    def head(self) -> bytes:
        """The chain's head after this entry."""
        return digest(ACCESS_ENTRY, encode(self))


class AccessBatch(Wire, frozen=True, tag="privacy.access_batch"):
    """Consecutive entries with what is anchored of them; an evidence kind ("access-batch").

    first, last: sequence numbers; previous_head, head: of the chain before and after; root: over the
    entries. `verify_batch` checks it; the ledger says whether this root was anchored.
    """

    header: Header
    organisation: Name
    first: int
    last: int
    previous_head: Hash
    head: Hash
    root: Hash
    entries: tuple[Entry, ...]

    def proof(self, sequence: int) -> EntryProof:
        """One entry with its inclusion proof, to be shown alone."""
        if not self.first <= sequence <= self.last:
            raise ValueError("the entry is not in this batch")
        leaves = [leaf_hash(encode(entry)) for entry in self.entries]
        index = sequence - self.first
        path = inclusion_proof(leaves, index)
        return EntryProof(ENTRY_HEADER, self.root, len(leaves), index, self.entries[index], path)


class EntryProof(Wire, frozen=True, tag="privacy.entry_proof"):
    """One entry and its place under an anchored root; an evidence kind ("access-entry")."""

    header: Header
    root: Hash
    size: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_BATCH)]
    index: Annotated[int, msgspec.Meta(ge=0, lt=LARGEST_BATCH)]
    entry: Entry
    proof: Annotated[tuple[Hash, ...], msgspec.Meta(max_length=16)]


BATCH_HEADER = evidence.register("access-batch", 1, AccessBatch)
ENTRY_HEADER = evidence.register("access-entry", 1, EntryProof)


def may_end(use: Use, outcome: Outcome) -> bool:
    """A denied use ends as denied, what is done at home as done or failed, an allowed use in any other way."""
    if use.kind in OWN_KINDS:
        return use.allowed and outcome in ("done", "failed")
    return outcome not in ("", "done") and (outcome == "denied") == (not use.allowed)


def verify_chain(entries: Iterable[Entry], previous_head: bytes = START, first: int = 1) -> bytes:
    """Check that `entries` are the chain from number `first` on, after `previous_head`; returns the head.

    Outcomes must end an intent among `entries`, once, or one before them. Of a chain of any length those intents alone
    are kept that no outcome has ended so far. Raises VerificationError naming the first entry that does not fit.
    """
    head = previous_head
    before: Entry | None = None
    begun: dict[int, Use] = {}
    for expected, entry in enumerate(entries, start=first):
        fits = entry.sequence == expected and entry.previous == head and entry.version == VERSION
        if before is not None:
            fits = fits and entry.organisation == before.organisation and entry.time >= before.time
        if entry.intent == 0:
            fits = fits and entry.outcome == ""
            begun[entry.sequence] = entry.use
        else:
            fits = fits and entry.intent < entry.sequence and may_end(entry.use, entry.outcome)
            fits = fits and (entry.intent < first or begun.pop(entry.intent, None) == entry.use)
        if not fits:
            raise VerificationError("privacy.audit_chain", sequence=expected, organisation=entry.organisation)
        head, before = entry.head(), entry
    return head


def verify_batch(batch: AccessBatch) -> None:
    """Check entries, chain, head and root of a batch. Raises VerificationError naming the first wrong entry."""
    whole = 1 <= batch.first <= batch.last and len(batch.entries) == batch.last - batch.first + 1 <= LARGEST_BATCH
    if not whole or any(entry.organisation != batch.organisation for entry in batch.entries):
        raise VerificationError("privacy.audit_chain", sequence=batch.first, organisation=batch.organisation)
    head = verify_chain(batch.entries, batch.previous_head, batch.first)
    root = tree_root([leaf_hash(encode(entry)) for entry in batch.entries])
    if head != batch.head or root != batch.root or (batch.first == 1 and batch.previous_head != START):
        raise VerificationError("privacy.audit_chain", sequence=batch.last, organisation=batch.organisation)


def verify_entry(shown: EntryProof) -> None:
    """Check one entry's inclusion under its root. Raises VerificationError."""
    verify_inclusion(shown.root, shown.size, shown.index, leaf_hash(encode(shown.entry)), shown.proof)
