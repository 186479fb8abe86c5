"""What a member's gateway asks of the sequencer's, where nobody answers."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from medveil.network.remote_engine import RemoteEngine
from wire.errors import Unavailable


class Nobody:
    """A line at whose other end nobody is."""

    organisation = "bureau"

    async def ask(self, *_: Any, **__: Any) -> Any:
        raise Unavailable("network.unreachable", retry_after=5, organisation=self.organisation)


@pytest.mark.parametrize("question", ["handovers", "head"])
def test_what_a_writer_waits_for_is_not_asked_for_ever(question: str) -> None:
    async def main() -> None:
        engine = RemoteEngine(Nobody(), cast(Any, None), cast(Any, None), patience=0.3)
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable) as away:
                await getattr(engine, question)()
        assert away.value.code == "network.unreachable"

    asyncio.run(main())
