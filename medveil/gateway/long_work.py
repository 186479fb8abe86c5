"""Threads for what takes seconds or minutes, apart from those that everything else needs for a moment.

A process has few threads for short waits (six on two cores): the disk under a block, a cosignature, a request, the step
of a job. Whoever loads tables or looks at large extracts there would have all of that wait, at a sequencer everybody's
ledger. Here long work waits for long work alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

AT_ONCE = 4
"""As much long work is done at a time; the rest waits its turn and holds no thread."""

_at_home = ThreadPoolExecutor(AT_ONCE, "long work")
_for_others = ThreadPoolExecutor(AT_ONCE, "reading tables")


async def at_length(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns, as `asyncio.to_thread` has it, in one of these threads. `work` waits for no other one."""
    return await _run(_at_home, partial(work, *args, **kwargs))


async def reading(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """The same for what others' queries and scores read of tables, which may first be made anew from the vault: in
    threads apart, since others do not wait until all is loaded that is being loaded here."""
    return await _run(_for_others, partial(work, *args, **kwargs))


async def _run(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, partial(copy_context().run, work))
