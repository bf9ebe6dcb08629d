"""The networks' configurations: plain checked values, which a bank stores. Nothing here imports torch."""

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
    """Everything that decides a generator's structure and its initial weights.

    Raises:
        PiggybackError: a field has a value that is not allowed.
    """

    name: str = "resnet-9"
    """One of `GENERATOR_NAMES`: ResNets by their number of blocks, U-Nets by their image size."""
    input_channels: int = 3
    """Channels of the image that is translated."""
    output_channels: int = 3
    """Channels of the image that comes out."""
    ngf: int = 64
    """Channels after the first convolution; the later layers have up to 4 (U-Net: 8) times as many."""
    norm: str = "instance"
    """``"instance"``, ``"batch"`` or ``"none"``."""
    dropout: bool = False
    """Dropout 0.5 in every ResNet block, or in the U-Net's middle levels."""
    antialias: str = "none"
    """Blur before pixels are left out (``"down"``) and where they are put in (``"up"``), as in CUT; a ResNet's."""
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
        """The number of pixels that an image's height and width must be multiples of."""
        return 2 ** UNET_LEVELS[self.name] if self.name in UNET_LEVELS else 4

    @property
    def minimum_size(self) -> int:
        """The smallest height and width, in pixels, that the network takes."""
        # The ResNet's blocks work at a quarter of the size, and pad by reflection: 1 pixel there
        # has no neighbour to reflect.
        return self.size_multiple if self.name in UNET_LEVELS else 8

    @property
    def summary(self) -> str:
        """The network in a few words, without its channels."""
        return f"{self.name}, ngf {self.ngf}, {self.norm} norm"

    @property
    def sees_images_alone(self) -> bool:
        """Whether what it makes of an image in training depends neither on its batch nor on chance."""
        return self.norm != "batch" and not self.dropout


@dataclass(frozen=True, kw_only=True)
class CustomGeneratorConfig:
    """A generator that a user's own code makes: which code, and what it is called with.

    Raises:
        PiggybackError: a field has a value that is not allowed.
    """

    name: str
    """The callable that makes it: ``"package.module:callable"``."""
    input_channels: int = 3
    """Channels of the image that is translated."""
    output_channels: int = 3
    """Channels of the image that comes out."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the callable is given beside the channels: values that JSON has."""
    size_multiple: int = 1
    """The number of pixels that an image's height and width must be multiples of."""
    minimum_size: int = 1
    """The smallest height and width, in pixels, that the network takes."""

    sees_images_alone = False  # nothing is known of its layers

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
        """The network in a few words, without its channels."""
        return ", ".join([self.name, *(f"{key} {value}" for key, value in self.arguments.items())])


Architecture = GeneratorConfig | CustomGeneratorConfig
"""What a bank's generators can be."""


def read_architecture(stored: Mapping[str, Any]) -> Architecture:
    """The architecture that a bank has stored.

    Raises:
        PiggybackError: a value that is not allowed.
        TypeError: a field that this version does not know.
    """
    if isinstance(stored, Mapping) and is_code_name(stored.get("name")):
        return CustomGeneratorConfig(**stored)
    return GeneratorConfig(**stored)


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Everything that decides a discriminator's structure and its initial weights.

    Raises:
        PiggybackError: a field has a value that is not allowed.
    """

    name: str = "patch"
    """``"patch"``: a score for each overlapping patch; ``"pixel"``: a score for each pixel."""
    input_channels: int = 6
    """Channels of what is judged: those of the output, or of input and output for paired tasks."""
    ndf: int = 64
    """Channels after the first convolution; later layers have up to 8 (pixel: 2) times as many."""
    layers: int = 3
    """Convolutions that halve the size (patch only): 3 gives patches of 70x70 pixels."""
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
    """Raise PiggybackError unless these are arguments for a user's own code that JSON can keep."""
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        raise PiggybackError(
            f"invalid generator_arguments: found {arguments!r}, give a table of names and values"
        )
    if given := sorted(arguments.keys() & {"input_channels", "output_channels"}):
        raise PiggybackError(
            f"invalid generator_arguments: {given[0]} is as the images have it; leave it out"
        )
    try:
        kept = json.loads(json.dumps(arguments, allow_nan=False))
    except (TypeError, ValueError):
        kept = None
    if kept != arguments:
        raise PiggybackError(
            f"invalid generator_arguments: found {arguments!r}, give only what JSON keeps: finite numbers, "
            "words, true, false, null, lists and tables"
        )
