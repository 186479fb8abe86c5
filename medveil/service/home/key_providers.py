"""Who keeps the keys of a home's epochs, as gateway.toml says: its file ``keys``, or a PKCS#11 token.

Both are behind the limit on unwraps (`privacy.keys.Guarded`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from medveil.service.home.config import Keys
from privacy.keys import FileKeyProvider, Guarded, KeyProvider, Pkcs11KeyProvider
from wire.errors import MedveilError

KEY_FILE = "keys"


def create_keys(folder: Path, organisation: str, keys: Keys, secret: str, rand: Callable[[int], bytes]) -> Guarded:
    """A new set of keys. secret: the file's passphrase, or the token's PIN. Raises as the providers."""
    provider: KeyProvider
    if keys.provider == "pkcs11":
        name = keys.name or organisation
        provider = Pkcs11KeyProvider.create(keys.module, keys.token, name, secret, patience=keys.patience, rand=rand)
    else:
        provider = FileKeyProvider.create(folder / KEY_FILE, secret, rand=rand)
    return Guarded(provider, rate=keys.rate, burst=keys.burst)


def discard_keys(guard: Guarded) -> None:
    """Take back what `create_keys` made, for a home that was not finished; a key file goes with its folder."""
    if isinstance(guard.provider, Pkcs11KeyProvider):
        with suppress(MedveilError):  # what is left is named when somebody tries again
            guard.provider.remove()
    guard.close()


def open_keys(folder: Path, organisation: str, keys: Keys, secret: str, rand: Callable[[int], bytes]) -> Guarded:
    """The set of keys that `create_keys` made. Raises as the providers."""
    provider: KeyProvider
    if keys.provider == "pkcs11":
        name = keys.name or organisation
        provider = Pkcs11KeyProvider(keys.module, keys.token, name, secret, patience=keys.patience, rand=rand)
    else:
        provider = FileKeyProvider(folder / KEY_FILE, secret, rand=rand)
    return Guarded(provider, rate=keys.rate, burst=keys.burst)
