"""Tiny TorchScript networks for tests: what judges images, in files of a few kilobytes."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn


class Colours(nn.Module):
    """RGB in [0, 1] -> 12 features: the means of a 2 x 2 grid."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


class Difference(nn.Module):
    """Two batches -> (N,)."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return (first - second).square().flatten(1).mean(1)


class Thirds(nn.Module):
    """RGB in [0, 1] -> logits of 3 classes: the colour itself."""

    def forward(self, images: Tensor) -> Tensor:
        return images


def saved(module: nn.Module, path: Path) -> str:
    """The module as a TorchScript file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module.eval()), path)
    return str(path)


def from_python(images: Tensor) -> Tensor:
    """A feature network that is a function."""
    return Colours()(images)
