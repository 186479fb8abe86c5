"""Evidence: files that an outsider can check, and the signed manifest of a folder of them.

A file is the canonical bytes of one tagged struct whose first field is its `Header`. Parts register
the struct of each kind they write; `read` finds the struct by the header and refuses unknown kinds,
versions and suites. A folder holds ``manifest.json``: path, length, SHA-256 and kind of every file,
signed by the exporting organisation, so that a changed, added, removed or renamed file fails.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec

from wire import canonical
from wire.canonical import Wire
from wire.domains import MANIFEST
from wire.durable import put_in_place
from wire.errors import DecodeError, Refused, Unavailable, VerificationError
from wire.identifiers import NAME_PATTERN, Name
from wire.signing import Signature, Signer, VerifyKey, verify

SUITE = 1
"""The one suite of today: SHA-256, ed25519, BLS12-381."""

MANIFEST_NAME = "manifest.json"
SUFFIX = ".evidence"


class Header(Wire, frozen=True, tag="wire.header"):
    """First field of every evidence struct: what it is, in which version and suite."""

    kind: Name
    version: Annotated[int, msgspec.Meta(ge=1, le=255)]
    suite: Annotated[int, msgspec.Meta(ge=1, le=255)]


_PLAIN_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
"""What no file system, shell or terminal reads as anything but a name."""

_kinds: dict[tuple[str, int], type[Wire]] = {}


def register(kind: str, version: int, struct: type[Wire]) -> Header:
    """Make `struct` the type of evidence `kind` in `version`; returns the header it must carry.

    The struct's first field must be ``header: Header``, its tag the kind's own. Registering a second
    struct under the same kind and version is a caller's bug: ValueError.
    """
    fields = struct.__struct_fields__
    if not fields or fields[0] != "header":
        raise ValueError(f"{struct.__name__} must have `header: Header` as its first field")
    if _kinds.setdefault((kind, version), struct) is not struct:
        raise ValueError(f"evidence kind {kind!r} version {version} is registered twice")
    return Header(kind, version, SUITE)


def kinds() -> tuple[tuple[str, int], ...]:
    """The registered kinds and versions, sorted."""
    return tuple(sorted(_kinds))


def read_file(path: Path, limit: int = canonical.LARGEST) -> bytes:
    """The bytes of a regular file of at most `limit` bytes, none of them read if it is longer.

    A pipe or a device, which may have no end or never begin, is refused before it is read. Raises OSError, Refused,
    DecodeError.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise DecodeError("wire.too_long", kind="file", length=size, limit=limit)
        data = file.read(size or limit + 1)
    if len(data) > limit:
        raise DecodeError("wire.too_long", kind="file", length=len(data), limit=limit)
    return data


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """A regular file, opened for reading; nothing else is waited for or read. Raises OSError, Refused."""
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Refused("wire.no_file", file=str(path))
        yield file


def write_file(path: Path, data: bytes) -> None:
    """Write a file durably, whole or not at all: what stood there before stays until then. Raises OSError."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        put_in_place(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # or a pipe that nobody writes to would be waited for


_BEGINNING = re.compile(
    rb"(?:[\x91-\x9f]|\xdc..)(?:[\xa1-\xbf]|\xd9.)[a-z0-9._-]{1,64}(?P<header>\x94\xabwire\.header)", re.DOTALL
)
"""How every evidence file begins: an array, the struct's tag, its header. Nothing of a file is decoded before its
kind is known: what is decoded without a type can take a hundred times its length."""


def _header(data: bytes) -> Header:
    begins = _BEGINNING.match(data)
    if begins is None:
        raise DecodeError("wire.not_evidence")
    at = begins.end()
    try:
        for _ in range(3):  # kind, version, suite
            at = _end_of_value(data, at)
        return canonical.decode(Header, data[begins.start("header") : at])
    except (DecodeError, IndexError):
        raise DecodeError("wire.not_evidence") from None


def _end_of_value(data: bytes, at: int) -> int:
    """Where the short text or small number ends that begins at `at`."""
    first = data[at]
    if first == 0xD9:
        return at + 2 + data[at + 1]
    if first == 0xCC:
        return at + 2
    return at + 1 + (first & 0x1F if 0xA0 <= first <= 0xBF else 0)


def read(data: bytes) -> Any:
    """The evidence struct that `data` encodes. Raises DecodeError for anything else."""
    if len(data) > canonical.LARGEST:
        raise DecodeError("wire.too_long", kind="evidence", length=len(data), limit=canonical.LARGEST)
    header = _header(data)
    struct = _kinds.get((header.kind, header.version))
    if struct is None or header.suite != SUITE:
        raise DecodeError("wire.unknown_kind", kind=header.kind, version=header.version, suite=header.suite)
    return canonical.decode(struct, data)


class ListedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file of a folder. path: relative, with forward slashes; sha256: lower-case hex."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    kind: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, max_length=64)]
    length: Annotated[int, msgspec.Meta(ge=0)]
    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class ManifestBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the exporter signs. created: instant; files: sorted by path."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    chain: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, max_length=64)]
    exporter: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, max_length=64)]
    created: int
    files: tuple[ListedFile, ...]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``manifest.json``. key_id and signature: lower-case hex, ed25519 under domain MANIFEST."""

    body: ManifestBody
    algorithm: Annotated[int, msgspec.Meta(ge=1, le=255)]
    key_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    signature: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}\Z")]


def to_json(struct: Any) -> bytes:
    """The one JSON text of a struct: fields in order, two spaces, a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(struct, order="deterministic"), indent=2) + b"\n"


def _message(body: ManifestBody) -> bytes:
    return msgspec.json.encode(body, order="deterministic")


def _files_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            yield path


def write_manifest(
    folder: Path, kinds_by_path: dict[str, str], chain: str, exporter: str, at: int, signer: Signer
) -> None:
    """List and sign every file of `folder`. kinds_by_path: relative posix path -> kind; at: instant."""
    listed = []
    for path in _files_below(folder):
        name = path.relative_to(folder).as_posix()
        if name == MANIFEST_NAME:
            continue
        data = path.read_bytes()
        listed.append(ListedFile(name, kinds_by_path[name], len(data), hashlib.sha256(data).hexdigest()))
    listed.sort(key=lambda file: file.path)  # as text: a folder's parts would sort ledger/ before ledger-head
    body = ManifestBody(1, chain, exporter, at, tuple(listed))
    signature = signer.sign(MANIFEST, _message(body))
    manifest = Manifest(body, signature.algorithm, signature.key_id.hex(), signature.value.hex())
    (folder / MANIFEST_NAME).write_bytes(to_json(manifest))


def read_manifest(folder: Path) -> Manifest:
    """Parse ``manifest.json``. Raises Unavailable (no such file), Refused, DecodeError (not its one JSON text)."""
    path = folder / MANIFEST_NAME
    try:
        data = read_file(path)
    except OSError:
        raise Unavailable("wire.no_manifest", folder=str(folder)) from None
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise DecodeError("wire.bad_manifest", file=MANIFEST_NAME) from None
    if to_json(manifest) != data:
        raise DecodeError("wire.bad_manifest", file=MANIFEST_NAME)
    return manifest


def check_manifest(folder: Path, manifest: Manifest, key: VerifyKey) -> None:
    """Check the signature by the exporter's envelope `key`, then every file of `folder`.

    Raises VerificationError naming the first file that was changed, added, removed or renamed.
    """
    signature = Signature(manifest.algorithm, bytes.fromhex(manifest.key_id), bytes.fromhex(manifest.signature))
    try:
        verify(key, MANIFEST, _message(manifest.body), signature)
    except VerificationError:
        raise VerificationError(
            "wire.manifest_signature", file=MANIFEST_NAME, exporter=manifest.body.exporter
        ) from None
    _check_paths(file.path for file in manifest.body.files)
    present = {path.relative_to(folder).as_posix(): path for path in _files_below(folder)}
    present.pop(MANIFEST_NAME, None)
    listed = {file.path: file for file in manifest.body.files}
    for name in sorted(present.keys() - listed.keys()):
        raise VerificationError("wire.file_added", file=name)
    for name in sorted(listed.keys() - present.keys()):
        raise VerificationError("wire.file_removed", file=name)
    for name, file in sorted(listed.items()):
        path = present[name]
        if path.is_symlink() or not path.is_file():
            raise VerificationError("wire.file_changed", file=name)
        try:
            data = read_file(path)
        except OSError:
            raise Unavailable("wire.unreadable", file=name) from None
        if len(data) != file.length or hashlib.sha256(data).hexdigest() != file.sha256:
            raise VerificationError("wire.file_changed", file=name)


def _check_paths(paths: Iterable[str]) -> None:
    """Listed paths are plain ASCII names that stay inside the folder, are in order and none is listed twice."""
    before = ""
    for name in paths:
        if not _PLAIN_PATH.fullmatch(name) or name <= before or name == MANIFEST_NAME:
            raise VerificationError("wire.bad_manifest", file=MANIFEST_NAME)
        before = name
