"""pbgan serve: serve all of a bank's tasks over HTTP, with a page to try them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from piggyback_gan.cli.arguments import SAME_GROUP, BankPath, parse
from piggyback_gan.cli.console import count
from piggyback_gan.errors import PiggybackError
from piggyback_gan.serve.options import ServeOptions


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Serve all of a bank's tasks over HTTP: translations, health, metrics, and a page to try them.

    Tasks added to the bank meanwhile are served too. Ctrl-C and SIGTERM finish the requests in progress.
    """

    bank: BankPath
    """The bank's directory."""
    host: str = "127.0.0.1"
    """Address to listen on; 127.0.0.1 is reachable from this machine only, 0.0.0.0 from everywhere."""
    port: int = 8000
    """Port; 0 picks a free one."""
    access_log: tyro.conf.FlagCreatePairsOff[bool] = False
    """Log each request to stderr."""
    options: Annotated[ServeOptions, SAME_GROUP] = field(default_factory=ServeOptions)


def run(arguments: list[str]) -> int:
    """Serve until a signal."""
    given = parse(Arguments, "serve", arguments)
    serve_bank(given.bank, given.host, given.port, given.options, access_log=given.access_log)
    return 0


def serve_bank(
    path: Path,
    host: str,
    port: int,
    options: ServeOptions,
    *,
    access_log: bool = False,
    on_listening: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve a bank until a signal.

    Args:
        path: the bank's directory.
        host, port: address to listen on.
        options: limits, batching, tokens.
        access_log: log each request to stderr.
        on_listening: callback, called with the page's URL once the server listens.

    Raises:
        PiggybackError: a library is missing, the address can't be used, or the bank can't be read.
    """
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise PiggybackError(
            f"the server needs {error.name}: pip install 'piggyback-gan[serve]'"
        ) from None
    from piggyback_gan.serve.catalogue import Catalogue
    from piggyback_gan.serve.middleware import is_loopback
    from piggyback_gan.serve.server import configure, listen, serve

    _log_to_stderr()
    if options.samples is not None and not options.samples.is_dir():
        raise PiggybackError(f"{options.samples}: no such folder of sample images")
    with listen(host, port) as sock:
        catalogue = Catalogue(path)
        config = configure(catalogue, sock.getsockname()[0], options, log=access_log)
        name, number = sock.getsockname()[:2]
        shown = f"[{name}]" if ":" in name else name
        address = f"http://{shown}:{number}/"
        tasks = count(len(catalogue.tasks), "task")
        print(f"{tasks} of {path} at {address} (Ctrl-C stops)", flush=True)
        if not is_loopback(name) and options.token_file is None:
            print(
                f"pbgan: anyone who can reach {shown}:{number} can use it: require tokens with --token-file",
                file=sys.stderr,
            )
        on_listening(address)
        serve(config, sock)


def _log_to_stderr() -> None:
    """Log the server's messages, but not libraries' remarks on damaged images."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("pbgan: %(message)s"))
    for name in ("piggyback_gan", "uvicorn", "asyncio"):
        logging.getLogger(name).addHandler(handler)
