"""Piggyback GAN: one bank of filters, one image-to-image task after another, nothing forgotten."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from piggyback_gan.bank import Bank
    from piggyback_gan.config import DiscriminatorConfig, GeneratorConfig
    from piggyback_gan.discriminators import build_discriminator
    from piggyback_gan.errors import PiggybackError
    from piggyback_gan.export.exporting import Exported, ExportOptions, export_task
    from piggyback_gan.factorization import factorize
    from piggyback_gan.filter_options import FilterOptions
    from piggyback_gan.generator_options import GeneratorOptions
    from piggyback_gan.generators import build_generator
    from piggyback_gan.importing import ImportOptions, import_task
    from piggyback_gan.mixings import FullMixing, LowRankMixing, SelectedMixing
    from piggyback_gan.network import PiggybackNetwork
    from piggyback_gan.options import TrainingOptions
    from piggyback_gan.own_code import allow_generator
    from piggyback_gan.share.packing import Packed, pack
    from piggyback_gan.share.transfer import Transfer, pull, push
    from piggyback_gan.tasks import ParameterCount
    from piggyback_gan.teaching import Interrupted, teach
    from piggyback_gan.tiling import Tiling

# Imported when first asked for, so that the command line answers without waiting for torch.
_HOMES = {
    "Bank": "bank",
    "DiscriminatorConfig": "config",
    "ExportOptions": "export.exporting",
    "Exported": "export.exporting",
    "FilterOptions": "filter_options",
    "FullMixing": "mixings",
    "GeneratorConfig": "config",
    "GeneratorOptions": "generator_options",
    "ImportOptions": "importing",
    "Interrupted": "teaching",
    "LowRankMixing": "mixings",
    "Packed": "share.packing",
    "ParameterCount": "tasks",
    "PiggybackError": "errors",
    "PiggybackNetwork": "network",
    "SelectedMixing": "mixings",
    "Tiling": "tiling",
    "TrainingOptions": "options",
    "Transfer": "share.transfer",
    "allow_generator": "own_code",
    "build_discriminator": "discriminators",
    "build_generator": "generators",
    "export_task": "export.exporting",
    "factorize": "factorization",
    "import_task": "importing",
    "pack": "share.packing",
    "pull": "share.transfer",
    "push": "share.transfer",
    "teach": "teaching",
}

__all__ = [
    "Bank",
    "DiscriminatorConfig",
    "ExportOptions",
    "Exported",
    "FilterOptions",
    "FullMixing",
    "GeneratorConfig",
    "GeneratorOptions",
    "ImportOptions",
    "Interrupted",
    "LowRankMixing",
    "Packed",
    "ParameterCount",
    "PiggybackError",
    "PiggybackNetwork",
    "SelectedMixing",
    "Tiling",
    "TrainingOptions",
    "Transfer",
    "allow_generator",
    "build_discriminator",
    "build_generator",
    "export_task",
    "factorize",
    "import_task",
    "pack",
    "pull",
    "push",
    "teach",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
