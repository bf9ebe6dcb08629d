"""Generators made by user code: build them, validate them, and find the image sizes that they take."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from piggyback_gan.errors import PiggybackError, error_line
from piggyback_gan.networks.config import Architecture, CustomGeneratorConfig
from piggyback_gan.system.user_code import call_allowed, user_location

_MULTIPLES = [2**power for power in range(9)]
_SMALLEST_TRIAL = 16  # pixels: smaller images are not trained on


def build_custom(config: CustomGeneratorConfig) -> nn.Module:
    """Call user code that returns a generator; weights are drawn from torch's global random state.

    Raises:
        PiggybackError: the code was not allowed (`allow_generator`), raises, or doesn't return a module.
    """
    made = call_allowed(
        config.name,
        input_channels=config.input_channels,
        output_channels=config.output_channels,
        **config.arguments,
    )
    if not isinstance(made, nn.Module):
        raise PiggybackError(
            f"{config.name} should return a torch module; found {type(made).__name__}"
        )
    return made.cpu()


@torch.random.fork_rng(devices=[])
def fitted(config: Architecture) -> Architecture:
    """Fill in the image sizes that user code takes, and validate its outputs.

    A built-in architecture is returned unchanged. The sizes of user code are its attributes
    `size_multiple` and `minimum_size`; without them, the smallest power of two is searched, by trial on
    small images of unequal sides, at which the output has the input's height and width.

    Raises:
        PiggybackError: as `build_custom`; no such size exists; the output has other channels or values that
            are not finite; or it depends on more than the image, the parameters and the buffers.
    """
    if not isinstance(config, CustomGeneratorConfig):
        return config
    torch.manual_seed(0)
    network = build_custom(config).eval()
    given = getattr(network, "size_multiple", None)
    if given is not None:
        least = getattr(network, "minimum_size", given)
        config = replace(config, size_multiple=given, minimum_size=least)
        try_out(network, config)
    else:
        config = _found_by_trial(network, config)
    _check_reproducible(network, config)
    return config


def try_out(network: nn.Module, config: CustomGeneratorConfig) -> None:
    """Validate that a network's outputs have the right shape, on one small image.

    Raises:
        PiggybackError: they don't; the message says what was found.
    """
    if problem := _problem(network, config, *_sides(config.size_multiple, config.minimum_size)):
        raise PiggybackError(f"{config.name} {problem}")


def _found_by_trial(network: nn.Module, config: CustomGeneratorConfig) -> CustomGeneratorConfig:
    problem = None
    for multiple in _MULTIPLES:
        problem = _problem(network, config, *_sides(multiple))
        if problem is None:
            smaller = range(multiple, max(_sides(multiple)), multiple)
            sizes = (size for size in smaller if not _problem(network, config, size, size))
            least = next(sizes, max(_sides(multiple)))
            return replace(config, size_multiple=multiple, minimum_size=least)
    raise PiggybackError(
        f"{config.name} {problem}; no image whose sides are multiples of 1, 2, 4 ... {_MULTIPLES[-1]} "
        "keeps its size: give the network an integer attribute size_multiple, or fix it"
    )


def _sides(multiple: int, least: int = _SMALLEST_TRIAL) -> tuple[int, int]:
    """Return unequal odd multiples, 3 or more, which are not multiples of a larger power of two."""
    times = max(3, -(-least // multiple)) // 2 * 2 + 1
    return times * multiple, (times + 2) * multiple


def _problem(
    network: nn.Module, config: CustomGeneratorConfig, height: int, width: int
) -> str | None:
    """Describe what is wrong with a network's output for an image of this size; None if nothing is.

    Raises:
        PiggybackError: a problem at any size: the output is not a tensor, or has other channels.
    """
    shape = (1, config.input_channels, height, width)
    expected = (1, config.output_channels, height, width)
    try:
        made = _translated(network, shape)
    except Exception as error:  # noqa: BLE001 - user code may raise anything
        return f"fails for images of shape {shape}: {error_line(error)}{user_location(error)}"
    if not isinstance(made, Tensor):
        raise PiggybackError(
            f"{config.name} should return a tensor of shape {expected}; found {type(made).__name__}"
        )
    if tuple(made.shape) != expected:
        problem = (
            f"should return images of shape {expected} from {shape}; found {tuple(made.shape)}"
        )
        if made.shape[:2] != expected[:2]:
            raise PiggybackError(f"{config.name} {problem}")
        return problem
    if not made.is_floating_point() or not torch.isfinite(made).all():
        return f"should return finite floats from images of shape {shape}; found others"
    return None


@torch.no_grad()
def _translated(network: nn.Module, shape: tuple[int, ...]) -> object:
    random = torch.Generator().manual_seed(0)
    return network(torch.rand(shape, generator=random) * 2 - 1)


def _check_reproducible(network: nn.Module, config: CustomGeneratorConfig) -> None:
    """Raise PiggybackError unless parameters and buffers, which a bank stores, determine the outputs."""
    shape = (1, config.input_channels, *_sides(config.size_multiple, config.minimum_size))
    expected = _translated(network, shape)
    torch.manual_seed(1)
    other = build_custom(config).eval()
    tensors, others = _tensors(network), _tensors(other)
    for key in tensors.keys() | others.keys():
        first, second = (t[key].shape if key in t else None for t in (tensors, others))
        if first != second:
            raise PiggybackError(
                f"{config.name} returns a network whose {key!r} changes its shape, and can't be "
                f"stored: after an image {first}, in a new network {second}"
            )
    with torch.no_grad():
        for key, tensor in others.items():
            tensor.copy_(tensors[key])
    found = _translated(other, shape)
    assert isinstance(expected, Tensor) and isinstance(found, Tensor)
    if not torch.equal(expected, found):
        raise PiggybackError(
            f"{config.name} returns networks that differ although their parameters and buffers are equal: "
            "random values must be parameters or buffers (register_buffer), and in eval mode an image "
            "must always give the same output"
        )


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
