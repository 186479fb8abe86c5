"""What a figure was measured on, and of which commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    except (ValueError, OSError, AttributeError):
        return "memory unknown"


def _usable() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def machine() -> str:
    """Cores, processor, memory, system, Python: what makes figures comparable. No name of the host."""
    return (
        f"{_usable()} x {_cpu()}, {_memory()}, {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def commit() -> str:
    """The commit that is measured, with ``+changes`` if the checkout differs from it; "unknown" outside one."""
    name = _git("rev-parse", "--short=12", "HEAD")
    if not name:
        return "unknown"
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return name if changes == "" else f"{name}+changes"


def peer(package: str, what: str = "") -> str:
    """A peer's name with its installed version: ``msgspec 0.22.0``, or ``msgspec 0.22.0 (bare encode)``."""
    try:
        name = f"{package} {version(package)}"
    except PackageNotFoundError:
        name = package
    return f"{name} ({what})" if what else name
