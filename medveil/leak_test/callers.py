"""Calls of every role at every gateway: all that can be read, and what does not belong.

What a caller types where it does not belong is a marker, too: no answer, log or file may repeat it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx

from medveil.leak_test.flows import must
from medveil.leak_test.scene import Scene
from medveil.local.founding import ADMIN
from medveil.local.seeding import STAFF
from medveil.service.accounts.rights import ROLES

_EACH = ("hospital", "researcher")
"""At the first organisation of these roles there is an account of each role of its own; elsewhere staff and admin."""
_STREAMS = ("/events",)
_MACHINES = ("/metrics", "/health/live", "/health/ready")
"""Addresses for this machine's own monitoring: not in the description."""


async def roles(scene: Scene) -> None:
    """An account of each role at a hospital and at an outsider."""
    for kind in _EACH:
        member = scene.member(scene.with_role(kind))
        for role in ROLES:
            if role != ADMIN:
                await scene.seeding.add(member, role, (role,))


async def read_everything(scene: Scene) -> None:
    """Every address that is read, by every account and by nobody: what there is, what is denied, what is not there."""
    answered = await asyncio.gather(*(_read_at(scene, member.organisation) for member in scene.seeding.state.members))
    must(all(200 in one and 403 in one and 401 in one for one in answered), "reading by every role")


async def _read_at(scene: Scene, organisation: str) -> set[int]:
    statuses: set[int] = set()
    names = [person.name for person in scene.seeding.people.all() if person.organisation == organisation]
    for name in (*names, ""):
        session = await scene.seeding.session(scene.member(organisation), name) if name else ""
        async with scene.calls(organisation, session) as client:
            described = (await client.get("/v1/openapi.json")).json()["paths"]
            ids = await _ids(client) if name else {}
            for path in (*_read_paths(described, ids), *_MACHINES):
                statuses.add((await client.get(path)).status_code)
    return statuses


def _read_paths(described: dict[str, Any], ids: dict[str, list[str]]) -> Iterator[str]:
    """The addresses to read: a parameter becomes each id that is known, and one that is not there."""
    for path, methods in sorted(described.items()):
        if "get" not in methods or path.endswith(_STREAMS):
            continue
        before, brace, rest = path.partition("{")
        if not brace:
            yield path
            continue
        name, _, after = rest.partition("}")
        if "{" in after:
            continue
        for one in (*ids.get(name.split(":")[0], []), "00000000000000000000000000000000"):
            yield f"{before}{one}{after}"


async def _ids(client: httpx.AsyncClient) -> dict[str, list[str]]:
    """Ids of things that this caller may see, by the name of the parameter that takes them."""
    wanted = {
        "job": ("/v1/jobs", "jobs", "job"),
        "dataset": ("/v1/datasets", "datasets", "dataset"),
        "query": ("/v1/queries", "queries", "query"),
        "handle": ("/v1/bills", "bills", "handle"),
        "envelope": ("/v1/receipts", "entries", "envelope"),
        "evidence": ("/v1/evidence", "evidence", "evidence"),
    }
    found = {}
    for name, (path, rows, field) in wanted.items():
        answer = await client.get(path)
        if answer.status_code == 200:
            found[name] = [str(row[field]) for row in answer.json().get(rows, [])[:5] if field in row]
    return found


async def bad_input(scene: Scene) -> None:
    """Nonsense with the typed marker in it, by staff, admin and nobody: as path, query, header, body, password."""
    answered = await asyncio.gather(*(_nonsense_at(scene, one.organisation) for one in scene.seeding.state.members))
    must(all({400, 401, 404, 422} <= one or {400, 401, 404} <= one for one in answered), "bad input")
    must(not any(status >= 500 for one in answered for status in one), "bad input")


async def _nonsense_at(scene: Scene, organisation: str) -> set[int]:
    statuses = set()
    word = scene.typed[organisation].text
    for name in (STAFF, ADMIN, ""):
        session = await scene.seeding.session(scene.member(organisation), name) if name else ""
        async with scene.calls(organisation, session) as client:
            for request in _nonsense(client, word):
                statuses.add((await client.send(request)).status_code)
    return statuses


def _nonsense(client: httpx.AsyncClient, word: str) -> Iterator[httpx.Request]:
    made = client.build_request
    bodies: list[Any] = [word, [word], {word: word}, {"query": word, "name": [word]}, {"terms": {"grant": word}}]
    posts = ("/v1/grants", "/v1/grants/preview", "/v1/queries", "/v1/bills", "/v1/scores", "/v1/datasets", "/v1/people")
    for path in posts:
        for body in bodies:
            yield made("POST", path, json=body, headers={"idempotency-key": word})
        yield made("POST", path, content=f'{{"a": {word}', headers={"content-type": "application/json"})
        yield made("POST", path, content=word.encode() + b"\xff", headers={"content-type": "application/json"})
        yield made("POST", path, content=word.encode(), headers={"content-type": f"text/{word}"})
    yield made("GET", f"/v1/datasets/{word}")
    yield made("GET", f"/v1/{word}")
    yield made("GET", f"/v1/jobs/{word}/events", headers={"last-event-id": word})
    yield made("GET", "/v1/jobs", params={"state": word, "after": word, word: word})
    yield made("GET", "/v1/jobs", headers={"accept-language": word, "traceparent": word, "x-request-id": word})
    yield made("DELETE", f"/v1/grants/{word}/revoke")
    yield made("POST", "/v1/sign-in", json={"name": word, "password": word, "code": word})
    yield made("POST", "/v1/invitations/accept", json={"invitation": word, "password": word})
    yield made("GET", "/v1/me", headers={"authorization": f"Bearer {word}"})
    yield made("GET", "/v1/me", headers={"authorization": word, "cookie": f"session={word}"})
    yield made(
        "POST",
        "/v1/bills",
        json={"person": word, "amount": word, "currency": word},
        headers={"idempotency-key": json.dumps(word)},
    )
