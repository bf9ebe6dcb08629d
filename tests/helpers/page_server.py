"""A stand-in for `pbgan serve`, for tests of its page: tests set its tasks, failures and timing."""

import io
import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from PIL import Image, ImageOps

import piggyback_gan.serve

PAGE = Path(piggyback_gan.serve.__file__).parent / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
RGB = {"summary": "RGB 8 bit", "channels": 3, "depth": "uint8", "low": 0, "high": 255}
LABELS = {"summary": "label map of 12 classes", "channels": 12, "depth": "uint8", "labels": True}
CUT = "cut"
"""A failure: the connection ends without a response."""


def make_task(name: str, *, mode: str = "paired", **more: Any) -> dict[str, Any]:
    """Build a task as the server describes it."""
    ways = ["AtoB", "BtoA"] if mode == "unpaired" else ["AtoB"]
    directions = [
        {
            "direction": way,
            "input": RGB | {"labels": False},
            "output": LABELS if name == "labels" else RGB | {"labels": False},
            "output_format": "png",
        }
        for way in ways
    ]
    return {
        "name": name,
        "added": "2026-11-02T10:00:00+00:00",
        "sha256": name.encode().hex(),
        "mode": mode,
        "image_size": 256,
        "description": None,
        "license": None,
        "has_sample": True,
        "directions": directions,
    } | more


def problem(kind: str, status: int, detail: str, **headers: str) -> "Failure":
    """Build a failure with a problem document (RFC 9457)."""
    content = {"type": f"urn:pbgan:problem:{kind}", "title": kind, "status": status}
    return Failure(status, content | {"detail": detail}, headers)


@dataclass
class Failure:
    """An error response."""

    status: int
    content: dict[str, Any]
    headers: dict[str, str]


@dataclass
class Translation:
    """A request for a translation."""

    task: str
    query: dict[str, str]
    name: str
    content: bytes


@dataclass
class PageServer:
    """State that tests set and inspect.

    Attributes:
        tasks, limits: the content of GET v1/tasks.
        samples: sample pictures by task; others are drawn.
        token: required, if set.
        failures: responses to the next translations, in order; None lets one through.
        failing: responses to all translations of files with these names.
        late: for files with these names, the response that a token is needed waits until it is set.
        open: translations wait until it is set.
        asked: all translations that were requested.
        most: the most translations at the same time.
        polls: the statuses of responses to GET v1/tasks.
        broken: all connections to v1/ end without a response.
        prefix: path prefix of all addresses, as behind a reverse proxy: `/bank`.
    """

    url: str = ""
    tasks: list[dict[str, Any]] = field(default_factory=list)
    limits: dict[str, int] = field(
        default_factory=lambda: {
            "max_bytes": 32 << 20,
            "max_pixels": 1 << 24,
            "max_files": 32,
            "timeout_s": 120,
        }
    )
    samples: dict[str, bytes] = field(default_factory=dict)
    token: str | None = None
    failures: list[Failure | str | None] = field(default_factory=list)
    failing: dict[str, Failure | str] = field(default_factory=dict)
    late: dict[str, threading.Event] = field(default_factory=dict)
    open: threading.Event = field(default_factory=threading.Event)
    asked: list[Translation] = field(default_factory=list)
    most: int = 0
    polls: list[int] = field(default_factory=list)
    broken: bool = False
    prefix: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    under_way: int = 0


@contextmanager
def running(*tasks: dict[str, Any]) -> Iterator[PageServer]:
    """Run the server inside the block."""
    state = PageServer(tasks=list(tasks))
    state.open.set()
    server = _Quiet(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    state.url = f"http://127.0.0.1:{server.server_port}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        state.open.set()
        server.shutdown()
        server.server_close()
        thread.join()


def translated(content: bytes) -> bytes:
    """Return the output for an input: a PNG of the inverted picture."""
    with Image.open(io.BytesIO(content)) as image:
        return _png(ImageOps.invert(image.convert("RGB")))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore browsers that close a connection early."""


class _Handler(BaseHTTPRequestHandler):
    state: PageServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet

    def log_message(self, *words: object) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        path = self._path()
        if path == "/" or (found := re.fullmatch(r"/page/([a-z0-9]+\.[a-z]+)", path)):
            file = PAGE / ("index.html" if path == "/" else found[1])
            if file.is_file():
                return self._answer(file.read_bytes(), KINDS[file.suffix] + "; charset=utf-8")
        elif path.startswith("/v1/") and self._refused():
            return None
        elif path == "/v1/tasks":
            return self._tasks()
        elif found := re.fullmatch(r"/v1/tasks/([^/]+)/sample", path):
            return self._sample(found[1])
        return self._fail(problem("not-found", 404, "There is no such page."))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        found = re.fullmatch(r"/v1/tasks/([^/]+)/translate", self._path())
        name, content = self._uploaded(body)
        if self._refused(name) or found is None:
            return
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        state = self.state
        with state.lock:
            state.asked.append(Translation(unquote(found[1]), query, name, content))
            failure = state.failures.pop(0) if state.failures else None
            state.under_way += 1
            state.most = max(state.most, state.under_way)
        state.open.wait()
        with state.lock:
            state.under_way -= 1
        failure = failure or state.failing.get(name)
        if failure is None and found[1] not in [task["name"] for task in state.tasks]:
            failure = problem("unknown-task", 404, f"There is no task {found[1]} in the bank.")
        if failure is None:
            self._translate(name, content)
        elif isinstance(failure, Failure):
            self._fail(failure)
        else:
            self.close_connection = True

    def _path(self) -> str:
        path = urlsplit(self.path).path
        return path.removeprefix(self.state.prefix) if path.startswith(self.state.prefix) else ""

    def _refused(self, name: str = "") -> bool:
        if self.state.broken:
            self.close_connection = True
            return True
        if self.state.token in (
            None,
            self.headers.get("Authorization", "").removeprefix("Bearer "),
        ):
            return False
        if name in self.state.late:
            self.state.late[name].wait()
        self._fail(problem("unauthorized", 401, "Give the token."))
        return True

    def _tasks(self) -> None:
        content = json.dumps({"tasks": self.state.tasks, "limits": self.state.limits}).encode()
        etag = f'"{hash(content)}"'
        status = 304 if self.headers.get("If-None-Match") == etag else 200
        self.state.polls.append(status)
        self._answer(b"" if status == 304 else content, "application/json", status, ETag=etag)

    def _sample(self, name: str) -> None:
        content = self.state.samples.get(name)
        if content is None:
            picture = Image.new("RGB", (130, 64), "white")
            picture.paste((40 + 13 * len(name), 90, 150), (0, 0, 64, 64))
            picture.paste((230, 160, 60), (66, 0, 130, 64))
            content = _png(picture)
        self._answer(content, "image/png")

    def _uploaded(self, body: bytes) -> tuple[str, bytes]:
        """Return name and content of the only file in a form."""
        boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
        head, _, content = body.partition(b"\r\n\r\n")
        found = re.search(r'filename="([^"]*)"', head.decode())
        assert found is not None
        return found[1], content.removesuffix(b"\r\n--" + boundary + b"--\r\n")

    def _translate(self, name: str, content: bytes) -> None:
        output = translated(content)
        with Image.open(io.BytesIO(content)) as image:
            view = _png(image.convert("RGB"))
        boundary = uuid.uuid4().hex
        form = b""
        parts = {
            "output": (name.rpartition(".")[0] + ".png", output),
            "input_view": ("input.png", view),
            "output_view": ("output.png", output),
        }
        for key, (file, data) in parts.items():
            form += (
                f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"; '
                f'filename="{file}"\r\nContent-Type: image/png\r\n\r\n'
            ).encode()
            form += data + b"\r\n"
        form += f"--{boundary}--\r\n".encode()
        self._answer(form, f"multipart/form-data; boundary={boundary}")

    def _fail(self, failure: Failure) -> None:
        content = json.dumps(failure.content).encode()
        self._answer(content, "application/problem+json", failure.status, **failure.headers)

    def _answer(self, content: bytes, kind: str, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)
