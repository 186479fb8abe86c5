"""A holder's wallet in a file (`zkp.wallet`, `zkp.wallet_file`), locked while it is used.

The wallet is encrypted under a passphrase, and everything that it chooses follows from its seed: an application that
was lost is made again from the same offer, or from another one, and gets the same answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medveil.credentials.folder import Rand, locked
from wire.durable import flush
from wire.errors import DecodeError, Refused, Unavailable
from wire.evidence import read_file, write_file
from zkp import wallet_file
from zkp.wallet import Wallet, new, restored


def create(path: Path, passphrase: str, chain: str, rand: Rand) -> None:
    """A fresh wallet for one chain, in a file that is not there yet. Raises Refused, Unavailable."""
    if path.exists():
        raise Refused("client.file_exists", file=str(path))
    _write(path, wallet_file.seal(new(chain, rand), passphrase, rand))


def restore(path: Path, passphrase: str, chain: str, seed: bytes, rand: Rand) -> None:
    """The wallet of a known seed, empty still, in a file that is not there yet: what was applied for is applied for
    again, and gets the same answer. Raises Refused, Unavailable."""
    if path.exists():
        raise Refused("client.file_exists", file=str(path))
    _write(path, wallet_file.seal(restored(chain, seed), passphrase, rand))


def write_seed(path: Path, seed: bytes) -> None:
    """The seed in hex, in a new file that its owner alone may read. Raises Refused, Unavailable."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(seed.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        flush(path.parent)
    except FileExistsError:
        raise Refused("client.file_exists", file=str(path)) from None
    except OSError:
        raise Unavailable("client.unwritable", file=str(path)) from None


def parse_seed(text: str, file: Path) -> bytes:
    """The seed that `file` held. Raises DecodeError."""
    try:
        seed = bytes.fromhex(text)
    except ValueError:
        seed = b""
    if len(seed) != 32:
        raise DecodeError("credential_files.seed", file=str(file))
    return seed


def _write(path: Path, data: bytes) -> None:
    try:
        write_file(path, data)
        path.chmod(0o600)
    except OSError:
        raise Unavailable("client.unwritable", file=str(path)) from None


class Kept:
    """An open wallet. `opened` makes one."""

    def __init__(self, path: Path, passphrase: str, wallet: Wallet) -> None:
        self._path, self._passphrase, self.wallet = path, passphrase, wallet

    def save(self, wallet: Wallet, rand: Rand) -> None:
        """Put the next wallet in the file's place, durably. Raises Unavailable."""
        _write(self._path, wallet_file.seal(wallet, self._passphrase, rand))
        self.wallet = wallet


@contextmanager
def opened(path: Path, passphrase: str) -> Iterator[Kept]:
    """The wallet in a file. Raises Unavailable (none there, in use), DecodeError, VerificationError (passphrase)."""
    if not path.is_file():
        raise Unavailable("credential_files.no_wallet", file=str(path))
    with locked(path.with_name(path.name + ".lock")):
        try:
            data = read_file(path)
        except OSError:
            raise Unavailable("wire.unreadable", file=str(path)) from None
        yield Kept(path, passphrase, wallet_file.unseal(data, passphrase))
