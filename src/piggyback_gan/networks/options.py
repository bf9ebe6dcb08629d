"""Which network a bank gets: every option, with its check."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from piggyback_gan.errors import PiggybackError
from piggyback_gan.networks.config import (
    ANTIALIAS,
    GENERATOR_NAMES,
    INITS,
    NORMS,
    Antialias,
    Architecture,
    CustomGeneratorConfig,
    GeneratorConfig,
    Norm,
    WeightInit,
    check_arguments,
)
from piggyback_gan.system.checks import check_choice, check_positive
from piggyback_gan.system.user_code import check_code_name, is_code_name

_CODE = "package.module:callable"


@dataclass(frozen=True, kw_only=True)
class GeneratorOptions:
    """The architecture. It is chosen with a bank's first task; later tasks take it from the bank."""

    generator: str | None = None
    """The network. A new bank's first task fixes it. MODULE:CALLABLE makes one of yours."""
    generator_arguments: Mapping[str, Any] | None = None
    """What MODULE:CALLABLE is called with, beside input_channels and output_channels."""
    ngf: int | None = None
    """Channels after the network's first convolution."""
    norm: Norm | None = None
    """Norm layers of the network."""
    dropout: bool | None = None
    """Dropout in the network, while it trains."""
    antialias: Antialias | None = None
    """A ResNet's layers that blur where it changes the size, as CUT's."""
    weight_init: WeightInit | None = None
    """How the network's first weights are drawn."""

    def __post_init__(self) -> None:
        if is_code_name(self.generator):
            check_code_name(str(self.generator))
            self._refuse_options_of_built_in()
        elif self.generator is not None:
            check_choice("generator", self.generator, (*GENERATOR_NAMES, _CODE))
        for field, allowed in (
            ("norm", NORMS),
            ("antialias", ANTIALIAS),
            ("weight_init", INITS),
        ):
            if getattr(self, field) is not None:
                check_choice(field, getattr(self, field), allowed)
        if self.generator_arguments is not None:
            check_arguments(self.generator_arguments)
        if self.ngf is not None:
            check_positive("ngf", self.ngf)
        if self.dropout is not None and not isinstance(self.dropout, bool):
            raise PiggybackError(f"invalid dropout: found {self.dropout!r}, give true or false")

    def _refuse_options_of_built_in(self) -> None:
        for option in ("ngf", "norm", "dropout", "antialias", "weight_init"):
            if getattr(self, option) is not None:
                raise PiggybackError(
                    f"{option} is an option of the built-in networks, not of {self.generator}: "
                    "leave it out; what your code takes goes into generator_arguments"
                )

    @property
    def code(self) -> str | None:
        """The user's own code that is asked for, by name."""
        return self.generator if is_code_name(self.generator) else None

    def for_new_bank(self, image_size: int, channels: tuple[int, int] = (3, 3)) -> Architecture:
        """The architecture that a new bank gets, for input and output of so many channels.

        Which sizes a network of the user's own takes is still to be found out (`fitted`).

        Raises:
            PiggybackError: a value that no network can have.
        """
        of_channels = {"input_channels": channels[0], "output_channels": channels[1]}
        if self.code is not None:
            return CustomGeneratorConfig(**of_channels | self._chosen())
        name = "resnet-9" if image_size >= 256 else "resnet-6"
        return self.built_in({"name": name, **of_channels})

    def built_in(self, found: Mapping[str, Any]) -> GeneratorConfig:
        """A built-in architecture: what is found out otherwise, and what was chosen before that.

        Raises:
            PiggybackError: a value that no network can have, or options of a user's own code.
        """
        if self.code is not None:
            raise PiggybackError(
                f"a network of one's own ({self.code}) can't stand here: choose one of "
                f"{', '.join(GENERATOR_NAMES)}"
            )
        if self.generator_arguments is not None:
            raise PiggybackError(
                f"generator_arguments are for code of yours: give generator {_CODE} too"
            )
        return GeneratorConfig(**{**found, **self._chosen()})

    def for_bank(self, config: Architecture) -> Architecture:
        """The bank's own architecture, if what was chosen does not speak against it.

        Raises:
            PiggybackError: an option asks for another architecture than the bank has.
        """
        for field, asked in self._chosen().items():
            fixed = getattr(config, field, None)
            if fixed != asked:
                option = next((o for o, f in _CONFIG_FIELDS.items() if f == field), field)
                raise PiggybackError(
                    f"{option} {asked!r} does not fit the bank, whose first task fixed it to "
                    f"{fixed!r}: leave it out, or begin another bank"
                )
        return config

    def _chosen(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(GeneratorOptions)}
        return {_CONFIG_FIELDS.get(k, k): value for k, value in values.items() if value is not None}


_CONFIG_FIELDS = {"generator": "name", "generator_arguments": "arguments", "weight_init": "init"}
