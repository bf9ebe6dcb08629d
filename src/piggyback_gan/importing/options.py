"""Options of imports. This module does not import torch."""

from dataclasses import dataclass

from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import DEFAULT_UNCONSTRAINED, STORAGES, Device, Storage
from piggyback_gan.system.checks import check_choice


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How a network becomes a task. `unconstrained` and `max_error` exclude each other.

    None stands for a share of 0.25, unless `max_error` is given, and for an image size of 256, or a U-Net's.

    Raises:
        PiggybackError: a field has a value that is not allowed.
    """

    unconstrained: float | None = None
    """lambda: the share of new filters in each layer of a later task, those that the bank fits worst."""
    max_error: float | None = None
    """Instead of a share: as few new filters as keep each layer's relative error at or below this."""
    storage: Storage = "fp32"
    """Storage dtype of filters and mixing weights."""
    finetune: int = 0
    """Steps of distillation from the imported network, for later tasks; needs input images."""
    image_size: int | None = None
    """Side of the images that the network was trained on, in pixels."""
    seed: int = 0
    """Random seed of the crops in finetuning."""
    device: Device = "auto"
    """Device; auto picks CUDA, MPS, then CPU."""

    def __post_init__(self) -> None:
        check_choice("storage", self.storage, STORAGES)
        for name in ("unconstrained", "max_error"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise PiggybackError(f"invalid {name}: found {value!r}, give a number from 0 to 1")
        if self.unconstrained is not None and self.max_error is not None:
            raise PiggybackError(
                "a share of new filters (unconstrained) and a largest error exclude each other: give one"
            )
        if self.finetune < 0:
            raise PiggybackError(f"invalid finetune: found {self.finetune}, give 0 steps or more")

    @property
    def share(self) -> float | None:
        """Lambda; None with `max_error`."""
        if self.unconstrained is None and self.max_error is None:
            return DEFAULT_UNCONSTRAINED
        return self.unconstrained
