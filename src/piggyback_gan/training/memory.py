"""Estimate the memory of a training step."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.networks.config import Architecture, CustomGeneratorConfig
from piggyback_gan.networks.discriminators import build_discriminator
from piggyback_gan.networks.generators import build_outline
from piggyback_gan.system.device import device_of
from piggyback_gan.training.options import TrainingOptions


def estimate_memory(
    networks: Mapping[str, PiggybackNetwork],
    config: Architecture,
    channels: tuple[int, int],
    options: TrainingOptions,
) -> int:
    """Estimate the bytes of weights, gradients, optimizer state and activations of one training step."""
    unpaired = len(networks) > 1
    judged = max(channels) if unpaired else sum(channels)
    config = replace(config, input_channels=channels[0], output_channels=channels[1])
    generator = build_outline(config)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        discriminator = build_discriminator(options.discriminator_config(judged))
    shape = (options.batch_size, channels[0], options.image_size, options.image_size)
    # Unpaired: each generator translates its own side, the other side (identity) and a translation (cycle).
    passes = len(networks) * (1 + unpaired + bool(unpaired and options.identity_weight))
    if isinstance(config, CustomGeneratorConfig):
        # Not on the meta device: run a small image and scale up.
        side = min(options.image_size, max(config.minimum_size, 4 * config.size_multiple))
        images = options.batch_size * (options.image_size / side) ** 2
        values = round(
            2 * passes * images * _activations(generator.eval(), (1, channels[0], side, side))
        )
    else:
        values = 2 * passes * _activations(generator, shape)
    # A discriminator sees real and fake images in its own step, and fake images in the generator's.
    values += 3 * 2 * _activations(discriminator, (shape[0], judged, *shape[2:]))
    values += len(networks) * sum(p.numel() for p in generator.parameters())
    trained = [p for network in networks.values() for p in network.trainable_parameters()]
    trained += len(networks) * list(discriminator.parameters())
    values += 4 * sum(p.numel() for p in trained)
    return 4 * values


def _activations(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Count the values of all layers' outputs for an input of this shape."""
    total = 0

    def count(module: nn.Module, inputs: object, output: object) -> None:
        nonlocal total
        total += output.numel() if isinstance(output, torch.Tensor) else 0

    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(shape, device=device_of(network)))
    return total
