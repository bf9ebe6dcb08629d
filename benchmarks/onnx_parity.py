"""Compare outputs of onnxruntime and torch: every generator in full size, several sizes, one and two images.

    python benchmarks/onnx_parity.py --out OUT

Weights are random ("kaiming", so that features keep their scale), inputs are noise. The difference of torch's
outputs from float64 shows how much of it is rounding. Figures go to
OUT/onnx-parity.json; copy them to docs/results.
"""

import argparse
import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from lifelong import machine, require_new
from piggyback_gan import GeneratorConfig, build_generator
from piggyback_gan.export.contract import ImageContract
from piggyback_gan.export.formats import FORMATS
from piggyback_gan.export.onnx_file import require
from piggyback_gan.images.format import ImageFormat

GENERATORS = [
    GeneratorConfig(name=name, norm=norm, antialias=antialias, init="kaiming")
    for name, norm, antialias in (
        ("resnet-6", "batch", "none"),
        ("resnet-6", "none", "both"),
        ("resnet-9", "instance", "none"),
        ("resnet-9", "instance", "both"),
        ("unet-64", "batch", "none"),
        ("unet-128", "instance", "none"),
        ("unet-256", "batch", "none"),
        ("unet-256", "instance", "none"),
    )
]


def differences(config: GeneratorConfig) -> dict[str, Any]:
    """Measure the largest and mean difference of output values, in [-1, 1], by batch and size."""
    torch.manual_seed(0)
    generator = build_generator(config).eval()
    contract = ImageContract(
        task="drawn",
        direction="AtoB",
        input=ImageFormat(),
        output=ImageFormat(),
        image_size=256,
        precision="fp32",
        generator=config,
        task_sha256="",
        library_version="",
    )
    least, multiple = config.minimum_size, config.size_multiple
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        FORMATS["onnx"].write(generator, contract, path)
        exported = FORMATS["onnx"].read(path, contract)
        for shape in ((1, least, least), (1, 256, 256), (2, 256, 256 + multiple), (1, 512, 768)):
            count, height, width = shape
            images = torch.rand(count, 3, height, width) * 2 - 1
            with torch.inference_mode():
                expected = generator(images)
                difference = (exported(images) - expected).abs()
                exact = copy.deepcopy(generator).double()(images.double())
            rows["x".join(map(str, shape))] = {
                "largest": difference.max().item(),
                "mean": difference.mean().item(),
                "largest_of_torch_to_float64": (expected - exact).abs().max().item(),
                "spread_of_outputs": expected.std().item(),
            }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    require_new(given.out)
    given.out.mkdir(parents=True)
    found: dict[str, Any] = {
        "machine": {**machine(), "onnxruntime": require("onnxruntime").__version__},
        "generators": {},
    }
    for config in GENERATORS:
        name = f"{config.name}, {config.norm} norm, antialias {config.antialias}"
        found["generators"][name] = differences(config)
        print(name, found["generators"][name], flush=True)
    (given.out / "onnx-parity.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
