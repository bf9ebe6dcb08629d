"""The table of docs/cost.md is what the formula says."""

import re
from typing import Any

import pytest
import torch

from paths import ROOT
from piggyback_gan.experiments.strategies.piggyback import Piggyback
from piggyback_gan.networks.config import GeneratorConfig
from piggyback_gan.networks.generators import build_generator

PAGE = ROOT / "docs" / "cost.md"
NETWORKS = {
    "ResNet-9, ngf 64": GeneratorConfig(),
    "ResNet-6, ngf 32": GeneratorConfig(name="resnet-6", ngf=32),
    "U-Net 256, ngf 64": GeneratorConfig(name="unet-256"),
}
OPTIONS: list[dict[str, Any]] = [
    {"unconstrained": 0.25},
    {"unconstrained": 0.25, "allocation": "even"},
]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_table_of_costs_is_what_tasks_add(name: str) -> None:
    rows = PAGE.read_text().partition(f"| {name} |")[2].splitlines()[: len(OPTIONS)]
    with torch.device("meta"):
        network = build_generator(NETWORKS[name])
    whole = sum(p.numel() for p in network.parameters())
    for row, options in zip(rows, OPTIONS, strict=True):
        strategy = Piggyback(**options)
        added = [strategy.predicted(network, order) / whole for order in range(20)]
        said = [float(cell) for cell in re.findall(r"\| (\d*\.\d+)(?= \|)", row)]
        assert said == [round(added[1], 4), round(added[19], 4), round(sum(added), 2)]
