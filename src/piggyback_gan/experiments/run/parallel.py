"""Run several parts of an experiment at once, each in its own process."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from piggyback_gan.errors import PiggybackError
from piggyback_gan.experiments.part_names import PartName
from piggyback_gan.experiments.run.examine import Say
from piggyback_gan.experiments.run.part import Stopped
from piggyback_gan.experiments.run.runner import Runner

ENDS_WITH_PARENT = "PIGGYBACK_GAN_ENDS_WITH_PARENT"
"""Environment variable of a part's process, which ends when its parent has ended."""

_LOG = "log.txt"
_POLL_SECONDS = 0.2


def run_side_by_side(
    runner: Runner,
    command: Sequence[str],
    jobs: int,
    say: Say,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Run all unfinished parts, up to `jobs` at once; each writes its output to its log.txt.

    Args:
        runner: of the experiment.
        command: `pbgan experiment` and its arguments, to which `--part NAME` is added.
        jobs: number of processes. Each gets its share of the cores, or one of the GPUs.
        say: called with one line when a part begins and ends.
        should_stop: polled continuously.

    Raises:
        PiggybackError: names the parts that failed, after all others are finished.
        Stopped: `should_stop` returned True; all processes have ended.
    """
    running: dict[PartName, subprocess.Popen[bytes]] = {}
    failed: list[PartName] = []
    gpus = _gpus() if runner.device == "cuda" else []
    on: dict[PartName, str | None] = {}
    try:
        while True:
            if should_stop():
                raise Stopped(f"stopped; {len(running)} parts go on with the task they were at")
            for part, process in list(running.items()):
                if process.poll() is not None:
                    del running[part]
                    if process.returncode:
                        failed.append(part)
                    say(f"{part} {'failed' if process.returncode else 'is done'}")
            ready = [
                part
                for part in runner.names
                if not runner.is_done(part)
                and part not in running
                and part not in failed
                and all(runner.is_done(need) and need not in running for need in part.needs)
            ]
            for part in ready[: jobs - len(running)]:
                # Spread parts evenly over the GPUs.
                gpu = min(gpus, key=lambda g: sum(on[r] == g for r in running), default=None)
                on[part] = gpu
                its = [*command, "--part", str(part)]
                running[part] = _start(runner.folder(part), its, jobs, gpu)
                say(f"{part} begins")
            if not running:
                break
            time.sleep(_POLL_SECONDS)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    if failed:
        logs = ", ".join(str(runner.folder(part) / _LOG) for part in failed)
        raise PiggybackError(f"{', '.join(map(str, failed))} failed; see {logs}")


def _gpus() -> list[str]:
    """Names of the visible GPUs, as in CUDA_VISIBLE_DEVICES."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if seen:
        return seen.split(",")
    return [str(index) for index in range(torch.cuda.device_count())]


def _start(
    folder: Path, command: Sequence[str], jobs: int, gpu: str | None
) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    own = {ENDS_WITH_PARENT: "1"} | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    with (folder / _LOG).open("ab") as log:
        return subprocess.Popen(
            # -P: don't import modules from the current folder, as the pbgan command doesn't.
            [sys.executable, "-P", "-m", "piggyback_gan", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": threads, **os.environ, **own},
        )
