"""Configurations of generators and discriminators, as a bank stores them. This module does not import torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from piggyback_gan.errors import PiggybackError
from piggyback_gan.system.checks import check_choice, check_positive
from piggyback_gan.system.user_code import check_code_name, is_code_name

GeneratorName = Literal["resnet-6", "resnet-9", "unet-64", "unet-128", "unet-256"]
DiscriminatorName = Literal["patch", "pixel"]
Norm = Literal["instance", "batch", "none"]
Antialias = Literal["none", "down", "up", "both"]
WeightInit = Literal["normal", "xavier", "kaiming", "orthogonal"]
GanLoss = Literal["lsgan", "vanilla", "wgan-gp", "hinge"]
AugmentationName = Literal["color", "translation", "cutout"]

GENERATOR_NAMES = get_args(GeneratorName)
DISCRIMINATOR_NAMES = get_args(DiscriminatorName)
NORMS = get_args(Norm)
ANTIALIAS = get_args(Antialias)
INITS = get_args(WeightInit)
GAN_LOSSES = get_args(GanLoss)
AUGMENTATIONS = get_args(AugmentationName)


RESNET_BLOCKS = {"resnet-6": 6, "resnet-9": 9}
UNET_LEVELS = {"unet-64": 6, "unet-128": 7, "unet-256": 8}


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Structure and initial weights of a built-in generator.

    Raises:
        PiggybackError: a field has a value that is not allowed.
    """

    name: str = "resnet-9"
    """One of `GENERATOR_NAMES`: ResNets by their number of blocks, U-Nets by their image size."""
    input_channels: int = 3
    """Channels of the input image."""
    output_channels: int = 3
    """Channels of the output image."""
    ngf: int = 64
    """Channels after the first convolution; later layers have up to 4 times as many (U-Net: 8)."""
    norm: str = "instance"
    """``"instance"``, ``"batch"`` or ``"none"``."""
    dropout: bool = False
    """Dropout with probability 0.5 in every ResNet block, or in the U-Net's middle levels."""
    antialias: str = "none"
    """Anti-aliased downsampling (``"down"``), upsampling (``"up"``) or both, as in CUT; ResNets only."""
    init: str = "normal"
    """``"normal"``, ``"xavier"``, ``"kaiming"`` or ``"orthogonal"``; see `init_weights`."""

    def __post_init__(self) -> None:
        check_choice("generator", self.name, GENERATOR_NAMES)
        check_positive("input_channels", self.input_channels)
        check_positive("output_channels", self.output_channels)
        check_positive("ngf", self.ngf)
        check_choice("norm", self.norm, NORMS)
        if not isinstance(self.dropout, bool):
            raise PiggybackError(f"invalid dropout: found {self.dropout!r}, give True or False")
        check_choice("antialias", self.antialias, ANTIALIAS)
        if self.antialias != "none" and self.name in UNET_LEVELS:
            raise PiggybackError(f"{self.name} has no anti-alias layers: only ResNets have them")
        check_choice("init", self.init, INITS)

    @property
    def size_multiple(self) -> int:
        """Number that an image's height and width, in pixels, must be multiples of."""
        return 2 ** UNET_LEVELS[self.name] if self.name in UNET_LEVELS else 4

    @property
    def minimum_size(self) -> int:
        """Smallest height and width of an image, in pixels."""
        # A ResNet's blocks work at a quarter of the size and pad by reflection, which needs 2 pixels.
        return self.size_multiple if self.name in UNET_LEVELS else 8

    @property
    def summary(self) -> str:
        """Short description of the network, without its channels."""
        return f"{self.name}, ngf {self.ngf}, {self.norm} norm"

    @property
    def is_batch_independent(self) -> bool:
        """Whether each output depends on its input alone in training: no batch norm, no dropout."""
        return self.norm != "batch" and not self.dropout


@dataclass(frozen=True, kw_only=True)
class CustomGeneratorConfig:
    """A generator made by user code: the callable and its arguments.

    Raises:
        PiggybackError: a field has a value that is not allowed.
    """

    name: str
    """The callable that returns the module: ``"package.module:callable"``."""
    input_channels: int = 3
    """Channels of the input image."""
    output_channels: int = 3
    """Channels of the output image."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the callable besides the channels; values that JSON can represent."""
    size_multiple: int = 1
    """Number that an image's height and width, in pixels, must be multiples of."""
    minimum_size: int = 1
    """Smallest height and width of an image, in pixels."""

    is_batch_independent = False  # its layers are unknown

    def __post_init__(self) -> None:
        check_code_name(self.name)
        for field_name in ("input_channels", "output_channels", "size_multiple", "minimum_size"):
            check_positive(field_name, getattr(self, field_name))
        if self.minimum_size % self.size_multiple:
            raise PiggybackError(
                f"invalid minimum_size: found {self.minimum_size}, give a multiple of size_multiple "
                f"{self.size_multiple}"
            )
        check_arguments(self.arguments)

    @property
    def summary(self) -> str:
        """Short description of the network, without its channels."""
        return ", ".join([self.name, *(f"{key} {value}" for key, value in self.arguments.items())])


Architecture = GeneratorConfig | CustomGeneratorConfig
"""Architecture of a bank's generators."""


def read_architecture(stored: Mapping[str, Any]) -> Architecture:
    """Read the architecture stored in a bank.

    Raises:
        PiggybackError: a value is not allowed.
        TypeError: this version does not know a field.
    """
    if isinstance(stored, Mapping) and is_code_name(stored.get("name")):
        return CustomGeneratorConfig(**stored)
    return GeneratorConfig(**stored)


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Structure and initial weights of a discriminator.

    Raises:
        PiggybackError: a field has a value that is not allowed.
    """

    name: str = "patch"
    """``"patch"``: one score per overlapping patch; ``"pixel"``: one score per pixel."""
    input_channels: int = 6
    """Channels of its input: the generator's output, with the generator's input for paired tasks."""
    ndf: int = 64
    """Channels after the first convolution; later layers have up to 8 times as many (pixel: 2)."""
    layers: int = 3
    """Convolutions that halve the size (patch only); 3 give patches of 70x70 pixels."""
    norm: str = "instance"
    """``"instance"``, ``"batch"`` or ``"none"``."""
    init: str = "normal"
    """``"normal"``, ``"xavier"``, ``"kaiming"`` or ``"orthogonal"``; see `init_weights`."""

    def __post_init__(self) -> None:
        check_choice("discriminator", self.name, DISCRIMINATOR_NAMES)
        check_positive("input_channels", self.input_channels)
        check_positive("ndf", self.ndf)
        check_positive("layers", self.layers)
        check_choice("norm", self.norm, NORMS)
        check_choice("init", self.init, INITS)


def check_arguments(arguments: object) -> None:
    """Raise PiggybackError unless these are keyword arguments for user code that JSON can represent."""
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        raise PiggybackError(
            f"invalid generator_arguments: found {arguments!r}, give a table of names and values"
        )
    if given := sorted(arguments.keys() & {"input_channels", "output_channels"}):
        raise PiggybackError(
            f"invalid generator_arguments: {given[0]} is taken from the images; leave it out"
        )
    try:
        stored = json.loads(json.dumps(arguments, allow_nan=False))
    except (TypeError, ValueError):
        stored = None
    if stored != arguments:
        raise PiggybackError(
            f"invalid generator_arguments: found {arguments!r}, give only values that JSON can "
            "represent: finite numbers, strings, true, false, null, lists and tables"
        )
