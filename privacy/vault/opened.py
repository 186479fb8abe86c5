"""What the parts of an open vault share: its database, the provider of its keys, its own index key, randomness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby
from typing import Any, TypeVar

import sqlalchemy as sa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from privacy.keys import KEY_BYTES, NONCE_BYTES, KeyProvider
from privacy.store import Database
from privacy.suites import AES_256_GCM, unseal
from privacy.vault.person_names import canonical
from privacy.vault.places import ID_BYTES, ONE_NAME, Place, VaultHeader
from wire.canonical import encode
from wire.domains import DATA_KEY, VAULT_INDEX, VAULT_PERSON, VAULT_RECORD, framed, keyed
from wire.errors import Refused, Unavailable, VerificationError

T = TypeVar("T")

_PERSON = framed(VAULT_PERSON, b"")


@dataclass
class Opened:
    """An open vault's state. index_key: secret. fault: called with the name of each step, for tests that stop there."""

    database: Database
    provider: KeyProvider
    header: VaultHeader
    index_key: bytes
    rand: Callable[[int], bytes]
    clock: Callable[[], int]
    fault: Callable[[str], None]
    reads_only: bool = False
    renamed: Mapping[bytes, bytes] = field(default_factory=dict)
    """Ids that persons had before (`privacy.vault.respelling`), each with the one that the person has."""

    # ---- ids

    def person_id(self, person: str) -> bytes:
        """A person in the vault's tables: 16 bytes, one for all its datasets and all spellings. person: secret."""
        return self.spelling_id(canonical(person))

    def spelling_id(self, person: str) -> bytes:
        """The id of one spelling: a person's, if it is the one that counts (`privacy.vault.person_names`)."""
        return blake2b(_PERSON + person.encode(), key=self.index_key, digest_size=ID_BYTES).digest()

    def record_id(self, dataset: str, record: str) -> bytes:
        """A record that is not a person's only one, within its dataset."""
        return keyed(self.index_key, VAULT_RECORD, dataset.encode(), record.encode())[:ID_BYTES]

    def document_id(self, kind: str, name: str) -> bytes:
        """A document."""
        return keyed(self.index_key, VAULT_INDEX, f"document.{kind}".encode(), name.encode())[:ID_BYTES]

    # ---- keys of their own, for what is few: descriptions, documents, notes

    def place(self, what: str, name: str, *, version: int = 0, item: bytes = b"") -> Place:
        """Where something lies in this vault."""
        header = self.header
        return Place(AES_256_GCM, header.vault, header.organisation, what, name, b"", version, item, 0)

    def index_place(self, header: VaultHeader | None = None) -> Place:
        """Of the index key, which so is bound to how the vault names persons. header: the one to come."""
        version = (header or self.header).version
        return self.place("index key", "", version=version if version >= ONE_NAME else 0)

    def new_key(self, what: str, name: str, item: bytes = b"") -> tuple[bytes, int, bytes]:
        """A fresh key (secret), the epoch it is wrapped under, and its wrap."""
        key, epoch = self.rand(KEY_BYTES), current_epoch(self.provider)
        return key, epoch, self.provider.wrap(epoch, key, encode(self.place(what, name, item=item)))

    def own_key(self, epoch: Any, wrapped: Any, what: str, name: str, item: bytes = b"") -> bytes:
        """The key that `new_key` made. Raises VerificationError (altered), Refused (its epoch is gone)."""
        return self.provider.unwrap(number(epoch), blob(wrapped), encode(self.place(what, name, item=item)))

    def seal(self, key: bytes, plaintext: bytes, place: Place) -> bytes:
        """`plaintext` under a key of its own, at `place`."""
        nonce = self.rand(NONCE_BYTES)
        return nonce + AESGCM(keyed(key, DATA_KEY)).encrypt(nonce, plaintext, encode(place))

    def unseal(self, key: bytes, sealed: Any, place: Place) -> bytes:
        """What `seal` got. Raises InvalidTag."""
        return unseal(AESGCM(keyed(key, DATA_KEY)), blob(sealed), encode(place))

    def reading(self, work: Callable[[sa.Connection], T]) -> T:
        """`work` on one state of the database; again if a rotation has destroyed the epoch of that state meanwhile."""
        try:
            with self.database.reading() as connection:
                return work(connection)
        except Refused as error:
            if error.code != "privacy.epoch_gone":
                raise
        with self.database.reading() as connection:
            return work(connection)

    def check_writes(self) -> None:
        """Raises ValueError in a vault that was opened to read."""
        if self.reads_only:
            raise ValueError("this vault was opened to read")


def current_epoch(provider: KeyProvider) -> int:
    """The epoch that keys are wrapped under now. Raises Unavailable where there is none: somebody took them away."""
    epochs = provider.epochs()
    if not epochs:
        raise Unavailable("privacy.no_epoch", retry_after=60)
    return epochs[-1]


def check_wrap(provider: KeyProvider, epoch: int, key: bytes, wrapped: bytes, place: bytes) -> None:
    """Have the provider open what it wrapped, before something else that opens it is given up.

    Raises Unavailable where another key comes out, or none.
    """
    try:
        right = provider.unwrap(epoch, wrapped, place) == key
    except (VerificationError, Refused):
        right = False
    if not right:
        raise Unavailable("privacy.provider_wrong", retry_after=60, epoch=epoch)


def blob(value: Any) -> bytes:
    """A cell that must hold bytes. Raises VerificationError."""
    if not isinstance(value, bytes):
        raise VerificationError("privacy.vault_cell")
    return value


def number(value: Any) -> int:
    """A cell that must hold an integer. Raises VerificationError."""
    if not isinstance(value, int):
        raise VerificationError("privacy.vault_cell")
    return value


def unwrap_all(
    provider: KeyProvider, epochs: Sequence[int], items: Sequence[tuple[bytes, bytes]]
) -> list[bytes | None]:
    """The keys of (wrapped, context), each under its epoch, in order; None for what was altered.

    Raises Refused (an epoch is gone).
    """
    found: list[bytes | None] = []
    for epoch, same in groupby(epochs):
        start = len(found)
        some = items[start : start + len(list(same))]
        try:
            found += provider.unwrap_many(epoch, some)
        except VerificationError:
            found += [_unwrap(provider, epoch, *item) for item in some]
    return found


def _unwrap(provider: KeyProvider, epoch: int, wrapped: bytes, context: bytes) -> bytes | None:
    try:
        return provider.unwrap(epoch, wrapped, context)
    except VerificationError:
        return None
