"""Send invalid requests to `pbgan serve`: damaged images, random bytes, and schemathesis.

    python -m venv fuzz && fuzz/bin/pip install schemathesis
    python benchmarks/serve_fuzz.py --schemathesis fuzz/bin/schemathesis --out OUT

No response may have a status of 500 or more. Statuses go to OUT/serve-fuzz.json; copy it to docs/results.
"""

import argparse
import collections
import http.client
import io
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from filled_banks import filled_bank
from lifelong import machine, require_new
from piggyback_gan import FilterOptions, GeneratorConfig
from serve_load import photograph

KINDS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
EXPECTED = "not_a_server_error"
CHECKS = f"{EXPECTED},status_code_conformance,content_type_conformance,response_schema_conformance"


def files(chance: np.random.Generator) -> list[bytes]:
    """Return an image in each file format."""
    image = Image.open(io.BytesIO(photograph(chance, 32)))
    contents = []
    for kind in KINDS:
        buffer = io.BytesIO()
        image.save(buffer, kind)
        contents.append(buffer.getvalue())
    return contents


def damaged(chance: np.random.Generator, contents: list[bytes]) -> bytes:
    """Return random bytes, or a file with bytes changed, removed or inserted, mostly near its start."""
    if chance.random() < 0.1:
        return chance.bytes(int(chance.integers(0, 2000)))
    content = bytearray(contents[chance.integers(len(contents))])
    for _ in range(chance.integers(1, 6)):
        end = len(content) if chance.random() < 0.3 else min(len(content), 80)
        place = int(chance.integers(end)) if end else 0
        how = chance.integers(3)
        if how == 0:
            content[place : place + 1] = chance.bytes(1)
        elif how == 1:
            del content[place : place + int(chance.integers(1, 40))]
        else:
            content[place:place] = chance.bytes(int(chance.integers(1, 40)))
    return bytes(content)


def bombard(port: int, count: int) -> dict[str, int]:
    """Count the statuses of responses to damaged images."""
    chance = np.random.default_rng(0)
    contents = files(chance)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    statuses: collections.Counter[str] = collections.Counter()
    for _ in range(count):
        connection.request("POST", "/v1/tasks/task0/translate", damaged(chance, contents))
        answer = connection.getresponse()
        answer.read()
        statuses[str(answer.status)] += 1
    return dict(sorted(statuses.items()))


def schemathesis(program: Path, port: int, examples: int, known_task: bool) -> dict[str, Any]:
    """Run schemathesis on the server and its OpenAPI, with an existing task or any."""
    address = f"http://127.0.0.1:{port}/openapi.json"
    options = ["--checks", CHECKS, "--max-examples", str(examples), "--seed", "1"]
    options += ["--continue-on-failure", "--no-color", "--suppress-health-check", "all"]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "schemathesis.toml"
        config.write_text('[parameters]\n"path.task" = "task0"\n' if known_task else "")
        command = [str(program), "--config-file", str(config), "run", address, *options]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    print(ran.stdout[-6000:], file=sys.stderr)
    summary = [
        line.strip() for line in ran.stdout.splitlines() if re.search(r"test cases|generated", line)
    ]
    return {"status": ran.returncode, "checks": CHECKS, "said": summary}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--schemathesis", type=Path, help="the program; left out if not given")
    parser.add_argument("--examples", type=int, default=300)
    given = parser.parse_args()
    require_new(given.out)
    with tempfile.TemporaryDirectory() as folder:
        bank = Path(folder) / "bank"
        filled_bank(bank, GeneratorConfig(name="resnet-6", ngf=4), FilterOptions(), 2)
        command = [sys.executable, "-m", "piggyback_gan", "serve", str(bank), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                found = re.search(r":(\d+)/", server.stdout.readline())
                assert found is not None
                port = int(found[1])
                result: dict[str, Any] = {
                    "command": "python " + " ".join(sys.argv),
                    "machine": machine(),
                    "damaged_images": bombard(port, given.images),
                }
                if given.schemathesis:
                    result["schemathesis"] = {
                        name: schemathesis(
                            given.schemathesis.resolve(), port, given.examples, known
                        )
                        for name, known in (("any task", False), ("a known task", True))
                    }
                connection = http.client.HTTPConnection("127.0.0.1", port)
                connection.request("GET", "/metrics")
                text = connection.getresponse().read().decode()
                found_problems = re.findall(r'pbgan_problems_total\{problem="(.+?)"\} (\d+)', text)
                result["problems"] = {name: int(count) for name, count in found_problems}
            finally:
                server.terminate()
    given.out.mkdir(parents=True)
    (given.out / "serve-fuzz.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
