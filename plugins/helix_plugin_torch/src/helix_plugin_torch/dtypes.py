"""Which dtype goes with which: half precision, what is summed beside it, and torch's names without a prefix."""

from __future__ import annotations

import torch
from torch import Tensor

from helix_core.ops import half

HALF: frozenset[torch.dtype] = frozenset(getattr(torch, name) for name in half.HALF)
"""The dtypes of half precision, bfloat16 and float16."""


def wide(like: Tensor) -> torch.dtype:
    """The dtype of parameters, states and sums beside activations `like`: float32 beside half precision."""
    return torch.promote_types(like.dtype, torch.float32)


def dtype_name(dtype: torch.dtype) -> str:
    """What Helix calls a dtype: "float32" for `torch.float32`."""
    return str(dtype).removeprefix("torch.")
