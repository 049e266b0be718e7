"""The recurrence S <- diag(w) S + b (Sᵀa)ᵀ + k vᵀ on torch tensors; RWKV-7 and the gated delta rule are made of it.

Source: Peng et al., RWKV-7 "Goose" with Expressive Dynamic State Evolution, 2025.
"""

from __future__ import annotations

import torch
from torch import Tensor

from helix_plugin_cpu.kernels._arguments import Shape, address
from helix_plugin_cpu.kernels._delta_backward import backward_scratch, delta_backward_jobs
from helix_plugin_cpu.kernels._delta_forward import PAIR, delta_forward_jobs, forward_scratch, tile_steps
from helix_plugin_cpu.kernels._threads import launch


def kept_shape(r: Shape, v: Shape) -> Shape:
    """The states in front of every tile, as one axis."""
    batch, length, heads, keys = r
    tile = tile_steps(keys, v[3])
    return (batch * heads * ((length + tile - 1) // tile) * keys * v[3],)


def run_forward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor,
    initial: Tensor | None, resets: Tensor | None, ends: Tensor, kept: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Dense r, w, k, a, b (B, L, H, K), v (B, L, H, V) -> y (B, L, H, V), last state (B, H, K, V)."""
    batch, length, heads, keys = r.shape
    values = v.shape[3]
    y, last = torch.empty(v.shape), torch.empty(batch, heads, keys, values)
    launch(
        delta_forward_jobs, batch * heads * -(-values // PAIR), 5 * batch * length * heads * keys * values // 4,
        forward_scratch(keys), *(address(x) for x in (r, w, k, v, a, b, initial, resets, ends, y, last, kept)),
        length, heads, keys, values, tile_steps(keys, values),
    )  # fmt: skip
    return y, last


def run_backward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor,
    dy: Tensor, dlast: Tensor | None, resets: Tensor | None, ends: Tensor, kept: Tensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of r, w, k, v, a, b and of the initial state."""
    batch, length, heads, keys = r.shape
    values, tile = v.shape[3], tile_steps(keys, v.shape[3])
    grads = tuple(torch.empty(x.shape) for x in (r, w, k, v, a, b))
    dinitial = torch.empty(batch, heads, keys, values)
    launch(
        delta_backward_jobs, batch * heads, 5 * batch * length * heads * keys * values,
        backward_scratch(keys, values, tile),
        *(address(x) for x in (r, w, k, v, a, b, dy, dlast, resets, ends, kept, *grads, dinitial)),
        length, heads, keys, values, tile,
    )  # fmt: skip
    return (*grads, dinitial)
