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
from typing import Annotated, Literal

import msgspec
from filelock import FileLock, Timeout

from medveil.credentials.files import EncodedKey, Kind, Offer
from privacy.keys import FileKeyProvider
from wire import canonical, evidence
from wire.canonical import Wire
from wire.domains import CREDENTIAL_FOLDER, framed
from wire.errors import Refused, Unavailable
from wire.evidence import Header, read_file, register, write_file
from wire.identifiers import Hash, Name

Rand = Callable[[int], bytes]

_FILES = {"keys", "secret", "lock"}
"""With what they leave when a write is cut short, such as secret.part."""

_CONTEXT = framed(CREDENTIAL_FOLDER, b"")


class Given(Wire, frozen=True, tag="medveil.credential_given"):
    """An offer that was given out, and the commitment on which it was answered: empty as long as it was not."""

    offer: Offer
    answered: bytes


class Signed(Wire, frozen=True, tag="medveil.credential_signed"):
    """What was signed once: for whom or what, on which commitment, and the hash of the values."""

    what: Literal["person", "renewal", "account", "encounter"]
    key: bytes
    commitment: bytes
    values: Hash


class IssuerState(Wire, frozen=True, tag="medveil.credential_issuer"):
    """What an issuer keeps. Secret. material: of its keys; given: its offers; signed: its register."""

    header: Header
    kind: Kind
    issuer: Name
    public: EncodedKey
    material: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    given: tuple[Given, ...]
    signed: tuple[Signed, ...]

    def __repr__(self) -> str:
        return "IssuerState(...)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return []


ISSUER = register("credential-issuer", 1, IssuerState)


class Folder:
    """An open folder. `opened` makes one."""

    def __init__(self, path: Path, keys: FileKeyProvider) -> None:
        self._path, self._keys = path, keys

    def read(self) -> IssuerState:
        """What is in it. Raises VerificationError (altered), DecodeError, Unavailable; Refused if another version of
        medveil wrote it."""
        try:
            sealed = read_file(self._path / "secret")
        except OSError:
            raise Unavailable("wire.unreadable", file=str(self._path / "secret")) from None
        found = evidence.read(self._keys.unwrap(1, sealed, _CONTEXT))
        if not isinstance(found, IssuerState):
            raise Refused("credential_files.other_kind", file=str(self._path / "secret"), expected="IssuerState")
        return found

    def write(self, state: IssuerState) -> None:
        """Put `state` in its place, durably. Raises Unavailable."""
        try:
            write_file(self._path / "secret", self._keys.wrap(1, canonical.encode(state), _CONTEXT))
        except OSError:
            raise Unavailable("client.unwritable", file=str(self._path)) from None


def create(path: Path, passphrase: str, state: IssuerState, rand: Rand) -> IssuerState:
    """Make a folder that is not there yet, or finish one whose making was cut short; returns what it holds then.

    A whole folder of the same issuer and kind stays as it is: `state` was not needed. Raises Refused (another issuer's
    folder, or other files in it), Unavailable, VerificationError (another passphrase).
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        strangers = {one.name.partition(".")[0] for one in path.iterdir()} - _FILES
    except OSError:
        raise Unavailable("client.unwritable", file=str(path)) from None
    if strangers:
        raise Refused("client.file_exists", file=str(path))
    with locked(path / "lock"):
        keys = path / "keys"
        there = keys.is_file()
        folder = Folder(
            path, FileKeyProvider(keys, passphrase) if there else FileKeyProvider.create(keys, passphrase, rand=rand)
        )
        if not (path / "secret").is_file():
            folder.write(state)
            return state
        found = folder.read()
    if (found.kind, found.issuer) != (state.kind, state.issuer):
        raise Refused("client.file_exists", file=str(path))
    return found


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
    except OSError:
        raise Unavailable("client.unwritable", file=str(path)) from None
