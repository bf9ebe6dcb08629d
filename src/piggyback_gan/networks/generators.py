"""Generators: ResNet and U-Net, with the module names of the public pix2pix/CycleGAN networks.

Sources: Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks", ICCV 2017 (ResNet, after Johnson et al. 2016); Isola et al., "Image-to-Image Translation
with Conditional Adversarial Networks", CVPR 2017 (U-Net); with anti-alias layers: Park et al.,
"Contrastive Learning for Unpaired Image-to-Image Translation", ECCV 2020.
"""

import torch
from torch import Tensor, nn

from piggyback_gan.networks.config import (
    RESNET_BLOCKS,
    UNET_LEVELS,
    Architecture,
    CustomGeneratorConfig,
    GeneratorConfig,
)
from piggyback_gan.networks.custom import build_custom
from piggyback_gan.networks.layers import BlurDown, BlurUp, init_weights, make_norm, needs_bias


def build_generator(config: Architecture) -> nn.Module:
    """Build a generator with initial weights drawn from torch's global random state.

    It maps images (B, input_channels, H, W) to images (B, output_channels, H, W), both with values
    in [-1, 1]. H and W must be multiples of ``config.size_multiple`` and at least
    ``config.minimum_size``; the network itself does not check this.

    Raises:
        PiggybackError: user code makes it, and fails (see `build_custom`).
    """
    if isinstance(config, CustomGeneratorConfig):
        return build_custom(config)
    network = _modules(config)
    init_weights(network, config.init)
    return network


def _modules(config: GeneratorConfig) -> nn.Module:
    return UnetGenerator(config) if config.name in UNET_LEVELS else ResnetGenerator(config)


def build_outline(config: Architecture) -> nn.Module:
    """Build a generator to inspect or to load weights into, without changing the random state.

    A built-in one is on the meta device. User code runs as usual: it may not support the meta device, and
    attributes that are neither parameters nor buffers would have no values there.

    Raises:
        PiggybackError: as `build_generator`.
    """
    if isinstance(config, CustomGeneratorConfig):
        with torch.random.fork_rng(devices=[]):
            return build_custom(config)
    with torch.device("meta"):
        return _modules(config)


class ResnetGenerator(nn.Module):
    """ResNet: two downsampling convolutions, residual blocks, two upsampling convolutions."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        ngf, norm = config.ngf, config.norm
        bias = needs_bias(norm)
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(config.input_channels, ngf, 7, bias=bias),
            make_norm(norm, ngf),
            nn.ReLU(inplace=True),
        ]
        blurs_down = config.antialias in ("down", "both")
        for channels in (ngf, 2 * ngf):
            stride = 1 if blurs_down else 2
            layers += [
                nn.Conv2d(channels, 2 * channels, 3, stride=stride, padding=1, bias=bias),
                make_norm(norm, 2 * channels),
                nn.ReLU(inplace=True),
            ]
            if blurs_down:
                layers.append(BlurDown(2 * channels))
        for _ in range(RESNET_BLOCKS[config.name]):
            layers.append(ResnetBlock(4 * ngf, norm, dropout=config.dropout))
        for channels in (2 * ngf, ngf):
            if config.antialias in ("up", "both"):
                layers.append(BlurUp(2 * channels))
                layers.append(nn.Conv2d(2 * channels, channels, 3, padding=1, bias=bias))
            else:
                grow = nn.ConvTranspose2d(
                    2 * channels, channels, 3, stride=2, padding=1, output_padding=1, bias=bias
                )
                layers.append(grow)
            layers += [make_norm(norm, channels), nn.ReLU(inplace=True)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(ngf, config.output_channels, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Translate images (B, C_in, H, W) to images (B, C_out, H, W) in [-1, 1]."""
        translated: Tensor = self.model(images)
        return translated


class ResnetBlock(nn.Module):
    """Residual block of two 3x3 convolutions."""

    def __init__(self, channels: int, norm: str, *, dropout: bool) -> None:
        super().__init__()

        def conv() -> list[nn.Module]:
            layer = nn.Conv2d(channels, channels, 3, bias=needs_bias(norm))
            return [nn.ReflectionPad2d(1), layer, make_norm(norm, channels)]

        between = [nn.ReLU(inplace=True), *([nn.Dropout(0.5)] if dropout else [])]
        self.conv_block = nn.Sequential(*conv(), *between, *conv())

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, C, H, W) to features of the same shape."""
        residual: Tensor = self.conv_block(features)
        return features + residual


class UnetGenerator(nn.Module):
    """U-Net: an encoder down to 1/2**levels of the size and a decoder, with a skip at every level."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        ngf, norm = config.ngf, config.norm
        # From the inside out, in the public network's order of construction.
        block = UnetBlock(8 * ngf, 8 * ngf, norm=norm)
        for _ in range(UNET_LEVELS[config.name] - 5):
            block = UnetBlock(8 * ngf, 8 * ngf, inside=block, norm=norm, dropout=config.dropout)
        for channels in (4 * ngf, 2 * ngf, ngf):
            block = UnetBlock(channels, 2 * channels, inside=block, norm=norm)
        outermost = nn.Sequential(
            _down_conv(config.input_channels, ngf, bias=needs_bias(norm)),
            block,
            nn.ReLU(inplace=True),
            _up_conv(2 * ngf, config.output_channels, bias=True),
            nn.Tanh(),
        )
        # The public network's outermost level is a module with a `model` of its own.
        self.model = nn.ModuleDict({"model": outermost})

    def forward(self, images: Tensor) -> Tensor:
        """Translate images (B, C_in, H, W) to images (B, C_out, H, W) in [-1, 1]."""
        translated: Tensor = self.model["model"](images)
        return translated


class UnetBlock(nn.Module):
    """A U-Net level: halve the size, apply the inner levels if any, double it, concatenate to the input."""

    def __init__(
        self,
        channels: int,
        inner_channels: int,
        *,
        inside: nn.Module | None = None,
        norm: str,
        dropout: bool = False,
    ) -> None:
        super().__init__()
        bias = needs_bias(norm)
        layers: list[nn.Module] = [
            nn.LeakyReLU(0.2, inplace=True),
            _down_conv(channels, inner_channels, bias=bias),
        ]
        # No norm on the innermost level: its feature map may be a single pixel.
        if inside is not None:
            layers += [make_norm(norm, inner_channels), inside]
        # The inner level returns its input and output, concatenated.
        up_channels = inner_channels if inside is None else 2 * inner_channels
        layers += [
            nn.ReLU(inplace=True),
            _up_conv(up_channels, channels, bias=bias),
            make_norm(norm, channels),
        ]
        if dropout:
            layers.append(nn.Dropout(0.5))
        self.model = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, C, H, W) to (B, 2 C, H, W): the input, then the output."""
        # The LeakyReLU works in place, so the skip carries its output. A ReLU always follows, and
        # relu(leaky_relu(x)) is relu(x).
        output: Tensor = self.model(features)
        return torch.cat([features, output], dim=1)


def _down_conv(channels_in: int, channels_out: int, *, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1, bias=bias)


def _up_conv(channels_in: int, channels_out: int, *, bias: bool) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1, bias=bias)
