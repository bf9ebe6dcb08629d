"""Image files to translate, and what they become."""

from pathlib import Path

from PIL import Image
from torch import nn

from image_files import noise
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.images.pixels import Pixels
from piggyback_gan.images.read import read_image
from piggyback_gan.images.tensors import to_pixels, to_tensor
from piggyback_gan.inference.translate import translate_batch
from piggyback_gan.networks.config import GeneratorConfig

RGB = (ImageFormat(), ImageFormat())


def files(folder: Path, *names: str) -> Path:
    """Write small RGB images of noise, and return the folder."""
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(9, 11, seed=i)).save(path)
    return folder


def expected_pixels(generator: nn.Module, config: GeneratorConfig, source: Path) -> Pixels:
    """Translate an image file by itself."""
    taken, made = (ImageFormat(channels=n) for n in (config.input_channels, config.output_channels))
    image = to_tensor(read_image(source, taken), taken)
    return to_pixels(translate_batch(generator, config, image[None])[0], made)
