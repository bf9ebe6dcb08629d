"""pbgan try: the page of a bank, in a browser, for the person at the desk."""

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
    """Open a page in the browser on which all of a bank's tasks can be tried. Ctrl-C ends it.

    It is pbgan serve on a free port of this machine, which no other machine reaches. Tasks that have no sample
    picture show one of their training.
    """

    bank: BankPath
    """The bank's directory."""
    device: Device = "auto"
    """Where to compute; auto takes what is there."""
    port: int = 0
    """The port; 0 takes a free one."""
    browser: tyro.conf.FlagCreatePairsOff[bool] = True
    """Open the browser; else the address is only printed."""


def run(arguments: list[str]) -> int:
    """Serve on loopback and open the browser."""
    given = parse(Arguments, "try", arguments)
    options = ServeOptions(device=given.device, training_samples=True)

    def show(address: str) -> None:
        if given.browser:
            # Browsers in a terminal do not return before they are left.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    serve_bank(given.bank, "127.0.0.1", given.port, options, on_listening=show)
    return 0
