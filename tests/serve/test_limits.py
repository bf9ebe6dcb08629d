"""Limits of a server: bodies, pixels, bombs, options, slow clients and clients that leave."""

import asyncio
import contextlib
import io
import json
import socket
import struct
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.types import Message

from piggyback_gan import Bank, PiggybackError
from piggyback_gan.images.pixels import Pixels
from piggyback_gan.serve import batching, limits, middleware, server
from piggyback_gan.serve.options import ServeOptions
from piggyback_gan.serve.problems import Problem
from served import Served, form, png, serving, translate_head, wait_for


@pytest.fixture(scope="module")
def served(bank: Bank) -> Iterator[Served]:
    with serving(bank.path, max_bytes=200_000, max_pixels=10_000, max_files=3) as running:
        yield running


@pytest.fixture
def discarding_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the rest of refused bodies, which these tests never send."""
    monkeypatch.setattr(middleware, "_DISCARD_SECONDS", 0.05)


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says it is large."""
    content = bytearray(png(8, 8))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def test_an_unknown_task_is_told_with_those_there_are(served: Served) -> None:
    answer = served.translate("winter", png())
    assert (answer.status, answer.problem) == (404, "unknown-task")
    assert answer.json["tasks"] == ["first", "second"]
    assert served.ask("/v1/tasks/..%2f..%2fbank.json/sample").status == 404


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?direction=BtoA", "does not translate BtoA: choose AtoB"),
        ("?direction=up", "direction: "),
        ("?dirction=AtoB", "unknown option: choose from direction, tile"),
        ("?tile=30", "give 32"),
        ("?tile=-1", "tile: "),
        ("?tile=32&overlap=30", "overlap"),
        ("?overlap=8", "overlap needs tile: give tile too"),
        ("?tile=65536", "the limit is"),
        ("?format=gif", "format: "),
        ("?views=perhaps", "views: "),
    ],
)
def test_an_option_that_is_not_allowed_is_told(served: Served, query: str, words: str) -> None:
    answer = served.translate("first", png(), query)
    assert (answer.status, answer.problem) == (422, "invalid-request")
    assert words in answer.json["detail"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"GIF89a and more", "not-an-image"),
        (png()[:200], "not-an-image"),
        (b"", "invalid-request"),
        (bomb(100_000, 100_000), "too-many-pixels"),
        (bomb(101, 100), "too-many-pixels"),
        (b"\x89PNG\r\n\x1a\n", "not-an-image"),
        (b"x" * 200_001, "too-large"),
    ],
)
def test_a_body_that_is_no_good_is_refused(served: Served, body: bytes, problem: str) -> None:
    answer = served.translate("first", body)
    assert answer.problem == problem
    assert served.translate("first", png()).status == 200


def test_a_thin_image_that_would_be_padded_too_much_is_refused(bank: Bank) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (10_000, 1)).save(buffer, "PNG")
    with serving(bank.path, max_pixels=10_000, whole_pixels=10_000) as served:
        answer = served.translate("first", buffer.getvalue())
        assert answer.problem == "too-many-pixels" and "when padded" in answer.json["detail"]
        assert served.translate("first", png(1, 1)).pixels.shape == (1, 1, 3)


def test_an_image_of_another_kind_is_told_by_its_name(served: Served) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(buffer, "PNG")
    answer = served.translate_files("first", ("depth.png", buffer.getvalue()))
    assert answer.problem == "wrong-image"
    assert answer.json["detail"] == "depth.png: its values are uint16, the task takes uint8"


def test_forms_are_read_within_limits(served: Served) -> None:
    def told(body: bytes, kind: str, query: str = "") -> str:
        return served.translate("first", body, query, Content_Type=kind).problem

    many, kind = form(*((f"{n}.png", png(8, 8)) for n in range(4)))
    assert told(many, kind) == "too-many-files"
    assert told(b"--edge--\r\n", kind) == "invalid-request"
    assert told(b"nonsense", kind) == "bad-request"
    assert told(many, "multipart/form-data") == "bad-request"
    assert told(many, f"{kind}; charset=undefined") in ("bad-request", "too-many-files")
    text = b'--edge\r\nContent-Disposition: form-data; name="direction"\r\n\r\nBtoA\r\n--edge--\r\n'
    assert told(text, kind) == "invalid-request"
    two, kind = form(("a.png", png()), ("b.png", png()))
    assert told(two, kind, "?views=true") == "invalid-request"


def test_a_body_of_unknown_length_is_counted(served: Served, discarding_briefly: None) -> None:
    with served.connect() as sock:
        sock.sendall(
            b"POST /v1/tasks/first/translate HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        try:
            for _ in range(30):
                sock.sendall(b"2710\r\n" + bytes(10_000) + b"\r\n")
        except OSError:
            pass  # it need not read on
        assert sock.recv(1000).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("expecting", [False, True])
def test_an_answer_reaches_who_still_sends(served: Served, expecting: bool) -> None:
    more = 3_000_000
    headers = ["Expect: 100-continue"] if expecting else []
    with served.connect() as sock:
        sock.sendall(translate_head(more, *headers, task="nobody"))
        if not expecting:
            sock.sendall(bytes(more))  # a server that stops reading would reset the connection
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while b"unknown-task" not in answer or (not expecting and b'"ok"' not in answer):
            part = sock.recv(65536)
            assert part, "the connection ended"
            answer += part
        assert answer.startswith(b"HTTP/1.1 404")


def test_every_error_is_a_problem_and_tells_no_path(served: Served, bank: Bank) -> None:
    removal = served.ask("/v1/tasks", method="DELETE")
    assert removal.headers["allow"] == "GET"
    for answer, problem in (
        (served.ask("/nowhere"), "not-found"),
        (removal, "method-not-allowed"),
        (served.ask("/v1/tasks/first/translate"), "method-not-allowed"),
        (served.translate("first", b"x"), "not-an-image"),
        (served.ask("/page/nothing.js"), "not-found"),
    ):
        assert answer.problem == problem
        assert str(bank.path) not in answer.content.decode()


def test_a_full_queue_says_when_to_try_again(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    compute, gate = batching.translate_pixels, threading.Event()

    def held(*args: Any) -> list[Pixels]:
        assert gate.wait(60)
        return compute(*args)

    monkeypatch.setattr(batching, "translate_pixels", held)
    with serving(bank.path, max_queue=2, max_files=2) as served, served.connect() as sock:
        two, kind = form(("a.png", png()), ("b.png", png()))
        sock.sendall(translate_head(len(two), f"Content-Type: {kind}") + two)
        wait_for(lambda: served.metric("pbgan_queue_images") == 2)
        answer = served.translate("first", png())
        assert (answer.status, answer.problem) == (429, "queue-full")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        gate.set()
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
        wait_for(lambda: served.metric("pbgan_queue_images") == 0)
        assert served.translate("first", png()).status == 200


def test_who_leaves_while_waiting_takes_no_more_room(bank: Bank) -> None:
    with serving(bank.path, batch_wait=10_000) as served:
        with served.connect() as sock:
            sock.sendall(translate_head(len(png())) + png())
            wait_for(lambda: served.metric("pbgan_queue_images") == 1)
        wait_for(lambda: served.metric("pbgan_queue_images") == 0)
        text = served.ask("/metrics").content.decode()
        assert 'pbgan_requests_total{status="499",task="first"} 1.0' in text
        assert served.metric("pbgan_images_total") == 0


def test_an_answer_that_takes_too_long_is_given_up(bank: Bank) -> None:
    with serving(bank.path, timeout=1, batch_wait=10_000) as served:
        answer = served.translate("first", png())
        assert (answer.status, answer.problem) == (503, "timeout")
        assert "retry-after" in answer.headers
        assert served.metric("pbgan_queue_images") == 0


def test_a_body_that_comes_too_slowly_is_given_up(bank: Bank, discarding_briefly: None) -> None:
    with serving(bank.path, timeout=0.5) as served, served.connect() as sock:
        sock.sendall(translate_head(999) + b"x")
        assert served.ask("/healthz").status == 200
        assert sock.recv(1000).startswith(b"HTTP/1.1 408")


def test_uploads_together_are_limited(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_BODIES", 1)
    with serving(bank.path, max_bytes=3000) as served, served.connect() as sock:
        sock.sendall(translate_head(2900) + bytes(2000))
        wait_for(lambda: served.translate("first", png()).status == 503)
        refused = served.translate("first", png())
        assert refused.problem == "overloaded" and "retry-after" in refused.headers
        sock.close()
        wait_for(lambda: served.translate("first", png()).status == 200)


def test_an_answer_that_is_not_taken_is_given_up_and_counts_no_more() -> None:
    sizes = ServeOptions(max_bytes=1000)
    budget = limits.ByteBudget(sizes)
    answer = limits.CountedResponse(bytes(16_000), "image/png", {}, budget=budget, timeout=0.2)
    sent = []

    async def send(message: Message) -> None:
        sent.append(message["type"])
        if message["type"] == "http.response.body":
            with pytest.raises(Problem, match="try again"):
                budget.take(1)
            await asyncio.Event().wait()

    asyncio.run(answer({}, send, send))  # type: ignore[arg-type]
    assert sent == ["http.response.start", "http.response.body"]
    budget.take(16_000)


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The clients' ports of connections that the server has lost or closed; idle ones it closes soon."""
    ports: set[int] = set()
    connection_lost = server._Connection.connection_lost

    def told(self: server._Connection, error: Exception | None) -> None:
        connection_lost(self, error)
        ports.add(self.client[1])

    monkeypatch.setattr(server._Connection, "connection_lost", told)
    monkeypatch.setattr(server, "_IDLE_SECONDS", 1)
    return ports


def test_connections_that_send_nothing_are_closed(bank: Bank, lost: set[int]) -> None:
    with serving(bank.path) as served, served.connect() as silent, served.connect() as half:
        half.sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")
        assert received(silent) == received(half) == 0


def test_connections_that_take_nothing_are_closed(bank: Bank, lost: set[int]) -> None:
    large = png(1500, 1500)  # too large for the system's buffers
    with serving(bank.path) as served, socket.socket() as greedy:
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.settimeout(60)
        greedy.connect(("127.0.0.1", served.port))
        greedy.sendall(translate_head(len(large), query="?format=bmp") + large)
        wait_for(lambda: greedy.getsockname()[1] in lost)
        assert 0 < received(greedy) < 1500 * 1500 * 3


def test_no_answer_is_held_back_for_more(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    schedule_check = server._Connection._schedule_check

    def look(self: server._Connection) -> None:
        sock = self.transport.get_extra_info("socket")
        found.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        schedule_check(self)

    monkeypatch.setattr(server._Connection, "_schedule_check", look)
    with serving(bank.path) as served:
        served.ask("/healthz")
    assert found and all(found)


def received(sock: socket.socket) -> int:
    """How many bytes come before a connection ends."""
    count = 0
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(65536):
            count += len(part)
    return count


@pytest.mark.parametrize(
    "options",
    [
        {"max_batch": 0},
        {"max_queue": -1},
        {"max_bytes": 0},
        {"whole_pixels": 0},
        {"batch_wait": -1},
        {"batch_wait": float("nan")},
        {"timeout": 0},
        {"max_files": 65},
    ],
)
def test_limits_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(PiggybackError, match=next(iter(options))):
        ServeOptions(**options)  # type: ignore[arg-type]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cut=st.integers(0, 200),
    place=st.integers(0, 2000),
    noise=st.binary(max_size=40),
    suffix=st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP", "BMP"]),
)
def test_damaged_images_never_make_the_server_fail(
    served: Served, cut: int, place: int, noise: bytes, suffix: str
) -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png())).save(buffer, suffix)
    content = buffer.getvalue()
    place %= len(content)
    damaged = content[:place] + noise + content[place + cut :]
    answer = served.translate("first", damaged)
    assert answer.status < 500
    if answer.status != 200:
        assert json.loads(answer.content)["status"] == answer.status
