"""pbgan serve and pbgan try as processes: addresses, signals, and what keeps them from beginning."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from banks import pbgan
from exports import MIXED, bank_of
from paths import ROOT
from piggyback_gan import Bank, allow_generator
from piggyback_gan.networks.config import CustomGeneratorConfig
from served import Served, png, wait_for


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return bank_of(tmp_path_factory.mktemp("command") / "bank")


@contextlib.contextmanager
def started(
    *arguments: str | Path, status: int = 0, environment: dict[str, str] | None = None
) -> Iterator[tuple[Served, "subprocess.Popen[str]", str]]:
    """A command that serves; it must end with this status when it is told to."""
    command = [sys.executable, "-m", "piggyback_gan", *map(str, arguments)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | (environment or {}),
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
            assert found, process.stderr.read()
            served = Served(int(found[1]))
            wait_for(lambda: answers(served))
            yield served, process, line
            process.terminate()
            assert process.wait(30) == status
        finally:
            process.kill()


def answers(served: Served) -> bool:
    with contextlib.suppress(OSError):
        return served.ask("/readyz").status == 200
    return False


def test_a_bank_is_served_until_a_signal_and_what_was_begun_is_finished(bank: Bank) -> None:
    with started("serve", bank.path, "--port", "0", "--batch-wait", "2000") as (
        served,
        process,
        line,
    ):
        assert line.startswith(f"2 tasks of {bank.path} at http://127.0.0.1:")
        made: list[np.ndarray] = []
        begun = threading.Thread(
            target=lambda: made.append(served.translate("second", png()).pixels)
        )
        begun.start()
        wait_for(lambda: served.metric("pbgan_queue_images") == 1)
        process.send_signal(signal.SIGTERM)
        begun.join()
        assert process.wait(30) == 0
        assert process.stderr is not None and process.stderr.read() == ""
    assert made[0].shape == (20, 30, 3)


def test_a_second_signal_ends_it_at_once(bank: Bank) -> None:
    with (
        started("serve", bank.path, "--port", "0", "--batch-wait", "10000") as (
            served,
            process,
            _,
        ),
        socket.create_connection(("127.0.0.1", served.port)) as sock,
    ):
        head = "POST /v1/tasks/first/translate HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
        sock.sendall(f"{head}{len(png())}\r\n\r\n".encode() + png())
        wait_for(lambda: served.metric("pbgan_queue_images") == 1)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(8) == 0


def test_requests_are_logged_if_that_is_asked_for(bank: Bank) -> None:
    with started("serve", bank.path, "--port", "0", "--access-log") as (served, process, _):
        served.translate("nobody", png())
        process.terminate()
        assert process.stderr is not None
        assert '"POST /v1/tasks/nobody/translate HTTP/1.1" 404' in process.stderr.read()


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


def refused(*arguments: str | Path) -> str:
    ran = pbgan(*arguments)
    assert ran.returncode == 2 and not ran.stdout
    assert ran.stderr.startswith("pbgan: error: ") and ran.stderr.count("\n") == 1
    return ran.stderr


def test_what_keeps_a_server_from_beginning_is_told_in_one_line(bank: Bank, tmp_path: Path) -> None:
    assert "is not a bank" in refused("serve", tmp_path, "--port", "0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "give another --port" in refused("serve", bank.path, "--port", str(port))
    for host in ("no such host", "a" * 64):
        assert "invalid host" in refused("serve", bank.path, "--host", host)
    missing = tmp_path / "nothing"
    assert "can't be read" in refused("serve", bank.path, "--port", "0", "--token-file", missing)
    assert "no such folder" in refused("serve", bank.path, "--port", "0", "--samples", missing)


def test_code_that_a_bank_names_runs_only_with_consent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_generator(str(MIXED["name"]))
    bank_of(tmp_path / "bank", CustomGeneratorConfig(**MIXED))
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests" / "helpers"))
    assert "PBGAN_GENERATORS" in refused("serve", tmp_path / "bank", "--port", "0")


def test_without_its_libraries_the_server_says_what_to_install(bank: Bank) -> None:
    program = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from piggyback_gan.cli.main import main\n"
        f"sys.argv = ['pbgan', 'serve', {str(bank.path)!r}]\n"
        "sys.exit(main())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert ran.stderr == (
        "pbgan: error: the server needs uvicorn: pip install 'piggyback-gan[serve]'\n"
    )


def test_who_opens_the_server_to_others_without_a_token_is_warned(bank: Bank) -> None:
    with started("serve", bank.path, "--port", "0", "--host", "127.0.0.1") as (_, process, _):
        pass
    command = [sys.executable, "-m", "piggyback_gan", "serve", str(bank.path), "--host", "0.0.0.0"]
    with subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert "anyone who can reach 0.0.0.0:" in process.stderr.readline()
        finally:
            process.kill()
