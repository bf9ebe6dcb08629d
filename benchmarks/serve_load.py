"""Measure `pbgan serve` under load on loopback: many clients, several tasks, compared with bare forwards.

    python benchmarks/serve_load.py --out OUT

Bare forwards of the same networks, in the server's batch sizes, are timed before and after in their own
process, without other load. Figures go to OUT/serve-load.json; copy them to docs/results.
"""

import argparse
import http.client
import io
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from drawn_files import photograph_like
from filled_banks import filled_bank
from lifelong import machine, require_new
from piggyback_gan import Bank, FilterOptions, GeneratorConfig
from piggyback_gan.inference.translate import translate_batch
from piggyback_gan.serve.allocator import keep_memory
from piggyback_gan.system.device import choose_device

BATCHES = (1, 8)
IMAGES = 16
WARM_UP = 5.0


def photograph(chance: np.random.Generator, side: int) -> bytes:
    """Return a PNG file."""
    buffer = io.BytesIO()
    photograph_like(chance, side, side).save(buffer, "PNG")
    return buffer.getvalue()


def bare(path: Path, side: int, seconds: float, kept: bool) -> dict[int, float]:
    """Measure images per second of the networks alone by batch size, all tasks in turn.

    With `kept` the process keeps its memory as the server does.
    """
    choose_device("cpu")
    if kept:
        keep_memory()
    bank = Bank.open(path)
    networks = [bank.generator(task) for task in bank.tasks]
    rates = {}
    for size in BATCHES:
        images = torch.rand(size, 3, side, side) * 2 - 1
        for network in networks:
            translate_batch(network, bank.config, images)
        begun, count = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            translate_batch(networks[count % len(networks)], bank.config, images)
            count += 1
        rates[size] = count * size / (time.perf_counter() - begun)
    return rates


class Clients:
    """Threads that send requests, each over its own connection."""

    def __init__(self, port: int, count: int, tasks: int, images: list[bytes]) -> None:
        self.port, self.tasks, self.images = port, tasks, images
        self.latencies: list[tuple[float, float]] = []  # when it was sent, how long it took
        self.failures: list[str] = []
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(n,)) for n in range(count)]

    def work(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        sent = number
        while not self.stop.is_set():
            image = self.images[sent % len(self.images)]
            began = time.perf_counter()
            try:
                address = f"/v1/tasks/task{sent % self.tasks}/translate"
                connection.request("POST", address, image, {"Content-Type": "image/png"})
                answer = connection.getresponse()
                content = answer.read()
                if answer.status != 200 or not content.startswith(b"\x89PNG"):
                    self.failures.append(f"{answer.status} {content[:100]!r}")
            except Exception as error:  # noqa: BLE001 - whatever it is, the request failed
                self.failures.append(repr(error))
                connection.close()
            self.latencies.append((began, time.perf_counter() - began))
            sent += 1


def loaded(path: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Measure the clients' latencies and the server's resources."""
    command = [sys.executable, "-m", "piggyback_gan", "serve", str(path), "--port", "0"]
    chance = np.random.default_rng(0)
    images = [photograph(chance, given.side) for _ in range(IMAGES)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r":(\d+)/", server.stdout.readline())
            assert found is not None
            clients = Clients(int(found[1]), given.clients, given.tasks, images)
            process = psutil.Process(server.pid)
            for thread in clients.threads:
                thread.start()
            time.sleep(WARM_UP)  # until the tasks are composed and the queue is full
            begun, memory = time.perf_counter(), []
            own = time.process_time()
            while time.perf_counter() - begun < given.seconds:
                memory.append(process.memory_info().rss / 1e6)
                time.sleep(1)
            ended, own = time.perf_counter(), time.process_time() - own
            clients.stop.set()
            for thread in clients.threads:
                thread.join()
            metrics = scraped(int(found[1]))
        finally:
            server.terminate()
    counted = [took for sent, took in clients.latencies if begun <= sent + took <= ended]
    hundredths = statistics.quantiles(counted, n=100)
    tenth = max(len(memory) // 10, 1)
    return {
        "requests": len(clients.latencies),
        "failed": len(clients.failures),
        "failures": clients.failures[:5],
        "images_per_second": len(counted) / (ended - begun),
        "latency_seconds": {
            "p50": round(hundredths[49], 3),
            "p95": round(hundredths[94], 3),
            "p99": round(hundredths[98], 3),
        },
        "clients_processor_share": round(own / (ended - begun), 3),
        "memory_megabytes": {
            "first_tenth": round(statistics.mean(memory[:tenth])),
            "last_tenth": round(statistics.mean(memory[-tenth:])),
            "most": round(max(memory)),
        },
        "mean_batch": metrics["pbgan_batch_images_sum"] / metrics["pbgan_batch_images_count"],
        "computing_share": metrics["pbgan_computing_seconds_total"] / (ended - begun + WARM_UP),
    }


def scraped(port: int) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


def bare_apart(path: Path, given: argparse.Namespace) -> dict[str, float]:
    """Run `bare` with and without retained memory, each in its own process, like the server."""
    rates = {}
    for kept in (False, True):
        command = [sys.executable, __file__, "--bare", str(path), "--side", str(given.side)]
        command += ["--kept"] if kept else []
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        for size, rate in json.loads(ran.stdout).items():
            rates[f"batch {size}{', memory kept' if kept else ''}"] = rate
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--tasks", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--generator", default="resnet-9")
    parser.add_argument("--ngf", type=int, default=32)
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--kept", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare:
        print(json.dumps(bare(given.bare, given.side, 8, given.kept)))
        return
    require_new(given.out)
    config = GeneratorConfig(name=given.generator, ngf=given.ngf)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank"
        filled_bank(path, config, FilterOptions(), given.tasks)
        before = bare_apart(path, given)
        seen = loaded(path, given)
        after = bare_apart(path, given)
    rates = {how: (before[how] + after[how]) / 2 for how in before}
    result = {
        "command": "python " + " ".join(sys.argv),
        "machine": machine(),
        "generator": asdict(config),
        "bare_images_per_second": {"before": before, "after": after},
        "share_of_bare": {
            how: round(seen["images_per_second"] / rate, 3) for how, rate in rates.items()
        },
        **seen,
    }
    given.out.mkdir(parents=True)
    (given.out / "serve-load.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
