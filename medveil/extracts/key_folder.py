"""A recipient's folder under a passphrase: a secret key that extracts are sealed to.

    keys      a key under the passphrase (`privacy.keys.FileKeyProvider`: argon2id, AES-256-GCM)
    secret    one canonical struct, sealed under that key

For whoever does not want the organisation's own sealing key to open extracts, or wants one that lasts against a quantum
computer (X25519 with ML-KEM-768). It protects a lost disk, not a running machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from privacy.keys import STRONG, Argon2Cost, FileKeyProvider
from wire import canonical
from wire.canonical import Wire
from wire.domains import EXTRACT_FOLDER, framed
from wire.durable import put_in_place
from wire.errors import Refused, Unavailable
from wire.evidence import read_file, write_file
from wire.identifiers import Name, check_name
from wire.sealing import HYBRID, X25519, OpenKey, SealKey

Suite = Literal["x25519", "hybrid"]
SUITES: dict[Suite, int] = {"x25519": X25519, "hybrid": HYBRID}

_CONTEXT = framed(EXTRACT_FOLDER, b"")


class ExtractKey(Wire, frozen=True, tag="medveil.extract_key"):
    """What the recipient hands to an issuer: the key that its extracts are to be sealed to. Public."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    organisation: Name
    key: SealKey


class _Secret(Wire, frozen=True, tag="medveil.extract_secret"):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    organisation: Name
    suite: int
    secret: bytes

    def __repr__(self) -> str:
        return "_Secret()"


def make_key(
    folder: Path,
    passphrase: str,
    organisation: str,
    suite: Suite,
    rand: Callable[[int], bytes],
    *,
    cost: Argon2Cost = STRONG,
) -> ExtractKey:
    """Make the folder, which is not there yet; returns the public key. Raises Refused, Unavailable."""
    check_name(organisation, "organisation")
    if folder.exists():
        raise Refused("client.file_exists", file=str(folder))
    part = folder.with_name(f".{folder.name}.partial")
    secret = rand(32 if SUITES[suite] == X25519 else 96)
    made = ExtractKey(1, organisation, OpenKey(SUITES[suite], secret).key)
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(mode=0o700, parents=True)
        keys = FileKeyProvider.create(part / "keys", passphrase, cost=cost, rand=rand)
        kept = canonical.encode(_Secret(1, organisation, SUITES[suite], secret))
        write_file(part / "secret", keys.wrap(keys.epochs()[-1], kept, _CONTEXT))
        put_in_place(part, folder)
    except OSError:
        raise Unavailable("client.unwritable", file=str(folder)) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return made


def open_key(folder: Path, passphrase: str) -> tuple[str, OpenKey]:
    """Whose the folder is, and its secret key.

    Raises Unavailable (none there), VerificationError (another passphrase, altered), DecodeError.
    """
    keys = FileKeyProvider(folder / "keys", passphrase)
    try:
        sealed = read_file(folder / "secret")
    except OSError:
        raise Unavailable("wire.unreadable", file=str(folder / "secret")) from None
    kept = canonical.decode(_Secret, keys.unwrap(keys.epochs()[-1], sealed, _CONTEXT))
    return kept.organisation, OpenKey(kept.suite, kept.secret)
