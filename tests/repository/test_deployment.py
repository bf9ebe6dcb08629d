"""The files in deploy/ and their page: they agree with the server that they start."""

import re
from dataclasses import fields

import pytest

from paths import ROOT
from piggyback_gan.cli.serve import Arguments
from piggyback_gan.serve.options import ServeOptions

DEPLOY = ROOT / "deploy"
OPTIONS = {field.name.replace("_", "-") for field in (*fields(Arguments), *fields(ServeOptions))}
OPTIONS -= {"options", "training-samples"}  # no options of the command line


def number(pattern: str, file: str) -> int:
    found = re.search(pattern, (DEPLOY / file).read_text())
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("file", ["deploy/pbgan.service", "deploy/Containerfile"])
def test_the_server_has_the_options_that_it_is_started_with(file: str) -> None:
    text = (ROOT / file).read_text()
    given = re.findall(r'pbgan(?: serve|", "serve"| --).*', text)
    flags = set(re.findall(r"--([a-z-]+)", " ".join(given)))
    assert "allowed-hosts" in flags
    assert flags <= OPTIONS


def test_a_proxy_takes_the_largest_body_and_waits_longer_than_the_server_does() -> None:
    options = ServeOptions()
    assert number(r"client_max_body_size (\d+)m;", "nginx.conf") * 2**20 > options.max_bytes
    assert number(r"proxy_read_timeout (\d+)s;", "nginx.conf") > options.timeout


def test_a_stop_leaves_time_to_finish_what_runs() -> None:
    timeout = ServeOptions().timeout
    assert number(r"TimeoutStopSec=(\d+)", "pbgan.service") > timeout
    assert number(r"--stop-timeout (\d+)", "Containerfile") > timeout


def test_the_page_speaks_of_options_that_there_are() -> None:
    text = (ROOT / "docs/deployment.md").read_text()
    flags = set(re.findall(r"`--([a-z-]+)", text)) - {"stop-timeout", "memory", "format"}
    assert flags <= OPTIONS
    links = re.findall(r"\]\(([^)#]+)", text)
    assert all((ROOT / "docs" / link).exists() for link in links)
