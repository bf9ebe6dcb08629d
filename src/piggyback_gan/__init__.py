"""Piggyback GAN: one bank of filters, one image-to-image task after another, nothing forgotten."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from piggyback_gan.bank.bank import Bank
    from piggyback_gan.core.factorize import factorize
    from piggyback_gan.core.filter_options import FilterOptions
    from piggyback_gan.core.mixings import FullMixing, LowRankMixing, SelectedMixing
    from piggyback_gan.core.network import PiggybackNetwork
    from piggyback_gan.core.task import ParameterCount
    from piggyback_gan.errors import PiggybackError
    from piggyback_gan.export.exporting import Exported, export_task
    from piggyback_gan.export.options import ExportOptions
    from piggyback_gan.importing.import_task import import_task
    from piggyback_gan.importing.options import ImportOptions
    from piggyback_gan.inference.tiling import Tiling
    from piggyback_gan.networks.config import DiscriminatorConfig, GeneratorConfig
    from piggyback_gan.networks.discriminators import build_discriminator
    from piggyback_gan.networks.generators import build_generator
    from piggyback_gan.networks.options import GeneratorOptions
    from piggyback_gan.runs.teach import teach
    from piggyback_gan.share.packing import Packed, pack
    from piggyback_gan.share.transfer import Transfer, pull, push
    from piggyback_gan.system.user_code import allow_generator
    from piggyback_gan.training.callbacks import Interrupted
    from piggyback_gan.training.options import TrainingOptions

# Imported when first asked for, so that the command line answers without waiting for torch.
_HOMES = {
    "Bank": "bank.bank",
    "DiscriminatorConfig": "networks.config",
    "ExportOptions": "export.options",
    "Exported": "export.exporting",
    "FilterOptions": "core.filter_options",
    "FullMixing": "core.mixings",
    "GeneratorConfig": "networks.config",
    "GeneratorOptions": "networks.options",
    "ImportOptions": "importing.options",
    "Interrupted": "training.callbacks",
    "LowRankMixing": "core.mixings",
    "Packed": "share.packing",
    "ParameterCount": "core.task",
    "PiggybackError": "errors",
    "PiggybackNetwork": "core.network",
    "SelectedMixing": "core.mixings",
    "Tiling": "inference.tiling",
    "TrainingOptions": "training.options",
    "Transfer": "share.transfer",
    "allow_generator": "system.user_code",
    "build_discriminator": "networks.discriminators",
    "build_generator": "networks.generators",
    "export_task": "export.exporting",
    "factorize": "core.factorize",
    "import_task": "importing.import_task",
    "pack": "share.packing",
    "pull": "share.transfer",
    "push": "share.transfer",
    "teach": "runs.teach",
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
