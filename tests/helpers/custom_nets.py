"""Networks as users bring them, for tests: what fits in every way, and what does not."""

from typing import Any

import torch
from torch import Tensor, nn


class Mixed(nn.Module):
    """With all that is private to a task: norms, attention, linear layers, buffers that no state dict has."""

    def __init__(self, input_channels: int, output_channels: int, width: int = 8) -> None:
        super().__init__()
        self.enter = nn.Conv2d(input_channels, width, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(width, 2 * width, 7, padding=3)
        self.back = nn.Conv2d(2 * width, width, 3, padding=1)
        self.norm = nn.GroupNorm(2, width)
        self.batch_norm = nn.BatchNorm2d(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.linear = nn.Linear(width, width)
        self.leave = nn.ConvTranspose2d(width, output_channels, 4, stride=2, padding=1)
        self.register_buffer("table", torch.randn(width), persistent=False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        features = self.batch_norm(self.norm(torch.relu(self.enter(images))))
        features = features + self.back(torch.relu(self.middle(features)))
        tokens = features.flatten(2).transpose(1, 2) + self.table
        if self.training:
            self.calls += 1
        tokens = self.linear(tokens + self.attention(tokens, tokens, tokens)[0])
        # Of what is counted in training, too.
        tokens = tokens * (1 + self.calls / 100)
        return torch.tanh(self.leave(tokens.transpose(1, 2).reshape(features.shape)))


def mixed(input_channels: int, output_channels: int, width: int = 8) -> nn.Module:
    return Mixed(input_channels, output_channels, width)


class Plain(nn.Module):
    """Halves the size so many times, and doubles it again."""

    def __init__(
        self, input_channels: int, output_channels: int, levels: int = 1, width: int = 8
    ) -> None:
        super().__init__()
        self.enter = nn.Conv2d(input_channels, width, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(width, width, 4, 2, 1) for _ in range(levels))
        self.up = nn.ModuleList(nn.ConvTranspose2d(width, width, 4, 2, 1) for _ in range(levels))
        self.leave = nn.Conv2d(width, output_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.enter(images))
        for layer in (*self.down, *self.up):
            features = torch.relu(layer(features))
        return torch.tanh(self.leave(features))


class NoMultiple(Plain):
    """For images of any size."""

    def __init__(self, **channels: int) -> None:
        super().__init__(levels=0, **channels)


class Branching(NoMultiple):
    """What it computes depends on what it sees."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.mean() > 0 else -images)


class Fourier(Plain):
    """With complex parameters beside its filters."""

    def __init__(self, **channels: int) -> None:
        super().__init__(**channels)
        self.waves = nn.Parameter(
            torch.randn(channels["output_channels"], 1, 1, dtype=torch.cfloat)
        )

    def forward(self, images: Tensor) -> Tensor:
        made = super().forward(images)
        return torch.tanh(torch.fft.irfft2(torch.fft.rfft2(made) * self.waves, s=made.shape[2:]))


class Nets:
    """For names with dots after the colon."""

    plain = Plain


class Stated(Plain):
    def __init__(self, size_multiple: Any = 12, minimum_size: Any = 24, **channels: int) -> None:
        super().__init__(**channels)
        self.size_multiple, self.minimum_size = size_multiple, minimum_size


class InstanceNormed(Plain):
    """Its norm wants more than one pixel."""

    def __init__(self, **channels: int) -> None:
        super().__init__(levels=2, **channels)
        self.down.append(nn.InstanceNorm2d(8))


class HalfSize(Plain):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[..., ::2]


class OneChannel(Plain):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[:, :1]


class TwoOutputs(Plain):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images), images


class NotFinite(Plain):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) / 0


class Raises(Plain):
    def forward(self, images: Tensor) -> Tensor:
        raise ValueError("no such\nimage")


class RandomAttribute(Plain):
    """What is random is neither parameter nor buffer."""

    def __init__(self, **channels: int) -> None:
        super().__init__(**channels)
        self.table = torch.randn(1, channels["output_channels"], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(super().forward(images) + self.table)


class Noisy(Plain):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + torch.randn_like(images) / 100


class Growing(Plain):
    """A buffer as large as the image."""

    def __init__(self, **channels: int) -> None:
        super().__init__(**channels)
        self.register_buffer("mask", torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        self.mask = torch.ones(images.shape[2:])
        return super().forward(images) * self.mask


class ChannelNormed(Plain):
    """Has one more tensor whose shape is that of its output's channels."""

    def __init__(self, **channels: int) -> None:
        super().__init__(**channels)
        self.norm = nn.GroupNorm(1, channels["output_channels"])

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(super().forward(images))


class AddsInput(Plain):
    """Can't have other channels out than in."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[1] == self.leave.weight.shape[0], "no way past it"
        return super().forward(images) + images


class OneWay(Plain):
    """Can't be made with its channels swapped."""

    def __init__(self, input_channels: int, output_channels: int) -> None:
        if input_channels > output_channels:
            raise ValueError("colours can't become gray")
        super().__init__(input_channels, output_channels)


def fails(**channels: int) -> nn.Module:
    raise SystemExit("not today")


def no_module(**channels: int) -> str:
    return "a network"
