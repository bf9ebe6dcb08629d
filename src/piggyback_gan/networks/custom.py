"""Generators that a user's own code makes: built, tried out; which image sizes they take."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from piggyback_gan.errors import PiggybackError, error_line
from piggyback_gan.networks.config import Architecture, CustomGeneratorConfig
from piggyback_gan.system.user_code import call_allowed, user_location

_MULTIPLES = [2**power for power in range(9)]
_JUDGED = 16  # pixels: smaller images are not trained on


def build_custom(config: CustomGeneratorConfig) -> nn.Module:
    """Call the code that makes a generator; what it draws comes from torch's global random generator.

    Raises:
        PiggybackError: the code was not allowed (`own_code.allow_generator`), fails, or makes no module.
    """
    made = call_allowed(
        config.name,
        input_channels=config.input_channels,
        output_channels=config.output_channels,
        **config.arguments,
    )
    if not isinstance(made, nn.Module):
        raise PiggybackError(
            f"{config.name} should make a torch module; found {type(made).__name__}"
        )
    return made.cpu()


@torch.random.fork_rng(devices=[])
def fitted(config: Architecture) -> Architecture:
    """The architecture with the image sizes that it takes, and what it makes checked.

    A built-in one is as it was. Of one of the user's own, the sizes are what its attributes
    `size_multiple` and `minimum_size` say; else the smallest power of two is found, by trial on small
    images of unequal sides, of which the output has the input's height and width.

    Raises:
        PiggybackError: as `build_custom`, there is no such size, the output has other channels or values
            that are not finite, or it depends on more than the image, the parameters and the buffers.
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
    """Check that a network makes images of the right shape, from one small image.

    Raises:
        PiggybackError: it does not; the message says what came out.
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
        "comes out in its own size: give the network an integer attribute size_multiple, or mend it"
    )


def _sides(multiple: int, least: int = _JUDGED) -> tuple[int, int]:
    """Unequal odd multiples, at least 3, so that no larger multiple would do as well."""
    times = max(3, -(-least // multiple)) // 2 * 2 + 1
    return times * multiple, (times + 2) * multiple


def _problem(
    network: nn.Module, config: CustomGeneratorConfig, height: int, width: int
) -> str | None:
    """What is wrong with what a network makes of an image of this size, if anything is.

    Raises:
        PiggybackError: what no other size can mend: no tensor, or other channels.
    """
    shape = (1, config.input_channels, height, width)
    expected = (1, config.output_channels, height, width)
    try:
        made = _translated(network, shape)
    except Exception as error:  # noqa: BLE001 - code of others raises what it likes
        return f"fails for images of shape {shape}: {error_line(error)}{user_location(error)}"
    if not isinstance(made, Tensor):
        raise PiggybackError(
            f"{config.name} should make a tensor of shape {expected}; found {type(made).__name__}"
        )
    if tuple(made.shape) != expected:
        problem = f"should make images of shape {expected} from {shape}; found {tuple(made.shape)}"
        if made.shape[:2] != expected[:2]:
            raise PiggybackError(f"{config.name} {problem}")
        return problem
    if not made.is_floating_point() or not torch.isfinite(made).all():
        return f"should make finite floats from images of shape {shape}; found others"
    return None


@torch.no_grad()
def _translated(network: nn.Module, shape: tuple[int, ...]) -> object:
    chance = torch.Generator().manual_seed(0)
    return network(torch.rand(shape, generator=chance) * 2 - 1)


def _check_reproducible(network: nn.Module, config: CustomGeneratorConfig) -> None:
    """Whether another network with the same parameters and buffers, all that a bank keeps, is the same."""
    shape = (1, config.input_channels, *_sides(config.size_multiple, config.minimum_size))
    expected = _translated(network, shape)
    torch.manual_seed(1)
    other = build_custom(config).eval()
    kept, theirs = _tensors(network), _tensors(other)
    for key in kept.keys() | theirs.keys():
        first, second = (t[key].shape if key in t else None for t in (kept, theirs))
        if first != second:
            raise PiggybackError(
                f"{config.name} makes a network whose {key!r} is not always of one shape, and can't be "
                f"kept: after an image {first}, in a new network {second}"
            )
    with torch.no_grad():
        for key, tensor in theirs.items():
            tensor.copy_(kept[key])
    found = _translated(other, shape)
    assert isinstance(expected, Tensor) and isinstance(found, Tensor)
    if not torch.equal(expected, found):
        raise PiggybackError(
            f"{config.name} makes networks that differ although their parameters and buffers are equal: "
            "what is drawn at random must be a parameter or a buffer (register_buffer), and in eval mode "
            "an image must always become the same"
        )


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
