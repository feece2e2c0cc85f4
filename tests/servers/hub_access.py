"""Who asks, and what for: the part that all of the test Hub's routes share. See `servers.hub`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web
from servers.hub_store import Repo, Store

if TYPE_CHECKING:
    from servers.hub import HubServer

REPO = "/api/{kind:datasets|models|spaces}/{org}/{name}"


def route(method: str, path: str, name: str) -> Callable[[Any], Any]:
    """Mark a handler with the request that it answers; `name` is what faults and calls go by."""

    def mark(handler: Any) -> Any:
        handler.route = (method, path, name)
        return handler

    return mark


def add_routes(app: web.Application, handlers: object) -> None:
    """Give the application all marked handlers of an object."""
    for attribute in dir(type(handlers)):
        if hasattr(handler := getattr(handlers, attribute), "route"):
            method, path, name = handler.route
            app.router.add_resource(path, name=name).add_route(method, handler)
            if method == "GET":
                app.router.add_resource(path, name=f"{name}-head").add_route("HEAD", handler)


def refuse(status: int, code: str = "", message: str = "") -> web.HTTPException:
    """An answer that the clients recognise: `X-Error-Code` decides which exception they raise."""
    headers = {"X-Error-Code": code} if code else {}
    if message:
        headers["X-Error-Message"] = message
    kind = {400: web.HTTPBadRequest, 401: web.HTTPUnauthorized, 403: web.HTTPForbidden, 404: web.HTTPNotFound}
    kind |= {409: web.HTTPConflict, 412: web.HTTPPreconditionFailed}
    body = json.dumps({"error": message or code})
    return kind[status](headers=headers, text=body, content_type="application/json")


class Access:
    """Tokens, repositories and revisions of a request; `server` holds the state."""

    def __init__(self, server: HubServer) -> None:
        self.server = server

    @property
    def store(self) -> Store:
        """Everything on disk."""
        return self.server.store

    def namespaces(self, request: web.Request) -> set[str] | None:
        """What the request's token may write to; None without one. A bad token is refused."""
        header = request.headers.get("Authorization")
        if header is None:
            return None
        if (namespaces := self.server.tokens.get(header.removeprefix("Bearer "))) is None:
            raise refuse(401, message="Invalid credentials in Authorization header")
        return namespaces

    def reads_only(self, request: web.Request) -> bool:
        """Whether the token is one that may write nowhere."""
        return request.headers.get("Authorization", "").removeprefix("Bearer ") in self.server.readers

    def repo(self, request: web.Request, *, write: bool = False, pull: bool = False) -> Repo:
        """The repository of the path, if the request may see it, or write to it, or propose a change to it."""
        info = request.match_info
        namespaces = self.namespaces(request)
        kind = info.get("kind") or request.query.get("kind", "models")  # a path without one is a model's
        repo = self.store.repo(kind.removesuffix("s"), f"{info['org']}/{info['name']}")
        member = namespaces is not None and info["org"] in namespaces
        if repo is None or (repo.private and not member):
            raise refuse(401 if namespaces is None else 404, "RepoNotFound", "Repository not found")
        member = member and not (write and self.reads_only(request))
        if write and not member and not (pull and namespaces is not None):
            raise refuse(401 if namespaces is None else 403, message="You need write access to this repository")
        return repo

    def revision_of(self, request: web.Request, repo: Repo) -> str:
        """The commit that the path's revision means."""
        oid = repo.resolve(request.match_info["rev"])
        if oid is None or not (self.store.root / "commits" / f"{oid}.json").exists():
            raise refuse(404, "RevisionNotFound", "Invalid rev id")
        return oid
