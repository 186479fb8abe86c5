"""Who keeps the keys of the vault's epochs: a file under a passphrase, or a PKCS#11 token; and the limit before it."""

from privacy.keys.file_keys import STRONG, Argon2Cost, FileKeyProvider, KeyFile, WrappedEpoch
from privacy.keys.guarded import Guarded, KeyEvent
from privacy.keys.pkcs11_keys import Pkcs11KeyProvider
from privacy.keys.provider import KEY_BYTES, NONCE_BYTES, TAG_BYTES, Epoch, KeyProvider

__all__ = [
    "KeyProvider",
    "FileKeyProvider",
    "Pkcs11KeyProvider",
    "Guarded",
    "KeyEvent",
    "KeyFile",
    "WrappedEpoch",
    "Argon2Cost",
    "STRONG",
    "Epoch",
    "KEY_BYTES",
    "NONCE_BYTES",
    "TAG_BYTES",
]
