"""The running server: socket, signals, and timeouts of idle connections."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from piggyback_gan.errors import PiggybackError
from piggyback_gan.serve.allocator import keep_memory
from piggyback_gan.serve.app import make_app
from piggyback_gan.serve.catalogue import Catalogue
from piggyback_gan.serve.middleware import LOOPBACK_NAMES, AccessMiddleware, is_loopback
from piggyback_gan.serve.options import ServeOptions, read_tokens

_IDLE_SECONDS = 20.0  # for a request's head to arrive, and for part of a response to be read
_LEAST_READ = 16 * 1024  # bytes of a response, in that time
_KEEP_ALIVE = 5
_CONNECTIONS = 500


def listen(host: str, port: int) -> socket.socket:
    """Open a socket that listens on an address.

    Args:
        host: a name or an address.
        port: 0 picks a free one.

    Raises:
        PiggybackError: the address is in use, or does not belong to this machine.
    """
    if not 0 <= port <= 65535:
        raise PiggybackError(f"invalid port: found {port}, give one from 0 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise PiggybackError(f"invalid host: {host!r}: {reason}") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise PiggybackError(
            f"can't listen on {host}:{port}: {reason}: give another --port"
        ) from None


def configure(
    catalogue: Catalogue, host: str, options: ServeOptions, *, log: bool
) -> uvicorn.Config:
    """Configure uvicorn to serve a bank.

    Args:
        catalogue: the bank's tasks.
        host: the address that the socket listens on.
        options: limits, batching, tokens.
        log: log a line for each request.

    Raises:
        PiggybackError: the tokens can't be read, or the device does not exist.
    """
    hosts = options.allowed_hosts or (LOOPBACK_NAMES if is_loopback(host) else ())
    tokens = () if options.token_file is None else read_tokens(options.token_file)
    logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return uvicorn.Config(
        AccessMiddleware(make_app(catalogue, options), hosts, tokens),
        http=_Connection,
        ws="none",
        log_config=None,
        access_log=log,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=int(options.timeout) + 1,
    )


def serve(config: uvicorn.Config, sock: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, then finish the running requests, within the timeout.

    A second signal ends it after the current batch, without waiting for requests.

    Args:
        config: from `configure`.
        sock: from `listen`.
    """
    keep_memory()
    asyncio.run(_Server(config).serve(sockets=[sock]))


class _Server(uvicorn.Server):
    """A uvicorn server that returns normally after a signal, instead of raising it again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals inside the block."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self.handle_exit) for number in numbers]
        try:
            yield
        finally:
            for number, earlier in zip(numbers, before, strict=True):
                signal.signal(number, earlier)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Finish the running requests; the second time, end at once."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


class _Connection(H11Protocol):
    """A connection that is closed when its client neither sends a request nor reads its response."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the watch."""
        super().connection_made(transport)
        # asyncio does not set it on sockets made elsewhere, and a response's body would wait 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._schedule_check()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the watch."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _schedule_check(self) -> None:
        seen = self.cycle, self.transport.get_write_buffer_size()
        self._timer = self.loop.call_later(_IDLE_SECONDS, self._check, *seen)

    def _check(self, cycle: object, unsent: int) -> None:
        waits_for_request = self.cycle is None or self.cycle.response_complete
        still = self.transport.get_write_buffer_size()
        is_stuck = still > 0 and unsent > 0 and unsent - still < _LEAST_READ
        if self.cycle is cycle and (is_stuck or (waits_for_request and not still)):
            self.transport.abort()
        else:
            self._schedule_check()
