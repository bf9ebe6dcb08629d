"""Piggyback GAN: one bank of filters, one image-to-image task after another, nothing forgotten."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from piggyback_gan.bank.bank import Bank as Bank
    from piggyback_gan.bank.card import TaskCard as TaskCard
    from piggyback_gan.bank.manifest import TaskEntry as TaskEntry
    from piggyback_gan.core.factorize import factorize as factorize
    from piggyback_gan.core.filter_options import FilterOptions as FilterOptions
    from piggyback_gan.core.network import PiggybackNetwork as PiggybackNetwork
    from piggyback_gan.core.task import ParameterCount as ParameterCount
    from piggyback_gan.errors import PiggybackError as PiggybackError
    from piggyback_gan.evaluation.feature_networks import (
        load_distance as load_distance,
    )
    from piggyback_gan.evaluation.feature_networks import (
        load_features as load_features,
    )
    from piggyback_gan.evaluation.feature_networks import (
        load_recogniser as load_recogniser,
    )
    from piggyback_gan.evaluation.held_out import load_held_out as load_held_out
    from piggyback_gan.evaluation.judge import Judge as Judge
    from piggyback_gan.export.exporting import (
        Exported as Exported,
    )
    from piggyback_gan.export.exporting import (
        export_task as export_task,
    )
    from piggyback_gan.export.options import ExportOptions as ExportOptions
    from piggyback_gan.importing.import_task import (
        import_task as import_task,
    )
    from piggyback_gan.importing.options import ImportOptions as ImportOptions
    from piggyback_gan.inference.tiling import Tiling as Tiling
    from piggyback_gan.networks.config import (
        DiscriminatorConfig as DiscriminatorConfig,
    )
    from piggyback_gan.networks.config import (
        GeneratorConfig as GeneratorConfig,
    )
    from piggyback_gan.networks.discriminators import build_discriminator as build_discriminator
    from piggyback_gan.networks.generators import build_generator as build_generator
    from piggyback_gan.networks.options import GeneratorOptions as GeneratorOptions
    from piggyback_gan.runs.curves import plot_curves as plot_curves
    from piggyback_gan.runs.teach import teach as teach
    from piggyback_gan.share.packing import Packed as Packed
    from piggyback_gan.share.packing import pack as pack
    from piggyback_gan.share.transfer import Transfer as Transfer
    from piggyback_gan.share.transfer import pull as pull
    from piggyback_gan.share.transfer import push as push
    from piggyback_gan.system.user_code import allow_generator as allow_generator
    from piggyback_gan.training.callbacks import Callback as Callback
    from piggyback_gan.training.callbacks import Interrupted as Interrupted
    from piggyback_gan.training.callbacks import Position as Position
    from piggyback_gan.training.options import TrainingOptions as TrainingOptions

    __version__: str

# Imported on first access, so that the command line starts without torch.
_MODULES = {
    "Bank": "bank.bank",
    "Callback": "training.callbacks",
    "DiscriminatorConfig": "networks.config",
    "ExportOptions": "export.options",
    "Exported": "export.exporting",
    "FilterOptions": "core.filter_options",
    "GeneratorConfig": "networks.config",
    "GeneratorOptions": "networks.options",
    "ImportOptions": "importing.options",
    "Interrupted": "training.callbacks",
    "Judge": "evaluation.judge",
    "Packed": "share.packing",
    "ParameterCount": "core.task",
    "PiggybackError": "errors",
    "PiggybackNetwork": "core.network",
    "Position": "training.callbacks",
    "TaskCard": "bank.card",
    "TaskEntry": "bank.manifest",
    "Tiling": "inference.tiling",
    "TrainingOptions": "training.options",
    "Transfer": "share.transfer",
    "allow_generator": "system.user_code",
    "build_discriminator": "networks.discriminators",
    "build_generator": "networks.generators",
    "export_task": "export.exporting",
    "factorize": "core.factorize",
    "import_task": "importing.import_task",
    "load_distance": "evaluation.feature_networks",
    "load_features": "evaluation.feature_networks",
    "load_held_out": "evaluation.held_out",
    "load_recogniser": "evaluation.feature_networks",
    "pack": "share.packing",
    "plot_curves": "runs.curves",
    "pull": "share.transfer",
    "push": "share.transfer",
    "teach": "runs.teach",
}

__all__ = [*_MODULES, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("piggyback-gan")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
