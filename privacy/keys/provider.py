"""Key epochs: the keys that wrap data keys, and what every keeper of them can do.

A `KeyProvider` holds one key for each epoch and never hands it out: it wraps and unwraps the data
keys of the vault. Destroying an epoch makes everything wrapped under it unreadable for good, in the
vault and in each copy of it, unless a copy of what the provider keeps survives.

What is wrapped looks the same whoever wrapped it: 12 bytes of random nonce, AES-256-GCM ciphertext,
16 bytes of tag; the context is the associated data. One epoch wraps at most 2^32 keys (NIST SP
800-38D, 8.3: random 96-bit nonces); rotate the vault long before.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Protocol

import msgspec

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16

Epoch = Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
"""Number of an epoch: from 1, rising, never used twice."""


class KeyProvider(Protocol):
    """Keeps the key of each epoch. A context (public) is bound to what is wrapped.

    Every method raises Unavailable where the keeper cannot be reached, is slow or cannot write now; then
    nothing that it held is lost, and the call may be made again.
    """

    @abstractmethod
    def epochs(self) -> tuple[int, ...]:
        """The epochs that exist, rising; the last one is current."""

    @abstractmethod
    def new_epoch(self) -> int:
        """Make a key for a new epoch, durably, and return its number. Numbers are never used twice.

        After Unavailable the epoch may have been made all the same: `epochs` then lists it.
        """

    @abstractmethod
    def wrap(self, epoch: int, key: bytes, context: bytes) -> bytes:
        """`key` (secret) encrypted under the epoch's key. Raises Refused for an epoch that is gone."""

    @abstractmethod
    def unwrap(self, epoch: int, wrapped: bytes, context: bytes) -> bytes:
        """The key (secret). Raises Refused (epoch gone), VerificationError (altered, or another context)."""

    @abstractmethod
    def destroy(self, epoch: int) -> None:
        """Forget the epoch's key, durably: what it wrapped can never be read again. Unknown epochs are gone already."""

    def wrap_many(self, epoch: int, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """`wrap` for each (key, context), in order: all or an error."""
        return [self.wrap(epoch, key, context) for key, context in items]

    def unwrap_many(self, epoch: int, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """`unwrap` for each (wrapped, context), in order: all of them, or an error if one was altered."""
        return [self.unwrap(epoch, wrapped, context) for wrapped, context in items]

    def batch(self, reason: str, count: int, who: str = "") -> AbstractContextManager[None]:
        """Declare that what follows unwraps up to `count` keys, what for and for whom: see `Guarded`.

        A provider without a limit takes note of nothing.
        """
        return nullcontext()

    def is_older(self, path: Path) -> bool:
        """Whether a file is an older copy of what the provider keeps, with epochs that were destroyed since.

        A token keeps no files. Raises OSError.
        """
        return False

    def close(self) -> None:
        """Let go of whatever the provider holds open. Closing twice is harmless."""
        return
