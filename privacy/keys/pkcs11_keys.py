"""The keys of the epochs on a PKCS#11 token (a hardware security module, or SoftHSM2): they never leave it.

The token makes an AES-256 key for each epoch and encrypts and decrypts data keys under it. A thief of
the machine's disks has nothing without the token; somebody who runs code on the machine can use the
token for as long as he does, and cannot take its keys along.

The module is loaded by a process of its own (`privacy.keys.token_process`): one that hangs is ended
after `patience` seconds, one that crashes takes nothing else along, and whatever happened is an
Unavailable. The next call connects anew; after a failure to connect, calls are refused at once for a
while that grows to half a minute. A refused PIN is not tried again: tokens lock after a few. Whoever
connects again looks whether these are the keys of before, by something that they wrapped then: another
token of the same label would wrap, and nobody could unwrap it later.
"""

from __future__ import annotations

import importlib.util
import math
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

import msgspec

from privacy.keys.provider import KEY_BYTES, NONCE_BYTES, KeyProvider
from privacy.keys.token_line import (
    Answers,
    Connect,
    Destroy,
    Epochs,
    Failed,
    NewEpoch,
    Remove,
    Unwrap,
    Wrap,
    answers,
    receive,
    send,
)
from wire.errors import MedveilError, Refused, Unavailable, VerificationError
from wire.identifiers import check_name

_AT_ONCE = 512
_PROBED = b"known again"
"""What a probe is bound to; nothing of the vault's is."""
_GRACE = 2
_STARTING = 5.0
"""Seconds more than its patience that the other process may take to start, load the module and log in."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0


class Pkcs11KeyProvider(KeyProvider):
    """A KeyProvider on a token. The constructor opens a set of keys that is there; `create` makes one.

    module: path of the PKCS#11 library. token: its label. name: of the set of keys on it. pin: the user's (secret).
    patience: seconds that one request may take. rand: nonces. clock: seconds that never go back.
    Raises Unavailable (no module, no token, no such keys, slow, failing), Refused (the PIN; keys that are there
    already; a token without AES-GCM), VerificationError (a key that could be taken out, or two of one number).
    Threads may share it; it is not inherited over a fork.
    """

    def __init__(
        self,
        module: str,
        token: str,
        name: str,
        pin: str,
        *,
        patience: float = 10.0,
        rand: Callable[[int], bytes] = secrets.token_bytes,
        clock: Callable[[], float] = time.monotonic,
        _create: bool = False,
    ) -> None:
        self.module, self.token, self.name = module, token, check_name(name, "set of keys")
        self._pin = pin
        self._patience = patience
        self._rand = rand
        self._clock = clock
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket
        self._epochs: tuple[int, ...] = ()
        self._probe = rand(KEY_BYTES)
        self._probes: dict[int, bytes] = {}
        self._failure: MedveilError | None = None
        self._pause, self._resume = _FIRST_PAUSE, 0.0
        self._closed = False
        with self._taken():
            self._connect(_create)

    @classmethod
    def create(
        cls,
        module: str,
        token: str,
        name: str,
        pin: str,
        *,
        patience: float = 10.0,
        rand: Callable[[int], bytes] = secrets.token_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> Pkcs11KeyProvider:
        """Make a set of keys with its first epoch. Raises Refused where the token has one of that name."""
        return cls(module, token, name, pin, patience=patience, rand=rand, clock=clock, _create=True)

    def epochs(self) -> tuple[int, ...]:
        """The epochs that exist, rising; the last one is current."""
        return self._epochs

    def new_epoch(self) -> int:
        """A new epoch, on the token when this returns."""
        made = self._listed(NewEpoch(self._alarm)).made
        with suppress(Unavailable), self._taken():  # it is made all the same
            self._know()
        return made

    def destroy(self, epoch: int) -> None:
        """Forget the epoch: the token has looked and has it no more when this returns."""
        self._listed(Destroy(self._alarm, epoch))

    def remove(self) -> None:
        """Destroy the whole set, of a home that was never finished. Whatever was wrapped is lost for good."""
        self._listed(Remove(self._alarm))

    def wrap(self, epoch: int, key: bytes, context: bytes) -> bytes:
        """`key` under the epoch's key: 12 bytes of nonce, ciphertext, 16 bytes of tag."""
        return self.wrap_many(epoch, [(key, context)])[0]

    def unwrap(self, epoch: int, wrapped: bytes, context: bytes) -> bytes:
        """The key that `wrap` got. Raises VerificationError where anything differs."""
        return self.unwrap_many(epoch, [(wrapped, context)])[0]

    def wrap_many(self, epoch: int, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """`wrap` for each (key, context)."""
        wrapped: list[bytes] = []
        for some in _parts(items):
            sent = [(self._rand(NONCE_BYTES), key, context) for key, context in some]
            wrapped += self._whole(epoch, self._asked(Wrap(self._alarm, epoch, sent)), len(some))
        return wrapped

    def unwrap_many(self, epoch: int, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """`unwrap` for each (wrapped, context)."""
        keys: list[bytes] = []
        for some in _parts(items):
            keys += self._whole(epoch, self._asked(Unwrap(self._alarm, epoch, list(some))), len(some))
        return keys

    def close(self) -> None:
        """Log out of the token and end the process that speaks to it."""
        self._closed = True
        with self._turn:
            self._end()

    # ---- the other process

    @property
    def _alarm(self) -> int:
        return math.ceil(self._patience) + _GRACE

    def _whole(self, epoch: int, said: Epochs | Answers, count: int) -> list[bytes]:
        if not isinstance(said, Answers) or len(said.items) != count:
            raise self._trouble("ProtocolError")
        found = [item for item in said.items if item is not None]
        if len(found) != count:
            raise VerificationError("privacy.wrapped_key", epoch=epoch)
        return found

    def _listed(self, request: NewEpoch | Destroy | Remove) -> Epochs:
        said = self._asked(request)
        if not isinstance(said, Epochs):
            raise self._trouble("ProtocolError")
        return said

    def _asked(self, request: msgspec.Struct) -> Epochs | Answers:
        """What the token says, connecting first where that is needed."""
        with self._taken():
            if self._process is not None and self._process.poll() is None:
                try:
                    return self._exchange(request)
                except Unavailable as error:
                    # A token ends sessions that were idle: once more, where doing it twice is doing it once.
                    if error.code != "privacy.token_failed" or isinstance(request, NewEpoch):
                        raise
            self._connect(create=False)
            return self._exchange(request)

    @contextmanager
    def _taken(self) -> Iterator[None]:
        if self._closed:
            raise ValueError("the key provider is closed")
        if not self._turn.acquire(timeout=self._patience):
            raise Unavailable("privacy.token_slow", retry_after=1, token=self.token, seconds=round(self._patience))
        try:
            yield
        finally:
            self._turn.release()

    def _connect(self, create: bool) -> None:
        """Start the process, load the module and log in. Raises as the constructor."""
        if self._failure is not None and self._clock() < self._resume:
            raise _again(self._failure, self._resume - self._clock())
        self._end()
        if importlib.util.find_spec("pkcs11") is None:
            raise Unavailable("privacy.no_pkcs11")
        try:
            own, other = socket.socketpair()
            with other:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "privacy.keys.token_process", str(other.fileno())],
                    pass_fds=(other.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,  # a module may print what it likes
                    stderr=subprocess.DEVNULL,
                )
        except OSError as error:
            raise self._held_off(self._trouble(type(error).__name__)) from None
        self._line = own
        own.settimeout(self._patience + _STARTING)
        try:
            self._exchange(
                Connect(self._alarm + math.ceil(_STARTING), self.module, self.token, self.name, self._pin, create)
            )
            self._know()
        except MedveilError as error:
            self._end()
            raise self._held_off(error) from None
        own.settimeout(self._patience)
        self._failure, self._pause = None, _FIRST_PAUSE

    def _know(self) -> None:
        """See that the keys are those of before, and have each new one wrap what it is known by later.

        Raises Unavailable where they are others.
        """
        for epoch in self._epochs:
            if epoch not in self._probes:
                said = self._exchange(Wrap(self._alarm, epoch, [(self._rand(NONCE_BYTES), self._probe, _PROBED)]))
                self._probes[epoch] = self._whole(epoch, said, 1)[0]
                continue
            try:
                said = self._exchange(Unwrap(self._alarm, epoch, [(self._probes[epoch], _PROBED)]))
                same = self._whole(epoch, said, 1) == [self._probe]
            except VerificationError:
                same = False
            if not same:
                raise Unavailable("privacy.token_other", retry_after=60, token=self.token, name=self.name)

    def _held_off(self, error: MedveilError) -> MedveilError:
        """Note a failure to connect: for a while it is the answer to whoever asks; a refused PIN is it for good."""
        self._failure = error
        self._resume = (
            math.inf
            if error.code in ("privacy.token_pin", "privacy.token_pin_locked")
            else (self._clock() + self._pause)
        )
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return error

    def _exchange(self, request: msgspec.Struct) -> Epochs | Answers:
        try:
            send(self._line, request)
            said: Epochs | Answers | Failed = answers.decode(receive(self._line))
        except TimeoutError:
            self._end()
            raise Unavailable(
                "privacy.token_slow", retry_after=1, token=self.token, seconds=round(self._patience)
            ) from None
        except (OSError, EOFError, msgspec.MsgspecError):
            self._fail("ProcessEnded")
        if isinstance(said, Failed):
            self._say(said)
        if isinstance(said, Epochs):
            self._epochs = tuple(said.epochs)
        return said

    def _fail(self, reason: str) -> NoReturn:
        self._end()
        raise self._trouble(reason) from None

    def _trouble(self, reason: str) -> Unavailable:
        return Unavailable("privacy.token_failed", retry_after=1, token=self.token, reason=reason)

    def _say(self, failed: Failed) -> NoReturn:
        """Raise what the other process says."""
        token, name = self.token, self.name
        if failed.why == "gone":
            raise Refused("privacy.epoch_gone", epoch=int(failed.reason))
        if failed.why == "module":
            raise Unavailable("privacy.token_module", module=self.module)
        if failed.why == "token":
            raise Unavailable("privacy.token_missing", retry_after=5, token=token)
        if failed.why == "missing":
            raise Unavailable("privacy.token_no_keys", token=token, name=name)
        if failed.why == "exists":
            raise Refused("privacy.token_has_keys", token=token, name=name)
        if failed.why == "mechanism":
            raise Refused("privacy.token_no_gcm", token=token)
        if failed.why == "pin":
            raise Refused("privacy.token_pin", token=token)
        if failed.why == "pin_locked":
            raise Refused("privacy.token_pin_locked", token=token)
        if failed.why == "extractable":
            raise VerificationError("privacy.token_key", token=token, epoch=failed.reason)
        if failed.why == "twice":
            raise VerificationError("privacy.token_twice", token=token, epoch=failed.reason)
        self._fail(failed.reason)  # whatever the token says next would be about a session that may be gone

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._line.close()
            try:
                process.wait(0.2)  # it ends when its line does; a token that is busy does not see that
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __repr__(self) -> str:
        return f"Pkcs11KeyProvider({self.token!r}, {self.name!r}, epochs={self._epochs})"


def _parts(items: Sequence[tuple[bytes, bytes]]) -> Iterator[Sequence[tuple[bytes, bytes]]]:
    for first in range(0, len(items), _AT_ONCE):
        yield items[first : first + _AT_ONCE]


def _again(failure: MedveilError, seconds: float) -> MedveilError:
    if isinstance(failure, Unavailable):
        return Unavailable(failure.code, retry_after=math.ceil(seconds), **failure.facts)
    return type(failure)(failure.code, **failure.facts)
