"""On-disk cache of real images' features, keyed by network, device and images."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from piggyback_gan.errors import PiggybackError
from piggyback_gan.evaluation.evaluate import image_hashes
from piggyback_gan.evaluation.feature_networks import FeatureNetwork
from piggyback_gan.system.files import atomic_write, require_writable

_TENSOR = "features"
_CHECKSUM = "sha256"


def cached_features(
    network: FeatureNetwork, images: Callable[[], Iterator[Tensor]], folder: Path | None
) -> Tensor:
    """Compute the features of all images, or read them from the cache.

    Args:
        network: without a SHA-256, its features are not cached.
        images: returns an iterator of batches (B, C, H, W) in [-1, 1], from the first on.
        folder: of the cache: a file is named after the hash of the network's file, the kind of its
            device and the images in order. A damaged file is replaced. None disables the cache, and so
            does a folder that can't be written to.

    Returns:
        float64 (N, F) on the CPU.

    Raises:
        PiggybackError: the network can't process the images.
    """
    if folder is None or network.sha256 is None:
        return _computed(network, images)
    seen = [
        f"{tuple(batch.shape[1:])} {digest}" for batch in images() for digest in image_hashes(batch)
    ]
    key = "\n".join([network.sha256, network.device.type, *seen])
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"
    kept = _read(path)
    if kept is not None:
        return kept
    features = _computed(network, images)
    # Without the cache the features still are valid.
    with contextlib.suppress(PiggybackError):
        require_writable(folder)
        atomic_write(path, save({_TENSOR: features}, {_CHECKSUM: _sha256(features)}))
    return features


def _computed(network: FeatureNetwork, images: Callable[[], Iterator[Tensor]]) -> Tensor:
    return torch.cat([network(batch) for batch in images()])


def _read(path: Path) -> Tensor | None:
    """Read a cache file; None if it does not exist or is damaged."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            features: Tensor = file.get_tensor(_TENSOR)
            expected = (file.metadata() or {}).get(_CHECKSUM)
    except (OSError, safetensors.SafetensorError):
        return None
    return features if _sha256(features) == expected else None


def _sha256(features: Tensor) -> str:
    return hashlib.sha256(features.numpy().tobytes()).hexdigest()
