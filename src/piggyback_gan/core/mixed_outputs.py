"""Outputs of a conv layer as those of its start plus those of a low-rank update.

Shape suffixes: B images, N outputs of the layer, R inner filters, M positions in a feature map.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from piggyback_gan.core.filters import ConvLayer


def add_up(
    bias: Tensor | None,
    start: ConvLayer,
    inner: ConvLayer | Tensor,
    up_NR: Tensor,
    stays: bool,
    *inputs: Any,
    **named: Any,
) -> Tensor:
    """Compute a layer's outputs: those of its start plus a mixture of the inner filters' outputs.

    Args:
        bias: the layer's bias. It is not in the start's convolution, which would then compute a gradient
            of whole filters.
        start: the start, without bias.
        inner: a layer of the inner filters; or their weights on the start's outputs, (R, N).
        up_NR: the weights of the inner filters' outputs.
        stays: whether the next layer does not change its input in place.
        inputs, named: the arguments of the layer's forward.
    """
    outputs = start.forward(*inputs, **named)
    dimensions = start.weight.dim() - 2
    (filters, rank), places = up_NR.shape, outputs.shape[-dimensions:].numel()
    flat_BNM = outputs.reshape(-1, filters, places)
    if isinstance(inner, Tensor) and stays:
        mixed: Tensor = _MixInPlace.apply(flat_BNM, up_NR, inner, bias)  # type: ignore[no-untyped-call]
        return mixed.reshape(outputs.shape)
    if isinstance(inner, Tensor):
        shares_BRM = inner.expand(len(flat_BNM), rank, filters) @ flat_BNM
    else:
        shares_BRM = inner.forward(*inputs, **named).reshape(-1, rank, places)
    added = torch.baddbmm(flat_BNM, up_NR.expand(len(flat_BNM), filters, rank), shares_BRM)
    if bias is not None:
        added.add_(bias[:, None])
    return added.reshape(outputs.shape)


class _MixInPlace(torch.autograd.Function):
    """outputs + up @ (down @ outputs) + bias, computed in place.

    The gradient of `down` needs the original outputs, which are recomputed by subtracting what was added.
    So no feature map is saved except the layer's outputs, which a norm after it saves anyway.
    """

    @staticmethod
    def forward(
        ctx: Any, outputs_BNM: Tensor, up_NR: Tensor, down_RN: Tensor, bias: Tensor | None
    ) -> Tensor:
        up, down = up_NR.to(outputs_BNM.dtype), down_RN.to(outputs_BNM.dtype)
        shares_BRM = down @ outputs_BNM
        outputs_BNM.baddbmm_(up.expand(len(outputs_BNM), *up.shape), shares_BRM)
        if bias is not None:
            outputs_BNM.add_(bias[:, None])
        ctx.mark_dirty(outputs_BNM)
        ctx.save_for_backward(outputs_BNM, shares_BRM, up, down, bias)
        return outputs_BNM

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BNM: Tensor) -> tuple[Tensor | None, ...]:
        outputs_BNM, shares_BRM, up, down, bias = ctx.saved_tensors
        of_shares_BRM = up.T @ gradient_BNM
        of_up = (gradient_BNM @ shares_BRM.mT).sum(0)
        of_down = (of_shares_BRM @ outputs_BNM.mT).sum(0)
        of_down = of_down - (of_shares_BRM @ shares_BRM.mT).sum(0) @ up.T
        of_bias = None
        if bias is not None:
            of_bias = gradient_BNM.sum((0, 2))
            of_down = of_down - torch.outer(of_shares_BRM.sum((0, 2)), bias.to(of_down.dtype))
        of_outputs = None
        if ctx.needs_input_grad[0]:
            of_outputs = torch.baddbmm(
                gradient_BNM, down.T.expand(len(gradient_BNM), *down.T.shape), of_shares_BRM
            )
        return of_outputs, of_up, of_down, of_bias
