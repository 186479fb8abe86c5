"""An issuer's folder under a passphrase: its key material, what it has offered, what it has signed.

    keys      a key under the passphrase (`privacy.keys.FileKeyProvider`: argon2id, AES-256-GCM)
    secret    one canonical struct, sealed under that key
    lock      held while the folder is open

A change is on disk, whole, when `write` returns. It protects a lost disk, not a running machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from filelock import FileLock, Timeout

from medveil.credentials.files import EncodedKey, Kind, Offer
from privacy.keys import FileKeyProvider
from wire import canonical
from wire.canonical import Wire
from wire.domains import CREDENTIAL_FOLDER, framed
from wire.errors import Refused, Unavailable
from wire.evidence import read_file, write_file
from wire.identifiers import Name

Rand = Callable[[int], bytes]

_CONTEXT = framed(CREDENTIAL_FOLDER, b"")


class Signed(Wire, frozen=True, tag="medveil.credential_signed"):
    """What was signed once, and on which commitment."""

    key: bytes
    commitment: bytes


class IssuerState(Wire, frozen=True, tag="medveil.credential_issuer"):
    """What an issuer keeps. Secret. material: of its keys; offers: given out; signed: its register."""

    kind: Kind
    issuer: Name
    public: EncodedKey
    material: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    offers: tuple[Offer, ...]
    signed: tuple[Signed, ...]

    def __repr__(self) -> str:
        return "IssuerState(...)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return []


class Folder:
    """An open folder. `opened` makes one."""

    def __init__(self, path: Path, keys: FileKeyProvider) -> None:
        self._path, self._keys = path, keys

    def read(self) -> IssuerState:
        """What is in it. Raises VerificationError (altered), DecodeError, Unavailable."""
        try:
            sealed = read_file(self._path / "secret")
        except OSError:
            raise Unavailable("wire.unreadable", file=str(self._path / "secret")) from None
        return canonical.decode(IssuerState, self._keys.unwrap(1, sealed, _CONTEXT))

    def write(self, state: IssuerState) -> None:
        """Put `state` in its place, durably. Raises Unavailable."""
        try:
            write_file(self._path / "secret", self._keys.wrap(1, canonical.encode(state), _CONTEXT))
        except OSError:
            raise Unavailable("client.unwritable", file=str(self._path)) from None


def create(path: Path, passphrase: str, state: IssuerState, rand: Rand) -> None:
    """Make a folder that is not there yet. Raises Refused, Unavailable."""
    if path.exists():
        raise Refused("client.file_exists", file=str(path))
    try:
        path.mkdir(mode=0o700, parents=True)
    except OSError:
        raise Unavailable("client.unwritable", file=str(path)) from None
    Folder(path, FileKeyProvider.create(path / "keys", passphrase, rand=rand)).write(state)


@contextmanager
def opened(path: Path, passphrase: str) -> Iterator[Folder]:
    """The folder that `create` made, locked while it is used.

    Raises Unavailable (none there, or in use), VerificationError (another passphrase).
    """
    if not (path / "keys").is_file():
        raise Unavailable("credential_files.no_folder", folder=str(path))
    with locked(path / "lock"):
        yield Folder(path, FileKeyProvider(path / "keys", passphrase))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock at `path`. Raises Unavailable if another process does."""
    try:
        with FileLock(path, timeout=0, mode=0o600):
            yield
    except Timeout:
        raise Unavailable("credential_files.in_use", folder=str(path.parent), retry_after=1) from None
