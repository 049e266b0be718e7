"""On AMD's processors, float32 matrix products go through oneDNN instead of MKL, which is not tuned for them.

A training step of a small Mamba takes 10 % less time so. torch has one switch for this, meant for another purpose: it
lets oneDNN round the factors to bfloat16 where the processor multiplies tiles of them (AMX). Without AMX the products
stay float32, and that is checked before the switch is left on.
"""

from __future__ import annotations

from typing import Any

import torch


def prefer_onednn() -> bool:
    """Do so where it is quicker and as exact; False where it is not, or where the user has chosen a precision."""
    from llvmlite import binding

    settings: Any = torch.backends.mkldnn
    settings = settings.matmul
    if not binding.get_host_cpu_name().startswith("znver") or settings.fp32_precision != "none":
        return False
    try:
        settings.fp32_precision = "bf16"
    except RuntimeError:  # a processor for which torch has no such path
        return False
    if _exact():
        return True
    settings.fp32_precision = "none"
    return False


def _exact() -> bool:
    """Whether a product carries float32's precision: bfloat16's error would be a thousand times larger."""
    a = torch.linspace(-1, 1, 64 * 96, dtype=torch.float32, device="cpu").sin_().reshape(64, 96)
    exact = a.double() @ a.double().T
    return bool(((a @ a.T) - exact).abs().max() < 1e-5 * exact.abs().max())
