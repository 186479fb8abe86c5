"""medveil: use each other's health-insurance data without seeing it (可用不可见).

The only public import surface::

    from medveil import verify
    report = verify("medveil-demo/evidence", trust="medveil-demo/consortium.json")

    from medveil import Client, Measure, Question
    with Client.of_program("researcher.json") as client:
        question = Question(population="stays", measures=(Measure("cost"),), purpose="HMB", rho="0.25")
        client.queries.ask(question).to_pandas()

Parts are imported when they are used. `Client` needs the extra ``client``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medveil.client import AsyncClient, Client, Group, Measure, Question, column
    from medveil.verification import verify

__all__ = ["AsyncClient", "Client", "Group", "Measure", "Question", "column", "verify"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "verify":
        from medveil.verification import verify

        return verify
    if name in ("AsyncClient", "Client", "Group", "Measure", "Question", "column"):
        from medveil import client

        return getattr(client, name)
    raise AttributeError(f"module 'medveil' has no attribute {name!r}")
