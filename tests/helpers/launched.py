"""Functions run in several real processes at once, which find each other as those of torchrun do."""

import os
import pickle
import signal
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

import banks
from piggyback_gan.errors import PiggybackError

KILLED = "killed"


def together(
    function: Callable[..., Any], *args: object, world: int = 2, seconds: float = 120
) -> list[Any]:
    """What a function returns, or the PiggybackError that it raises, in each of `world` processes.

    A process that is killed gives `KILLED`; one that does not end in time fails the test.
    """
    port = free_port()
    started = []
    for rank in range(world):
        receiver, sender = banks.pipe()
        started.append((banks.start(_member, sender, rank, world, port, function, args), receiver))
        sender.close()
    results = []
    try:
        for process, receiver in started:
            with receiver:
                assert receiver.poll(seconds), f"no answer in {seconds} s"
                try:
                    results.append(pickle.loads(receiver.recv_bytes()))
                except EOFError:
                    results.append(KILLED)
            process.join(seconds)
            assert process.exitcode is not None, "it does not end"
    finally:
        for process, _ in started:
            process.kill()
    return results


def free_port() -> int:
    """A port on the loopback device that nobody listens to."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


def die() -> None:
    """End this process at once, without a word."""
    os.kill(os.getpid(), signal.SIGKILL)


def _member(
    sender: Connection,
    rank: int,
    world: int,
    port: int,
    function: Callable[..., Any],
    args: tuple[object, ...],
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    try:
        result = function(*args)
    except PiggybackError as error:
        result = error
    # As bytes: a tensor would be left in this process's memory.
    sender.send_bytes(pickle.dumps(result))
