"""Kill test: runs killed at random times and resumed must end, byte for byte, as an undisturbed one.

    python benchmarks/kill.py --mode paired --times 30 --out /tmp/kill > kill-paired.json
    python benchmarks/kill.py --mode unpaired --times 30 --out /tmp/kill -- --keep-best ssim

A bank with one task is made from drawn scenes, and a second task is trained in copies of it: once
undisturbed, then --times times with SIGKILL at random times (once or twice per trial, by --seed) and
`pbgan train BANK TASK --resume` after each. Every file of the bank and the run's metrics.jsonl are compared.
After each kill the bank must be either the old one or the finished one. Arguments after `--` are passed
to `pbgan train` of the second task. The summary is JSON on stdout; the exit status is 1 if anything was lost.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lifelong import machine
from piggyback_gan.demo.scenes import write_dataset

FIRST, TASK = "labels", "night"
SIZE, TRAIN_PAIRS, HELD_OUT_PAIRS = 32, 24, 4
CONFIG = f"""
image_size = {SIZE}
load_size = {SIZE + 4}
epochs = %d
discriminator_layers = 1
ndf = 8
samples = 2
"""
ENVIRONMENT = {"SOURCE_DATE_EPOCH": "1700000000", "OMP_NUM_THREADS": "1"}
PATIENCE = 600  # seconds, for a run of some seconds
RESUME = ["--resume"]


@dataclass
class Kill:
    """A kill after `after` seconds, when metrics.jsonl had `epochs` epochs."""

    after: float
    epochs: int
    began_anew: bool = False


@dataclass
class Trial:
    """A run that was killed and resumed; `lost` describes differences from the undisturbed one."""

    kills: list[Kill] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


class Lost(Exception):
    """A run can't be resumed, or a bank is neither the old nor the new one."""


def pbgan(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "piggyback_gan", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | ENVIRONMENT,
    )


def finish(process: subprocess.Popen[str], seconds: float = PATIENCE) -> None:
    """Wait for a run; raise Lost with its last output if it fails."""
    _, words = process.communicate(timeout=seconds)
    if process.returncode:
        last = (words.strip().splitlines() or ["no word"])[-1]
        raise Lost(f"{' '.join(map(str, process.args[3:]))}: status {process.returncode}: {last}")


def bank_files(bank: Path) -> dict[str, bytes]:
    """Read all files of the bank except the lock, its holder and the runs."""
    ignored = {"bank.lock", "bank.writer.json"}
    files = (path.relative_to(bank) for path in sorted(bank.rglob("*")) if path.is_file())
    kept = (path for path in files if path.parts[0] != "runs" and path.name not in ignored)
    return {str(path): (bank / path).read_bytes() for path in kept}


def metrics(bank: Path) -> bytes:
    path = bank / "runs" / TASK / "metrics.jsonl"
    return path.read_bytes() if path.exists() else b""


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    names = sorted(found.keys() | expected.keys())
    words = {(True, False): "is left over", (False, True): "is missing", (True, True): "differs"}
    return [
        f"{name} {words[name in found, name in expected]}"
        for name in names
        if found.get(name) != expected.get(name)
    ]


@dataclass(frozen=True)
class Course:
    """Data shared by all trials: the bank before, the undisturbed bank after, and the command of a run."""

    before: Path
    after: Path
    begin: Sequence[object]
    seconds: float

    def trial(self, bank: Path, chance: random.Random) -> Trial:
        """Train in a copy of the bank with one kill or more; compare the result."""
        trial = Trial()
        while not trial.kills and not trial.lost:  # a run may be faster than the first one was
            shutil.rmtree(bank, ignore_errors=True)
            shutil.copytree(self.before, bank)
            trial = self._try(bank, chance)
        return trial

    def _try(self, bank: Path, chance: random.Random) -> Trial:
        times = [chance.uniform(0.05, 0.95) * self.seconds for _ in range(chance.choice((1, 1, 2)))]
        trial = Trial()
        try:
            self._train(bank, times, trial)
            trial.lost += differences(bank_files(bank), bank_files(self.after))
            if metrics(bank) != metrics(self.after):
                trial.lost.append("metrics.jsonl differs")
        except Lost as lost:
            trial.lost.append(str(lost))
        return trial

    def _train(self, bank: Path, times: list[float], trial: Trial) -> None:
        """Train, kill and resume until the task is in the bank."""
        arguments = self.begin
        while True:
            with pbgan("train", bank, TASK, *arguments) as process:
                try:
                    finish(process, times[0] if times else PATIENCE)
                    return
                except subprocess.TimeoutExpired:
                    pass  # it is killed below
                except Lost:
                    # A run killed before it began has nothing to resume; later, that is a loss.
                    early = bool(trial.kills) and not trial.kills[-1].epochs
                    if not early or arguments is not RESUME or process.returncode != 2:
                        raise
                    trial.kills[-1].began_anew = True
                    arguments = self.begin
                    continue
                finally:
                    process.kill()
            if not times:
                raise Lost(f"a run did not end in {PATIENCE} s")
            trial.kills.append(Kill(round(times.pop(0), 2), metrics(bank).count(b"\n")))
            if self._is_new_after_kill(bank):
                return
            arguments = RESUME

    def _is_new_after_kill(self, bank: Path) -> bool:
        """Return whether the task is in the bank; raise Lost if the bank is neither the old nor the new one."""
        found = bank_files(bank)
        for state in (self.after, self.before):
            expected = bank_files(state)
            if found["bank.json"] == expected["bank.json"]:
                # More may lie there: a task's file is written before the manifest that names it.
                changed = differences({name: found.get(name, b"") for name in expected}, expected)
                if changed:
                    raise Lost(f"after a kill: {', '.join(changed)}")
                return state is self.after
        raise Lost("after a kill: bank.json is neither the old nor the new one")


def prepare(out: Path, mode: str, epochs: int, flags: Sequence[str]) -> Course:
    """Draw the data, make the bank, and train the second task undisturbed."""
    for number, (task, scenes) in enumerate({FIRST: "labels2scene", TASK: "day2night"}.items()):
        write_dataset(
            out / task, scenes, train=TRAIN_PAIRS, test=HELD_OUT_PAIRS, size=SIZE, seed=number
        )
    short, long = out / "first.toml", out / "second.toml"
    short.write_text('generator = "resnet-6"\nngf = 8\n' + CONFIG % 1)
    long.write_text(CONFIG % epochs)
    before, after = out / "before", out / "after"
    finish(pbgan("train", before, FIRST, "--data", out / FIRST, "--config", short))
    shutil.copytree(before, after)
    begin = ["--data", out / TASK, "--config", long]
    begin += ["--mode", mode] if mode != "paired" else []
    started = time.monotonic()
    finish(pbgan("train", after, TASK, *begin, *flags))
    seconds = time.monotonic() - started
    if metrics(after).count(b"\n") == 0:
        raise Lost(f"the undisturbed run wrote no {after / 'runs' / TASK / 'metrics.jsonl'}")
    return Course(before, after, [*begin, *flags], seconds)


def summary(course: Course, trials: Sequence[Trial]) -> dict[str, Any]:
    kills = [kill for trial in trials for kill in trial.kills]
    return {
        "seconds_undisturbed": round(course.seconds, 1),
        "kills": len(kills),
        "kills_before_there_was_a_run": sum(kill.began_anew for kill in kills),
        "kills_by_epochs_done": {
            epochs: sum(kill.epochs == epochs for kill in kills)
            for epochs in sorted({kill.epochs for kill in kills})
        },
        "identical": f"{sum(not trial.lost for trial in trials)} of {len(trials)}",
        "trials": [asdict(trial) for trial in trials],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mode", choices=("paired", "unpaired"), default="paired")
    parser.add_argument("--times", type=int, default=30, help="trials (default: 30)")
    parser.add_argument("--epochs", type=int, default=6, help="of the killed task (default: 6)")
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    parser.add_argument("--out", type=Path, required=True, help="a new folder; kept where lost")
    parser.add_argument("flags", nargs="*", help="after --: more flags for pbgan train")
    given = parser.parse_args()
    if given.out.exists():
        sys.exit(f"{given.out} exists: give a new folder")
    trials: list[Trial] = []
    try:
        course = prepare(given.out.resolve(), given.mode, given.epochs, given.flags)
    except Lost as lost:
        sys.exit(str(lost))
    for number in range(1, given.times + 1):
        bank = given.out.resolve() / f"trial-{number:03d}"
        trials.append(course.trial(bank, random.Random(f"{given.seed} {number}")))
        lost = trials[-1].lost
        if not lost:
            shutil.rmtree(bank)
        print(f"{number} of {given.times}: {'; '.join(lost) or 'identical'}", file=sys.stderr)
    result = {"command": "python " + " ".join(sys.argv), "machine": machine(), "mode": given.mode}
    print(json.dumps(result | {"environment": ENVIRONMENT} | summary(course, trials), indent=1))
    sys.exit(any(trial.lost for trial in trials))


if __name__ == "__main__":
    main()
