"""Banks for tests: small networks with tasks that differ, their cards, and work done in other processes."""

import hashlib
import json
import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from piggyback_gan.bank.bank import Bank, open_or_new
from piggyback_gan.bank.card import DataCard, ImageCard, ParameterCard, TaskCard
from piggyback_gan.bank.lock import writer_lock
from piggyback_gan.bank.manifest import Manifest, TaskEntry
from piggyback_gan.bank.store import Store
from piggyback_gan.core.allocation import Shares
from piggyback_gan.core.filter_options import FilterOptions
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.core.task import Needs, TaskFilters, TaskState
from piggyback_gan.errors import PiggybackError
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator

CONFIG = GeneratorConfig(name="resnet-6", ngf=2, norm="batch")
LAMBDAS: dict[str, Shares] = {"maps": 1.0, "night": 0.25, "sketch": {"*": 0.5, "model.1": 0.1}}
"""The tasks of `fill`, in order, and lambda of each."""

_CONTEXT = multiprocessing.get_context("forkserver")
# What takes seconds to import is imported once, not by each process.
_CONTEXT.set_forkserver_preload(
    [
        "pytest",
        "piggyback_gan.bank.bank",
        "piggyback_gan.cli.evaluate",
        "piggyback_gan.cli.train",
        "piggyback_gan.cli.translate",
        "piggyback_gan.runs.teach",
        "matplotlib.figure",
        "onnxruntime",
        "onnxscript",
        "torch._dynamo",
        "torch.onnx._internal.exporter._core",
        "torchmetrics",
    ]
)


# --- banks of image networks ---


def network(config: GeneratorConfig = CONFIG) -> PiggybackNetwork:
    """The network of a bank, with the same initial weights each time."""
    torch.manual_seed(0)
    return PiggybackNetwork(build_generator(config))


def evenly(unconstrained: float | dict[str, float] = 0.25, **how: Any) -> FilterOptions:
    """The paper's filters: one share of new ones for all layers, or shares by layer patterns."""
    return FilterOptions(unconstrained=unconstrained, allocation="even", **how)


def learn(network: PiggybackNetwork, name: str, unconstrained: Shares = 0.25) -> TaskState:
    """Add and finish a task, every tensor of which is its own: trained parameters and running statistics."""
    network.add_task(name, evenly(unconstrained))
    generator = torch.Generator().manual_seed(len(network.tasks))
    with torch.no_grad():
        for parameter in network.trainable_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.05)
        network.train()(images(2, 16, 16, seed=len(network.tasks)))
    network.eval().finish_task()
    return network.task_state(name)


def images(*shape: int, seed: int = 0) -> Tensor:
    """`shape` = (H, W) or (B, H, W) -> RGB images in [-1, 1]."""
    *batch, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((*batch, 3, height, width), generator=generator) * 2 - 1


def card(
    network: PiggybackNetwork,
    task: str,
    unconstrained: Shares = 0.25,
    *,
    unpaired: bool = False,
    direction: str = "AtoB",
    formats: tuple[ImageFormat, ImageFormat] = (ImageFormat(), ImageFormat()),
    size: int = 64,
    **more: Any,
) -> dict[str, Any]:
    """The JSON of a card as training gives it to a task; `more` has other fields of `TaskCard`."""
    first, second = formats
    return TaskCard(
        library_version="0.1.0",
        mode="unpaired" if unpaired else "paired",
        data=DataCard(name=task, layout="folders", train_pairs=4, held_out_pairs=0),
        image=ImageCard(size=size, size_multiple=4, input=first, output=second),
        options={"unconstrained": unconstrained, "seed": 0, "direction": direction},
        parameters=ParameterCard(**network.parameter_count(task).as_card()),
        **more,
    ).to_json()


def fill(
    path: Path, config: GeneratorConfig = CONFIG, lambdas: Mapping[str, Shares] = LAMBDAS
) -> Bank:
    """A bank with these tasks."""
    learner = network(config)
    for name, unconstrained in lambdas.items():
        state = learn(learner, name, unconstrained)
        bank = open_or_new(path, config)
        with bank.writing(f"train {name}"):
            bank.add(state, card(learner, name, unconstrained))
    return Bank.open(path)


# --- stores of a few numbers, for what does not need a network ---

ARCHITECTURE = {"layers": ["conv"]}


def state(name: str, seed: int = 0) -> TaskState:
    """A task of one tiny layer."""
    values = torch.randn(2, 9, generator=torch.Generator().manual_seed(seed))
    tensors = {"conv.unconstrained_filters": values, "norm.num_batches_tracked": torch.tensor(seed)}
    return TaskState(name, TaskFilters({"conv": 0.25}), tensors, needs=Needs((), 0))


def append(store: Store, *names: str) -> Store:
    """Add tiny tasks."""
    for seed, name in enumerate(names):
        store.append(state(name, seed), {"about": name})
    return store


def problems(store: Store) -> dict[str, str]:
    """What is wrong with which tasks."""
    found = {entry.name: result for entry, result in store.check()}
    return {name: str(error) for name, error in found.items() if isinstance(error, ValueError)}


def faults(bank: Bank) -> dict[str, str]:
    """Which parts of a bank fail to verify, and why."""
    return {f.part: f.problem for f in Bank.open(bank.path).verify() if f.problem is not None}


# --- forged files ---


def file_of(store: Store | Bank, name: str) -> Path:
    return store.path / "tasks" / store.manifest.entry(name).file


def with_metadata(path: Path, **changes: str | None) -> bytes:
    """The same file with changed metadata; None takes a key away."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    changed = header["__metadata__"] | changes
    header["__metadata__"] = {key: value for key, value in changed.items() if value is not None}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def forge(store: Store | Bank, name: str, content: bytes) -> Store:
    """Put another file in a task's place and write a manifest that vouches for it."""
    file_of(store, name).write_bytes(content)
    given = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    tasks = tuple(
        TaskEntry(**{**vars(entry), **given}) if entry.name == name else entry
        for entry in store.manifest.tasks
    )
    Manifest(store.manifest.architecture, tasks).write(store.path)
    return Store.open(store.path)


# --- files ---


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but the empty one that carries the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "bank.lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def flips(content: bytes, offsets: Iterable[int] | None = None) -> Iterator[bytes]:
    """`content` with one bit flipped: a random one of each byte, or of the bytes at `offsets`."""
    bits = random.Random(0)
    for offset in range(len(content)) if offsets is None else offsets:
        flipped = content[offset] ^ 1 << bits.randrange(8)
        yield content[:offset] + bytes([flipped]) + content[offset + 1 :]


# --- processes ---


def start(function: Callable[..., None], *args: object) -> multiprocessing.process.BaseProcess:
    """Start a process, from a server that has torch loaded, in this process's environment."""
    here = dict(os.environ)
    process = _CONTEXT.Process(target=_in_environment, args=(here, function, args), daemon=True)
    process.start()
    return process


def _in_environment(
    environment: dict[str, str], function: Callable[..., None], args: tuple[object, ...]
) -> None:
    # The server has that of the test which started it first.
    os.environ.clear()
    os.environ.update(environment)
    function(*args)


def pipe() -> tuple[Connection, Connection]:
    """What a process started by `start` can talk through: (receiving end, sending end)."""
    return _CONTEXT.Pipe(duplex=False)


def writer(bank: Path, purpose: str) -> multiprocessing.process.BaseProcess:
    """Start a process that holds a bank's lock until it is killed."""
    receiver, sender = pipe()
    process = start(_hold, bank, purpose, sender)
    receiver.recv()
    return process


def _hold(bank: Path, purpose: str, sender: Connection) -> None:
    with writer_lock(bank, purpose):
        sender.send("held")
        signal.pause()


def in_process(function: Callable[..., Any], *args: object) -> Any:
    """What a function returns, or the PiggybackError that it raises, in a process of its own."""
    receiver, sender = pipe()
    process = start(_call, sender, function, args)
    sender.close()
    with receiver:
        result = receiver.recv()
    process.join()
    if isinstance(result, PiggybackError):
        raise result
    return result


def _call(sender: Connection, function: Callable[..., Any], args: tuple[object, ...]) -> None:
    try:
        result = function(*args)
    except PiggybackError as error:
        result = error
    sender.send(result)
