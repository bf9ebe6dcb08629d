"""A Hugging Face hub on loopback: the requests that huggingface_hub makes to pull and push banks."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

TOKEN = "hf_of_the_owner"


@dataclass
class Repository:
    """Commits on main, oldest first, each with all its files."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], title: str) -> str:
        """Add a commit with these files and return its name."""
        text = f"{len(self.commits)} {title} {sorted(files)}"
        name = hashlib.sha1(text.encode()).hexdigest()
        self.commits[name] = files
        self.titles.append(title)
        return name

    @property
    def head(self) -> str:
        """The newest commit."""
        return list(self.commits)[-1]

    @property
    def files(self) -> dict[str, bytes]:
        """Those of the newest commit."""
        return self.commits[self.head]


class FakeHub:
    """State that tests set and inspect.

    Attributes:
        repositories: by OWNER/NAME.
        fetched: the paths of downloaded files, in order.
        tamper: functions that alter the content of a file, by path.
        short: how many downloads of a file break off halfway, by path.
        stall: files whose download stops halfway until the hub ends; then `stalled` is set.
        before_create: called with the name before a repository is created.
        before_commit: called with the repository before a commit is checked.
        status: the status of every response, if set.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.fetched: list[str] = []
        self.tamper: dict[str, Callable[[bytes], bytes]] = {}
        self.short: dict[str, int] = {}
        self.stall: set[str] = set()
        self.stalled, self.ended = threading.Event(), threading.Event()
        self.before_create: Callable[[str], object] = lambda name: None
        self.before_commit: Callable[[Repository], object] = lambda repository: None
        self.status: int | None = None
        self.url = ""


@contextmanager
def running() -> Iterator[FakeHub]:
    """Run a hub inside the block."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        if self._refused():
            return
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/?]+))?", self.path):
            self._tell(found[1], found[2])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path):
            self._send(found[1], found[2], unquote(found[3]))
        else:
            self._answer({"error": "unknown"}, 404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._refused():
            return
        if self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif not self._is_owner():
            self._answer({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            self._create(json.loads(body))
        elif re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/[^/]+", self.path):
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            self._commit(found[1], body)
        else:
            self._answer({"error": "unknown"}, 404)

    def _is_owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _refused(self) -> bool:
        if self.hub.status is not None:
            self._answer({"error": "no"}, self.hub.status)
        return self.hub.status is not None

    def _visible(self, name: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._is_owner()):
            self._answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return None
        return repository

    def _revision(self, repository: Repository, revision: str | None) -> str | None:
        if revision in (None, "main"):
            return repository.head
        if revision in repository.commits:
            return revision
        self._answer({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        return None

    def _tell(self, name: str, revision: str | None) -> None:
        if (repository := self._visible(name)) is None:
            return
        if (commit := self._revision(repository, revision)) is not None:
            files = [{"rfilename": path} for path in repository.commits[commit]]
            self._answer(
                {"id": name, "sha": commit, "private": repository.private, "siblings": files}
            )

    def _send(self, name: str, revision: str, path: str) -> None:
        if (repository := self._visible(name)) is None:
            return
        if (commit := self._revision(repository, revision)) is None:
            return
        content = self.hub.tamper.get(path, bytes)(repository.commits[commit][path])
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(begin[1]) if begin else 0
        self.send_response(206 if begin else 200)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(content) - first))
        if begin:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        self.hub.fetched.append(path)
        if path in self.hub.stall or self.hub.short.get(path, 0) > 0:
            self.wfile.write(content[first:][: (len(content) - first) // 2])
            self.wfile.flush()
            self.close_connection = True
            if path in self.hub.stall:
                self.hub.stalled.set()
                self.hub.ended.wait()
            else:
                self.hub.short[path] -= 1
            return
        self.wfile.write(content[first:])

    def _create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        self.hub.before_create(name)
        if name in self.hub.repositories:
            url = f"{self.hub.url}/{name}"
            self._answer({"error": "You already created this model repo", "url": url}, 409)
            return
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.hub.repositories[name] = Repository(private)
        self.hub.repositories[name].commit({".gitattributes": b""}, "initial commit")
        self._answer({"url": f"{self.hub.url}/{name}"})

    def _commit(self, to: str, body: bytes) -> None:
        repository = self.hub.repositories[to]
        self.hub.before_commit(repository)
        header, *operations = [json.loads(line) for line in body.splitlines()]
        assert header["key"] == "header"
        if header["value"]["parentCommit"] != repository.head:
            self._answer({"error": "A commit has happened since. Please refresh."}, 412)
            return
        files = dict(repository.files)
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "deletedFile":
                del files[value["path"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        name = repository.commit(files, header["value"]["summary"])
        self._answer({"commitUrl": f"{self.hub.url}/{to}/commit/{name}", "commitOid": name})

    def _answer(
        self, content: object, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)
