"""The Hub's API: what each address does with the repositories, and what it answers."""

import base64
import json
import secrets
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from hub_cards import check_metadata
from hub_http import Call, Reply, as_json
from hub_reading import describe, list_commits, list_paths, list_refs, list_tree
from hub_repos import GITATTRIBUTES, Accounts, Blobs, Refusal, Repo
from hub_uploads import Uploads
from hub_xet import Xet, xet_headers


TYPES = {"models": "model", "datasets": "dataset", "spaces": "space"}


class Api:
    """Of one Hub, whose state is `repos`, by type and id. Only uploads run beside one another."""

    def __init__(self, root: Path, url: str, cdn_url: str) -> None:
        self.url, self.cdn_url = url, cdn_url
        self.accounts = Accounts()
        self.blobs = Blobs(root / "blobs")
        self.xet = Xet(self.accounts, self.blobs, f"{cdn_url}/cas")
        self.repos: dict[tuple[str, str], Repo] = {}
        self.uploads = Uploads(self)
        self.page_size = 1000
        self.signature = secrets.token_hex(8)  # of addresses that need no token
        self.lock = threading.RLock()

    def answer(self, call: Call) -> Reply:
        match call.method, *call.segments:
            case "PUT", "storage", kind, namespace, name, oid, *part:
                self._check_signature(call)
                return self.uploads.store(call, self.repos[kind, f"{namespace}/{name}"], oid, *(part or [None]))
            case _, "cas", *_:
                return self.xet.answer(call)
            case "GET", "xorbs", sha256:
                return Reply(file=self.blobs.path(sha256))
            case (("GET" | "HEAD"), "cdn", sha256):
                self._check_signature(call)
                return Reply(file=self.blobs.path(sha256), headers={"ETag": f'"{sha256}"'})
        body = call.body()
        with self.lock:
            match call.method, *call.segments:
                case "GET", "api", "whoami-v2":
                    return self._whoami(call)
                case "POST", "api", "validate-yaml":
                    return self._validate(json.loads(body))
                case "POST", "api", "complete_multipart", kind, namespace, name, oid:
                    self._check_signature(call)
                    return self.uploads.complete(self.repos[kind, f"{namespace}/{name}"], oid, json.loads(body))
                case _, "api", "repos", action:
                    return self._change_repos(call, action, json.loads(body))
                case method, "api", kind, namespace, name, *rest if kind in TYPES:
                    repo = self._find(call, TYPES[kind], f"{namespace}/{name}")
                    return self._answer_for(repo, call, method, rest, body)
                case "POST", *prefix, namespace, name, "info", "lfs", "objects", action if name.endswith(".git"):
                    kind = TYPES[prefix[0]] if prefix else "model"
                    repo = self._find(call, kind, f"{namespace}/{name.removesuffix('.git')}")
                    self._check_write(repo, call)
                    return self.uploads.lfs(repo, call, action, json.loads(body))
                case _, ("datasets" | "spaces") as kind, namespace, name, "resolve", revision, *path:
                    return self._resolve(self._find(call, TYPES[kind], f"{namespace}/{name}"), call, revision, path)
                case _, namespace, name, "resolve", revision, *path:
                    return self._resolve(self._find(call, "model", f"{namespace}/{name}"), call, revision, path)
        raise Refusal(501, f"This test Hub does not speak {call.method} /{'/'.join(call.segments)}")

    def _answer_for(self, repo: Repo, call: Call, method: str, rest: list[str], body: bytes) -> Reply:
        match method, *rest:
            case ("GET",):
                return self._info(repo, call, "main")
            case "GET", "revision", revision:
                return self._info(repo, call, revision)
            case "GET", "refs":
                return as_json(list_refs(repo))
            case "GET", "commits", revision:
                return self._page_of(list_commits(repo, revision), call)
            case "GET", "tree", revision, *path:
                recursive, expand = call.query.get("recursive") == ["true"], call.query.get("expand") == ["true"]
                return self._page_of(
                    list_tree(repo, revision, "/".join(path), recursive, expand, self.xet.hashes), call
                )
            case "POST", "paths-info", revision:
                form = parse_qs(body.decode())
                paths, expand = form.get("paths", []), form.get("expand") == ["true"]
                return as_json(list_paths(repo, revision, paths, expand, self.xet.hashes))
            case "GET", "auth-check":
                self._check_gate(repo, call)
                return as_json({})
            case "GET", "xet-read-token", _:
                self._check_gate(repo, call)
                return self.xet.lend(repo, call.token, "read")
        if method != "GET" or rest == ["auth-check", "write"] or rest[0] == "xet-write-token":
            self._check_write(repo, call)
        match method, *rest:
            case "GET", "xet-write-token", _:
                return self.xet.lend(repo, call.token, "write")
            case "GET", "auth-check", "write":
                return as_json({})
            case "POST", "preupload", revision:
                return self.uploads.preupload(repo, revision, json.loads(body))
            case "POST", "commit", revision if "create_pr" not in call.query:
                return self.uploads.commit(repo, call, revision, body)
            case (("POST" | "DELETE"), ("tag" | "branch") as kind, name):
                return self._change_ref(repo, method, kind, name, body)
            case "PUT", "settings":
                return self._change_settings(repo, json.loads(body))
        raise Refusal(501, f"This test Hub does not speak {call.method} /{'/'.join(call.segments)}")

    # Who may do what

    def _find(self, call: Call, kind: str, repo_id: str) -> Repo:
        repo = self.repos.get((kind, repo_id))
        if repo is None or (repo.private and not self.accounts.belongs(call.token, repo.namespace)):
            # Over https the Hub's clients take every 401 for a missing repository; here they need the code.
            if call.token is None:
                raise Refusal(401, "Invalid username or password.", "RepoNotFound")
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return repo

    def _check_write(self, repo: Repo, call: Call) -> None:
        if call.token is None:
            raise Refusal(401, "Invalid username or password.")
        if not self.accounts.belongs(call.token, repo.namespace):
            raise Refusal(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
        if call.token.role != "write":
            raise Refusal(403, "Forbidden: you must use a write token to upload to a repository.")

    def _check_gate(self, repo: Repo, call: Call) -> None:
        if not repo.gated or self.accounts.belongs(call.token, repo.namespace):
            return
        about = f"Access to {repo.type} {repo.id} is restricted"
        if call.token is None:
            message = f"{about}. You must have access to it and be authenticated to access it. Please log in."
            raise Refusal(401, message, "GatedRepo")
        if call.token.user not in repo.accepted:
            message = f"{about} and you are not in the authorized list. Visit {self.page(repo)} to ask for access."
            raise Refusal(403, message, "GatedRepo")

    def _check_signature(self, call: Call) -> None:
        if call.query.get("Signature") != [self.signature]:
            raise Refusal(403, "Access denied: the signature is missing or wrong")

    def _whoami(self, call: Call) -> Reply:
        if call.token is None:
            raise Refusal(401, "Invalid username or password.")
        name, orgs = call.token.user, self.accounts.orgs[call.token.user]
        found = {"type": "user", "id": name, "name": name, "fullname": name, "isPro": False, "avatarUrl": ""}
        found["orgs"] = [
            {"type": "org", "id": org, "name": org, "fullname": org, "roleInOrg": "write"} for org in orgs
        ]
        found["auth"] = {"type": "access_token", "accessToken": {"displayName": "test", "role": call.token.role}}
        return as_json(found)

    # Repositories

    def page(self, repo: Repo) -> str:
        return f"{self.url}/{'' if repo.type == 'model' else f'{repo.type}s/'}{repo.id}"

    def _change_repos(self, call: Call, action: str, body: dict[str, Any]) -> Reply:
        if call.token is None:
            raise Refusal(401, "Invalid username or password.")
        kind = body.get("type") or "model"
        if action == "move":
            old, new = body["fromRepo"], body["toRepo"]
        else:
            old = new = f"{body.get('organization') or call.token.user}/{body['name']}"
        if call.token.role != "write" or not self.accounts.belongs(call.token, new.partition("/")[0]):
            raise Refusal(403, f"You don't have the rights to create a {kind} under this namespace")
        if action == "create":
            return self._create(call.token.user, kind, new, body)
        repo = self._find(call, kind, old)
        self._check_write(repo, call)
        if action == "move":
            if (kind, new) in self.repos:
                raise Refusal(409, f"A {kind} named {new} exists already")
            repo.id = new
            self.repos[kind, new] = repo
        del self.repos[kind, old]
        return as_json({})

    def _create(self, user: str, kind: str, repo_id: str, body: dict[str, Any]) -> Reply:
        repo = Repo(repo_id, kind, self.blobs, private=body.get("visibility") == "private")
        if (kind, repo_id) in self.repos:
            raise Refusal(409, f"You already created this {kind} repo", url=self.page(repo))
        content = base64.b64encode(GITATTRIBUTES.encode()).decode()
        first = {"key": "file", "value": {"path": ".gitattributes", "content": content}}
        repo.commit("main", user, {"summary": "initial commit"}, [first])
        self.repos[kind, repo_id] = repo
        return as_json({"url": self.page(repo), "name": repo_id, "id": repo_id})

    def _change_settings(self, repo: Repo, body: dict[str, Any]) -> Reply:
        if "visibility" in body:
            repo.private = body["visibility"] == "private"
        repo.gated = body.get("gated", repo.gated)
        return as_json({"private": repo.private, "gated": repo.gated})

    def _change_ref(self, repo: Repo, method: str, kind: str, name: str, body: bytes) -> Reply:
        """A tag's address names its revision where it is made, and the tag where it goes."""
        refs = repo.tags if kind == "tag" else repo.branches
        if method == "DELETE":
            if name not in refs:
                raise Refusal(404, f"Invalid rev id: {name}", "RevisionNotFound")
            del refs[name]
            return as_json({})
        options = json.loads(body or b"{}")
        name, revision = (options["tag"], name) if kind == "tag" else (name, options.get("startingPoint", "main"))
        sha = repo.at(revision).sha
        if name in refs:
            raise Refusal(409, f"{kind.capitalize()} reference exists already")
        refs[name] = sha
        return as_json({})

    # What is in them

    def _info(self, repo: Repo, call: Call, revision: str) -> Reply:
        info = describe(repo, revision, with_blobs="blobs" in call.query)
        wanted = call.query.get("expand")
        return as_json({key: info.get(key) for key in ("_id", "id", *wanted)} if wanted else info)

    def _page_of(self, found: list[Any], call: Call) -> Reply:
        start = int(call.query.get("cursor", ["0"])[0])
        end = start + self.page_size
        headers = {}
        if end < len(found):
            query = urlencode(call.query | {"cursor": [str(end)]}, doseq=True)
            address = "/".join(quote(segment, safe="") for segment in call.segments)
            headers["Link"] = f'<{self.url}/{address}?{query}>; rel="next"'
        return as_json(found[start:end], headers=headers)

    def _resolve(self, repo: Repo, call: Call, revision: str, path: list[str]) -> Reply:
        if call.method not in ("GET", "HEAD"):
            raise Refusal(405, "Method Not Allowed")
        self._check_gate(repo, call)
        file = repo.file(revision, "/".join(path))
        headers = {"X-Repo-Commit": repo.at(revision).sha, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if not file.is_lfs:
            return Reply(file=self.blobs.path(file.sha256), headers=headers)
        location = f"{self.cdn_url}/cdn/{file.sha256}?Signature={self.signature}"
        headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(file.size), "Location": location}
        headers |= xet_headers(self.xet, self.url, repo, repo.at(revision).sha, file.sha256)
        return Reply(b"Found. Redirecting", 302, headers)

    # What is written to them

    def _validate(self, body: dict[str, Any]) -> Reply:
        errors, warnings = check_metadata(body["content"], body.get("repoType") or "model")
        found = {
            "errors": [{"message": text} for text in errors],
            "warnings": [{"message": text} for text in warnings],
        }
        return as_json(found, 400 if errors else 200)
