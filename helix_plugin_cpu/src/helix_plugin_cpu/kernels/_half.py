"""Matrix products of bfloat16 and float16, on processors with and without instructions for them.

Where a processor multiplies a type itself, torch does. Elsewhere torch's product of it takes four to fifty times
float32's, so the factors are widened, a panel of rows at a time, and float32's product does the work.

Below R rows times K, K times N.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from helix_core.ops.table import DispatchKey
from helix_plugin_cpu._isa import features
from helix_plugin_torch import linear_cross_entropy as in_torch

INSTRUCTIONS = {
    torch.bfloat16: {"amx-bf16": "AMX", "avx512bf16": "AVX512-BF16", "bf16": "NEON BF16"},
    torch.float16: {"amx-fp16": "AMX", "avx512fp16": "AVX512-FP16"},
}
"""What multiplies a type, by LLVM's names of features."""
PANEL = 1024
"""Rows that are widened at a time: many enough for a product at full speed, few enough for a cache."""


def instructions(dtype: torch.dtype) -> str | None:
    """The name of the instructions with which torch multiplies such matrices here; None if there are none."""
    if sys.platform == "darwin" or not torch.backends.mkldnn.is_available():
        return None
    return next((name for feature, name in INSTRUCTIONS.get(dtype, {}).items() if feature in features()), None)


WIDENED = frozenset(dtype for dtype in INSTRUCTIONS if instructions(dtype) is None)
"""Types whose products are computed in float32 here."""


def refuses(key: DispatchKey) -> str | None:
    """Why products of a type are not widened."""
    name = instructions(getattr(torch, key.dtype))
    return f"torch multiplies {key.dtype} with {name} here" if name else None


def products() -> dict[str, str]:
    """How products of each type run, for `helix doctor`."""
    names = {str(dtype).removeprefix("torch."): instructions(dtype) for dtype in INSTRUCTIONS}
    return {f"{name} products": found or "in float32" for name, found in names.items()}


def mm(left: Tensor, right: Tensor, out: Tensor, bias: Tensor | None = None) -> None:
    """out (R, N) = left (R, K) right (K, N) + bias (N,)."""
    if left.dtype not in WIDENED:
        torch.mm(left, right, out=out)
        if bias is not None:
            out += bias
        return
    right = right.float()
    for start in range(0, left.shape[0], PANEL):
        rows = slice(start, start + PANEL)
        product = torch.mm(left[rows].float(), right)
        out[rows] = product if bias is None else product.add_(bias)


def add_over_rows(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total (N, K), float32 or wider, += the transpose of left (R, N) times right (R, K)."""
    if left.dtype not in WIDENED:
        in_torch.add_over_rows(total, left, right)
        return
    for start in range(0, left.shape[0], PANEL):
        rows = slice(start, start + PANEL)
        total.addmm_(left[rows].float().mT, right[rows].float())
