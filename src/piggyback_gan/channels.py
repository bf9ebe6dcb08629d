"""Layers of a task's own, where its images have other channels than the bank's network."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from piggyback_gan.chance import seed_of
from piggyback_gan.config import GeneratorConfig
from piggyback_gan.filters import ConvLayer
from piggyback_gan.generators import build_generator


def own_layers(
    config: GeneratorConfig, channels: tuple[int, int], seed: int, source: nn.Module | None = None
) -> dict[str, ConvLayer]:
    """The first or last layer, or both, of a generator for other channels; none where they are the bank's.

    A layer starts as the source's does on gray: a first layer's filters are the mean of the source's over
    its channels, at the same sum, and a last layer's filters are the mean of the source's.

    Args:
        config: the network of the bank.
        channels: of the task's input and output.
        seed: for layers that have no source.
        source: a folded task with the bank's channels or others, to start from.

    Returns:
        The layers that differ, by name.
    """
    wanted = replace(config, input_channels=channels[0], output_channels=channels[1])
    if wanted == config:
        return {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed))
        network = build_generator(wanted)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        shared = dict(build_generator(config).named_modules())
    own = {}
    for name, layer in network.named_modules():
        if isinstance(layer, ConvLayer):
            module = shared[name]
            assert isinstance(module, ConvLayer)
            if layer.weight.shape != module.weight.shape:
                own[name] = layer
    if source is not None:
        for name, layer in own.items():
            model = source.get_submodule(name)
            assert isinstance(model, ConvLayer)
            _start_as(layer, model)
    return own


@torch.no_grad()
def _start_as(layer: ConvLayer, model: ConvLayer) -> None:
    axis_in = 0 if layer.transposed else 1
    weight = _spread(model.weight, axis_in, layer.weight.shape[axis_in], keep_sum=True)
    filters = layer.weight.shape[1 - axis_in]
    layer.weight.copy_(_spread(weight, 1 - axis_in, filters, keep_sum=False))
    if layer.bias is not None and model.bias is not None:
        layer.bias.copy_(_spread(model.bias, 0, filters, keep_sum=False))


def _spread(values: Tensor, axis: int, count: int, *, keep_sum: bool) -> Tensor:
    """The mean along an axis in each of `count` places; values as they are where there are as many."""
    found = values.shape[axis]
    if found == count:
        return values
    mean = values.mean(axis, keepdim=True)
    if keep_sum:
        mean = mean * (found / count)
    return mean.expand(*values.shape[:axis], count, *values.shape[axis + 1 :])
