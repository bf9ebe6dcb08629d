"""Options of a bank's generator."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from piggyback_gan.errors import PiggybackError
from piggyback_gan.networks.config import (
    GENERATOR_NAMES,
    INITS,
    Antialias,
    Architecture,
    CustomGeneratorConfig,
    GeneratorConfig,
    Norm,
    WeightInit,
    check_arguments,
)
from piggyback_gan.system.checks import check_choice
from piggyback_gan.system.user_code import is_code_name

_CODE = "package.module:callable"


@dataclass(frozen=True, kw_only=True)
class GeneratorOptions:
    """The generator of a new bank; None takes the default. Later tasks take the generator from the bank.

    Raises:
        PiggybackError: a field has a value that is not allowed.
    """

    generator: str | None = None
    """Network of a new bank, fixed by its first task. MODULE:CALLABLE is a function of yours that returns one."""
    generator_arguments: Mapping[str, Any] | None = None
    """Keyword arguments of MODULE:CALLABLE, besides input_channels and output_channels."""
    ngf: int | None = None
    """Channels after the generator's first convolution."""
    norm: Norm | None = None
    """Norm layers of the generator."""
    dropout: bool | None = None
    """Dropout in the generator during training."""
    antialias: Antialias | None = None
    """Anti-aliased down- and upsampling as in CUT; ResNets only."""
    weight_init: WeightInit | None = None
    """Initialization of the generator's weights."""

    def __post_init__(self) -> None:
        if self.generator_arguments is not None:
            check_arguments(self.generator_arguments)
        if self.code is not None:
            for option in ("ngf", "norm", "dropout", "antialias", "weight_init"):
                if getattr(self, option) is not None:
                    raise PiggybackError(
                        f"{option} is an option of the built-in networks, not of {self.code}: "
                        "leave it out; what your code takes goes into generator_arguments"
                    )
            CustomGeneratorConfig(**self._chosen())
            return
        # Names here that differ from the config's: its errors would name another option.
        if self.generator is not None:
            check_choice("generator", self.generator, (*GENERATOR_NAMES, _CODE))
        if self.weight_init is not None:
            check_choice("weight_init", self.weight_init, INITS)
        # Values one by one: a file may set one of two that belong together, and the command line the other.
        GeneratorConfig(
            **{k: v for k, v in self._chosen().items() if k not in ("name", "arguments")}
        )

    @property
    def code(self) -> str | None:
        """Name of the user code that makes the generator, if any."""
        return self.generator if is_code_name(self.generator) else None

    def for_new_bank(self, image_size: int, channels: tuple[int, int] = (3, 3)) -> Architecture:
        """Return the architecture of a new bank; the sizes that user code takes are not filled in (`fitted`).

        Args:
            image_size: side of the training images, in pixels; decides the default network.
            channels: channels of input and output.

        Raises:
            PiggybackError: a value is not allowed.
        """
        of_channels = {"input_channels": channels[0], "output_channels": channels[1]}
        if self.code is not None:
            return CustomGeneratorConfig(**of_channels | self._chosen())
        name = "resnet-9" if image_size >= 256 else "resnet-6"
        return self.built_in({"name": name, **of_channels})

    def built_in(self, found: Mapping[str, Any]) -> GeneratorConfig:
        """Return a built-in architecture: `found`, overridden by these options.

        Raises:
            PiggybackError: a value is not allowed, or the options are for user code.
        """
        if self.code is not None:
            raise PiggybackError(
                f"a generator made by user code ({self.code}) is not possible here: choose one of "
                f"{', '.join(GENERATOR_NAMES)}"
            )
        if self.generator_arguments is not None:
            raise PiggybackError(
                f"generator_arguments are for code of yours: give generator {_CODE} too"
            )
        return GeneratorConfig(**{**found, **self._chosen()})

    def for_bank(self, config: Architecture) -> Architecture:
        """Return the bank's architecture.

        Raises:
            PiggybackError: an option is in conflict with it.
        """
        for field, asked in self._chosen().items():
            fixed = getattr(config, field, None)
            if fixed != asked:
                option = next((o for o, f in _CONFIG_FIELDS.items() if f == field), field)
                raise PiggybackError(
                    f"{option} {asked!r} does not fit the bank, whose first task fixed it to "
                    f"{fixed!r}: leave it out, or start another bank"
                )
        return config

    def _chosen(self) -> dict[str, Any]:
        given = {name: value for name, value in vars(self).items() if value is not None}
        return {_CONFIG_FIELDS.get(name, name): value for name, value in given.items()}


_CONFIG_FIELDS = {"generator": "name", "generator_arguments": "arguments", "weight_init": "init"}
