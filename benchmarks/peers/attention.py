"""Causal attention as torch computes it, for a model of width 512: 8 heads of 64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from peers import inputs

HEADS, HEAD = 8, 64


def op(length: int, backward: bool) -> Callable[[], Any]:
    """`scaled_dot_product_attention` in float32, with its gradients if `backward`."""
    r = inputs.rng("attention", length)
    q, k, v, dy = (torch.from_numpy(r.normal(size=(1, HEADS, length, HEAD)).astype("float32")) for _ in range(4))
    attend = torch.nn.functional.scaled_dot_product_attention
    if not backward:

        def forward() -> Any:
            with torch.no_grad():
                return attend(q, k, v, is_causal=True)

        return forward
    leaves = [a.requires_grad_(True) for a in (q, k, v)]
    return lambda: torch.autograd.grad(attend(*leaves, is_causal=True), leaves, dy)
