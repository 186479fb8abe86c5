"""Paths looked up by how they begin: every address and method answers as the framework's own search would."""

from __future__ import annotations

import asyncio
import inspect

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from medveil.service.api.path_router import PathRouter, Paths, beginning


def _router(kind: type[APIRouter], *paths: str, methods: tuple[str, ...] = ("GET",)) -> APIRouter:
    router = kind()
    for path in paths:
        for method in methods:

            async def answer(path: str = path, method: str = method) -> str:
                return f"{method} {path}"

            answer.__signature__ = inspect.Signature()  # type: ignore[attr-defined]
            router.add_api_route(path, answer, methods=[method])
    return router


ROUTERS = (
    (("/metrics", "/health/live", "/health/ready"), ("GET",)),
    (("/v1/jobs", "/v1/jobs/{job}", "/v1/jobs/{job}/events"), ("GET", "POST")),
    (("/v1/people", "/v1/people/{name}/roles"), ("GET", "PUT")),
    (("/v1/shared/one",), ("GET",)),
    (("/v1/shared/two", "/v1/shared/one"), ("POST",)),
    (("/v1/last",), ("GET",)),
)
ANYTHING = (("/v1/{anything}/else",), ("GET",))


def _ask(app: FastAPI, method: str, paths: list[str]) -> list[httpx.Response]:
    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://north.example") as client:
            return [await client.request(method, path) for path in paths]

    return asyncio.run(ask())


def _app(quick: bool, *more: tuple[tuple[str, ...], tuple[str, ...]], kind: type[APIRouter] = APIRouter) -> FastAPI:
    app = FastAPI(openapi_url=None, redirect_slashes=False, docs_url=None, redoc_url=None)

    @app.get("/v1/openapi.json")
    async def described() -> str:
        return "described"

    paths = Paths(app) if quick else None
    for given, methods in (*ROUTERS, *more):
        router = _router(kind, *given, methods=methods)
        paths.include(router) if paths else app.include_router(router)
    return app


@pytest.mark.parametrize("kind", [APIRouter, PathRouter])
@pytest.mark.parametrize("more", [(), (ANYTHING,)])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_every_answer_is_the_frameworks_own(
    method: str, more: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...], kind: type[APIRouter]
) -> None:
    asked = ["/", "/v1", "/v1/", "/v1/jobs/", "/v1//jobs", "/v1/jobs/a/events/b", "/v1/jobs/a/else", "/v1/other/else"]
    asked += ["/v1/people/else", "/v1/jobsx", "/v1/job", "/V1/jobs", "/v1/openapi.json", "/console/x", "/health", "//"]
    asked += [path.replace("{job}", "7").replace("{name}", "ada") for given, _ in ROUTERS for path in given]
    for path, mine, framework in zip(
        asked, _ask(_app(True, *more, kind=kind), method, asked), _ask(_app(False, *more), method, asked), strict=True
    ):
        assert (mine.status_code, mine.content) == (framework.status_code, framework.content), path
        assert mine.headers.get("allow") == framework.headers.get("allow"), path


@pytest.mark.parametrize("kind", [APIRouter, PathRouter])
def test_a_router_alone_with_its_paths_is_asked_at_once(monkeypatch: pytest.MonkeyPatch, kind: type[APIRouter]) -> None:
    app = _app(True, kind=kind)
    searched: list[str] = []
    paths = app.router.middleware_stack
    assert isinstance(paths, Paths)
    search = paths._search

    async def watched(scope: dict[str, object], receive: object, send: object) -> None:
        searched.append(str(scope.get("path")))
        await search(scope, receive, send)  # type: ignore[arg-type]

    monkeypatch.setattr(paths, "_search", watched)
    alone = ["/v1/jobs", "/v1/jobs/7/events", "/v1/people/ada/roles", "/metrics", "/health/ready", "/v1/last"]
    assert {answer.status_code for answer in _ask(app, "GET", alone)} == {200} and not searched
    shared = ["/v1/shared/one", "/v1/openapi.json"]
    assert {answer.status_code for answer in _ask(app, "GET", shared)} == {200} and searched == shared


def test_a_route_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    plain = APIRoute.get_route_handler

    def handler(route: APIRoute) -> object:
        made.append(route.path)
        return plain(route)

    monkeypatch.setattr(APIRoute, "get_route_handler", handler)
    app = _app(True, kind=PathRouter)
    shown = [context.path_format for context in iter_route_contexts(app.routes) for _ in context.methods or ()]
    assert sorted(made) == sorted(shown) and len(made) > 10


@pytest.mark.parametrize(
    ("path", "start"),
    [("/v1/jobs", "/v1/jobs"), ("/v1/jobs/7/events", "/v1/jobs"), ("/metrics", "/metrics"), ("/v1/", "/v1/"), ("", "")],
)
def test_how_a_path_begins(path: str, start: str) -> None:
    assert beginning(path) == start
