"""Records a training run on disk: metrics, curves, sample images, TensorBoard events and checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from piggyback_gan.data.loading import Dataset
from piggyback_gan.evaluation.evaluate import Generate
from piggyback_gan.images.encode import encode
from piggyback_gan.runs.checkpoint import save_checkpoint
from piggyback_gan.runs.curves import plot_curves
from piggyback_gan.runs.run_folder import RunFolder
from piggyback_gan.runs.samples import sample_grid
from piggyback_gan.runs.tensorboard import TensorBoardLog
from piggyback_gan.system.files import atomic_write
from piggyback_gan.training.callbacks import Callback, Position
from piggyback_gan.training.options import TrainingOptions


class Recorder(Callback):
    """Writes into a run's folder what its training reports.

    `generators` translate `shown` for the sample pictures; `write_state` updates `run.json` at each checkpoint.
    """

    def __init__(
        self,
        folder: RunFolder,
        options: TrainingOptions,
        generators: Sequence[Generate],
        shown: Dataset,
        write_state: Callable[[Position], None],
    ) -> None:
        self.folder = folder
        self.options = options
        self.generators = generators
        self.shown = shown
        self.write_state = write_state
        self._log: TensorBoardLog | None = None

    def started(self, position: Position) -> None:
        if self.options.log == "tensorboard":
            first = position.step + 1 if position.step else 0
            self._log = TensorBoardLog(self.folder.tensorboard, purge_step=first)

    def stepped(self, position: Position, losses: Mapping[str, float]) -> None:
        if self._log:
            self._log.losses(position.step, losses)

    def epoch_ended(self, position: Position, records: Sequence[Mapping[str, Any]]) -> None:
        self.folder.write_metrics(records)
        plot_curves(records, self.folder.curves)
        device = torch.device(self.options.device)
        picture = sample_grid(self.generators, self.shown, self.options.samples, device)
        atomic_write(self.folder.sample(position.epoch), encode(picture, ".png"))
        if self._log:
            if metrics := records[-1]["validation"]:
                self._log.validation(position.step, metrics)
            self._log.samples(position.step, picture)

    def checkpoint(self, position: Position, state: Mapping[str, Any]) -> None:
        save_checkpoint(self.folder.checkpoint, state)
        self.write_state(position)

    def close(self) -> None:
        """Finish the TensorBoard event file."""
        if self._log:
            self._log.close()
