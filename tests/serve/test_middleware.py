"""Access to a server: allowed host names, pages of other sites, tokens."""

from pathlib import Path

import pytest

from data_sets import refusal
from piggyback_gan import Bank
from piggyback_gan.serve.options import read_tokens
from served import Served, png, serving

TOKEN = "correct-horse-battery"


def test_other_names_than_loopbacks_are_refused(served: Served, bank: Bank) -> None:
    for name in ("localhost", "127.0.0.1:80", "[::1]:8000", "LOCALHOST"):
        assert served.ask("/v1/tasks", headers={"Host": name}).status == 200
    refused = served.ask("/v1/tasks", headers={"Host": "evil.example"})
    assert (refused.status, refused.problem) == (421, "wrong-host")
    assert served.ask("/healthz", headers={"Host": "10.0.0.7"}).status == 200
    with serving(bank.path, allowed_hosts=("pictures.example",)) as named:
        assert named.ask("/v1/tasks", headers={"Host": "Pictures.example:443"}).status == 200
        assert named.ask("/v1/tasks", headers={"Host": "localhost"}).status == 421


def test_pages_of_other_sites_can_neither_send_nor_read(served: Served) -> None:
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[x"},
    ):
        answer = served.ask("/v1/tasks/first/translate", png(), headers)
        assert (answer.status, answer.problem) == (403, "cross-origin")
    own = {"Origin": f"http://127.0.0.1:{served.port}"}
    answer = served.ask("/v1/tasks/first/translate", png(), own)
    assert answer.status == 200 and "access-control-allow-origin" not in answer.headers
    same = {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind-a-proxy.example"}
    assert served.ask("/v1/tasks/first/translate", png(), same).status == 200


def test_with_tokens_only_those_who_have_one_are_answered(bank: Bank, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# the desk\n{TOKEN}\n\nanother-token-of-16\n")
    with serving(bank.path, token_file=file) as served:
        for path in ("/v1/tasks", "/metrics", "/openapi.json", "/v1/tasks/first/sample"):
            answer = served.ask(path)
            assert (answer.status, answer.problem) == (401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert served.translate("first", png(), Authorization="Bearer wrong").status == 401
        assert served.translate("first", png(), Authorization=f"Basic {TOKEN}").status == 401
        for token in (TOKEN, "another-token-of-16"):
            assert served.translate("first", png(), Authorization=f"Bearer {token}").status == 200
        for path in ("/", "/page/page.js", "/healthz", "/readyz"):
            assert served.ask(path).status == 200


@pytest.mark.parametrize(
    "content", ["", "# nothing\n", "short\n", "with a space in it\n", "\xe9" * 20]
)
def test_a_file_without_usable_tokens_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(content)
    assert "token" in refusal(lambda: read_tokens(file))
