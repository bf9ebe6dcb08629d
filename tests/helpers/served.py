"""A bank that is served in this process, and requests to it."""

import asyncio
import contextlib
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from PIL import Image

from piggyback_gan.serve.catalogue import Catalogue
from piggyback_gan.serve.options import ServeOptions
from piggyback_gan.serve.server import configure, listen


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def problem(self) -> str:
        """The name of the problem; its document is checked."""
        assert self.headers["content-type"] == "application/problem+json"
        document = self.json
        assert document["status"] == self.status and document["title"] and document["detail"]
        return str(document["type"].removeprefix("urn:pbgan:problem:"))

    @property
    def pixels(self) -> np.ndarray:
        assert self.status == 200, self.content
        return np.asarray(Image.open(io.BytesIO(self.content)))


@dataclass(frozen=True)
class Served:
    port: int

    def ask(
        self,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
    ) -> Answer:
        """Send a GET, or a POST of a body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            method = method or ("GET" if body is None else "POST")
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())

    def translate(self, task: str, body: bytes, query: str = "", **headers: str) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask(f"/v1/tasks/{task}/translate{query}", body, given)

    def translate_files(
        self, task: str, *files: tuple[str, bytes], query: str = "", **headers: str
    ) -> Answer:
        """Translate (name, content) pairs sent as a form."""
        body, kind = form(*files)
        return self.translate(task, body, query, Content_Type=kind, **headers)

    def connect(self) -> socket.socket:
        """A connection for requests that no HTTP client sends."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.ask("/metrics").content.decode().splitlines()
        values = [
            line.split() for line in lines if line.partition(" ")[0].partition("{")[0] == name
        ]
        return sum(float(value[-1]) for value in values)


@contextlib.contextmanager
def serving(bank: Path, **options: Any) -> Iterator[Served]:
    """Serve a bank on loopback until the block is left."""
    with listen("127.0.0.1", 0) as sock:
        config = configure(Catalogue(bank), "127.0.0.1", ServeOptions(**options), log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])))
        thread.start()
        try:
            wait_for(lambda: server.started)
            yield Served(sock.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join()


def translate_head(length: int, *headers: str, task: str = "first", query: str = "") -> bytes:
    """The head of a request to translate a body of this length."""
    lines = f"POST /v1/tasks/{task}/translate{query} HTTP/1.1", "Host: localhost", *headers
    return "\r\n".join([*lines, f"Content-Length: {length}", "\r\n"]).encode()


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.01)


def png(height: int = 20, width: int = 30, seed: int = 0) -> bytes:
    """An RGB image of 8 bits as a PNG file."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def form(*files: tuple[str, bytes]) -> tuple[bytes, str]:
    """A multipart/form-data body of files, and its content type."""
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    return b"".join(parts) + b"--edge--\r\n", "multipart/form-data; boundary=edge"
