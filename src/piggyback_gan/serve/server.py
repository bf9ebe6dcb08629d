"""Listening: sockets, signals, connections that nobody uses, and the server's life."""

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
from piggyback_gan.serve.middleware import LOOPBACK_NAMES, Guard, is_loopback
from piggyback_gan.serve.options import ServeOptions, read_tokens

_PATIENCE = 20.0  # seconds for a request's head to arrive, and for a part of an answer to be taken
_LEAST_TAKEN = 16 * 1024  # bytes, in that time
_KEEP_ALIVE = 5
_CONNECTIONS = 500


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address.

    Args:
        host: a name or an address.
        port: 0 takes a free one.

    Raises:
        PiggybackError: the address is in use, or none of this machine.
    """
    if not 0 <= port <= 65535:
        raise PiggybackError(f"invalid port: found {port}, give one from 0 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=2048)
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no host's name"
        raise PiggybackError(f"invalid host: {host!r}: {reason}") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise PiggybackError(
            f"can't listen on {host}:{port}: {reason}: give another --port"
        ) from None


def configure(
    catalogue: Catalogue, host: str, options: ServeOptions, *, log: bool
) -> uvicorn.Config:
    """How uvicorn is to serve a bank.

    Args:
        catalogue: the bank's tasks.
        host: the address that is listened on.
        options: limits, batching, tokens.
        log: write a line for each request to the log.

    Raises:
        PiggybackError: the tokens can't be read, or there is no such device.
    """
    hosts = options.allowed_hosts or (LOOPBACK_NAMES if is_loopback(host) else ())
    tokens = () if options.token_file is None else read_tokens(options.token_file)
    logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return uvicorn.Config(
        Guard(make_app(catalogue, options), hosts, tokens),
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
    """Serve until SIGINT or SIGTERM; then finish what was begun, for the timeout at most.

    A second signal waits for no request, only for the batch that is at work.

    Args:
        config: from `configure`.
        sock: where to listen, from `listen`.
    """
    keep_memory()
    asyncio.run(_Server(config).serve(sockets=[sock]))


class _Server(uvicorn.Server):
    """Ends by a signal as a service does: it is no failure."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let signals ask for an end, inside the block."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self.handle_exit) for number in numbers]
        try:
            yield
        finally:
            for number, earlier in zip(numbers, before, strict=True):
                signal.signal(number, earlier)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Finish what was begun; the second time, end at once."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


class _Connection(H11Protocol):
    """A connection that is closed when its client neither sends a request nor takes its answer."""

    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch."""
        super().connection_made(transport)
        # asyncio leaves it out for a socket that was made elsewhere: an answer's body then waits 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is to be watched any more."""
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def _look_later(self) -> None:
        seen = self.cycle, self.transport.get_write_buffer_size()
        self._watch = self.loop.call_later(_PATIENCE, self._look, *seen)

    def _look(self, cycle: object, unsent: int) -> None:
        waits_for_request = self.cycle is None or self.cycle.response_complete
        still = self.transport.get_write_buffer_size()
        is_stuck = still > 0 and unsent > 0 and unsent - still < _LEAST_TAKEN
        if self.cycle is cycle and (is_stuck or (waits_for_request and not still)):
            self.transport.abort()
        else:
            self._look_later()
