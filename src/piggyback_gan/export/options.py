"""Options of exports. This module does not import torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from piggyback_gan.errors import PiggybackError
from piggyback_gan.names import (
    EXPORT_FORMATS,
    EXPORT_PRECISIONS,
    Direction,
    ExportFormat,
    ExportPrecision,
)
from piggyback_gan.system.checks import check_choice


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How a task is exported.

    None stands for the trained direction and the precision's tolerance (`TOLERANCES`); without images, outputs are
    compared on generated inputs of several sizes.

    Raises:
        PiggybackError: a field has a value that is not allowed.
    """

    format: ExportFormat = "onnx"
    """safetensors, state-dict: weights, named as in pix2pix and CycleGAN; triton: a Triton model folder; the others: a network that runs."""
    direction: Direction | None = None
    """Direction to export; unpaired tasks have both."""
    precision: ExportPrecision = "fp32"
    """Dtype of weights and of a network's computations; its inputs and outputs stay float32. int8: onnx and triton."""
    images: Sequence[Path] = ()
    """Inputs on which outputs are compared with the bank's, files or folders."""
    calibration: Sequence[Path] = ()
    """For int8: typical inputs, files or folders, that set the value ranges; a few hundred are enough."""
    tolerance: float | None = None
    """Largest allowed difference from the bank's outputs, which are in [-1, 1]; above it nothing is written."""
    overwrite: bool = False
    """Replace existing files, and a folder if all of its content was written by an export."""

    def __post_init__(self) -> None:
        check_choice("format", self.format, EXPORT_FORMATS)
        check_choice("precision", self.precision, EXPORT_PRECISIONS)
        if (self.precision == "int8") != bool(self.calibration):
            raise PiggybackError(
                "int8 is calibrated on images such as will be translated: give both --precision int8 and "
                "--calibrate, or neither"
            )
        if self.precision == "int8":
            from piggyback_gan.export.formats import FORMATS  # loads torch

            if not FORMATS[self.format].is_onnx:
                able = " or ".join(name for name, format in FORMATS.items() if format.is_onnx)
                raise PiggybackError(f"{self.format} files can't be in int8: choose {able}")
        if self.tolerance is not None and not self.tolerance >= 0:
            raise PiggybackError(
                f"invalid tolerance: found {self.tolerance!r}, give a number from 0 on"
            )
