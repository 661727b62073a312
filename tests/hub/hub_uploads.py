"""How files come to the Hub: which are large, where these go, and the commit that names them all."""

import base64
import fnmatch
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hub_http import Call, Reply, as_json
from hub_repos import Refusal, Repo


if TYPE_CHECKING:
    from hub_api import Api


class Uploads:
    """Of one Hub. The limits are those that the hub library documents; they can be set lower."""

    def __init__(self, api: "Api") -> None:
        self.api = api
        self.part_size = 5_000_000_000  # bytes of a file in large file storage that go in one piece
        self.max_lfs_files = 25_000  # of a commit
        self.max_regular_bytes = 1_000_000_000  # of a commit, as they are sent

    def preupload(self, repo: Repo, revision: str, body: dict[str, Any]) -> Reply:
        """Files that .gitignore names are to be left out: that of the question, or else that of the repository."""
        commit, answers = repo.at(revision), []
        ignored = body.get("gitIgnore")
        if ignored is None:
            ignored = repo.read(".gitignore", revision).decode() if ".gitignore" in commit.files else ""
        patterns = [line.strip() for line in ignored.splitlines() if line.strip() and not line.startswith("#")]
        for file in body["files"]:
            path = file["path"]
            lfs = repo.takes_as_lfs(revision, path, file["size"], base64.b64decode(file["sample"]))
            names = (path, path.rpartition("/")[2])
            ignore = any(fnmatch.fnmatch(name, pattern) for name in names for pattern in patterns)
            answer = {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": ignore}
            if path in commit.files:
                answer["oid"] = commit.files[path].etag
            answers.append(answer)
        return as_json({"files": answers, "commitOid": commit.sha})

    def lfs(self, repo: Repo, call: Call, action: str, body: dict[str, Any]) -> Reply:
        if action == "verify":
            if repo.lfs.get(body["oid"]) != body["size"]:
                raise Refusal(404, "The object was not uploaded, or with another size")
            return as_json({})
        multipart = "multipart" in body.get("transfers", [])
        objects = [self._object(repo, wanted["oid"], wanted["size"], multipart) for wanted in body["objects"]]
        transfer = "multipart" if any("header" in o.get("actions", {}).get("upload", {}) for o in objects) else "basic"
        headers = {"Content-Type": "application/vnd.git-lfs+json"}
        return as_json({"transfer": transfer, "objects": objects}, headers=headers)

    def _object(self, repo: Repo, oid: str, size: int, multipart: bool) -> dict[str, Any]:
        answer = {"oid": oid, "size": size, "authenticated": True}
        if oid in repo.lfs:
            return answer
        signed = f"Signature={self.api.signature}"
        place = f"{repo.type}/{repo.id}/{oid}"
        upload: dict[str, Any] = {"href": f"{self.api.cdn_url}/storage/{place}?{signed}"}
        if multipart and size > self.part_size:
            count = -(-size // self.part_size)
            parts = {f"{n:05}": f"{self.api.cdn_url}/storage/{place}/{n}?{signed}" for n in range(1, count + 1)}
            end = f"{self.api.url}/api/complete_multipart/{place}?{signed}"
            upload = {"href": end, "header": {"chunk_size": str(self.part_size)} | parts}
        verify = f"{self.api.page(repo)}.git/info/lfs/objects/verify"
        return answer | {"actions": {"upload": upload, "verify": {"href": verify}}}

    def store(self, call: Call, repo: Repo, oid: str, part: str | None) -> Reply:
        """A file, or a part of it."""
        sha256, size = self.api.blobs.add(call.chunks(), expected=None if part else oid)
        with self.api.lock:
            if part:
                repo.parts.setdefault(oid, {})[int(part)] = sha256
            else:
                repo.lfs[sha256] = size
        return Reply(headers={"ETag": f'"{sha256}"'})

    def complete(self, repo: Repo, oid: str, body: dict[str, Any]) -> Reply:
        """Put the parts of a file together, where the client names them all."""
        parts = repo.parts.pop(oid, {})
        named = {part["partNumber"]: part["etag"].strip('"') for part in body["parts"]}
        if named != parts:
            raise Refusal(400, "The parts are not those that were uploaded")
        contents = (self.api.blobs.path(parts[number]).read_bytes() for number in sorted(parts))
        sha256, repo.lfs[oid] = self.api.blobs.add(contents, expected=oid)
        return as_json({"success": True, "oid": sha256})

    def commit(self, repo: Repo, call: Call, branch: str, body: bytes) -> Reply:
        header, *operations = [json.loads(line) for line in body.splitlines() if line.strip()]
        self._check_limits(operations)
        assert call.token is not None
        commit = repo.commit(branch, call.token.user, header["value"], operations)
        url = f"{self.api.page(repo)}/commit/{commit.sha}"
        return as_json({"success": True, "commitOid": commit.sha, "commitUrl": url, "hookOutput": ""})

    def _check_limits(self, operations: Iterable[dict[str, Any]]) -> None:
        sizes = {"file": 0, "lfsFile": 0}
        for operation in operations:
            if operation["key"] in sizes:
                sizes[operation["key"]] += len(operation["value"].get("content", "1"))
        if sizes["lfsFile"] > self.max_lfs_files or sizes["file"] > self.max_regular_bytes:
            raise Refusal(413, "Payload Too Large")
