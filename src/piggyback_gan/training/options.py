"""Training options: defaults and validation."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from piggyback_gan.core.filter_options import FilterOptions
from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import AUTO, PREVIOUS, Device, Direction
from piggyback_gan.networks.config import (
    AUGMENTATIONS,
    AugmentationName,
    DiscriminatorConfig,
    DiscriminatorName,
    GanLoss,
    Norm,
    WeightInit,
)
from piggyback_gan.networks.options import GeneratorOptions
from piggyback_gan.system.checks import MOST, check_choice, is_number
from piggyback_gan.system.toml_options import check_keys, known_options, options_from, read_toml

Mode = Literal["paired", "unpaired"]
Augment = Literal["auto", "on", "off"]
Precision = Literal["fp32", "bf16"]
Log = Literal["jsonl", "tensorboard"]

_INTEGERS = {
    "seed": (0, 2**31 - 1),
    "pool_size": (0, MOST),
    "decay_epochs": (0, MOST),
    "discriminator_layers": (1, 10),
}
"""Ranges of the integers that are not from 1 to `MOST`."""
FIRST_TASK_RATE = 2e-4
LATER_TASK_RATE = 1e-3
SMALL_DATA = 500  # fewer training images than this: augmentation was measured to help


@dataclass(frozen=True, kw_only=True)
class BasicOptions:
    """Task, epochs and batches: a base class, so that its options come first in --help and in files."""

    mode: Mode = "paired"
    """paired: pix2pix; unpaired: CycleGAN, with a generator for each direction."""
    direction: Direction = "AtoB"
    """Direction of translation; an unpaired task learns the other direction too."""
    epochs: int = 200
    """Passes over the training set."""
    batch_size: int = 1
    """Images (of each side) per batch, in each process."""
    accumulate: int = 1
    """Gradient accumulation steps: batches per optimizer step."""
    image_size: int = 256
    """Side of the square training crops, in pixels."""


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(FilterOptions, BasicOptions):
    """Training options of one task. `None` stands for a default that depends on the task.

    docs/training.md describes each option and its default, `pbgan train --help` those of the command line.
    """

    learning_rate: float | None = None
    """Adam's learning rate for the generator."""
    identity_weight: float | None = None
    """Unpaired: weight of the identity loss."""
    augment: Augment = "auto"
    """Augment the discriminators' inputs; auto: if there are fewer than 500 training images."""
    val_fraction: float = 0.0
    """Share of the training images to hold out, if the data has neither val nor test."""
    keep_best: str | None = None
    """Keep the weights of the best epoch by this validation metric, such as ssim or l1_AtoB."""
    patience: int | None = None
    """Stop after this number of epochs without a better --keep-best metric."""
    input_channels: int | None = None
    """Channels of the input: 1 gray, 3 RGB, 4 RGBA, or any number."""
    output_channels: int | None = None
    """Channels of the output."""
    input_labels: int | None = None
    """Number of classes, if the inputs are label maps: files of class indices."""
    input_range: tuple[float, float] | None = None
    """Values of the input files that map to -1 and 1; default of float files: minimum and maximum."""
    output_range: tuple[float, float] | None = None
    """Values of the output files that map to -1 and 1."""
    precision: Precision = "fp32"
    """bf16: run the networks in bfloat16 (autocast)."""
    log: Log = "jsonl"
    """tensorboard: write TensorBoard event files too."""
    seed: int = 0
    """Random seed."""
    device: Device = "auto"
    """Device; auto picks CUDA, MPS, then CPU."""

    # The following are set in a TOML file only.
    decay_epochs: int | None = None
    """Epochs of linear learning rate decay to 0, at the end of training [default: half of all, rounded down]."""
    load_size: int | None = None
    """Side to which images are resized before random crops [default: 286/256 of image_size]."""
    flip: bool = True
    """Mirror pairs left to right, with probability 1/2."""
    backward_learning_rate: float | None = None
    """Unpaired: Adam's learning rate for the other direction's generator [default: as learning_rate]."""
    discriminator_learning_rate: float = 2e-4
    """Adam's learning rate for the discriminator."""
    beta1: float = 0.5
    """Adam's beta1 for both; beta2 is 0.999."""
    gan_loss: GanLoss = "lsgan"
    """GAN loss."""
    l1_weight: float = 100.0
    """Paired: weight of the L1 distance to the target; the GAN loss has weight 1."""
    cycle_weight: float = 10.0
    """Unpaired: weight of the cycle consistency loss (L1)."""
    pool_size: int = 50
    """Unpaired: size of the pool of earlier outputs for the discriminators; 0 for none."""
    augment_policy: tuple[AugmentationName, ...] = AUGMENTATIONS
    """Augmentations of --augment: any of color, translation, cutout."""
    discriminator: DiscriminatorName = "patch"
    """Discriminator: PatchGAN or single pixels."""
    discriminator_layers: int = 3
    """Downsampling layers of the PatchGAN: 3 has patches of 70x70 pixels."""
    ndf: int = 64
    """Channels after the discriminator's first convolution."""
    discriminator_norm: Norm = "instance"
    """Norm layers of the discriminator."""
    discriminator_init: WeightInit = "normal"
    """Initialization of the discriminator's weights."""
    samples: int = 4
    """Number of held-out images in the sample picture of each epoch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in dataclasses.fields(self):
            _check(option, getattr(self, option.name))
        for field in ("input_range", "output_range"):
            _check_range(field, getattr(self, field))
        if self.input_labels is not None and (self.input_channels or self.input_range):
            raise PiggybackError(
                "input_labels determines the input format: leave out input_channels and input_range"
            )
        if self.patience is not None and self.keep_best is None:
            raise PiggybackError("patience needs a metric: give keep_best too")
        if self.keep_best is not None and not isinstance(self.keep_best, str):
            raise PiggybackError(f"invalid keep_best: found {self.keep_best!r}, give a metric")
        if not isinstance(self.augment_policy, tuple):
            raise PiggybackError(
                f"invalid augment_policy: found {self.augment_policy!r}, "
                f"give a list of {', '.join(AUGMENTATIONS)}"
            )
        for name in self.augment_policy:
            check_choice("augment_policy", name, AUGMENTATIONS)

    def resolved(
        self,
        *,
        earlier: Sequence[str],
        device: Device,
        earlier_backward: Sequence[str] = (),
        train_images: int = SMALL_DATA,
        equal_channels: bool = True,
    ) -> "TrainingOptions":
        """Return the options with all defaults filled in, as they are stored with the task.

        Args:
            earlier: the bank's tasks.
            device: the chosen device.
            earlier_backward: those with a backward direction.
            train_images: number of training images; of the smaller side, if unpaired.
            equal_channels: whether input and output have the same number of channels.

        Raises:
            PiggybackError: two options contradict each other.
        """
        # Not in __post_init__: a file may set one of the two and the command line the other.
        if self.load_size is not None and self.load_size < self.image_size:
            raise PiggybackError(
                f"load_size {self.load_size} is smaller than image_size {self.image_size}: "
                "crops are taken from it"
            )
        if self.decay_epochs is not None and self.decay_epochs > self.epochs:
            raise PiggybackError(
                f"decay_epochs {self.decay_epochs} is more than epochs {self.epochs}"
            )
        if self.mode == "unpaired" and self.identity_weight and not equal_channels:
            raise PiggybackError(
                f"identity_weight {self.identity_weight:g} needs sides of equal channels: "
                "an image can't be its own translation here; give 0"
            )
        if self.mode == "unpaired" and self.input_labels is not None:
            raise PiggybackError("generators can't output label maps: train this task paired")
        init = self.init
        if earlier:
            init = earlier[-1] if init == PREVIOUS else init or AUTO
        augment = self.augment
        if augment == "auto":
            augment = "on" if train_images < SMALL_DATA else "off"
        identity = 5.0 if equal_channels else 0.0
        backward_rate = self.backward_learning_rate
        if backward_rate is None:
            backward_rate = self.learning_rate
        return dataclasses.replace(
            self.with_filter_defaults(factorizes=True),
            decay_epochs=self.epochs // 2 if self.decay_epochs is None else self.decay_epochs,
            load_size=self.load_size or round(self.image_size * 286 / 256),
            learning_rate=_rate(self.learning_rate, earlier),
            backward_learning_rate=_rate(backward_rate, earlier_backward),
            identity_weight=identity if self.identity_weight is None else self.identity_weight,
            augment=augment,
            device=device,
            init=init,
        )

    def discriminator_config(self, channels: int) -> DiscriminatorConfig:
        """The discriminator's configuration for `channels` input channels."""
        return DiscriminatorConfig(
            name=self.discriminator,
            input_channels=channels,
            ndf=self.ndf,
            layers=self.discriminator_layers,
            norm=self.discriminator_norm,
            init=self.discriminator_init,
        )


def _check(option: dataclasses.Field[Any], value: Any) -> None:
    """Raise PiggybackError unless a choice, an integer, a number or a bool is in the option's range."""
    kind, name = option.type, option.name
    fits = True
    if get_origin(kind) is Literal:
        check_choice(name, value, get_args(kind))
    elif kind is bool:
        expected, fits = "true or false", isinstance(value, bool)
    elif kind is int or (kind == int | None and value is not None):
        least, most = _INTEGERS.get(name, (1, MOST))
        expected = f"an integer from {least} to {most}"
        fits = is_number(value) and isinstance(value, int) and least <= value <= most
    elif kind is float or (kind == float | None and value is not None):
        below = 1 if name in ("val_fraction", "beta1") else math.inf
        expected = "a number from 0 " + ("on" if below == math.inf else "to below 1")
        fits = is_number(value) and 0 <= value < below
    if not fits:
        raise PiggybackError(f"invalid {name}: found {value!r}, give {expected}")


def _check_range(field: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, tuple) or len(value) != 2 or not all(map(is_number, value)):
        raise PiggybackError(f"invalid {field}: found {value!r}, give two numbers")
    if not value[0] < value[1]:
        raise PiggybackError(f"invalid {field}: {value[0]:g} is not below {value[1]:g}")


def _rate(given: float | None, earlier: Sequence[str]) -> float:
    if given is not None:
        return given
    return LATER_TASK_RATE if earlier else FIRST_TASK_RATE


def read_options(path: Path) -> tuple[TrainingOptions, GeneratorOptions]:
    """Read options from a TOML file, whose keys are the fields of both classes; `unconstrained` may be a table.

    Raises:
        PiggybackError: the file can't be read, has unknown keys, or a value that is not allowed.
    """
    content = read_toml(path)
    check_keys(content, known_options(TrainingOptions, GeneratorOptions), str(path))
    training = options_from(TrainingOptions, content, str(path))
    return training, options_from(GeneratorOptions, content, str(path))
