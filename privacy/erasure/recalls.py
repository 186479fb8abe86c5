"""The issuer's book of recalls: extracts that have to be deleted elsewhere, who was told, and what was answered.

One entry for each extract, however many erasures and revocations concern it: what was deleted is not asked for again.
An entry is kept before anybody is told, and stays: erasure receipts are made from it.
"""

from __future__ import annotations

from typing import Annotated, Protocol

import msgspec

from privacy.erasure.deletion import NOTICE_HEADER, UNSIGNED, DeleteNotice, Deletion, Why, sign_notice
from wire.canonical import Wire, decode, encode
from wire.dates import Instant
from wire.errors import Refused
from wire.identifiers import Handle, Name
from wire.signing import Signer

KIND = "extract-recall"
"""The kind of document that keeps an entry, under the extract's id in hex."""
DELETE_WITHIN = 15 * 86_400_000
"""Milliseconds that a recipient is given to delete an extract."""


class RecallKeeper(Protocol):
    """What keeps the book: a vault."""

    def put_document(self, kind: str, name: str, content: bytes) -> None:
        """Keep a document."""
        ...

    def document(self, kind: str, name: str) -> bytes:
        """A document's content."""
        ...

    def find_document(self, kind: str, name: str) -> bytes | None:
        """The same; None where there is none."""
        ...

    def documents(self, kind: str) -> tuple[str, ...]:
        """Names of the documents of one kind."""
        ...


class Recall(Wire, frozen=True, tag="privacy.recall"):
    """An extract that has to be deleted, or was. Private.

    entry: of the use that released it, in the issuer's trail. since: from when on it has to go. told: when the notice
    was first handed to the post, which carries it until it arrives; asked: when last; 0 for not yet. heard: the
    recipient's signed answer.
    """

    extract: Handle
    recipient: Name
    dataset: Name
    grant: Name
    entry: Annotated[int, msgspec.Meta(ge=1, lt=2**62)]
    released: Instant
    why: Why
    since: Instant
    delete_by: Instant
    told: Instant = 0
    asked: Instant = 0
    heard: Deletion | None = None

    @property
    def deleted(self) -> int:
        """When the recipient deleted it, by its own word; 0 for not, or not that it said."""
        return self.heard.at if self.heard is not None and self.heard.found == "deleted" else 0


def recalls(vault: RecallKeeper) -> tuple[Recall, ...]:
    """All entries, the oldest first."""
    found = (decode(Recall, vault.document(KIND, name)) for name in vault.documents(KIND))
    return tuple(sorted(found, key=lambda one: (one.since, one.extract)))


def recall_of(vault: RecallKeeper, extract: bytes) -> Recall | None:
    """The entry of one extract; None where there is none."""
    found = vault.find_document(KIND, extract.hex())
    return None if found is None else decode(Recall, found)


def recall(vault: RecallKeeper, made: Recall) -> Recall:
    """Keep an entry, unless the extract has one; returns the one that is kept."""
    found = recall_of(vault, made.extract)
    if found is None:
        _keep(vault, made)
    return found or made


def notice(one: Recall, organisation: str, signer: Signer) -> DeleteNotice:
    """What the recipient is told, signed: the same extract in the same words, whenever it is said."""
    said = DeleteNotice(
        NOTICE_HEADER,
        one.why,
        organisation,
        one.recipient,
        one.dataset,
        one.grant,
        one.extract,
        one.entry,
        one.released,
        one.delete_by,
        UNSIGNED,
    )
    return sign_notice(said, signer)


def note_told(vault: RecallKeeper, extract: bytes, at: int) -> Recall:
    """Note that the notice was handed to the post at instant `at`. Raises Refused where there is no entry."""
    one = _there(vault, extract, "-")
    one = msgspec.structs.replace(one, told=one.told or at, asked=at)
    _keep(vault, one)
    return one


def note_heard(vault: RecallKeeper, deletion: Deletion) -> Recall:
    """Note a recipient's word, whose signature was checked. The first "deleted" stays, whatever is said after it.

    Raises Refused where no extract of that id was recalled from that recipient.
    """
    one = _there(vault, deletion.extract, deletion.recipient)
    if one.recipient != deletion.recipient:
        raise Refused("privacy.no_notice", organisation=deletion.recipient)
    if one.heard is None or (one.heard.found == "not-held" and deletion.found == "deleted"):
        one = msgspec.structs.replace(one, heard=deletion)
        _keep(vault, one)
    return one


def _there(vault: RecallKeeper, extract: bytes, organisation: str) -> Recall:
    one = recall_of(vault, extract)
    if one is None:
        raise Refused("privacy.no_notice", organisation=organisation)
    return one


def _keep(vault: RecallKeeper, one: Recall) -> None:
    vault.put_document(KIND, one.extract.hex(), encode(one))
