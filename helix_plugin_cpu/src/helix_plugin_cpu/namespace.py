"""torch behind the array API on the CPU: products in half precision run as fast as the processor allows."""

from __future__ import annotations

import torch
from torch import Tensor

from helix_plugin_cpu.kernels._half import WIDENED
from helix_plugin_torch import namespace as _torch

globals().update({name: value for name, value in vars(_torch).items() if not name.startswith("__")})


def matmul(x: Tensor, y: Tensor, /) -> Tensor:
    """The product of matrices (..., M, K) and (..., K, N) of one dtype."""
    if x.dtype == y.dtype and x.dtype in WIDENED and x.is_cpu:
        return torch.matmul(x.float(), y.float()).to(x.dtype)
    return torch.matmul(x, y)
