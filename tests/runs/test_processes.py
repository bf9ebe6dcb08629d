"""Several processes train one task: real ones, over gloo on this machine's loopback device."""

import contextlib
import dataclasses
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import Tensor

import launched
from drawn import draw_pairs
from launched import KILLED, together
from piggyback_gan import Bank, Interrupted, TrainingOptions, teach
from piggyback_gan.bank.store import tensors_sha256
from piggyback_gan.cli.main import main
from piggyback_gan.core.network import PiggybackNetwork
from piggyback_gan.data.datasets import share_of
from piggyback_gan.errors import PartnerEnded, PiggybackError, ReportedElsewhere
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator
from piggyback_gan.system import distributed as processes_module
from piggyback_gan.system.device import choose_device
from piggyback_gan.system.distributed import Processes, idle_cores, processes
from piggyback_gan.training import banked
from piggyback_gan.training.callbacks import Callback, Position
from piggyback_gan.training.paired import PairedTrainer
from piggyback_gan.training.trainer import Batch, Trainer
from piggyback_gan.training.unpaired import UnpairedTrainer
from running import CONFIG as RUN_CONFIG
from running import GENERATOR, OPTIONS, records, run_folder, wait_for

pytestmark = pytest.mark.usefixtures("same_time")

CONFIG = GeneratorConfig(name="resnet-6", ngf=4)
UNPAIRED = dataclasses.replace(OPTIONS, mode="unpaired", pool_size=3)
MODES = pytest.mark.parametrize("options", [OPTIONS, UNPAIRED], ids=["paired", "unpaired"])
# Every step has the same weights: Adam would turn rounding into whole steps.
STILL = {"learning_rate": 0.0, "discriminator_learning_rate": 0.0}
STILL_UNPAIRED = {**STILL, "backward_learning_rate": 0.0}


# --- steps ---


def trainer(options: TrainingOptions, config: GeneratorConfig, team: Processes) -> Trainer:
    torch.manual_seed(0)
    networks = [PiggybackNetwork(build_generator(config)) for _ in range(2)]
    for network in networks:
        network.add_task("one")
    options = options.resolved(earlier=(), device="cpu")
    cpu = torch.device("cpu")
    if options.mode == "paired":
        return PairedTrainer(networks[0], config, options, cpu, team)
    return UnpairedTrainer(networks[0], networks[1], config, options, cpu, team)


def images(step: int, side: int, count: int) -> Tensor:
    chance = torch.Generator().manual_seed(10 * step + side)
    return torch.rand((count, 3, 16, 16), generator=chance) * 2 - 1


def run_steps(
    options: TrainingOptions, config: GeneratorConfig, totals: tuple[int, ...]
) -> dict[str, Any]:
    """Steps with these numbers of images in all, of which this process takes its share."""
    with processes() as team:
        trained = trainer(options, config, team)
        trained.begin_epoch(steps=100)
        networks = trained.generators | trained.discriminators
        gradients, losses = [], []
        for step, total in enumerate(totals):
            mine = share_of(total, (team.rank, team.world))
            batch = Batch(step, images(step, 0, total)[mine], images(step, 1, total)[mine], total)
            sums = trained.step(batch)[0].sums
            losses.append({name: value.item() for name, value in sums.items()})
            gradients.append(
                {
                    name: torch.cat(
                        [p.grad.flatten() for p in network.parameters() if p.grad is not None]
                    )
                    for name, network in networks.items()
                }
            )
        state = trained.state()
        held = {
            f"{kind}.{name}.{key}": tensor
            for kind in ("generators", "discriminators")
            for name, tensors in state[kind].items()
            for key, tensor in tensors.items()
        }
        moments = {
            f"optimizer.{number}.{parameter}.{name}": value
            for number, optimizer in enumerate(state["optimizers"])
            for parameter, values in optimizer["state"].items()
            for name, value in values.items()
        }
    return {"sha256": tensors_sha256(held | moments), "gradients": gradients, "losses": losses}


@pytest.mark.parametrize(
    ("options", "norm"), [(OPTIONS, "batch"), (UNPAIRED, "batch"), (UNPAIRED, "instance")]
)
def test_all_processes_hold_identical_weights_moments_and_statistics_after_every_step(
    options: TrainingOptions, norm: str
) -> None:
    options = dataclasses.replace(options, discriminator_norm=norm, augment="on")
    config = dataclasses.replace(CONFIG, norm=norm)
    first, second = together(run_steps, options, config, (4, 4, 4))
    assert first["sha256"] == second["sha256"]


@MODES
def test_two_processes_equal_one_with_twice_the_batch(options: TrainingOptions) -> None:
    options = dataclasses.replace(options, augment="on", **STILL_UNPAIRED)
    totals = (3, 4, 1)  # the shares are 2 and 1, 2 and 2, 1 and none
    whole = run_steps(dataclasses.replace(options, batch_size=4), CONFIG, totals)
    parts = together(run_steps, options, CONFIG, totals)
    for part in parts:
        for found, expected in zip(part["gradients"], whole["gradients"], strict=True):
            for name, gradient in found.items():
                # Rounding may move a value over the kink of a ReLU, and with it many gradients.
                difference = (gradient - expected[name]).norm() / expected[name].norm()
                assert difference < 0.02, name
    assert parts[1]["losses"][2] == {}, "it had no image of the last step"
    for first, second, expected in zip(*(p["losses"] for p in (*parts, whole)), strict=True):
        sums = {name: value + second.get(name, 0.0) for name, value in first.items()}
        assert sums == pytest.approx(expected, rel=1e-3)


# --- whole runs ---


class Notes(Callback):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def planned(self, plan: object) -> None:
        self.told.append("planned")

    def epoch_ended(self, position: Position, records: object) -> None:
        self.told.append(f"epoch {position.epoch}")


def teach_here(
    bank: Path, data: Path, options: TrainingOptions | None, stops: dict[int, int], watch: bool
) -> dict[str, Any]:
    """A run in this process; the process of rank r is asked to stop after stops[r] steps."""
    written: list[str] = []
    if watch:
        sys.addaudithook(lambda event, args: _note_writing(event, args, str(bank), written))
    rank, notes, stopped = int(os.environ.get("RANK", "0")), Notes(), None
    with Steps() as steps:
        try:
            teach(
                bank,
                "one",
                data if options else None,
                options,
                GENERATOR if options else None,
                resume=options is None,
                callback=notes,
                should_stop=lambda: 0 < stops.get(rank, 0) <= steps.begun,
            )
        except Interrupted as interrupted:
            stopped = interrupted.position.step
    return {"told": notes.told, "written": written, "stopped": stopped}


class Steps:
    """Counts the steps of this process's trainers."""

    def __enter__(self) -> Self:
        self.begun, self.is_in_one = 0, False
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(Trainer, "step", self._wrapped(Trainer.step))
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()

    def _wrapped(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            self.begun, self.is_in_one = self.begun + 1, True
            done = step(*arguments)
            self.is_in_one = False
            return done

        return counted


def _note_writing(event: str, args: tuple[Any, ...], root: str, written: list[str]) -> None:
    if event == "open":
        path, mode, flags = args
        writes = (mode and set(mode) & set("wax+")) or (
            isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
    elif event in ("os.rename", "os.mkdir", "os.remove", "os.unlink"):
        path, writes = args[0], True
    else:
        return
    if writes and str(path).startswith(root):
        written.append(str(path))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return draw_pairs(tmp_path / "boxes", train=7, size=20)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As the processes have, which share the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def outcome(bank: Path) -> tuple[bytes, bytes]:
    task = next((bank / "tasks").iterdir())
    return task.read_bytes(), (run_folder(bank, "one") / "metrics.jsonl").read_bytes()


@MODES
def test_only_the_first_process_writes_and_speaks_and_a_stop_of_one_is_a_stop_of_all(
    tmp_path: Path, data: Path, options: TrainingOptions
) -> None:
    bank = tmp_path / "bank"
    # 7 images in steps of 4: the second process is asked in the third of four steps.
    first, second = together(teach_here, bank, data, options, {1: 3}, True)
    assert (first["stopped"], second["stopped"]) == (3, 3)
    assert first["written"] and not second["written"]
    assert first["told"] == ["planned", "epoch 1"] and not second["told"]

    done = together(teach_here, bank, data, None, {}, True)
    assert [result["stopped"] for result in done] == [None, None]
    assert done[0]["written"] and not done[1]["written"]
    whole = tmp_path / "whole"
    together(teach_here, whole, data, options, {}, False)
    assert outcome(bank) == outcome(whole), "interrupted and resumed is uninterrupted, to the byte"


def stopped_in_validation(bank: Path, data: Path) -> int | None:
    with Steps() as steps:
        try:
            teach(
                *(bank, "one", data, OPTIONS, GENERATOR),
                should_stop=lambda: steps.begun > 0 and not steps.is_in_one,
            )
        except Interrupted as interrupted:
            return interrupted.position.step
    return None


def test_a_stop_while_the_first_process_validates_is_a_stop_of_all(
    tmp_path: Path, data: Path
) -> None:
    assert together(stopped_in_validation, tmp_path / "bank", data) == [2, 2]
    done = together(teach_here, tmp_path / "bank", data, None, {}, False)
    # The epoch is not trained again, only validated.
    assert done[0]["told"] == ["planned", "epoch 1", "epoch 2"]
    assert [record["step"] for record in records(tmp_path / "bank", "one")] == [2, 4]


@pytest.mark.parametrize(
    ("options", "begun_by", "ended_by"),
    [
        (dataclasses.replace(UNPAIRED, **STILL_UNPAIRED), 2, 1),
        (dataclasses.replace(OPTIONS, accumulate=2, **STILL), 1, 3),
    ],
)
def test_a_run_resumed_by_another_number_of_processes_has_the_losses_of_one(
    tmp_path: Path, data: Path, options: TrainingOptions, begun_by: int, ended_by: int
) -> None:
    bank, whole = tmp_path / "bank", tmp_path / "whole"
    begun = together(teach_here, bank, data, options, {0: 3}, False, world=begun_by)
    assert {result["stopped"] for result in begun} == {3}
    together(teach_here, bank, data, None, {}, False, world=ended_by)
    assert Bank.open(bank).card("one").effective_batch == 4
    alone = dataclasses.replace(options, batch_size=2 * begun_by)
    teach_here(whole, data, alone, {}, False)
    for one, two in zip(records(bank, "one"), records(whole, "one"), strict=True):
        for part in ("loss", "validation"):
            assert one[part] == pytest.approx(two[part], rel=1e-3)


@pytest.mark.parametrize("where", ["generator", "discriminator"])
def test_batch_norm_is_not_resumed_by_another_number_of_processes(
    tmp_path: Path, data: Path, where: str
) -> None:
    batch: dict[str, Any] = {"norm": "batch"} if where == "generator" else {}
    generator = dataclasses.replace(GENERATOR, **batch)
    options = dataclasses.replace(
        OPTIONS, discriminator_norm="batch" if where == "discriminator" else "instance"
    )
    asked = iter([False] * 20 + [True] * 100)
    with pytest.raises(Interrupted):
        teach(tmp_path / "bank", "one", data, options, generator, should_stop=lambda: next(asked))
    said = together(teach_here, tmp_path / "bank", data, None, {}, False)
    assert "batch norm" in str(said[0]) and "resume it with as many, not 2" in str(said[0])
    assert isinstance(said[1], ReportedElsewhere)


# --- when something goes wrong ---


def steps_with_an_end(kind: str) -> None:
    with processes() as team:
        trained = trainer(OPTIONS, CONFIG, team)
        trained.begin_epoch(steps=100)
        for step in range(3):
            if step == 1 and team.rank == 1:
                if kind == "killed":
                    launched.die()
                raise PiggybackError("no space left on device")
            trained.step(Batch(step, images(step, 0, 1), images(step, 1, 1), 2))


@pytest.mark.parametrize("kind", ["killed", "failed"])
def test_the_end_of_one_process_is_the_end_of_the_others_in_one_line(kind: str) -> None:
    first, second = together(steps_with_an_end, kind, seconds=60)
    assert isinstance(first, PartnerEnded)
    assert str(first) == "another process of this training ended: see its error message"
    if kind == "killed":
        assert second == KILLED
    else:
        assert str(second) == "no space left on device"
        assert not isinstance(second, ReportedElsewhere), "the first process knows nothing of it"


def fail(messages: tuple[str | None, ...]) -> None:
    with processes() as team:
        if message := messages[team.rank]:
            raise PiggybackError(message)
        team.from_first(None)


def test_what_fails_alike_in_all_processes_is_said_by_the_first() -> None:
    kinds = [type(error) for error in together(fail, ("no data",) * 3, world=3)]
    assert kinds == [PiggybackError, ReportedElsewhere, ReportedElsewhere]
    first, second = together(fail, ("no data", "no memory"))
    assert (type(first), type(second)) == (PiggybackError, PiggybackError)
    first, second = together(fail, ("no data", None))
    assert (type(first), type(second)) == (PiggybackError, ReportedElsewhere)


def call(arguments: list[str]) -> tuple[int, str, str]:
    """Status, stdout and stderr of the command line, in this process."""
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["pbgan", *arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main()
    return status, out.getvalue(), err.getvalue()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--data", "x", "--epoch", "3"], "--epoch"),
        (["--resume"], "has no run of 'one'"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_a_mistake_in_the_command_is_one_line_from_the_first_process(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    first, second = together(call, ["train", str(tmp_path / "bank"), "one", *arguments])
    assert first[0] == 2 and second == (2, "", "")
    assert first[2].startswith("pbgan: error: ") and first[2].count("\n") == 1
    assert words in first[2]


def test_a_dry_run_is_printed_once_and_counts_all_processes(tmp_path: Path, data: Path) -> None:
    config = tmp_path / "small.toml"
    config.write_text(RUN_CONFIG)
    arguments = ["train", str(tmp_path / "bank"), "one", "--data", str(data), "--dry-run"]
    first, second = together(call, [*arguments, "--config", str(config), "--epochs", "1"])
    assert first[0] == 0 and second == (0, "", "")
    assert "2 of 4 images each, in 1 epoch," in first[1]


def join(patience: float | None, removed: str | None) -> None:
    if patience:
        processes_module._JOIN_TIMEOUT = timedelta(seconds=patience)
    os.environ["WORLD_SIZE"] = "2"
    os.environ.pop(removed or "", None)
    with processes():
        pass


@pytest.mark.parametrize(
    ("patience", "removed", "words"),
    [(2.0, None, ""), (None, "MASTER_ADDR", "MASTER_ADDR"), (None, "MASTER_PORT", "MASTER_PORT")],
)
def test_a_process_that_was_started_without_partners_says_so(
    patience: float | None, removed: str | None, words: str
) -> None:
    (said,) = together(join, patience, removed, world=1, seconds=60)
    assert isinstance(said, PiggybackError)
    assert str(said).startswith("process 0 of 2 can't reach the others: ")
    assert str(said).endswith("start all of them with torchrun or accelerate launch")
    assert words in str(said) and "\n" not in str(said)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2, WORLD_SIZE=2"),
        ({"RANK": "first", "WORLD_SIZE": "2"}, "RANK=first"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PiggybackError, match=words), processes():
        pass


# --- machines ---


def test_idle_cores_are_told_once_processes_share_a_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert idle_cores() is None, "one process: nobody has set its threads for it"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert "OMP_NUM_THREADS=4" in str(idle_cores())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert idle_cores() is None


@pytest.mark.parametrize(("local_rank", "count", "taken"), [(0, 2, 0), (1, 2, 1), (3, 1, 0)])
def test_each_process_takes_the_gpu_of_its_local_rank(
    monkeypatch: pytest.MonkeyPatch, local_rank: int, count: int, taken: int
) -> None:
    chosen: list[int] = []
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", str(local_rank))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert choose_device("auto") == "cuda"
    assert chosen == [taken]


def test_a_process_more_than_there_are_gpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(PiggybackError, match="found 2 GPUs, start at most 2 processes"):
        choose_device("cuda")


def teach_by_first(bank: Path, data: Path, options: TrainingOptions) -> list[str]:
    """A second task, on which only the first process may decide; what the generators have when pulled and at the end."""
    if os.environ.get("RANK", "0") != "0":
        for name in ("choose_start", "pull_to_bank", "factorize_task"):
            setattr(banked, name, None)
    noted: list[str] = []
    finish, pull = PiggybackNetwork.finish_task, banked.BankedGenerators.pull

    def note_end(network: PiggybackNetwork) -> None:
        noted.append(tensors_sha256(network.module.state_dict()))
        finish(network)

    def note_pull(generators: banked.BankedGenerators, pulls: Mapping[str, float]) -> None:
        pull(generators, pulls)
        states = (network.module.state_dict() for network in generators.networks.values())
        noted.extend(tensors_sha256(state) for state in states)

    PiggybackNetwork.finish_task = note_end  # type: ignore[method-assign]
    banked.BankedGenerators.pull = note_pull  # type: ignore[method-assign]
    teach(bank, "two", data, options)
    return noted


@MODES
def test_the_first_process_chooses_the_start_and_factorizes_for_all(
    tmp_path: Path, data: Path, options: TrainingOptions
) -> None:
    options = dataclasses.replace(options, budget=0.3, epochs=2)
    teach(tmp_path / "bank", "one", data, dataclasses.replace(options, epochs=1), GENERATOR)
    first, second = together(teach_by_first, tmp_path / "bank", data, options)
    # Each generator is pulled and ends.
    assert first == second and len(first) >= 2 * (1 if options.mode == "paired" else 2)
    assert Bank.open(tmp_path / "bank").tasks == ("one", "two")


# --- launchers ---

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
# Its --cpu starts one process, or mpirun's; --multi_gpu starts as many as are asked for, GPUs or none.
ACCELERATE = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
ACCELERATE += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]


def launch(launcher: list[str], bank: Path, data: Path, epochs: int) -> "subprocess.Popen[str]":
    config = bank.with_suffix(".toml")
    config.write_text(RUN_CONFIG)
    port = [] if "--standalone" in launcher else ["--main_process_port", str(launched.free_port())]
    return subprocess.Popen(
        [
            *(sys.executable, *launcher, *port, "-m", "piggyback_gan", "train", str(bank), "one"),
            *("--data", str(data), "--config", str(config), "--epochs", str(epochs)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )


def test_torchrun_trains_and_sigterm_ends_all_processes_at_one_step_to_go_on_from(
    tmp_path: Path, data: Path
) -> None:
    bank = tmp_path / "bank"
    shutil.rmtree(data / "test")  # validating takes an import of seconds, and is claimed above
    process = launch(TORCHRUN, bank, data, epochs=500)
    wait_for((bank / "runs" / "one" / "checkpoint.pt").exists, lambda: process.poll() is None)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode != 0 and out == ""
    assert err.count("pbgan: ") == 1, err
    assert err.count("pbgan: stopped in epoch ") == 1 and "--resume" in err
    assert err.count("random filters") == 1, "the plan is printed once"
    step = int(err.split("after step ")[1].split()[0])
    on = teach_here(bank, data, None, {0: 1}, False)  # in one process
    assert on["stopped"] == step + 1


@pytest.mark.skipif(find_spec("accelerate") is None, reason="accelerate is not installed")
def test_accelerate_launch_trains_with_the_same_command(tmp_path: Path, data: Path) -> None:
    shutil.rmtree(data / "test")
    process = launch(ACCELERATE, tmp_path / "bank", data, epochs=1)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert out.count("one is in ") == 1 and out.count("\n") == 1
    assert Bank.open(tmp_path / "bank").card("one").effective_batch == 4


THREADS_AFTER_TRAINING = """
from pathlib import Path
import torch
from piggyback_gan.system.distributed import processes
with processes() as team:
    torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])
    team.sum_all(torch.ones(1))
names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
print([name for name in names if "gloo" in name])
"""


def run_script(script: Path) -> str:
    """Run it in a new interpreter: what counts is which module it imports first."""
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    return found.stdout or found.stderr


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc to see threads in")
def test_no_thread_of_the_group_outlives_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(THREADS_AFTER_TRAINING)
    assert together(run_script, script) == ["[]\n"] * 2
