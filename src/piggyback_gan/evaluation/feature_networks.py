"""Evaluation networks: features, perceptual distance, recogniser; loaded from files, Python or by name."""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from piggyback_gan.errors import PiggybackError, error_line
from piggyback_gan.images.format import ImageFormat
from piggyback_gan.system.download import cache_folder, fetch
from piggyback_gan.system.user_code import import_callable

INCEPTION = "inception"
INCEPTION_URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"
# As k-diffusion and others check it.
INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"

_BATCH_SIZE = 32


class JudgingNetwork:
    """Base of evaluation networks, which take RGB in [0, 1], in small batches, without gradients.

    Attributes:
        name: the file's name without its suffix, or the callable's own.
        sha256: of the file; None for a callable.
        device: of the network.
    """

    def __init__(
        self, network: Callable[..., object], name: str, sha256: str | None, device: torch.device
    ) -> None:
        self._network = network.to(device).eval() if isinstance(network, nn.Module) else network
        self.name = name
        self.sha256 = sha256
        self.device = device

    def _run(self, *images: Tensor) -> Tensor:
        """Run the network on all images; the result is on the CPU.

        Args:
            images: one or more times (N, C, H, W) in [-1, 1], C 1 or 3; values beyond are clipped.

        Raises:
            PiggybackError: it fails, or does not return a tensor with a row for each image.
        """
        parts = []
        # TF32 has three significant digits, and would differ from a CPU.
        exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact:
            for batches in zip(*(torch.split(batch, _BATCH_SIZE) for batch in images), strict=True):
                given = [self._fed(batch) for batch in batches]
                try:
                    result = self._network(*given)
                except Exception as error:  # noqa: BLE001 - user code may raise anything
                    raise PiggybackError(
                        f"{self.name} can't judge images of {_shape(given[0])}: {_said(error)}"
                    ) from None
                if not isinstance(result, Tensor) or result.shape[:1] != given[0].shape[:1]:
                    raise self._unfit(f"a row for each of {len(given[0])} images", result)
                parts.append(result.cpu())
        return torch.cat(parts)

    def _fed(self, batch: Tensor) -> Tensor:
        if batch.shape[1] not in (1, 3):
            raise PiggybackError(
                f"{self.name} takes gray or RGB images, not {batch.shape[1]} channels"
            )
        unit = (batch.to(self.device).float().clamp(-1, 1) + 1) / 2
        return unit.expand(-1, 3, -1, -1).contiguous()

    def _unfit(self, expected: str, found: object) -> PiggybackError:
        what = _shape(found) if isinstance(found, Tensor) else type(found).__name__
        return PiggybackError(f"{self.name} should give {expected}; found {what}")


class FeatureNetwork(JudgingNetwork):
    """Features, for Frechet and kernel distances."""

    def __init__(
        self, network: Callable[..., object], name: str, sha256: str | None, device: torch.device
    ) -> None:
        # The network of FID and KID; only its distances have these names.
        self.is_inception = sha256 == INCEPTION_SHA256
        network = _Inception(network) if self.is_inception else network
        super().__init__(network, name, sha256, device)

    def __call__(self, images: Tensor) -> Tensor:
        """Features of images (N, C, H, W) in [-1, 1], C 1 or 3: float64 (N, F) on the CPU.

        Raises:
            PiggybackError: other channels, or the network's output has another shape.
        """
        features = self._run(images)
        if features.dim() != 2:
            raise self._unfit("features (N, F)", features)
        return features.double()


class DistanceNetwork(JudgingNetwork):
    """Perceptual distances between the images of two batches."""

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances of two batches (N, C, H, W) in [-1, 1], C 1 or 3: float64 (N,) on the CPU.

        Raises:
            PiggybackError: other channels, or the network's output has another shape.
        """
        distances = self._run(first, second)
        if distances.numel() != len(first):
            raise self._unfit("distances (N,)", distances)
        return distances.double().flatten()


class Recogniser(JudgingNetwork):
    """Class of each pixel."""

    def __call__(self, images: Tensor, classes: int) -> Tensor:
        """The most likely class of each pixel of (N, C, H, W) in [-1, 1], C 1 or 3: int64 (N, H, W) on the CPU.

        Args:
            images: as above.
            classes: number of classes.

        Raises:
            PiggybackError: other channels, or the network gives no logits (N, classes, H, W).
        """
        logits = self._run(images)
        if logits.shape != (len(images), classes, *images.shape[2:]):
            height, width = images.shape[2:]
            raise self._unfit(f"logits (N, {classes}, {height}, {width})", logits)
        return logits.argmax(1)


def load_features(spec: str, device: str | torch.device) -> FeatureNetwork:
    """Load a feature network, float RGB (N, 3, H, W) in [0, 1] -> (N, F).

    Args:
        spec: "inception", which is downloaded once; a TorchScript file; or "package.module:callable".
        device: to load it to.

    Raises:
        PiggybackError: the network does not exist, or can't be loaded or downloaded.
    """
    if spec == INCEPTION:
        path = cache_folder() / Path(INCEPTION_URL).name
        spec = str(fetch(INCEPTION_URL, INCEPTION_SHA256, path))
    return FeatureNetwork(*_load(spec, device), torch.device(device))


def load_distance(spec: str, device: str | torch.device) -> DistanceNetwork:
    """Load a perceptual distance: as `load_features`, but (two batches of images) -> (N,), and no built-in names.

    Raises:
        PiggybackError: as `load_features`.
    """
    return DistanceNetwork(*_load(spec, device), torch.device(device))


def load_recogniser(spec: str, device: str | torch.device) -> Recogniser:
    """Load a recogniser: as `load_features`, but images -> logits (N, K, H, W), and no built-in names.

    Raises:
        PiggybackError: as `load_features`.
    """
    return Recogniser(*_load(spec, device), torch.device(device))


def require_visible(format: ImageFormat) -> None:
    """Check that images are gray or RGB, as evaluation networks need them.

    Raises:
        PiggybackError: label maps, or other channels than gray and RGB.
    """
    if format.labels or format.channels not in (1, 3):
        what = "label maps" if format.labels else f"images of {format.channels} channels"
        raise PiggybackError(
            f"feature, distance and recogniser networks take gray and RGB images, not {what}: "
            "leave them out for this task"
        )


class _Inception(nn.Module):
    """The network of FID in StyleGAN's TorchScript file: pixel values of 8 bits -> 2048 features."""

    def __init__(self, network: Callable[..., object]) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> object:
        return self.network((images * 255).round(), return_features=True)


def _load(spec: str, device: str | torch.device) -> tuple[Callable[..., object], str, str | None]:
    """Load a network; returns it, its name, and the SHA-256 of its file if it is one."""
    path = Path(spec)
    _, colon, attribute = spec.partition(":")
    if colon and not path.exists():
        return import_callable(spec), attribute, None
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PiggybackError(
            f"{spec} can't be read: {error.strerror}: give a TorchScript file or package.module:callable"
        ) from None
    try:
        with warnings.catch_warnings():
            # TorchScript is deprecated in favour of torch.export, whose files fix the images' size.
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise PiggybackError(f"{spec} is not a TorchScript file: {_said(error)}") from None
    return network, path.stem, sha256


def _said(error: Exception) -> str:
    """An error in one line: its type and first line, or the last line below TorchScript's traceback."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines and "TorchScript interpreter" in lines[0] else error_line(error)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"
