"""Task-specific first and last layers, for images with other channels than the bank's network."""

from collections.abc import Collection
from dataclasses import replace

import torch
from torch import Tensor, nn

from piggyback_gan.core.filters import ConvLayer
from piggyback_gan.errors import PiggybackError
from piggyback_gan.networks.config import Architecture
from piggyback_gan.networks.generators import build_generator, build_outline
from piggyback_gan.system.seeding import seed_of


def own_layers(
    config: Architecture, channels: tuple[int, int], seed: int, source: nn.Module | None = None
) -> dict[str, ConvLayer]:
    """Build the first and last layers of a generator for other channels; empty if the channels are the bank's.

    A layer starts as the source's does on gray: a first layer's filters are the mean of the source's over
    its channels, at the same sum, and a last layer's filters are the mean of the source's.

    Args:
        config: the network of the bank.
        channels: of the task's input and output.
        seed: for layers that have no source.
        source: a folded task with the bank's channels or others, to start from.

    Returns:
        The layers that differ, by name.

    Raises:
        PiggybackError: a generator for these channels differs in more than its conv layers' channels.
    """
    wanted = replace(config, input_channels=channels[0], output_channels=channels[1])
    if wanted == config:
        return {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed))
        network = build_generator(wanted)
    shared = build_outline(config)
    modules = dict(shared.named_modules())
    own = {}
    for name, layer in network.named_modules():
        module = modules.get(name)
        if not isinstance(layer, ConvLayer) or not isinstance(module, ConvLayer):
            continue
        if layer.weight.shape != module.weight.shape:
            own[name] = layer
    _check_others(config.name, channels, network, shared, own)
    if source is not None:
        for name, layer in own.items():
            model = source.get_submodule(name)
            assert isinstance(model, ConvLayer)
            _start_as(layer, model)
    return own


def _check_others(
    generator: str,
    channels: tuple[int, int],
    network: nn.Module,
    shared: nn.Module,
    own: Collection[str],
) -> None:
    """Raise PiggybackError if the networks differ in anything but these layers."""
    wanted, there = (
        {key: tuple(t.shape) for key, t in (*m.named_parameters(), *m.named_buffers())}
        for m in (network, shared)
    )
    for key in sorted(wanted.keys() | there.keys()):
        if wanted.get(key) != there.get(key) and key.rpartition(".")[0] not in own:
            raise PiggybackError(
                f"a task of {channels[0]} -> {channels[1]} channels does not fit the bank: in {generator} for "
                f"these, {key!r} is {wanted.get(key, 'not there')}, in the bank {there.get(key, 'not there')}, "
                "and only conv layers can be a task's own; begin another bank"
            )


@torch.no_grad()
def _start_as(layer: ConvLayer, model: ConvLayer) -> None:
    axis_in = 0 if layer.transposed else 1
    weight = _spread(model.weight, axis_in, layer.weight.shape[axis_in], keep_sum=True)
    filters = layer.weight.shape[1 - axis_in]
    layer.weight.copy_(_spread(weight, 1 - axis_in, filters, keep_sum=False))
    if layer.bias is not None and model.bias is not None:
        layer.bias.copy_(_spread(model.bias, 0, filters, keep_sum=False))


def _spread(values: Tensor, axis: int, count: int, *, keep_sum: bool) -> Tensor:
    """Repeat the mean along an axis `count` times; return values unchanged if the axis has that length."""
    found = values.shape[axis]
    if found == count:
        return values
    mean = values.mean(axis, keepdim=True)
    if keep_sum:
        mean = mean * (found / count)
    return mean.expand(*values.shape[:axis], count, *values.shape[axis + 1 :])
