"""The keys of the epochs in one file under a passphrase.

    kek          = argon2id(passphrase, salt, cost)                         RFC 9106
    wrapped_e    = AES-256-GCM(HMAC(kek, "wrap"), key_e; salt, e)
    mac          = HMAC(HMAC(kek, "mac"), everything before it)

It protects a stolen disk, not a running machine: the keys are in this process's memory. An older
copy of the file brings destroyed epochs back; the file cannot know that it is old.
"""

from __future__ import annotations

import hmac
import os
import secrets
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from argon2.exceptions import HashingError
from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from filelock import FileLock, Timeout

from privacy.keys.provider import KEY_BYTES, NONCE_BYTES, TAG_BYTES, Epoch, KeyProvider
from wire.canonical import Wire, decode, encode
from wire.domains import EPOCH_KEY, framed, keyed
from wire.durable import put_in_place
from wire.errors import DecodeError, Refused, Unavailable, VerificationError

VERSION = 1
_LONGEST = 1 << 20
"""Bytes of a key file; each epoch takes about a hundred."""


class Argon2Cost(Wire, frozen=True, tag="privacy.argon2_cost"):
    """Cost of turning the passphrase into a key. memory in KiB."""

    time: Annotated[int, msgspec.Meta(ge=1, le=32)]
    memory: Annotated[int, msgspec.Meta(ge=8, le=2**20)]
    lanes: Annotated[int, msgspec.Meta(ge=1, le=16)]


STRONG = Argon2Cost(time=3, memory=64 * 1024, lanes=4)
"""RFC 9106's second recommended setting: about a tenth of a second and 64 MiB."""


class WrappedEpoch(Wire, frozen=True, tag="privacy.wrapped_epoch"):
    """One epoch's key under the passphrase's: nonce and ciphertext."""

    epoch: Epoch
    wrapped: bytes


class KeyFile(Wire, frozen=True, tag="privacy.key_file"):
    """The file. next_epoch: the number that the next epoch gets. mac: over the file with an empty mac."""

    version: int
    salt: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    cost: Argon2Cost
    next_epoch: Epoch
    epochs: tuple[WrappedEpoch, ...]
    mac: bytes


class FileKeyProvider(KeyProvider):
    """A KeyProvider in one file. The constructor opens an existing file; `create` makes one.

    passphrase: secret text, or bytes of a key file. Raises Unavailable (no such file), DecodeError
    (not a key file), VerificationError (wrong passphrase or altered file: the two look the same).
    """

    def __init__(
        self, path: Path, passphrase: str | bytes, *, rand: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        self.path = path
        self._rand = rand
        self._bytes = _read(path)
        file = decode(KeyFile, self._bytes)
        if file.version > VERSION:
            raise Refused("privacy.store_newer", path=str(path), version=file.version, known=VERSION)
        self._open(file, _stretch(passphrase, file.salt, file.cost))

    @classmethod
    def create(
        cls,
        path: Path,
        passphrase: str | bytes,
        *,
        cost: Argon2Cost = STRONG,
        rand: Callable[[int], bytes] = secrets.token_bytes,
    ) -> FileKeyProvider:
        """Make the file with its first epoch. Raises Refused where there is a file already."""
        if path.exists():
            raise Refused("privacy.store_exists", path=str(path))
        provider = cls.__new__(cls)
        provider.path, provider._rand, provider._bytes = path, rand, b""
        salt = rand(16)
        provider._open(KeyFile(VERSION, salt, cost, 1, (), b""), _stretch(passphrase, salt, cost), check=False)
        provider.new_epoch()
        return provider

    def _open(self, file: KeyFile, kek: bytes, check: bool = True) -> None:
        self._wrapping = AESGCM(keyed(kek, EPOCH_KEY, b"wrap"))
        self._mac_key = keyed(kek, EPOCH_KEY, b"mac")
        if check and not hmac.compare_digest(file.mac, self._mac(file)):
            raise VerificationError("privacy.key_file", path=str(self.path))
        self._file = file
        self._keys = {entry.epoch: AESGCM(self._unwrap_epoch(entry)) for entry in file.epochs}

    def _mac(self, file: KeyFile) -> bytes:
        return keyed(self._mac_key, EPOCH_KEY, encode(msgspec.structs.replace(file, mac=b"")))

    def _place(self, epoch: int) -> bytes:
        return framed(EPOCH_KEY, self._file.salt + epoch.to_bytes(4, "big"))

    def _unwrap_epoch(self, entry: WrappedEpoch) -> bytes:
        try:
            return _decrypt(self._wrapping, entry.wrapped, self._place(entry.epoch))
        except InvalidTag:
            raise VerificationError("privacy.key_file", path=str(self.path)) from None

    def epochs(self) -> tuple[int, ...]:
        """The epochs that exist, rising; the last one is current."""
        return tuple(sorted(self._keys))

    def new_epoch(self) -> int:
        """A new epoch, on disk when this returns."""
        epoch = self._file.next_epoch
        key = self._rand(KEY_BYTES)
        entry = WrappedEpoch(epoch, _encrypt(self._wrapping, self._rand, key, self._place(epoch)))
        self._write((*self._file.epochs, entry), epoch + 1)
        self._keys[epoch] = AESGCM(key)
        return epoch

    def wrap(self, epoch: int, key: bytes, context: bytes) -> bytes:
        """`key` under the epoch's key: 12 bytes of nonce, ciphertext, 16 bytes of tag."""
        return _encrypt(self._of(epoch), self._rand, key, context)

    def unwrap(self, epoch: int, wrapped: bytes, context: bytes) -> bytes:
        """The key that `wrap` got. Raises VerificationError where anything differs."""
        try:
            return _decrypt(self._of(epoch), wrapped, context)
        except InvalidTag:
            raise VerificationError("privacy.wrapped_key", epoch=epoch) from None

    def wrap_many(self, epoch: int, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """`wrap` for each (key, context)."""
        encrypt = self._of(epoch).encrypt
        nonces = self._rand(NONCE_BYTES * len(items))
        wrapped = []
        for place, (key, context) in enumerate(items):
            nonce = nonces[place * NONCE_BYTES : (place + 1) * NONCE_BYTES]
            wrapped.append(nonce + encrypt(nonce, key, context))
        return wrapped

    def unwrap_many(self, epoch: int, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """`unwrap` for each (wrapped, context)."""
        decrypt = self._of(epoch).decrypt
        try:
            return [decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], context) for wrapped, context in items]
        except (InvalidTag, ValueError):  # a ValueError for one that is too short to have a nonce
            raise VerificationError("privacy.wrapped_key", epoch=epoch) from None

    def destroy(self, epoch: int) -> None:
        """Forget the epoch: gone from the file when this returns. Unknown epochs are forgotten already."""
        self._write(tuple(entry for entry in self._file.epochs if entry.epoch != epoch), self._file.next_epoch)
        self._keys.pop(epoch, None)

    def is_older(self, path: Path) -> bool:
        """Whether a file is an older copy of this one, with epochs that were destroyed since. Raises OSError."""
        if path.stat().st_size > _LONGEST:
            return False
        try:
            file = decode(KeyFile, path.read_bytes())
        except DecodeError:
            return False
        return file.salt == self._file.salt and any(entry.epoch not in self._keys for entry in file.epochs)

    def _of(self, epoch: int) -> AESGCM:
        key = self._keys.get(epoch)
        if key is None:
            raise Refused("privacy.epoch_gone", epoch=epoch)
        return key

    def _write(self, epochs: tuple[WrappedEpoch, ...], next_epoch: int) -> None:
        bare = msgspec.structs.replace(self._file, epochs=epochs, next_epoch=next_epoch)
        file = msgspec.structs.replace(bare, mac=self._mac(bare))
        data = encode(file)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(self.path.with_name(self.path.name + ".lock"), mode=0o600).acquire(timeout=5):
                if self._bytes and _read(self.path) != self._bytes:
                    raise Unavailable("privacy.key_file_changed", path=str(self.path))
                _replace(self.path, data)
        except Timeout:
            raise Unavailable("privacy.store_in_use", path=str(self.path), retry_after=5) from None
        except OSError as error:
            raise Unavailable("privacy.store_failed", path=str(self.path), reason=error.strerror or "I/O") from None
        self._file, self._bytes = file, data

    def __repr__(self) -> str:
        return f"FileKeyProvider({str(self.path)!r}, epochs={self.epochs()})"


def _stretch(passphrase: str | bytes, salt: bytes, cost: Argon2Cost) -> bytes:
    # One passphrase has one spelling: NFC, whatever the keyboard composed.
    secret = unicodedata.normalize("NFC", passphrase).encode() if isinstance(passphrase, str) else passphrase
    if not secret:
        raise Refused("privacy.no_passphrase")
    try:
        return hash_secret_raw(secret, salt, cost.time, max(cost.memory, 8 * cost.lanes), cost.lanes, 32, Type.ID)
    except HashingError:
        raise Unavailable("privacy.no_memory", mebibytes=cost.memory // 1024) from None


def _encrypt(key: AESGCM, rand: Callable[[int], bytes], plaintext: bytes, context: bytes) -> bytes:
    nonce = rand(NONCE_BYTES)
    return nonce + key.encrypt(nonce, plaintext, context)


def _decrypt(key: AESGCM, sealed: bytes, context: bytes) -> bytes:
    if len(sealed) < NONCE_BYTES + TAG_BYTES:
        raise InvalidTag
    return key.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise Unavailable("privacy.store_missing", path=str(path)) from None
    except OSError as error:
        raise Unavailable("privacy.store_failed", path=str(path), reason=error.strerror or "I/O") from None


def _replace(path: Path, data: bytes) -> None:
    """Put `data` at `path`, durably and all or nothing, then overwrite what stood there before."""
    new = path.with_name(path.name + ".new")
    descriptor = os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    old = path.open("r+b") if path.exists() else None
    put_in_place(new, path)
    if old is not None:
        with old:
            size = old.seek(0, os.SEEK_END)
            old.seek(0)
            old.write(bytes(size))
            old.flush()
            os.fsync(old.fileno())
