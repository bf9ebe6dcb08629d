"""pbgan try: open the page of a bank in a browser."""

import threading
import webbrowser
from dataclasses import dataclass

import tyro

from piggyback_gan.cli.arguments import BankPath, parse
from piggyback_gan.cli.serve import serve_bank
from piggyback_gan.names import Device
from piggyback_gan.serve.options import ServeOptions


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Open a page in the browser to try all of a bank's tasks. Ctrl-C ends it.

    Runs pbgan serve on a free port that other machines can't reach. Tasks without a sample image show one of
    their training.
    """

    bank: BankPath
    """The bank's directory."""
    device: Device = "auto"
    """Device; auto picks CUDA, MPS, then CPU."""
    port: int = 0
    """Port; 0 picks a free one."""
    browser: tyro.conf.FlagCreatePairsOff[bool] = True
    """Whether the browser is opened; --no-browser only prints the address."""


def run(arguments: list[str]) -> int:
    """Serve on loopback and open the browser."""
    given = parse(Arguments, "try", arguments)
    options = ServeOptions(device=given.device, training_samples=True)

    def show(address: str) -> None:
        if given.browser:
            # Browsers in a terminal return only when they are closed.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    serve_bank(given.bank, "127.0.0.1", given.port, options, on_listening=show)
    return 0
