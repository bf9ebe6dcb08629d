"""Claims about TensorBoard events, read back with TensorBoard's own reader."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from piggyback_gan.errors import PiggybackError
from piggyback_gan.runs.tensorboard import TensorBoardLog


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = read(folder)
    tags = events.Tags()["scalars"]
    return {tag: [(e.step, round(e.value, 4)) for e in events.Scalars(tag)] for tag in tags}


def python(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_losses_metrics_of_both_directions_and_samples_are_read_back(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    with TensorBoardLog(tmp_path / "new" / "folder") as log:
        log.losses(10, {"discriminator_A": 0.25, "gan_AtoB": 0.5})
        log.losses(20, {"discriminator_A": 0.125, "gan_AtoB": 0.75})
        log.validation(20, {"AtoB": {"l1": 0.1}, "BtoA": {"l1": 0.2}})
        log.validation(30, {"ssim": 0.3})
        log.samples(20, pixels)
        log.samples(30, pixels[:, :, :1])
    assert scalars(tmp_path / "new" / "folder") == {
        "loss/discriminator_A": [(10, 0.25), (20, 0.125)],
        "loss/gan_AtoB": [(10, 0.5), (20, 0.75)],
        "validation/AtoB/l1": [(20, 0.1)],
        "validation/BtoA/l1": [(20, 0.2)],
        "validation/ssim": [(30, 0.3)],
    }
    first, second = read(tmp_path / "new" / "folder").Images("samples")
    assert (first.step, second.step) == (20, 30)
    picture = Image.open(io.BytesIO(first.encoded_image_string))
    assert np.array_equal(np.asarray(picture), pixels)


def test_a_killed_and_resumed_run_shows_every_step_once_with_the_values_of_the_resumed_one(
    tmp_path: Path,
) -> None:
    program = """
import os, signal, sys
from piggyback_gan.runs.tensorboard import TensorBoardLog
log = TensorBoardLog(sys.argv[1])
for step in range(10, 60, 10):
    log.losses(step, {"l1": 1})
log.validation(20, {"l1": 1})
log.validation(40, {"l1": 1})
os.kill(os.getpid(), signal.SIGKILL)
"""
    # This process, which resumes within the same second, has a lower id: its file has a lower name.
    assert python(program, tmp_path).returncode == -9
    assert scalars(tmp_path)["loss/l1"][-1] == (50, 1)
    with TensorBoardLog(tmp_path, purge_step=21) as log:  # the state was saved after step 20
        for step in range(30, 80, 10):
            log.losses(step, {"l1": 2})
        log.validation(40, {"l1": 2})
    assert scalars(tmp_path) == {
        "loss/l1": [(10, 1), (20, 1), (30, 2), (40, 2), (50, 2), (60, 2), (70, 2)],
        "validation/l1": [(20, 1), (40, 2)],
    }


def test_a_new_run_in_the_same_folder_hides_an_earlier_one(tmp_path: Path) -> None:
    for value, last in ((1, 50), (2, 30)):
        with TensorBoardLog(tmp_path) as log:
            for step in range(10, last, 10):
                log.losses(step, {"l1": value})
    assert scalars(tmp_path) == {"loss/l1": [(10, 2), (20, 2)]}


def test_validation_is_on_disk_before_the_run_ends(tmp_path: Path) -> None:
    with TensorBoardLog(tmp_path) as log:
        log.losses(1, {"l1": 0.5})
        log.validation(1, {"l1": 0.25})
        assert scalars(tmp_path) == {"loss/l1": [(1, 0.5)], "validation/l1": [(1, 0.25)]}


def test_closing_twice_is_once(tmp_path: Path) -> None:
    log = TensorBoardLog(tmp_path)
    log.losses(1, {"l1": 0.5})
    log.close()
    log.close()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 5), np.uint8)],
    ids=["float", "two dimensions", "five channels"],
)
def test_other_than_8_bit_pictures_are_refused(tmp_path: Path, pixels: np.ndarray) -> None:
    with TensorBoardLog(tmp_path) as log, pytest.raises(PiggybackError, match="must be uint8"):
        log.samples(1, pixels)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PiggybackError, match=r"can't be written to .*file"):
        TensorBoardLog(tmp_path / "file")


def test_without_the_library_one_line_says_what_to_install_and_with_it_nothing_warns() -> None:
    program = """
import sys
if sys.argv[1] == "without":
    sys.modules["tensorboard"] = None
from piggyback_gan.runs.tensorboard import require_tensorboard
try:
    require_tensorboard()
except ValueError as error:
    print(error)
"""
    without = python(program, "without")
    message = "TensorBoard is not installed: pip install 'piggyback-gan[tensorboard]'\n"
    assert (without.stdout, without.stderr) == (message, "")
    with_it = python(program, "with")
    assert (with_it.stdout, with_it.stderr) == ("", "")
