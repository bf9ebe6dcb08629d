"""Discriminators: PatchGAN and per-pixel, with the module names of the public pix2pix networks.

Source: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017,
sections 3.2.2 and 6.1.2.
"""

from collections import OrderedDict

from torch import nn

from piggyback_gan.networks.config import DiscriminatorConfig
from piggyback_gan.networks.layers import init_weights, make_norm, needs_bias


def build_discriminator(config: DiscriminatorConfig) -> nn.Module:
    """Build a discriminator with initial weights drawn from torch's global random state.

    It maps images (B, input_channels, H, W) with values in [-1, 1] to unbounded scores, higher for
    real images: (B, 1, H, W) for ``"pixel"``; (B, 1, H // 2**layers - 2, W // 2**layers - 2) for
    ``"patch"``, so that H and W must be at least 3 * 2**layers.
    """
    layers = _patch_layers(config) if config.name == "patch" else _pixel_layers(config)
    name = "model" if config.name == "patch" else "net"
    network = nn.Sequential(OrderedDict([(name, nn.Sequential(*layers))]))
    init_weights(network, config.init)
    return network


def _patch_layers(config: DiscriminatorConfig) -> list[nn.Module]:
    """PatchGAN: scores whether each patch of an image is real (70x70 pixels with 3 layers)."""
    bias = needs_bias(config.norm)
    channels = config.ndf
    layers: list[nn.Module] = [
        nn.Conv2d(config.input_channels, channels, 4, stride=2, padding=1),
        nn.LeakyReLU(0.2, inplace=True),
    ]
    for n in range(1, config.layers + 1):
        wider = config.ndf * min(2**n, 8)
        stride = 2 if n < config.layers else 1
        layers += [
            nn.Conv2d(channels, wider, 4, stride=stride, padding=1, bias=bias),
            make_norm(config.norm, wider),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        channels = wider
    return [*layers, nn.Conv2d(channels, 1, 4, stride=1, padding=1)]


def _pixel_layers(config: DiscriminatorConfig) -> list[nn.Module]:
    """PixelGAN: three 1x1 convolutions, which score each pixel by its colour alone."""
    ndf, bias = config.ndf, needs_bias(config.norm)
    return [
        nn.Conv2d(config.input_channels, ndf, 1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(ndf, 2 * ndf, 1, bias=bias),
        make_norm(config.norm, 2 * ndf),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(2 * ndf, 1, 1, bias=bias),
    ]
