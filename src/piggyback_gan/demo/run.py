"""Run the demo: train three tasks in turn, and evaluate each when it is learned and after the last."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from piggyback_gan.bank.bank import Bank
from piggyback_gan.data.datasets import PairedDataset
from piggyback_gan.data.folders import find_pairs
from piggyback_gan.demo.scenes import SCENE_TASKS, write_dataset
from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation.evaluate import Evaluation, evaluate
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.pixels import Pixels
from piggyback_gan.images.tensors import to_pixels
from piggyback_gan.networks.options import GeneratorOptions
from piggyback_gan.runs.teach import teach
from piggyback_gan.training.callbacks import Callback
from piggyback_gan.training.options import TrainingOptions

SIZE = 64
TRAIN_PAIRS = 500
TEST_PAIRS = 48
SHOWN = 6
GENERATOR = GeneratorOptions(generator="resnet-6", ngf=24)
# Scenes are lit from one side and drawn at the training size: mirroring, or enlarging and cropping, would
# only lose detail.
OPTIONS = TrainingOptions(
    epochs=4,
    batch_size=4,
    image_size=SIZE,
    load_size=SIZE,
    flip=False,
    discriminator_layers=2,
    ndf=32,
    augment="off",  # data is not scarce: more scenes can be drawn
)
_RGB = ImageFormat()
_FIRST_RATE = 5e-4  # with 2e-4, outputs are still blurred after these few steps
_MARK = "demo.json"
_OWN = {_MARK, "data", "bank", "index.html", "contact-sheet.png"}


@dataclass(frozen=True)
class Learned:
    """Figures of a task when it was learned and after the last task.

    `sheet` has a row of images for each test pair shown: input, output when learned, output after the last
    task, target.
    """

    task: str
    parameters: int
    share: float
    when_learned: Evaluation
    after_last: Evaluation
    sheet: list[tuple[Pixels, Pixels, Pixels, Pixels]]

    @property
    def identical(self) -> bool:
        """Whether all outputs are bit-identical."""
        return self.when_learned.outputs_sha256 == self.after_last.outputs_sha256


def prepare(out: Path, *, overwrite: bool) -> None:
    """Create the demo's folder, or empty an earlier one.

    Raises:
        PiggybackError: it exists and `overwrite` is False, or it contains other files.
    """
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            if not (out / _MARK).is_file() or {path.name for path in out.iterdir()} - _OWN:
                raise PiggybackError(
                    f"{out} contains other files than a demo's: give another --out"
                )
            if not overwrite:
                raise PiggybackError(f"{out} exists: give --overwrite or another --out")
            for path in out.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        out.mkdir(parents=True, exist_ok=True)
        (out / _MARK).write_text("[]\n")
    except OSError as error:
        raise PiggybackError(f"{out} can't be written to: {error.strerror}") from None


def run_demo(
    out: Path,
    *,
    options: TrainingOptions = OPTIONS,
    generator: GeneratorOptions = GENERATOR,
    train_pairs: int = TRAIN_PAIRS,
    test_pairs: int = TEST_PAIRS,
    callback: Callback | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Learned]:
    """Draw the data sets, train the three tasks of a bank, and evaluate each twice from the bank on disk.

    Args:
        out: a folder from `prepare`, for data sets, bank and figures (demo.json).
        options, generator, train_pairs, test_pairs: smaller ones make the demo faster.
        callback: training callbacks.
        should_stop: called after every step; True stops the training.
    """
    bank_path = out / "bank"
    first: dict[str, tuple[Evaluation, list[Pixels]]] = {}
    datasets: dict[str, PairedDataset] = {}
    for number, task in enumerate(SCENE_TASKS):
        rate = None if number else _FIRST_RATE
        folder = out / "data" / task
        write_dataset(
            folder, task, train=train_pairs, test=test_pairs, size=SIZE, seed=options.seed
        )
        teach(
            bank_path,
            task,
            folder,
            replace(options, learning_rate=rate),
            generator if number == 0 else None,
            callback=callback,
            should_stop=should_stop,
        )
        datasets[task] = PairedDataset(
            find_pairs(folder).held_out,
            direction="AtoB",
            formats=(_RGB, _RGB),
            size=options.image_size,
        )
        first[task] = _evaluate(bank_path, task, datasets[task])
    learned = []
    bank = Bank.open(bank_path)
    for task in SCENE_TASKS:
        when_learned, outputs_then = first[task]
        after_last, outputs_now = _evaluate(bank_path, task, datasets[task])
        pairs = [datasets[task].pair(i) for i in range(len(outputs_now))]
        inputs, targets = ([to_pixels(p[side], _RGB) for p in pairs] for side in (0, 1))
        parameters = bank.card(task).parameters
        sheet = list(zip(inputs, outputs_then, outputs_now, targets, strict=True))
        learned.append(
            Learned(task, parameters.total, parameters.share, when_learned, after_last, sheet)
        )
    (out / _MARK).write_text(json.dumps([_figures(task) for task in learned], indent=1) + "\n")
    return learned


def _evaluate(
    bank_path: Path, task: str, dataset: PairedDataset
) -> tuple[Evaluation, list[Pixels]]:
    """Evaluate a task from the bank on disk, as a user would; return the metrics and some outputs."""
    generator = Bank.open(bank_path).generator(task)
    evaluation = evaluate([generator], dataset, torch.device("cpu"))
    shown = torch.stack([dataset.pair(i)[0] for i in range(min(SHOWN, len(dataset)))])
    with torch.inference_mode():
        outputs = generator(shown)
    return evaluation, [to_pixels(output, _RGB) for output in outputs]


def _figures(learned: Learned) -> Mapping[str, object]:
    return {
        "task": learned.task,
        "parameters": learned.parameters,
        "share": learned.share,
        "test_images": learned.when_learned.images,
        "when_learned": learned.when_learned.metrics,
        "after_last": learned.after_last.metrics,
        "outputs_sha256": [learned.when_learned.outputs_sha256, learned.after_last.outputs_sha256],
        "bit_identical": learned.identical,
    }
