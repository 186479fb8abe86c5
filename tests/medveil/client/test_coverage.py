"""No route of the API is without a method of the client, and no method calls a route that is not there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from fastapi.routing import iter_route_contexts

import medveil.client

NOT_FOR_CLIENTS = {
    ("POST", "/v1/sign-in/provider"),  # a browser's
    ("GET", "/v1/sign-in/provider/callback"),
    ("GET", "/v1/openapi.json"),
    ("GET", "/v1/members/trust"),  # believed by handovers alone
}


def called() -> set[tuple[str, str]]:
    """Method and path of every call that the source of the client makes; what is not constant is {}."""
    found = set()
    for path in Path(medveil.client.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            if node.func.id in ("get", "post"):
                found |= {(node.func.id.upper(), one) for one in paths(node.args)}
            elif node.func.id == "Call" and len(node.args) > 1 and isinstance(node.args[1], ast.Tuple):
                method = node.args[0]
                assert isinstance(method, ast.Constant)
                found |= {(str(method.value), one) for one in paths(node.args[1].elts)}
    return found


def paths(parts: list[ast.expr]) -> set[str]:
    """The paths that the parts of a call may be."""
    made = {"/v1"}
    for part in parts:
        if isinstance(part, ast.Constant):
            made = {f"{path}/{part.value}" for path in made}
        elif isinstance(part, ast.Starred) and isinstance(part.value, ast.IfExp):  # with these, or with those
            arms = (part.value.body, part.value.orelse)
            tails = {"".join(paths(list(arm.elts))).removeprefix("/v1") for arm in arms if isinstance(arm, ast.Tuple)}
            made = {path + tail for path in made for tail in tails}
        elif isinstance(part, ast.Starred) and isinstance(part.value, ast.Tuple):
            made = {path + tail.removeprefix("/v1") for path in made for tail in paths(part.value.elts)}
        else:
            made = {f"{path}/{{}}" for path in made}
    return made


def test_every_route_has_a_method_of_the_client(world: Any) -> None:
    app = world.services["hospital-1"].running.app
    routes = {
        (method, re.sub(r"\{[^}]*\}", "{}", context.path_format))
        for context in iter_route_contexts(app.routes)
        for method in (context.methods or set()) - {"HEAD", "OPTIONS"}
        if (context.path_format or "").startswith("/v1/")
    }
    assert len(routes) > 60
    assert routes - called() - NOT_FOR_CLIENTS == set()
    assert called() - routes == set()
