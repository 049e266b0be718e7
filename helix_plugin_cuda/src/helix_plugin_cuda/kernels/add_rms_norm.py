"""The residual addition and the RMSNorm after it: one pass over each row, by the kernel of `rms_norm`.

D channels of a row.
"""

from __future__ import annotations

from torch import Tensor

from helix_plugin_cuda.kernels.rms_norm import residuals, run, run_backward

__all__ = ["backward", "forward", "forward_train", "residuals", "shared"]

shared = {"x": "residual"}


def forward(*arrays: Tensor | None, eps: float = 1e-5) -> tuple[Tensor, ...]:
    """x, residual (..., D), weight (D,) -> y and x + residual (..., D), the sum in float32."""
    x, residual, weight = arrays
    y, total, _ = run("add_rms_norm", x, residual, weight, eps=eps, train=False)
    return y, total


def forward_train(*arrays: Tensor | None, eps: float = 1e-5) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """`forward`, with the scale of each row."""
    x, residual, weight = arrays
    y, total, scales = run("add_rms_norm", x, residual, weight, eps=eps, train=True)
    return (y, total), (scales,)


def backward(
    grads: tuple[Tensor | None, ...], arrays: tuple[Tensor | None, ...], saved: tuple[Tensor, ...], *, eps: float = 1e-5
) -> tuple[Tensor | None, ...]:
    """The gradients of y and the sum -> those of residual, which is that of x too, and weight."""
    x, residual, weight = arrays
    dy, dtotal = grads
    return None, *run_backward("add_rms_norm", x, residual, weight, scales=saved[0], dy=dy, dtotal=dtotal)
