"""Ids that persons had in a vault of before, and those of them that rows are awaited for.

Once an id was made of each spelling of an identifier (`privacy.vault.respelling`). A hold or an opt-out on somebody of
whom nothing had come yet stands under the id of a spelling that nobody can read back from it. When rows or documents
come under that very spelling, or somebody names the person by it, it is seen whose it is: the id is an earlier one of
that person from then on, and what stood under it is the person's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from threading import RLock

import sqlalchemy as sa

from privacy.legal_holds import KIND as HOLD
from privacy.legal_holds import LegalHold
from privacy.vault import tables
from privacy.vault.documents import Documents
from privacy.vault.opened import Opened
from privacy.vault.person_names import canonical
from privacy.vault.places import ID_BYTES, ONE_NAME
from wire.canonical import decode
from wire.errors import DecodeError

EARLIER = "person-earlier"
"""The kind of document that holds earlier ids, each followed by the person's, 16 bytes each."""
AWAITED = "person-awaited"
"""The kind of document that holds the ids on which there are holds or notes, and under which nothing was kept."""

_ASKED = 1_000


class Awaited:
    """What an open vault knows of earlier ids, kept as documents. rename_holds: has holds name persons by their ids."""

    def __init__(self, opened: Opened, documents: Documents, rename_holds: Callable[[], None]) -> None:
        self._opened, self._documents, self._rename_holds = opened, documents, rename_holds
        self._ids: frozenset[bytes] = frozenset()
        self._hearing = RLock()  # renaming holds may find what a log has besides

    def take_up(self) -> None:
        """Go on with what was noted, in a vault that is opened to write."""
        self._opened.renamed = self.known()
        self._rename_holds()

    def known(self) -> dict[bytes, bytes]:
        """Earlier id -> id of the person, as noted; what is awaited is read as well."""
        found: dict[bytes, bytes] = {}
        for name in self._documents.names(EARLIER):
            ids = _ids(self._documents.get(EARLIER, name))
            found.update(zip(ids[::2], ids[1::2], strict=True))
        self._ids = self._noted()
        return found

    def present(self, person: bytes) -> bytes:
        """The id that a person has now, by one that it has or had."""
        self._learn()
        return self._opened.renamed.get(person, person)

    def named(self, notes: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        """Notes under the ids that their persons have now."""
        if not self._opened.reads_only:
            yield from notes
            return
        found = list(notes)
        self._learn()  # after they were read: what is heard of later is under the present id, or known here
        yield from ((self._opened.renamed.get(person, person), content) for person, content in found)

    def _learn(self) -> None:
        """In a vault that is opened to read: take up what whoever writes has heard of since."""
        if self._opened.reads_only and self._opened.header.version >= ONE_NAME:
            self._opened.renamed = self.known()

    def _noted(self) -> frozenset[bytes]:
        return frozenset(_ids(self._documents.find(AWAITED, "") or b""))

    def came(self) -> None:
        """The transaction has ended in which holds and notes came from a log, and `look` saw them: have what they name
        theirs at once, where an earlier id is known."""
        with self._hearing:
            self._ids = self._noted()
        self._rename_holds()

    def look(self, connection: sa.Connection) -> None:
        """Await those of whom there are holds and notes and nothing else now, in the transaction of the caller's that
        put them there: what came and is not awaited would be nobody's for good. `came`, or `known`, when it has ended.

        Somebody who is named by the one spelling may be among them: nothing comes under that id that is another's.
        """
        every = self._documents.every(connection, {HOLD})
        ids = {person for _, _, content in every for person in _held(content)}
        ids |= {row.person for row in connection.execute(sa.select(tables.person_notes.c.person))}
        left = sorted(ids - self._opened.renamed.keys())
        for start in range(0, len(left), _ASKED):
            some = left[start : start + _ASKED]
            for table in (tables.keys, tables.streams):
                there = sa.select(table.c.person).where(table.c.person.in_(some))
                ids -= {row.person for row in connection.execute(there)}
        self._documents.write(connection, AWAITED, "", b"".join(one for one in left if one in ids))

    def hear(self, names: Iterable[str]) -> None:
        """Persons are named by these identifiers (secret): holds and notes of before that await them are theirs.

        The one spelling of an identifier has the id that it always had: only others are looked at. They are awaited
        until all of it is done: of a call that fails the next one does the rest, and no thread passes by before.
        """
        if not self._ids:
            return
        with self._hearing:
            heard: dict[bytes, bytes] = {}
            for name in set(names):
                if canonical(name) != name and (before := self._opened.spelling_id(name)) in self._ids:
                    heard[before] = self._opened.person_id(name)
            if heard:
                pairs = b"".join(old + new for old, new in sorted(heard.items()))
                self._documents.put(EARLIER, next(iter(sorted(heard))).hex(), pairs)
                self._opened.renamed = {**self._opened.renamed, **heard}
                self._documents.revised(EARLIER)  # for whoever read notes in between
                self._rename_holds()
                with self._opened.database.transaction() as connection:  # `look` may have noted others
                    left = frozenset(_ids(self._documents.content(connection, AWAITED, ""))) - heard.keys()
                    self._documents.write(connection, AWAITED, "", b"".join(sorted(left)))
                self._ids = left


def _held(content: bytes) -> list[bytes]:
    """The keyed id of whom a hold names."""
    with suppress(DecodeError):  # whoever reads it is told
        person = decode(LegalHold, content).person
        return [person] if person else []
    return []


def _ids(content: bytes) -> list[bytes]:
    return [content[start : start + ID_BYTES] for start in range(0, len(content), ID_BYTES)]
