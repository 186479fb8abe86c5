"""medveil: use each other's health-insurance data without seeing it (可用不可见).

The only public import surface::

    from medveil import verify
    report = verify("medveil-demo/evidence", trust="medveil-demo/consortium.json")

Parts are imported when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medveil.verification import verify

__all__ = ["verify"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "verify":
        from medveil.verification import verify

        return verify
    raise AttributeError(f"module 'medveil' has no attribute {name!r}")
