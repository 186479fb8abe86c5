"""What is kept of the extracts that an organisation makes, as homes of before have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from medveil.gateway import erasing, extract_delivery
from medveil.gateway.made_extracts import made, made_of
from medveil.gateway.steps import Passing
from wire.errors import DecodeError, Refused

from .extracts_world import HOLDER, grant, load, make, wish

Play = Callable[[Callable[[Any], Any]], Any]


def test_an_extract_of_before_is_known_and_does_not_leave(play: Play) -> None:
    """It does not say what its rows rest on: nobody can judge whether they may leave yet, or whether they did."""

    async def story(world: Any) -> None:
        load(world)
        await grant(world)
        extract = (await make(world, wish())).cover.extract
        vault, today = world[HOLDER].vault, made_of(world[HOLDER], extract)
        *before, basis = msgspec.msgpack.decode(vault.document("extract-made", extract.hex()))
        assert basis is not None
        vault.put_document("extract-made", extract.hex(), msgspec.msgpack.encode(before))
        (known,) = made(world[HOLDER])
        assert known == msgspec.structs.replace(today, basis=None)
        erasing.apply(world[HOLDER], erasing.plan(world[HOLDER], "person-3", world.now()).name, world.now)
        with pytest.raises(Refused) as refused:
            await extract_delivery.deliver(world[HOLDER], extract, Passing(), world.now)
        assert refused.value.code == "gateway.extract_recalled", "the erasure took it back"
        assert made_of(world[HOLDER], extract).state == "recalled", "it was not noted whether it had left"
        vault.put_document("extract-made", extract.hex(), msgspec.msgpack.encode(before[:-1]))
        with pytest.raises(DecodeError):
            made(world[HOLDER])

    play(story)
