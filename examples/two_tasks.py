"""Train one network on two tasks and print what each adds; shared by the examples."""

import sys
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from piggyback_gan import FilterOptions, PiggybackNetwork

Draw = Callable[[int], tuple[Tensor, Tensor]]
"""Draws a number of inputs and targets."""


def teach_two(module: nn.Module, tasks: Mapping[str, Draw], *, budget: float = 0.2) -> None:
    """Train a network on the tasks in order; the command line gives the number of steps, 100 by default."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    network = PiggybackNetwork(module)
    first, outputs = next(iter(tasks)), []
    torch.set_num_threads(1)  # more threads only slow down such small networks
    torch.manual_seed(0)
    held_out = {name: draw(4) for name, draw in tasks.items()}
    for name, draw in tasks.items():
        network.add_task(name, FilterOptions(budget=budget))
        before = error(network, *held_out[name])
        optimizer = torch.optim.Adam(network.trainable_parameters(), 2e-3)
        network.train()
        for _ in range(steps):
            inputs, targets = draw(4)
            optimizer.zero_grad()
            (network(inputs) - targets).abs().mean().backward()
            optimizer.step()
        network.finish_task()
        count = network.parameter_count(name)
        print(
            f"{name}: held-out error {before:.3f} -> {error(network, *held_out[name]):.3f}; adds "
            f"{count.total:,} parameters, {count.share:.3f} of a network, {count.private:,} of them private"
        )
        with torch.no_grad():
            outputs.append(network.fold(first)(held_out[first][0]))
    print(f"{first} is bit-identical after {name}: {torch.equal(outputs[0], outputs[-1])}")


@torch.no_grad()
def error(network: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Compute the mean absolute error."""
    return (network.eval()(inputs) - targets).abs().mean().item()


def masks(*size: int) -> Draw:
    """Draw noisy and clean ellipsoids (count, 1, *size), 1 inside and -1 outside."""

    def draw(count: int) -> tuple[Tensor, Tensor]:
        shapes = _ellipsoids(count, size)
        return (shapes + torch.randn_like(shapes)).clamp(-1, 1), shapes

    return draw


def edges(*size: int) -> Draw:
    """Draw ellipsoids and the layer around them."""
    grown = nn.functional.max_pool3d if len(size) == 3 else nn.functional.max_pool2d

    def draw(count: int) -> tuple[Tensor, Tensor]:
        shapes = _ellipsoids(count, size)
        return shapes, grown(shapes, 3, 1, 1) - shapes - 1

    return draw


def _ellipsoids(count: int, size: tuple[int, ...]) -> Tensor:
    axes = [torch.linspace(-1, 1, length) for length in size]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    shape = (count, len(size), *(1 for _ in size))
    centres, radii = torch.rand(shape) - 0.5, 0.3 + 0.4 * torch.rand(shape)
    inside = ((places - centres) / radii).square().sum(1, keepdim=True) < 1
    return inside.float() * 2 - 1
