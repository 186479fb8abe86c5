"""Passwords: what is accepted, and how they are kept.

Rules (NIST SP 800-63B-4, 3.1.1.2): at least 12 and at most 128 characters, any of them, no composition rules, no
expiry; refused is what is common or near at hand. That is judged by zxcvbn (MIT; its lists hold 30,000 leaked
passwords, names, words and keyboard patterns) with the words of the context: the person's and the organisation's
name and the product's. Fewer than 10^10 estimated guesses are refused.

Kept as argon2id (RFC 9106, the second recommended choice: t = 3, m = 64 MiB, p = 4; 16 bytes of salt, 32 of tag).
When the parameters are raised, a hash is renewed at the next sign-in. Text is normalised (NFKC) first, so that two
keyboards give the same bytes.
"""

from __future__ import annotations

import asyncio
import math
import threading
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from medveil.service.api.rates import network
from wire.errors import Refused, Unavailable

if TYPE_CHECKING:
    from argon2 import PasswordHasher

P = ParamSpec("P")
T = TypeVar("T")

SHORTEST = 12
LONGEST = 128
_GUESSES = 10
_JUDGED = 72  # zxcvbn's time grows fast with length
_PARALLEL = 2  # hashes at a time: each takes 64 MiB

_judging = threading.Lock()  # zxcvbn keeps the context words in a module variable


@dataclass(frozen=True)
class Hashing:
    """Parameters of argon2id. memory in KiB."""

    time: int = 3
    memory: int = 65536
    lanes: int = 4


class Passwords:
    """Hashes and checks. Both take about 0.1 s and 64 MiB; more than two at a time wait."""

    def __init__(self, hashing: Hashing | None = None) -> None:
        self._hashing = hashing or Hashing()
        self._turn = threading.BoundedSemaphore(_PARALLEL)

    @cached_property
    def _hasher(self) -> PasswordHasher:
        from argon2 import PasswordHasher, Type

        parameters = self._hashing
        return PasswordHasher(parameters.time, parameters.memory, parameters.lanes, 32, 16, type=Type.ID)

    @cached_property
    def _nobodys(self) -> str:
        return self._hasher.hash("of nobody; checked so that an unknown name takes as long as a known one")

    def hash(self, password: str) -> str:
        """The hash to keep; password: secret."""
        with self._turn:
            return self._hasher.hash(_normal(password))

    def matches(self, kept: str | None, password: str) -> bool:
        """Whether `password` is the one kept. None (an unknown name) costs the same and is never right."""
        from argon2 import exceptions

        known = kept if kept is not None else self._nobodys
        with self._turn:
            try:
                return self._hasher.verify(known, _normal(password)[: 4 * LONGEST]) and kept is not None
            except (exceptions.VerifyMismatchError, exceptions.VerificationError, exceptions.InvalidHashError):
                return False

    def is_outdated(self, kept: str) -> bool:
        """Whether a kept hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(kept)


class HashingThreads:
    """Threads of their own for what hashes passwords, so that sign-ins hold up nobody else who needs a thread.

    Another set of them asks a provider. most: waiting or working at a time, of all addresses; each: of one; threads:
    how many work. Used in one event loop.
    """

    def __init__(self, most: int = 32, each: int = 4, threads: int = _PARALLEL, name: str = "passwords") -> None:
        self._threads = ThreadPoolExecutor(threads, name)
        self._most = most
        self._each = each
        self._inside: Counter[str] = Counter()

    async def run(self, address: str, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns. Raises Unavailable where too many wait, and what `work` raises.

        address: of the caller; all of a host's (`medveil.service.api.rates`) count as one.
        """
        address = network(address)
        if self._inside.total() >= self._most or self._inside[address] >= self._each:
            raise Unavailable("accounts.busy", retry_after=2)
        self._inside[address] += 1
        try:
            running = self._threads.submit(work, *args, **kwargs)
        except BaseException:
            self._left(address)
            raise
        loop = asyncio.get_running_loop()
        future = asyncio.wrap_future(running, loop=loop)
        future.add_done_callback(lambda _: self._left(address))
        return await future

    def _left(self, address: str) -> None:
        self._inside[address] -= 1
        if self._inside[address] <= 0:
            del self._inside[address]

    def close(self) -> None:
        """End the threads, after what they do now."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def check_new(password: str, context: Iterable[str] = ()) -> None:
    """Refuse a password that is too short, too long or too easily guessed. context: words of person and house."""
    from zxcvbn import zxcvbn

    normal = _normal(password)
    if len(normal) < SHORTEST:
        raise Refused("accounts.password_short", shortest=SHORTEST)
    if len(normal) > LONGEST:
        raise Refused("accounts.password_long", longest=LONGEST)
    words = [part for word in ("medveil", *context) for part in (word, *word.replace("_", "-").split("-")) if part]
    with _judging:
        guesses = zxcvbn(normal[:_JUDGED], user_inputs=words)["guesses"]
    if math.log10(max(1, int(guesses))) < _GUESSES:
        raise Refused("accounts.password_common")


def _normal(password: str) -> str:
    """The same characters for the same keys; half of a surrogate pair, which no keyboard sends, becomes a mark."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "replace").decode()
