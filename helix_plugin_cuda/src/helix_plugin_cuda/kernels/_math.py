"""Functions that Triton lacks, or has only for compiled kernels."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def log1p_exp(x):
    """log(1 + exp(-|x|)), also where that is tiny."""
    e = tl.exp(-tl.abs(x))
    u = 1.0 + e
    # log(u) is off by what 1 + e rounded away; e / (u - 1) puts it back (Kahan).
    return tl.where(u == 1.0, e, tl.log(u) * (e / tl.where(u == 1.0, 1.0, u - 1.0)))


@triton.jit
def softplus(x):
    """log(1 + exp(x)), also where that is tiny."""
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL) + log1p_exp(x)


@triton.jit
def silu_slope(x):
    """The derivative of x sigmoid(x)."""
    s = tl.sigmoid(x)
    return s * (1.0 + x * (1.0 - s))
