"""Routers of whole paths, and which of them a path belongs to, looked up by how the path begins.

The framework tries every route of every router, twice, in the order in which they were included; with a hundred
routes that is most of a small answer's time. Where one router alone has the paths that begin as the request's does
("/v1/jobs"), it is asked at once; all else takes the framework's way. The answers are the same.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from medveil.gateway import problems
from medveil.service.api.callers import GuardedRoute


class PathRouter(APIRouter):
    """An `APIRouter` of routes with whole paths, included without a prefix, that know their caller first.

    Its routes are whole as they are made, with the problems that any of them may answer.
    """

    def __init__(self, **settings: Any) -> None:
        own = {
            "route_class": GuardedRoute,
            "responses": problems.documented(*problems.GENERAL),
            "redirect_slashes": False,
        }
        super().__init__(**{**own, **settings})


class Paths:
    """Stands before the search of an application whose routers have whole paths, and includes them."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._search: ASGIApp = app.router.middleware_stack
        self._owners: dict[str, ASGIApp] = {}
        self._shared: Counter[str] = Counter(beginning(_path(route)) for route in app.router.routes)
        self._open = False
        """Whether some path may begin in any way, so that no beginning is one router's alone."""
        app.router.middleware_stack = self

    def include(self, router: APIRouter) -> None:
        """Include a router that has no prefix of its own.

        The framework would make each of its routes a second time, with what the application adds: a `PathRouter`'s
        have that.
        """
        routes = self._app.router.routes
        if isinstance(router, PathRouter) and all(isinstance(route, APIRoute) for route in router.routes):
            routes.extend(router.routes)
            included = router.app
        else:
            self._app.include_router(router)
            included = routes[-1].handle
        for start in {beginning(_path(route)) for route in router.routes}:
            self._shared[start] += 1
            if self._shared[start] == 1:
                self._owners[start] = included
            else:
                self._owners.pop(start, None)
            self._open = self._open or "{" in start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        owner = None
        if scope["type"] == "http" and not self._open and not scope.get("root_path"):
            owner = self._owners.get(beginning(scope["path"]))
        if owner is None:
            await self._search(scope, receive, send)
            return
        scope.setdefault("router", self._app.router)
        await owner(scope, receive, send)


def beginning(path: str) -> str:
    """The first two segments of a path, with their slashes."""
    second = path.find("/", 1)
    end = path.find("/", second + 1) if second >= 0 else -1
    return path if end < 0 else path[:end]


def _path(route: BaseRoute) -> str:
    return str(getattr(route, "path", ""))
