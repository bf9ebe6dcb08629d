"""pbgan serve: all of a bank's tasks over HTTP, with a page to try them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from piggyback_gan.cli.arguments import BankPath, parse
from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import Device
from piggyback_gan.serve.options import ServeOptions

_Bytes = Annotated[int, tyro.conf.arg(metavar="BYTES")]
_Pixels = Annotated[int, tyro.conf.arg(metavar="N")]


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Serve all of a bank's tasks over HTTP: translations, health, metrics, and a page to try them.

    A task that is added to the bank meanwhile is served too. Ctrl-C and SIGTERM finish what was begun.
    """

    bank: BankPath
    """The bank's directory."""
    host: str = "127.0.0.1"
    """The address to listen on; 127.0.0.1 is reached from this machine alone, 0.0.0.0 from everywhere."""
    port: int = 8000
    """The port; 0 takes a free one."""
    device: Device = "auto"
    """Where to compute; auto takes what is there."""
    max_tasks_in_memory: int = 8
    """Composed networks that are kept; the least recently used goes first."""
    max_batch: int = 8
    """Images of one task and size that are translated at once."""
    batch_wait: Annotated[float, tyro.conf.arg(metavar="MS")] = 5.0
    """How long an image waits for others when there is nothing else to do, in milliseconds."""
    max_queue: int = 64
    """Images that may wait or be at work; more are answered with 429."""
    max_bytes: _Bytes = 32 * 2**20
    """Of a request's body."""
    max_pixels: _Pixels = 2**24
    """Of an image."""
    whole_pixels: _Pixels = 2**22
    """Of what is translated at once, which takes the memory; larger images go in tiles."""
    max_files: int = 32
    """In one request."""
    timeout: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 120.0
    """For a request's body to arrive, again for its answer to be made, and again for it to be taken."""
    token_file: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Ask for a bearer token: one of those in this file, one a line."""
    allowed_hosts: Annotated[
        tuple[str, ...],
        tyro.conf.arg(metavar="NAME...", help_behavior_hint="(default: on loopback, its names)"),
    ] = ()
    """Names by which the server may be called, such as a reverse proxy's."""
    samples: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Images that stand for the tasks on the page, DIR/TASK or DIR for all; else the bank's samples."""
    access_log: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write a line for each request to stderr."""


def run(arguments: list[str]) -> int:
    """Serve until a signal."""
    given = parse(Arguments, "serve", arguments)
    options = ServeOptions(
        device=given.device,
        max_tasks_in_memory=given.max_tasks_in_memory,
        max_batch=given.max_batch,
        batch_wait=given.batch_wait,
        max_queue=given.max_queue,
        max_bytes=given.max_bytes,
        max_pixels=given.max_pixels,
        whole_pixels=given.whole_pixels,
        max_files=given.max_files,
        timeout=given.timeout,
        token_file=given.token_file,
        allowed_hosts=given.allowed_hosts,
        samples=given.samples,
    )
    serve_bank(given.bank, given.host, given.port, options, access_log=given.access_log)
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
        host, port: where to listen.
        options: limits, batching, tokens.
        access_log: write a line for each request to stderr.
        on_listening: told the page's address when it can be asked for.

    Raises:
        PiggybackError: a library is missing, the address can't be had, or the bank can't be read.
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
        count = len(catalogue.tasks)
        print(f"{count} task{'s' * (count != 1)} of {path} at {address} (Ctrl-C stops)", flush=True)
        if not is_loopback(name) and options.token_file is None:
            print(
                f"pbgan: whoever reaches {shown}:{number} can use it: --token-file asks for a token",
                file=sys.stderr,
            )
        on_listening(address)
        serve(config, sock)


def _log_to_stderr() -> None:
    """Let the server say what its owner should know; what libraries think of damaged images is not that."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("pbgan: %(message)s"))
    for name in ("piggyback_gan", "uvicorn", "asyncio"):
        logging.getLogger(name).addHandler(handler)
