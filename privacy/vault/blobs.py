"""Where the sealed bytes of large documents lie: a folder, or any store that `pyarrow.fs` reaches.

A blob has a random name of 16 bytes and is written once. In a folder it is on disk, and its name too, when `write`
returns; elsewhere it is as durable as the store makes what was closed. Nothing here is readable without the key that
the vault's index keeps: a blob that no index names is rubbish, and is removed as such.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from wire.durable import flush
from wire.errors import Refused, Unavailable

NAME_BYTES = 16
_SUFFIX = ".blob"
_OWNER = "vault"
"""The file in a store that says which vault's it is."""


class Blobs:
    """The blobs of one vault. filesystem: all of it is theirs (of a larger one, a `SubTreeFileSystem`); None: `folder`.

    Raises Unavailable where the store cannot be read or written.
    """

    def __init__(self, folder: Path, filesystem: fs.FileSystem | None = None) -> None:
        self.place = str(folder) if filesystem is None else _place(filesystem)
        named = filesystem is not None
        self._folder = folder if filesystem is None else _local(filesystem)
        if filesystem is None:
            filesystem = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
        self._filesystem = filesystem
        self._named = named

    def claim(self, vault: bytes) -> bool:
        """Say that the store is that vault's (its 16-byte id): another's blobs would be rubbish here, and be removed.

        In the vault's own folder nothing is said. Returns whether it was not said before. Raises Refused where another
        vault has said so.
        """
        if not self._named or self._check(vault):
            return False
        with self._errors():
            if self._folder is not None:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                file = self._filesystem.open_output_stream(_OWNER, compression=None)
            except FileNotFoundError:
                if not isinstance(self._filesystem, fs.SubTreeFileSystem):
                    raise
                self._filesystem.base_fs.create_dir(self._filesystem.base_path.rstrip("/"), recursive=True)
                file = self._filesystem.open_output_stream(_OWNER, compression=None)
            with file:
                file.write(vault.hex().encode())
        return True

    def check(self, vault: bytes) -> None:
        """Check that the store is there and that vault's: a disk that is not mounted looks like an empty one.

        Raises Refused (another's), Unavailable (`claim` was never called here).
        """
        if self._named and not self._check(vault):
            raise Unavailable("privacy.blobs_missing", path=self.place, retry_after=60)

    def _check(self, vault: bytes) -> bool:
        """Whether it says so. Raises Refused where it says another."""
        with self._errors():
            try:
                with self._filesystem.open_input_stream(_OWNER, compression=None) as file:
                    found = file.read()
            except FileNotFoundError:
                return False
        if found != vault.hex().encode():
            raise Refused("privacy.blobs_of_other", path=self.place)
        return True

    def let_go(self) -> None:
        """Take back what `claim` said."""
        with self._errors(), suppress(FileNotFoundError):
            self._filesystem.delete_file(_OWNER)

    def write(self, blob: bytes, chunks: Iterable[bytes]) -> int:
        """Write a new blob, durably; returns its length. What was written of one that fails is removed."""
        path, length = _path(blob), 0
        try:
            with self._errors():
                if self._folder is not None:
                    _for_its_owner(self._folder / path)
                self._filesystem.create_dir(path.rpartition("/")[0], recursive=True)
            # Errors of `chunks` pass as they are: they are of the text that is read, not of the store.
            with self._errors():
                stream = self._filesystem.open_output_stream(path, compression=None)
            try:
                for chunk in chunks:
                    with self._errors():
                        stream.write(chunk)
                    length += len(chunk)
            finally:
                with self._errors():
                    stream.close()
            if self._folder is not None:
                with self._errors():
                    _on_disk(self._folder / path, self._folder)
        except BaseException:
            with suppress(Unavailable):
                self.remove(blob)
            raise
        return length

    def read(self, blob: bytes) -> BlobSource | None:
        """The blob's bytes, to be read and closed; None where there is none."""
        with self._errors():
            try:
                return BlobSource(self._filesystem.open_input_stream(_path(blob), compression=None), self._errors)
            except FileNotFoundError:
                return None

    def remove(self, blob: bytes) -> None:
        """Remove a blob; it may be gone already."""
        with self._errors(), suppress(FileNotFoundError):
            self._filesystem.delete_file(_path(blob))

    def names(self) -> Iterator[bytes]:
        """The names of all blobs, whole or begun; files of other names are passed over."""
        with self._errors():
            found = self._filesystem.get_file_info(fs.FileSelector("", allow_not_found=True, recursive=True))
        for info in found:
            name = info.base_name.removesuffix(_SUFFIX)
            with suppress(ValueError):
                if info.type == fs.FileType.File and _path(bytes.fromhex(name)) == info.path.lstrip("/"):
                    yield bytes.fromhex(name)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
            raise Unavailable("privacy.store_failed", path=self.place, reason=reason, retry_after=5) from None


class BlobSource:
    """A blob that is read. Raises Unavailable where the store fails on the way."""

    def __init__(self, stream: Any, errors: Callable[[], AbstractContextManager[None]]) -> None:
        self._stream, self._errors = stream, errors

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        with self._errors():
            data: bytes = self._stream.read(size)
        return data

    def close(self) -> None:
        """Let go of it."""
        with suppress(OSError, pa.ArrowException):
            self._stream.close()

    def __enter__(self) -> BlobSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _path(blob: bytes) -> str:
    name = blob.hex()
    return f"{name[:2]}/{name}{_SUFFIX}"


def _place(filesystem: fs.FileSystem) -> str:
    """A store in messages: its kind, and the path in it; nothing of its address, which may hold a secret."""
    if isinstance(filesystem, fs.SubTreeFileSystem):
        return f"{filesystem.base_fs.type_name}:{filesystem.base_path.rstrip('/')}"
    return str(filesystem.type_name)


def _local(filesystem: fs.FileSystem) -> Path | None:
    """The folder where a file system's root lies on this machine; None where it is elsewhere."""
    if isinstance(filesystem, fs.LocalFileSystem):
        return Path("/")
    if isinstance(filesystem, fs.SubTreeFileSystem):
        base = _local(filesystem.base_fs)
        return None if base is None else base / filesystem.base_path.lstrip("/")
    return None


def _for_its_owner(path: Path) -> None:
    """An empty file, and the folders on the way to it, that nobody else may read: pyarrow would ask the umask."""
    for folder in reversed([one for one in path.parents if not one.exists()]):
        folder.mkdir(mode=0o700, exist_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _on_disk(path: Path, root: Path) -> None:
    """Put a file on the disk, and the names on the way to it."""
    for one in (path, path.parent, root, root.parent):
        flush(one)
