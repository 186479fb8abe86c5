"""Evidence that somebody forged: one thing in it changed, or all of it made to fit; and gateways that show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from medveil.client import Released
from mpc.query import salted_hash
from mpc.release import Board, Release, finish, verify_release
from mpc.vector_commitment import commit
from wire.errors import DecodeError, VerificationError
from zkp.groups import R, decode_scalar

from .wayward import Wayward
from .world import World


def altered(value: Any) -> Iterator[Any]:
    """A value with one thing in it, of any depth, that is another one: each in turn."""
    match value:
        case msgspec.Struct():
            for name in value.__struct_fields__:
                for other in altered(getattr(value, name)):
                    yield msgspec.structs.replace(value, **{name: other})
        case tuple():
            for place, one in enumerate(value):
                for other in altered(one):
                    yield (*value[:place], other, *value[place + 1 :])
            if value:
                yield value[:-1]
                yield (*value, value[-1])
        case bool():
            yield not value
        case int():
            yield value + 1
            yield -value - 1
        case bytes():
            yield bytes([value[0] ^ 1]) + value[1:] if value else b"1"
        case str():
            yield f"{value}1"
            yield value[:-1]
        case None:
            yield "1"


def forged(release: Release, more: int = 9) -> Release:
    """A release whose parts all fit each other: other totals, commitments made to open to them, numbers that follow."""
    phases = []
    for record in release.phases:
        totals = tuple(total + more for total in record.opened.totals)
        none, blinding = (0,) * len(totals), decode_scalar(record.opened.blinding)
        points = [commit(none, 5), commit(none, 7), commit(totals, (blinding - 12) % R)]
        posted = record.survivors.contributions
        contributions = tuple(
            msgspec.structs.replace(one, point=point) for one, point in zip(posted, points, strict=True)
        )
        survivors = msgspec.structs.replace(record.survivors, contributions=contributions)
        opened = msgspec.structs.replace(record.opened, totals=totals)
        phases.append(msgspec.structs.replace(record, survivors=survivors, opened=opened))
    query = release.query
    board = Board(
        query=release.handle,
        query_hash=salted_hash(query, release.salt),
        population=query.population,
        roster=query.roster,
        approvals=query.roster,
        rho_nano=query.rho_nano,
        phases=tuple(phases),
        budget_before_nano=release.budget_before_nano,
        budget_after_nano=release.budget_after_nano,
    )
    made = finish(query, release.salt, board, release.notes)
    verify_release(made, board)  # nothing in it is wrong by itself
    return made


def expect(world: World, released: Released, where: bytes, change: Callable[[bytes], bytes], what: str) -> None:
    """Ask a gateway that changes its answers: the release must be refused."""

    def rule(_number: int, request: bytes) -> Any:
        return change if where + b" HTTP" in request else "pass"

    service = world.services["researcher-1"]
    with (
        Wayward(service.running.port, rule) as network,
        world.client("researcher-1", "researcher", network.address) as researcher,
    ):
        try:
            researcher.queries.release(released.query)
        except (VerificationError, DecodeError):
            return
    raise AssertionError(what)
