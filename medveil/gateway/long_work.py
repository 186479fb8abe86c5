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

_threads = ThreadPoolExecutor(AT_ONCE, "long work")


async def at_length(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What `work` returns, as `asyncio.to_thread` has it, in one of these threads. `work` waits for no other one."""
    call = partial(copy_context().run, work, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_threads, call)
