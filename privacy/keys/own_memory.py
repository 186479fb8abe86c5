"""A process that holds keys and records keeps its memory to itself: it leaves no core, and no other process of the same
user reads it."""

from __future__ import annotations

import contextlib
import ctypes
import sys

_PR_SET_DUMPABLE = 4


def keep_own_memory() -> None:
    """Dump no core, and let nobody but root attach or read this process's memory and environment (Linux).

    Best done before a secret is read. Elsewhere than on Linux only the size of a core is set to nothing.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
