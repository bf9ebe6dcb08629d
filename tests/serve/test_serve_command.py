"""pbgan serve and pbgan try: addresses, signals, and errors at the start."""

import contextlib
import http.client
import io
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from commands import Program, pbgan, run_here
from exports import MIXED, bank_of
from paths import ROOT
from piggyback_gan import Bank, PiggybackError, allow_generator
from piggyback_gan.cli import serve as cli_serve
from piggyback_gan.networks.config import CustomGeneratorConfig
from piggyback_gan.serve import server
from piggyback_gan.serve.options import ServeOptions
from served import Served, png, translate_head, wait_for


@contextlib.contextmanager
def started(
    *arguments: str | Path, environment: dict[str, str] | None = None
) -> Iterator[tuple[Served, Program, str]]:
    """Run a command that serves; it must end with status 0 when it is terminated."""
    with Program(*arguments, environment=environment) as process:
        wait_for(lambda: "\n" in process.output[0] or process.poll() is not None)
        line, errors = process.output
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found, errors
        served = Served(int(found[1]))
        wait_for(lambda: answers(served))
        yield served, process, line
        process.terminate()
        assert process.wait(60) == 0


def answers(served: Served) -> bool:
    with contextlib.suppress(OSError):
        return served.ask("/readyz").status == 200
    return False


def begin_upload(sock: socket.socket, task: str) -> None:
    """Begin a translation; the server waits for its body from now on."""
    sock.sendall(translate_head(len(png()), "Expect: 100-continue", task=task))
    assert sock.recv(1000).startswith(b"HTTP/1.1 100 Continue")


def refuses_connections(served: Served) -> bool:
    try:
        served.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_bank_is_served_until_a_signal_and_what_was_begun_is_finished(bank: Bank) -> None:
    with started("serve", bank.path, "--port", "0") as (served, process, line):
        assert line.startswith(f"2 tasks of {bank.path} at http://127.0.0.1:")
        with served.connect() as sock:
            begin_upload(sock, "second")
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: refuses_connections(served))
            sock.sendall(png())
            answer = http.client.HTTPResponse(sock)
            answer.begin()
            with Image.open(io.BytesIO(answer.read())) as made:
                assert (answer.status, made.size) == (200, (30, 20))
        assert process.wait(60) == 0
        assert process.output[1] == ""


def test_a_second_signal_ends_it_at_once_and_requests_are_logged_if_asked_for(bank: Bank) -> None:
    with (
        started("serve", bank.path, "--port", "0", "--access-log") as (served, process, _),
        served.connect() as sock,
    ):
        served.translate("nobody", png())
        begin_upload(sock, "first")
        process.send_signal(signal.SIGINT)
        wait_for(lambda: refuses_connections(served))
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert '"POST /v1/tasks/nobody/translate HTTP/1.1" 404' in process.output[1]


def test_try_opens_the_page_in_a_browser(bank: Bank, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\necho "$1" >{tmp_path}/opened.new && mv {tmp_path}/opened.new {tmp_path}/opened\n'
    )
    browser.chmod(0o755)
    with started("try", bank.path, environment={"BROWSER": str(browser)}) as (served, _, _):
        wait_for((tmp_path / "opened").exists)
        assert (tmp_path / "opened").read_text().strip() == f"http://127.0.0.1:{served.port}/"
        assert b"<html" in served.ask("/").content


def refused(*arguments: str | Path, run: Callable[..., Any] = pbgan) -> str:
    ran = run(*arguments)
    assert ran.returncode == 2 and not ran.stdout
    assert ran.stderr.startswith("pbgan: error: ") and ran.stderr.count("\n") == 1
    return ran.stderr


def test_what_keeps_a_server_from_beginning_is_told_in_one_line(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is not a bank" in refused("serve", tmp_path, "--port", "0")
    monkeypatch.setattr(cli_serve, "_log_to_stderr", lambda: None)

    def error(*options: str | Path) -> str:
        with pytest.raises(PiggybackError) as raised:
            cli_serve.run([str(bank.path), "--port", "0", *map(str, options)])
        assert "\n" not in str(raised.value)
        return str(raised.value)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "give another --port" in error("--port", str(taken.getsockname()[1]))
    for host in ("no such host", "a" * 64):
        assert "invalid host" in error("--host", host)
    missing = tmp_path / "nothing"
    assert "can't be read" in error("--token-file", missing)
    assert "no such folder" in error("--samples", missing)


def test_code_that_a_bank_names_runs_only_with_consent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_generator(str(MIXED["name"]))
    bank_of(tmp_path / "bank", CustomGeneratorConfig(**MIXED))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "helpers"), prepend=os.pathsep)
    assert "PBGAN_GENERATORS" in refused("serve", tmp_path / "bank", "--port", "0")


def test_without_libraries_one_line_says_which(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert refused("serve", bank.path, run=run_here) == (
        "pbgan: error: the server needs uvicorn: pip install 'piggyback-gan[serve]'\n"
    )


def test_who_opens_the_server_to_others_without_a_token_is_warned(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_serve, "_log_to_stderr", lambda: None)
    monkeypatch.setattr(server, "serve", lambda config, sock: None)
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token-of-16-letters\n")
    for host, options, is_warned in (
        ("0.0.0.0", ServeOptions(), True),
        ("0.0.0.0", ServeOptions(token_file=tokens), False),
        ("127.0.0.1", ServeOptions(), False),
    ):
        cli_serve.serve_bank(bank.path, host, 0, options)
        assert ("anyone who can reach 0.0.0.0:" in capsys.readouterr().err) == is_warned
