"""The process that speaks to a PKCS#11 token, so that a vendor's library never hangs or crashes a gateway.

`Pkcs11KeyProvider` starts it with one end of a socket pair and sends requests; a PIN, data keys and
wrapped keys pass through the pair and nowhere else. On the token, for a set of keys called NAME:

    secret key  medveil/NAME/epoch/E   AES-256, made on the token, CKA_SENSITIVE, not CKA_EXTRACTABLE,
                                       allowed to encrypt and decrypt alone; CKA_ID = E, 4 bytes
    data object medveil/NAME/next      the number that the next epoch gets, 4 bytes; written before the key

Wrapping is CKM_AES_GCM over the data key, with the nonce that came with the request. The process ends
when the other side is gone, and by itself when the token keeps a request for longer than its patience.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from typing import Any

import msgspec
import pkcs11
from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, ObjectClass, PKCS11Error

from privacy.keys.own_memory import keep_own_memory
from privacy.keys.provider import NONCE_BYTES, TAG_BYTES
from privacy.keys.token_line import (
    Answers,
    Connect,
    Destroy,
    Epochs,
    Failed,
    NewEpoch,
    Remove,
    Wrap,
    receive,
    requests,
    send,
)

_TAG_BITS = 8 * TAG_BYTES

_GONE = (pkcs11.ObjectHandleInvalid, pkcs11.KeyHandleInvalid, pkcs11.UnwrappingKeyHandleInvalid)
_ALTERED = (pkcs11.EncryptedDataInvalid, pkcs11.EncryptedDataLenRange, pkcs11.DataInvalid, pkcs11.DataLenRange)
_PIN = (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange, pkcs11.PinExpired, pkcs11.UserPinNotInitialized)

PLACE = "medveil"


class _Trouble(Exception):
    def __init__(self, why: str, reason: str) -> None:
        super().__init__(why)
        self.why, self.reason = why, reason


class TokenKeys:
    """The keys of one set on one token, in a session of its own. Raises PKCS11Error, or `_Trouble` with a word."""

    def __init__(self, asked: Connect) -> None:
        try:
            library = pkcs11.lib(asked.module)
        except (PKCS11Error, OSError):
            raise _Trouble("module", asked.module) from None
        try:
            token = library.get_token(token_label=asked.token)
        except (pkcs11.NoSuchToken, pkcs11.TokenNotPresent):
            raise _Trouble("token", asked.token) from None
        if Mechanism.AES_GCM not in token.slot.get_mechanisms():
            raise _Trouble("mechanism", asked.token)
        try:
            self._session: Any = token.open(rw=True, user_pin=asked.pin)
        except pkcs11.PinLocked:
            raise _Trouble("pin_locked", asked.token) from None
        except _PIN:
            raise _Trouble("pin", asked.token) from None
        self._prefix = f"{PLACE}/{asked.name}/"
        self._keys: dict[int, Any] = {}
        self._read()
        known = bool(self._counters()) or bool(self._keys)
        if asked.create and known:
            raise _Trouble("exists", asked.name)
        if not asked.create and not known:
            raise _Trouble("missing", asked.name)
        if asked.create:
            self.new_epoch()

    def _read(self) -> None:
        """Find the keys. Raises _Trouble where two bear one number, or one could be taken out of the token."""
        self._keys = {}
        label = self._prefix + "epoch/"
        for key in self._session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY}):
            if not str(key.label).startswith(label):
                continue
            epoch = int.from_bytes(key.id, "big")
            if epoch in self._keys or str(key.label) != f"{label}{epoch}":
                raise _Trouble("twice", str(epoch))
            if key[Attribute.EXTRACTABLE] or not key[Attribute.SENSITIVE]:
                raise _Trouble("extractable", str(epoch))
            self._keys[epoch] = key

    def _counters(self) -> list[Any]:
        return list(
            self._session.get_objects({Attribute.CLASS: ObjectClass.DATA, Attribute.LABEL: self._prefix + "next"})
        )

    def epochs(self) -> list[int]:
        """Their numbers, rising."""
        return sorted(self._keys)

    def new_epoch(self) -> int:
        """Make the next one: first the number after it, then its key, so that no number comes twice."""
        counters = self._counters()
        self._read()
        numbers = [int.from_bytes(counter[Attribute.VALUE], "big") for counter in counters]
        epoch = max([1, *numbers, *(known + 1 for known in self._keys)])
        self._session.create_object(
            {
                Attribute.CLASS: ObjectClass.DATA,
                Attribute.TOKEN: True,
                Attribute.PRIVATE: True,
                Attribute.APPLICATION: PLACE,
                Attribute.LABEL: self._prefix + "next",
                Attribute.VALUE: (epoch + 1).to_bytes(4, "big"),
            }
        )
        for counter in counters:
            with contextlib.suppress(*_GONE):  # another process of this set was first
                counter.destroy()
        key = self._session.generate_key(
            KeyType.AES,
            256,
            store=True,
            id=epoch.to_bytes(4, "big"),
            label=f"{self._prefix}epoch/{epoch}",
            template={
                Attribute.PRIVATE: True,
                Attribute.SENSITIVE: True,
                Attribute.EXTRACTABLE: False,
                Attribute.ENCRYPT: True,
                Attribute.DECRYPT: True,
                Attribute.WRAP: False,
                Attribute.UNWRAP: False,
                Attribute.SIGN: False,
                Attribute.VERIFY: False,
            },
        )
        try:
            self._read()
        except _Trouble:
            key.destroy()
            self._read()
            raise
        return epoch

    def destroy(self, epoch: int) -> None:
        """Destroy one, and see that it is gone."""
        key = self._keys.get(epoch)
        if key is not None:
            with contextlib.suppress(*_GONE):
                key.destroy()
        self._read()
        if epoch in self._keys:
            raise _Trouble("failed", "DestroyObject")

    def remove(self) -> None:
        """Destroy the set: the keys first, so that what is left after a crash is still known as a set."""
        for epoch in self.epochs():
            self.destroy(epoch)
        for counter in self._counters():
            counter.destroy()

    def wrap(self, epoch: int, nonce: bytes, key: bytes, context: bytes) -> bytes:
        """nonce, ciphertext, tag."""
        parameters = GCMParams(nonce, context, _TAG_BITS)
        return nonce + bytes(self._of(epoch).encrypt(key, mechanism=Mechanism.AES_GCM, mechanism_param=parameters))

    def unwrap(self, epoch: int, wrapped: bytes, context: bytes) -> bytes | None:
        """The key; None where it was altered."""
        of = self._of(epoch)
        if len(wrapped) < NONCE_BYTES + TAG_BYTES:
            return None
        parameters = GCMParams(wrapped[:NONCE_BYTES], context, _TAG_BITS)
        try:
            return bytes(of.decrypt(wrapped[NONCE_BYTES:], mechanism=Mechanism.AES_GCM, mechanism_param=parameters))
        except _ALTERED:
            return None
        except (pkcs11.GeneralError, pkcs11.FunctionFailed):
            # SoftHSM says so of a tag that does not fit, too: a key that still works tells the two apart.
            probe = bytes(NONCE_BYTES + TAG_BYTES)
            if self.unwrap_own(epoch, probe) != probe:
                raise
            return None

    def unwrap_own(self, epoch: int, probe: bytes) -> bytes:
        """`probe` there and back through the token."""
        of = self._of(epoch)
        parameters = GCMParams(self._session.generate_random(NONCE_BYTES * 8), b"probe", _TAG_BITS)
        sealed = of.encrypt(probe, mechanism=Mechanism.AES_GCM, mechanism_param=parameters)
        return bytes(of.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=parameters))

    def _of(self, epoch: int) -> Any:
        key = self._keys.get(epoch)
        if key is None:
            raise _Trouble("gone", str(epoch))
        return key


def _answer(keys: TokenKeys | None, asked: Any) -> tuple[TokenKeys | None, Epochs | Answers | Failed]:
    try:
        if isinstance(asked, Connect):
            keys = TokenKeys(asked)
            return keys, Epochs(keys.epochs())
        if keys is None:
            return None, Failed("failed", "NotConnected")
        if isinstance(asked, NewEpoch):
            made = keys.new_epoch()
            return keys, Epochs(keys.epochs(), made)
        if isinstance(asked, Destroy):
            keys.destroy(asked.epoch)
            return keys, Epochs(keys.epochs())
        if isinstance(asked, Remove):
            keys.remove()
            return keys, Epochs([])
        try:
            if isinstance(asked, Wrap):
                return keys, Answers([keys.wrap(asked.epoch, *item) for item in asked.items])
            return keys, Answers([keys.unwrap(asked.epoch, *item) for item in asked.items])
        except _GONE:
            raise _Trouble("gone", str(asked.epoch)) from None
    except _Trouble as trouble:
        return keys, Failed(trouble.why, trouble.reason)
    except (PKCS11Error, OSError) as error:
        return keys, Failed("failed", type(error).__name__)


def main(descriptor: int) -> None:
    """Answer on the socket `descriptor` until the other side is gone."""
    # Who started this process decides when it ends; a terminal's Ctrl-C or a service's stop comes to it alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    keep_own_memory()  # a crash of the module writes no PIN to the disk, and none of the user's processes reads it here
    keys: TokenKeys | None = None
    with socket.socket(fileno=descriptor) as line, contextlib.suppress(EOFError, OSError, msgspec.MsgspecError):
        while True:
            asked = requests.decode(receive(line))
            signal.alarm(asked.patience)
            keys, said = _answer(keys, asked)
            signal.alarm(0)
            send(line, said)


if __name__ == "__main__":
    main(int(sys.argv[1]))
