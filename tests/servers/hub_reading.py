"""The test Hub's routes that read: repositories, refs, trees and files. See `servers.hub`."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from servers.hub_access import REPO, Access, refuse, route
from servers.hub_store import FileEntry, Repo


class Reading(Access):
    """Handlers of the routes that change nothing."""

    @route("GET", REPO, "info")
    async def info(self, request: web.Request) -> web.Response:
        repo = self.repo(request)
        return self._describe(request, repo, repo.branches["main"])

    @route("GET", REPO + "/auth-check/write", "auth-check")
    async def auth_check(self, request: web.Request) -> web.Response:
        """Whether the token may write to the repository."""
        self.repo(request, write=True)
        return web.json_response({})

    @route("GET", "/api/whoami-v2", "whoami")
    async def whoami(self, request: web.Request) -> web.Response:
        """Whose the token is, and what it may do."""
        namespaces = self.namespaces(request)
        if namespaces is None:
            raise refuse(401, message="Authentication required")
        name, *orgs = sorted(namespaces)
        role = "read" if self.reads_only(request) else "write"
        listed = [{"name": org, "roleInOrg": "write"} for org in orgs]
        return web.json_response({"name": name, "orgs": listed, "auth": {"accessToken": {"role": role}}})

    @route("GET", REPO + "/revision/{rev}", "revision")
    async def revision(self, request: web.Request) -> web.Response:
        repo = self.repo(request)
        return self._describe(request, repo, self.revision_of(request, repo))

    def _describe(self, request: web.Request, repo: Repo, oid: str) -> web.Response:
        commit = self.store.read_commit(oid)
        siblings = [{"rfilename": path} for path in commit["files"]]
        facts = {"_id": repo.id, "id": repo.id, "author": repo.id.split("/")[0], "sha": oid, "private": repo.private}
        facts |= {"createdAt": repo.created, "lastModified": commit["date"], "siblings": siblings, "gated": False}
        return web.json_response(facts | {"disabled": False, "tags": [], "downloads": 0, "likes": 0})

    @route("GET", REPO + "/refs", "refs")
    async def refs(self, request: web.Request) -> web.Response:
        repo = self.repo(request)
        pulls = {f"{pull['num']}": pull["oid"] for pull in repo.pulls}
        named = {
            "branches": [(name, f"refs/heads/{name}", oid) for name, oid in repo.branches.items()],
            "tags": [(name, f"refs/tags/{name}", oid) for name, oid in repo.tags.items()],
            "pullRequests": [(num, f"refs/pr/{num}", oid) for num, oid in pulls.items()],
        }
        body = {k: [{"name": n, "ref": r, "targetCommit": o} for n, r, o in refs] for k, refs in named.items()}
        return web.json_response({"converts": [], **body})

    @route("GET", REPO + "/commits/{rev}", "commits")
    async def commits(self, request: web.Request) -> web.Response:
        repo = self.repo(request)
        return web.json_response(
            [
                {"id": oid, "title": commit["title"], "message": commit["description"], "date": commit["date"]}
                | {"authors": []}
                for oid, commit in self.store.history(self.revision_of(request, repo))
            ]
        )

    @route("GET", REPO + "/discussions", "discussions")
    async def discussions(self, request: web.Request) -> web.Response:
        repo = self.repo(request)
        found = [
            {"num": pull["num"], "title": pull["title"], "status": pull["status"], "isPullRequest": True}
            | {"createdAt": pull["date"], "author": {"name": "user"}, "repo": {"name": repo.id, "type": repo.type}}
            for pull in reversed(repo.pulls)
        ]
        return web.json_response({"count": len(found), "start": 0, "discussions": found})

    @route("GET", REPO + "/tree/{rev}", "tree")
    async def tree(self, request: web.Request) -> web.Response:
        return self._tree(request, "")

    @route("GET", REPO + "/tree/{rev}/{path:.+}", "tree-path")
    async def tree_path(self, request: web.Request) -> web.Response:
        return self._tree(request, request.match_info["path"].rstrip("/") + "/")

    def _tree(self, request: web.Request, folder: str) -> web.Response:
        repo = self.repo(request)
        oid = self.revision_of(request, repo)
        files = {path: entry for path, entry in self.store.files(oid).items() if path.startswith(folder)}
        if not files:
            raise refuse(404, "EntryNotFound", f"{folder} does not exist on {oid}")
        entries = _listing(files, folder, recursive=request.query.get("recursive", "").lower() in ("true", "1"))
        start, size = int(request.query.get("cursor", 0)), self.server.page_size
        response = web.json_response(entries[start : start + size])
        if start + size < len(entries):
            following = request.url.update_query(cursor=start + size)
            response.headers["Link"] = (
                f'<{self.server.pages_url or self.server.url}{following.raw_path_qs}>; rel="next"'
            )
        return response

    @route("POST", REPO + "/paths-info/{rev}", "paths-info")
    async def paths_info(self, request: web.Request) -> web.Response:
        repo = self.repo(request)
        kind = request.content_type
        body: Any = await request.json() if kind == "application/json" else await request.post()
        wanted = body["paths"] if kind == "application/json" else body.getall("paths")
        files = self.store.files(self.revision_of(request, repo))
        folders = {p for p in wanted if any(path.startswith(p.rstrip("/") + "/") for path in files)}
        found = [_file(path, files[path]) for path in wanted if path in files]
        return web.json_response(
            found + [{"type": "directory", "path": p, "oid": "0" * 40, "size": 0} for p in folders]
        )

    @route("GET", "/{kind:datasets|spaces}/{org}/{name}/resolve/{rev}/{path:.+}", "resolve")
    async def resolve(self, request: web.Request) -> web.StreamResponse:
        repo = self.repo(request)
        oid = self.revision_of(request, repo)
        headers = {"X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
        entry = self.store.files(oid).get(request.match_info["path"])
        if entry is None:
            raise refuse(404, "EntryNotFound", "Entry not found")
        if not entry.lfs:
            headers["ETag"] = f'"{entry.oid}"'
            return web.FileResponse(self.store.blob(entry.sha256), headers=headers)
        headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
        raise web.HTTPFound(f"{self.server.storage_url}/storage/{entry.sha256}", headers=headers)

    @route("GET", "/{org}/{name}/resolve/{rev}/{path:.+}", "resolve-of-model")
    async def resolve_of_model(self, request: web.Request) -> web.StreamResponse:
        return await self.resolve(request)

    @route("GET", "/storage/{sha256}", "download")
    async def download(self, request: web.Request) -> web.StreamResponse:
        sha256 = request.match_info["sha256"]
        return web.FileResponse(self.store.blob(sha256), headers={"ETag": f'"{sha256}"'})


def _file(path: str, entry: FileEntry) -> dict[str, Any]:
    facts: dict[str, Any] = {"type": "file", "path": path, "size": entry.size, "oid": entry.oid}
    if entry.lfs:
        facts["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": 134}
    return facts


def _listing(files: dict[str, FileEntry], folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    folders, listed = set(), []
    for path, entry in files.items():
        parts = path[len(folder) :].split("/")
        depth = len(parts) - 1 if recursive else min(1, len(parts) - 1)
        folders |= {folder + "/".join(parts[: level + 1]) for level in range(depth)}
        if recursive or len(parts) == 1:
            listed.append(_file(path, entry))
    return [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)] + listed
