"""How the small Hub of `hub_server` answers each request."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_cards import card_problems

if TYPE_CHECKING:
    from hub_server import Account, HubServer, Repository

LARGE_SUFFIXES = (".parquet", ".safetensors", ".bin", ".arrow", ".tar")


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class HubAnswers(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    # (method, path, name of the function that answers); {repo} is TYPEs/USER/NAME for the interface's paths.
    ROUTES = (
        ("GET", r"/api/whoami-v2", "whoami"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("POST", r"/api/repos/create", "create_repo"),
        ("DELETE", r"/api/repos/delete", "delete_repo"),
        ("POST", r"/api/(\w+)s/([^/]+/[^/]+)/preupload/([^/]+)", "preupload"),
        ("POST", r"/api/(\w+)s/([^/]+/[^/]+)/commit/([^/]+)", "commit"),
        ("GET", r"/api/(\w+)s/([^/]+/[^/]+)/tree/([^/]+)(?:/(.+))?", "tree"),
        ("GET", r"/api/(\w+)s/([^/]+/[^/]+)/revision/([^/]+)", "info"),
        ("GET", r"/api/(\w+)s/([^/]+/[^/]+)", "info"),
        ("POST", r"/(?:(\w+)s/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/lfs/(\w{64})", "lfs_put"),
        ("GET", r"/(?:(\w+)s/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
        ("HEAD", r"/(?:(\w+)s/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
    )

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        fault = self.hub.fault_for(self.command, path)
        length = int(self.headers.get("Content-Length") or 0)
        if fault is not None and fault.status == 0 and not fault.done:
            self.rfile.read(length // 2)
            self.hang_up()
            return
        body = self._chunks() if self._chunked() else self.rfile.read(length)
        try:
            if fault is not None and not fault.done:
                raise Refused(fault.status, fault.message)
            for method, pattern, name in self.ROUTES:
                found = re.fullmatch(pattern, path)
                if found and method == self.command:
                    if fault is not None:
                        # What was asked is done, but its answer is lost.
                        self.send = lambda *_: self.hang_up()  # type: ignore[method-assign]
                    with self.hub.lock:
                        getattr(self, name)(body, *found.groups())
                    return
            raise Refused(404, f"no such address {path}")
        except Refused as refused:
            headers = {"X-Error-Message": str(refused)} if str(refused) else {}
            headers |= {"X-Error-Code": refused.code} if refused.code else {}
            headers |= fault.headers if fault else {}
            self.send(refused.status, {"error": str(refused)}, headers)

    def hang_up(self) -> None:
        """Close the connection without an answer."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    def _chunked(self) -> bool:
        return self.headers.get("Transfer-Encoding", "").lower() == "chunked"

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def account(self) -> Account | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.accounts:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.hub.accounts.get(token)

    def writer(self, namespace: str) -> Account:
        account = self.account()
        if account is None:
            raise Refused(401, "Invalid username or password.")
        if not account.may_write(namespace):
            raise Refused(403, f"You don't have the rights to create or write under the namespace {namespace!r}")
        return account

    def repository(self, repo_type: str | None, repo_id: str, *, write: bool = False) -> Repository:
        account = self.account()
        namespace = repo_id.split("/")[0]
        found = self.hub.repositories.get((repo_type or "model", repo_id))
        inside = account is not None and namespace in (account.name, *account.organizations)
        if found is None or (found.private and not inside):
            # The Hub does not tell a stranger whether a private repository exists.
            status = 401 if account is None else 404
            raise Refused(status, "Invalid username or password." if status == 401 else "Not found", "RepoNotFound")
        if write:
            self.writer(namespace)
        return found

    def state(self, repository: Repository, revision: str) -> tuple[str, dict[str, bytes]]:
        found = repository.find(revision)
        if found is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found

    def whoami(self, body: bytes) -> None:
        account = self.account()
        if account is None:
            raise Refused(401, "Invalid username or password.")
        organizations = [{"type": "org", "name": name, "roleInOrg": "write"} for name in account.organizations]
        token = {"type": "access_token", "accessToken": {"displayName": "test", "role": account.role}}
        self.send(200, {"type": "user", "name": account.name, "orgs": organizations, "auth": token})

    def validate_yaml(self, body: bytes) -> None:
        errors = [{"message": problem} for problem in card_problems(json.loads(body)["content"])]
        self.send(400 if errors else 200, {"errors": errors, "warnings": []})

    def create_repo(self, body: bytes) -> None:
        asked = json.loads(body)
        account = self.account()
        namespace = asked.get("organization") or (account.name if account else "")
        self.writer(namespace)
        repo_type, repo_id = asked.get("type", "model"), f"{namespace}/{asked['name']}"
        url = f"{self.hub.url}/{'' if repo_type == 'model' else f'{repo_type}s/'}{repo_id}"
        if (repo_type, repo_id) in self.hub.repositories:
            self.send(409, {"error": f"You already created this {repo_type} repo", "url": url, "id": repo_id})
            return
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.create(repo_type, repo_id, private=bool(private))
        self.send(200, {"url": url, "name": repo_id, "id": repo_id})

    def delete_repo(self, body: bytes) -> None:
        asked = json.loads(body)
        repo_id = f"{asked['organization']}/{asked['name']}"
        self.repository(asked.get("type", "model"), repo_id, write=True)
        del self.hub.repositories[asked.get("type", "model"), repo_id]
        self.send(200, {})

    def info(self, body: bytes, repo_type: str, repo_id: str, revision: str = "main") -> None:
        repository = self.repository(repo_type, repo_id)
        sha, files = self.state(repository, revision)
        self.send(
            200,
            {
                "_id": "0" * 24, "id": repo_id, "author": repo_id.split("/")[0], "sha": sha,
                "private": repository.private, "gated": False, "disabled": False, "tags": [], "downloads": 0,
                "likes": 0, "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z",
                "siblings": [{"rfilename": path} for path in sorted(files)],
            },
        )  # fmt: skip

    def tree(self, body: bytes, repo_type: str, repo_id: str, revision: str, folder: str | None = None) -> None:
        repository = self.repository(repo_type, repo_id)
        _, files = self.state(repository, revision)
        asked = parse_qs(urlsplit(self.path).query)
        below = f"{folder}/" if folder else ""
        found = {path: content for path, content in files.items() if path.startswith(below)}
        if folder and not found:
            raise Refused(404, f"{folder} does not exist", "EntryNotFound")
        entries = [self.entry(repository, path, found[path]) for path in sorted(found)]
        if asked.get("recursive", ["false"])[0].lower() not in ("true", "1"):
            deeper = sorted({below + path.removeprefix(below).split("/")[0] for path in found} - set(found))
            entries = [entry for entry in entries if "/" not in entry["path"].removeprefix(below)]
            entries += [self.folder_entry(path) for path in deeper]
        self.send(200, entries)

    def folder_entry(self, path: str) -> dict[str, Any]:
        return {"type": "directory", "path": path, "size": 0, "oid": git_hash(path.encode())}

    def entry(self, repository: Repository, path: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
        if path in repository.large:
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry

    def preupload(self, body: bytes, repo_type: str, repo_id: str, revision: str) -> None:
        repository = self.repository(repo_type, repo_id, write=True)
        _, files = self.state(repository, revision)
        modes = []
        for file in json.loads(body)["files"]:
            mode = "lfs" if file["path"].endswith(LARGE_SUFFIXES) or file["size"] > 10 * 2**20 else "regular"
            present = None
            if file["path"] in files:
                content = files[file["path"]]
                is_large = file["path"] in repository.large
                present = hashlib.sha256(content).hexdigest() if is_large else git_hash(content)
            modes.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": present})
        self.send(200, {"files": modes})

    def lfs_batch(self, body: bytes, repo_type: str | None, repo_id: str) -> None:
        self.repository(repo_type, repo_id, write=True)
        objects = []
        for wanted in json.loads(body)["objects"]:
            upload = {"href": f"{self.hub.url}/lfs/{wanted['oid']}", "header": {}}
            present = wanted["oid"] in self.hub.blobs
            objects.append(wanted if present else {**wanted, "actions": {"upload": upload}})
        self.send(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, "the content is not what its hash says")
        self.hub.blobs[oid] = body
        self.send(200, {})

    def commit(self, body: bytes, repo_type: str, repo_id: str, revision: str) -> None:
        repository = self.repository(repo_type, repo_id, write=True)
        head, before = self.state(repository, revision)
        files, message, operations = dict(before), "", []
        for line in body.splitlines():
            part = json.loads(line)
            key, value = part["key"], part["value"]
            if key != "header":
                operations.append(("-" if key.startswith("deleted") else "+") + value["path"])
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, head):
                    raise Refused(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.blobs:
                    raise Refused(400, f"{value['path']} was not uploaded")
                files[value["path"]] = self.hub.blobs[value["oid"]]
                repository.large.add(value["path"])
            elif key == "deletedFile":
                del files[value["path"]]
            else:
                raise Refused(400, f"{key} is not known here")
        sha = repository.add_commit(files, message)
        repository.operations.append(operations)
        url = f"{self.hub.url}/{repo_type}s/{repo_id}/commit/{sha}"
        self.send(200, {"success": True, "commitUrl": url, "commitOid": sha, "hookOutput": ""})

    def resolve(self, body: bytes, repo_type: str | None, repo_id: str, revision: str, path: str) -> None:
        repository = self.repository(repo_type, repo_id)
        sha, files = self.state(repository, revision)
        if path not in files:
            raise Refused(404, f"{path} does not exist", "EntryNotFound")
        content = files[path]
        etag = hashlib.sha256(content).hexdigest() if path in repository.large else git_hash(content)
        headers = {"X-Repo-Commit": sha, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self.send(200, content, headers)
            return
        first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self.send(206, content[first : last + 1], headers)


def git_hash(content: bytes) -> str:
    """Return git's name of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
