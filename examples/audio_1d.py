"""A 1-D network of dilated convolutions for sound: Conv1d layers share filters like Conv2d layers.

    python examples/audio_1d.py

`pbgan train` reads images; use a network for sound from Python, with PiggybackNetwork.
"""

import math

import torch
from torch import Tensor, nn

from two_tasks import teach_two


class DilatedBlock(nn.Module):
    """Residual block of a gated dilated convolution, as in WaveNet."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, 2 * width, 3, padding=dilation, dilation=dilation)
        self.out = nn.Conv1d(width, width, 1)

    def forward(self, features: Tensor) -> Tensor:
        value, gate = self.conv(features).chunk(2, 1)
        return features + self.out(torch.tanh(value) * torch.sigmoid(gate))


class SoundNetwork(nn.Sequential):
    """Map sound (B, 1, samples) to sound (B, 1, samples)."""

    def __init__(self, width: int = 16, levels: int = 6) -> None:
        super().__init__(
            nn.Conv1d(1, width, 3, padding=1),
            *(DilatedBlock(width, 2**level) for level in range(levels)),
            nn.Conv1d(width, 1, 3, padding=1),
        )


def chords(count: int) -> Tensor:
    """Draw sums of three sines, (count, 1, 512)."""
    time = torch.arange(512) / 512
    pitch, phase = 4 + 28 * torch.rand(count, 3, 1), 2 * math.pi * torch.rand(count, 3, 1)
    return torch.sin(2 * math.pi * pitch * time + phase).mean(1, keepdim=True)


def denoised(count: int) -> tuple[Tensor, Tensor]:
    """Draw noisy and clean sounds."""
    sound = chords(count)
    return sound + 0.3 * torch.randn_like(sound), sound


def distorted(count: int) -> tuple[Tensor, Tensor]:
    """Draw sounds and the output of an overdriven amplifier."""
    sound = chords(count)
    return sound, torch.tanh(4 * sound)


if __name__ == "__main__":
    teach_two(SoundNetwork(), {"denoised": denoised, "distorted": distorted})
