"""Waiting for one peer's answer in a flow that may be paused or cancelled meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

from medveil.gateway.organisation import Organisation, Refusal
from medveil.gateway.steps import Steps
from wire.canonical import Wire
from wire.errors import Unavailable

M = TypeVar("M", bound=Wire)

LOOK = 1.0
"""Seconds between looks at whether the flow is still wanted."""


async def answer_of(
    organisation: Organisation, kind: type[M], session: bytes, sender: str, steps: Steps, patience: float | None = None
) -> M | Refusal:
    """The next message of `session` from `sender`: a `kind`, or why not.

    patience: seconds, the organisation's by default. Raises Unavailable after that, what `steps.boundary` raises, and
    ProtocolAbort as `Organisation.receive`.
    """
    either: Any = kind | Refusal
    clock = asyncio.get_running_loop().time
    patience = organisation.patience if patience is None else patience
    end = clock() + patience
    while True:
        await steps.boundary()
        left = max(end - clock(), 0.0)
        try:
            _, reply = await organisation.receive(either, session, (sender,), min(left, LOOK))
        except Unavailable as error:
            if error.code != "channel.timeout":
                raise
            if left <= LOOK:
                name = organisation.name
                raise Unavailable("channel.timeout", organisation=name, seconds=int(patience)) from None
        else:
            answer: M | Refusal = reply
            return answer
