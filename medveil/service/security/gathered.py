"""Calls that come while one is served are served together by the next (group commit): one thread, one trip.

An event loop asks. What it has asked for in one round goes on in one piece, and what is asked meanwhile in the next:
a hundred calls at once cost a few flushes of the disk, and as few changes between threads, which cost more than that.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_IDLE_SECONDS = 5.0


class Gathered(Generic[T, R]):
    """One kind of call, of one event loop at a time.

    serve: given what waits, in the order of asking, the answer to all; runs in a thread of that name, which starts
    when it is needed and ends after some idle seconds. at_once: is asked first, in the event loop: False, or serves
    them all with the answer None, without waiting. Never more than one of both runs. most: calls served together.
    """

    def __init__(
        self,
        serve: Callable[[list[T]], R],
        name: str,
        at_once: Callable[[list[T]], bool] | None = None,
        most: int = 100,
    ) -> None:
        self._serve = serve
        self._at_once = at_once
        self._name = name
        self._most = most
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._handing = False
        self._queue: SimpleQueue[list[tuple[T, asyncio.Future[R]]] | None] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def ask(self, item: T) -> asyncio.Future[R]:
        """The answer to come. It is served even if nobody waits for it any more. Raises what `serve` raised."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if not self._handing:
            self._handing = True
            loop.call_soon(self._hand_over)
        return future

    def close(self) -> None:
        """Return when all that was handed over is served and the thread has ended. Waits: not for an event loop."""
        with self._starting:
            thread = self._thread
            self._queue.put(None)
        if thread is not None:
            thread.join()

    def _hand_over(self) -> None:
        together, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        if not together:
            self._handing = False
            return
        if self._at_once is not None:
            failure: Exception | None = None
            try:
                served = self._at_once([item for item, _ in together])
            except Exception as error:
                served, failure = True, error
            if served:
                together[0][1].get_loop().call_soon(self._hand_over)
                _tell(together, failure)
                return
        with self._starting:
            self._queue.put(together)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                together = self._queue.get(timeout=_IDLE_SECONDS)
            except Empty:
                together = None
            if together is None:
                with self._starting:
                    if self._queue.empty():
                        self._thread = None
                        return
                continue
            answer: R | Exception
            try:
                answer = self._serve([item for item, _ in together])
            except Exception as error:
                answer = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                together[0][1].get_loop().call_soon_threadsafe(self._served, together, answer)

    def _served(self, together: list[tuple[T, asyncio.Future[R]]], answer: R | Exception) -> None:
        self._hand_over()
        _tell(together, answer)


def _tell(together: list[tuple[Any, asyncio.Future[Any]]], answer: object) -> None:
    for _, future in together:
        if future.done():  # its caller went away
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
