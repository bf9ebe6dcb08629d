"""ASGI middleware: checks host, origin and token of each request, and sets headers of each response."""

import asyncio
import contextlib
import hmac
import ipaddress
import urllib.parse
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from piggyback_gan.serve.problems import Problem

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_OPEN = ("/healthz", "/readyz")
_PROTECTED = ("/v1/", "/metrics", "/openapi.json")
_DISCARD_BYTES, _DISCARD_SECONDS = 64 * 2**20, 5.0
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_FOR_ALL = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class AccessMiddleware:
    """ASGI middleware that passes on only requests that are allowed, and answers others with a problem.

    Unknown host names are refused, because another site's page can reach a server on loopback by a name that
    resolves to it (DNS rebinding). starlette's TrustedHostMiddleware does not fit: it answers in plain text, and
    does not understand [::1]:8000. Requests that another site's page sends are refused too, and without CORS
    headers it can't read a response.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], tokens: Sequence[str]) -> None:
        """Wrap an application.

        Args:
            app: the application.
            hosts: allowed host names; () allows any.
            tokens: accepted bearer tokens; () requires none.
        """
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._tokens = [token.encode() for token in tokens]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request and pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        body = _Body(scope, receive)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                await body.discard()
                headers = MutableHeaders(scope=message)
                for name, value in _FOR_ALL.items():
                    headers[name] = value
            await send(message)

        try:
            self._check(scope)
        except Problem as problem:
            await problem.response()(scope, receive, send_with_headers)
            return
        await self._app(scope, body.receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        path = str(scope["path"])
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if path in _OPEN:  # probes use the server's address as host name
            return
        if self._hosts and _name_in(host) not in self._hosts:
            raise Problem(
                "wrong-host",
                f"the host name {_name_in(host)[:80]!r} is not allowed: the server's owner can allow it with "
                "--allowed-hosts",
            )
        if scope["method"] not in _SAFE_METHODS and _is_foreign(headers, host):
            raise Problem("cross-origin", "pages of other sites can't use this server")
        if self._tokens and path.startswith(_PROTECTED):
            self._check_token(headers.get("authorization", ""))

    def _check_token(self, authorization: str) -> None:
        kind, _, token = authorization.partition(" ")
        given = token.strip().encode()
        # Compares with all tokens, so that the time reveals nothing.
        matches = [hmac.compare_digest(given, known) for known in self._tokens]
        if kind.lower() != "bearer" or not any(matches):
            what = "unknown token" if token else "a token is required"
            raise Problem("unauthorized", f"{what}: send the header Authorization: Bearer TOKEN")


class _Body:
    """A request's body, whose unread rest is discarded before the response.

    Closing a connection while the client still sends resets it, and the client may never see the response; a
    reverse proxy would count the server as down. So the rest is read, within limits, and thrown away.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        headers = Headers(scope=scope)
        self._receive = receive
        self._unread = "content-length" in headers or "transfer-encoding" in headers
        # A client that sent Expect: 100-continue waits for the response instead of sending.
        self._invited = "expect" not in headers

    async def receive(self) -> Message:
        """Receive the next part."""
        self._invited = True
        message = await self._receive()
        self._unread = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def discard(self) -> None:
        """Read the rest, within limits of bytes and time."""
        count = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                while self._unread and self._invited and count < _DISCARD_BYTES:
                    count += len((await self.receive()).get("body", b""))


def _name_in(host: str) -> str:
    """Return the name in a Host header without the port; of [::1]:8000 it is ::1."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_foreign(headers: Headers, host: str) -> bool:
    """Whether the request comes from another site's page, by the browser's headers."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return False
    try:
        return urllib.parse.urlsplit(origin).netloc.lower() != host.lower()
    except ValueError:  # not from a browser
        return True
