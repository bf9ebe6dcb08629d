"""L1, PSNR and SSIM of each image to its target."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

_SMALLEST_ERROR = 1e-10  # equal images have 100 dB: JSON has no infinity


def image_metrics(outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Compute the metrics of each image of a batch.

    Args:
        outputs, targets: (B, C, H, W) in [-1, 1], at least 11 pixels on a side; values beyond are
            clipped, as they are when written to a file.

    Returns:
        Three tensors (B,): `l1`, the mean absolute difference as a share of the value range, 0 to 1;
        `psnr` in dB, at most 100; `ssim` with the usual 11-pixel Gaussian window (Wang et al., 2004),
        images mirrored at their borders.
    """
    # Imported late: it takes a second, with SciPy and Matplotlib, and no training waits for it to begin.
    from torchmetrics.functional.image import structural_similarity_index_measure

    first, second = ((images.clamp(-1, 1) + 1) / 2 for images in (outputs, targets))
    error = (first - second).flatten(1)
    psnr = -10 * error.square().mean(1).clamp_min(_SMALLEST_ERROR).log10()
    ssim = structural_similarity_index_measure(first, second, data_range=1.0, reduction="none")
    assert isinstance(ssim, Tensor)
    return {"l1": error.abs().mean(1), "psnr": psnr, "ssim": ssim.reshape(len(first))}


def joined(batches: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenate the metrics of batches, which may lack some; returns (N,) each."""
    values: dict[str, list[Tensor]] = {}
    for batch in batches:
        for name, part in batch.items():
            values.setdefault(name, []).append(part)
    return {name: torch.cat(parts) for name, parts in values.items()}


def mean_metrics(batches: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """Compute the mean of each metric over all images of all batches."""
    return {name: values.double().mean().item() for name, values in joined(batches).items()}
