"""The test Hub's routes that write: repositories, uploads, commits and tags. See `servers.hub`."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from typing import Any

import yaml
from aiohttp import web
from servers.hub_access import REPO, Access, refuse, route
from servers.hub_store import FileEntry, Repo, now


class Writing(Access):
    """Handlers of the routes that change something."""

    @route("POST", "/api/repos/create", "create")
    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        namespaces = self.namespaces(request)
        if namespaces is None:
            raise refuse(401, message="Authentication required")
        org = body.get("organization") or sorted(namespaces)[0]
        if org not in namespaces or self.reads_only(request):
            raise refuse(403, message="You don't have the rights to create a repository under this namespace")
        repo_id, kind = f"{org}/{body['name']}", body.get("type") or "model"
        url = f"{self.server.url}/{'' if kind == 'model' else f'{kind}s/'}{repo_id}"
        with self.store.lock:
            if self.store.repo(kind, repo_id):  # its clients read the address out of this refusal too
                return web.json_response({"error": "You already created this repo", "url": url}, status=409)
            private = body.get("visibility") == "private" or bool(body.get("private"))
            self.store.create(kind, repo_id, private=private)
        return web.json_response({"url": url, "name": repo_id, "id": repo_id})

    @route("POST", REPO + "/tag/{rev}", "tag")
    async def tag(self, request: web.Request) -> web.Response:
        return await self._name(request, "tags", (await request.json())["tag"])

    @route("POST", REPO + "/branch/{new}", "branch")
    async def branch(self, request: web.Request) -> web.Response:
        return await self._name(request, "branches", request.match_info["new"])

    async def _name(self, request: web.Request, kind: str, name: str) -> web.Response:
        repo = self.repo(request, write=True)
        start = (await request.json()).get("startingPoint", request.match_info.get("rev", "main"))
        oid = repo.resolve(start)
        if oid is None:
            raise refuse(404, "RevisionNotFound", "Invalid rev id")
        with self.store.lock:
            repo = self.repo(request, write=True)
            if name in getattr(repo, kind):
                raise refuse(409, message="Reference already exists")
            getattr(repo, kind)[name] = oid
            self.store.save(repo)
        return web.json_response({})

    @route("POST", "/api/validate-yaml", "validate-yaml")
    async def validate(self, request: web.Request) -> web.Response:
        content = (await request.json())["content"]
        if (problem := _card_problem(content)) is None:
            return web.json_response({"errors": [], "warnings": []})
        return web.json_response({"errors": [{"message": problem}], "warnings": []}, status=400)

    @route("POST", REPO + "/preupload/{rev}", "preupload")
    async def preupload(self, request: web.Request) -> web.Response:
        repo = self.repo(request, write=True, pull="create_pr" in request.query)
        tree = self.store.files(self.revision_of(request, repo))
        answers = []
        for file in (await request.json())["files"]:
            path, known = file["path"], tree.get(file["path"])
            large = path.endswith((".parquet", ".png", ".arrow", ".zst")) or file["size"] > 10 * 2**20
            answer = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if known is not None:
                answer["oid"] = known.sha256 if known.lfs else known.oid
            answers.append(answer)
        return web.json_response({"files": answers})

    @route("GET", REPO + "/xet-{access:read|write}-token/{rev}", "xet-token")
    async def xet_token(self, request: web.Request) -> web.Response:
        self.repo(request, write=request.match_info["access"] == "write", pull="create_pr" in request.query)
        if not self.server.xet:
            raise refuse(404, message="Xet is not enabled")
        exp = int(time.time()) + 3600
        return web.json_response({"casUrl": f"local://{self.store.root / 'xet'}", "accessToken": "xet", "exp": exp})

    @route("POST", "/{kind:datasets}/{org}/{name}.git/info/lfs/objects/batch", "batch")
    async def batch(self, request: web.Request) -> web.Response:
        self.repo(request, write=True, pull=True)
        body = await request.json()
        objects = [self._upload(request, item["oid"], item["size"]) for item in body["objects"]]
        return web.json_response({"transfer": "basic", "objects": objects}, content_type="application/vnd.git-lfs+json")

    @route("POST", "/{org}/{name}.git/info/lfs/objects/batch", "batch-of-model")
    async def batch_of_model(self, request: web.Request) -> web.Response:
        return await self.batch(request)

    def _upload(self, request: web.Request, oid: str, size: int) -> dict[str, Any]:
        if self.store.blob(oid).exists():
            return {"oid": oid, "size": size}
        href = f"{self.server.storage_url}/storage/{oid}"
        upload: dict[str, Any] = {"href": href}
        if 0 < self.server.part_size < size:
            count = -(-size // self.server.part_size)
            parts = {f"{part:05d}": f"{href}/part/{part}" for part in range(1, count + 1)}
            upload = {"href": f"{href}/complete", "header": {"chunk_size": str(self.server.part_size), **parts}}
        info = request.match_info
        kind = info.get("kind", "models")
        verify = f"{self.server.verify_url or self.server.url}/{info['org']}/{info['name']}/lfs-verify?kind={kind}"
        return {"oid": oid, "size": size, "actions": {"upload": upload, "verify": {"href": verify}}}

    @route("PUT", "/storage/{sha256}", "put")
    async def put(self, request: web.Request) -> web.Response:
        sha256, temporary, digest = request.match_info["sha256"], self.store.temporary(), hashlib.sha256()
        with temporary.open("wb") as file:
            async for chunk in request.content.iter_chunked(1 << 20):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != sha256:
            temporary.unlink()
            raise refuse(400, message="BadDigest")
        temporary.rename(self.store.blob(sha256))
        return web.Response()

    @route("PUT", "/storage/{sha256}/part/{part}", "put-part")
    async def put_part(self, request: web.Request) -> web.Response:
        path = self.store.root / f"part-{request.match_info['sha256']}-{int(request.match_info['part']):05d}"
        path.write_bytes(await request.read())
        return web.Response(headers={"ETag": f'"{path.stat().st_size}"'})

    @route("POST", "/storage/{sha256}/complete", "complete")
    async def complete(self, request: web.Request) -> web.Response:
        sha256 = request.match_info["sha256"]
        parts = sorted(self.store.root.glob(f"part-{sha256}-*"))
        data = b"".join(part.read_bytes() for part in parts)
        if len((await request.json())["parts"]) != len(parts) or hashlib.sha256(data).hexdigest() != sha256:
            raise refuse(400, message="InvalidPart")
        self.store.put(data)
        return web.json_response({})

    @route("POST", "/{org}/{name}/lfs-verify", "verify")
    async def verify(self, request: web.Request) -> web.Response:
        self.repo(request, write=True, pull=True)
        body = await request.json()
        blob = self.store.blob(body["oid"])
        if not blob.exists() or blob.stat().st_size != body["size"]:
            raise refuse(404, message="Object does not exist")
        return web.json_response({"message": "ok"})

    @route("POST", REPO + "/commit/{rev}", "commit")
    async def commit(self, request: web.Request) -> web.Response:
        pull = request.query.get("create_pr") == "1"
        self.repo(request, write=True, pull=pull)
        lines = [json.loads(line) for line in (await request.read()).splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        with self.store.lock:
            repo = self.repo(request, write=True, pull=pull)
            revision = request.match_info["rev"]
            head, parent = self.revision_of(request, repo), header.get("parentCommit")
            if parent is not None and not pull and parent != head:
                raise refuse(412, message="A commit has happened since. Please refresh and try again.")
            tree = self.store.files(parent or head)
            for line in lines:
                self._apply(tree, line["key"], line["value"])
            oid = self.store.commit(parent or head, header["summary"], header["description"], tree)
            url = self._move(repo, revision, oid, header["summary"], pull=pull)
            self.store.save(repo)
        prefix = "" if request.match_info["kind"] == "models" else "datasets/"
        link = f"{self.server.url}/{prefix}{repo.id}/commit/{oid}"
        return web.json_response({"success": True, "commitOid": oid, "commitUrl": link, "pullRequestUrl": url})

    def _apply(self, tree: dict[str, FileEntry], key: str, value: dict[str, Any]) -> None:
        if key == "file":
            data = base64.b64decode(value["content"])
            if value["path"] == "README.md" and (problem := _card_problem(data.decode())):
                raise refuse(400, message=problem)
            tree[value["path"]] = self.store.entry(data)
        elif key == "lfsFile":
            if not self.store.find(value["oid"]):
                raise refuse(400, message=f"LFS object {value['oid']} was not uploaded")
            tree[value["path"]] = self.store.large(value["oid"])
        elif key == "deletedFile" and tree.pop(value["path"], None) is None:
            raise refuse(404, "EntryNotFound", "A file with this name doesn't exist")

    def _move(self, repo: Repo, revision: str, oid: str, title: str, *, pull: bool) -> str | None:
        if pull:
            number = len(repo.pulls) + 1
            repo.pulls.append({"num": number, "oid": oid, "title": title, "status": "open", "date": now()})
            return f"{self.server.url}/datasets/{repo.id}/discussions/{number}"
        if match := re.fullmatch(r"refs/pr/(\d+)", revision):
            repo.pulls[int(match[1]) - 1]["oid"] = oid
        else:
            repo.branches[revision] = oid
        return None


def _card_problem(content: str) -> str | None:
    """Why the Hub would refuse the card."""
    match = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", content, re.DOTALL)
    try:
        data = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError as error:
        return f"bad YAML: {error}"
    return None if isinstance(data, dict) else "the metadata must be a mapping"
