"""The recurrence S <- diag(w) S + b (Sᵀa)ᵀ + k vᵀ on torch tensors; RWKV-7 and the gated delta rule are made of it.

Source: Peng et al., RWKV-7 "Goose" with Expressive Dynamic State Evolution, 2025.
"""

from __future__ import annotations

import torch
from torch import Tensor

from helix_plugin_cpu.kernels._arguments import address, empty
from helix_plugin_cpu.kernels._dplr_delta_backward import backward_scratch, delta_backward_jobs
from helix_plugin_cpu.kernels._dplr_delta_forward import PAIR, delta_forward_jobs, forward_scratch, tile_steps
from helix_plugin_cpu.kernels._storage import kind
from helix_plugin_cpu.kernels._threads import launch
from helix_plugin_torch.arguments import Shape


def decays(log_decay: Tensor, lengths: Tensor | None) -> Tensor:
    """exp(log_decay) (B, L, ...), 0 at padding: a gradient of 0 times what padding holds need not be 0."""
    decay = log_decay.exp()
    if lengths is None:
        return decay
    real = torch.arange(decay.shape[1], dtype=torch.int64, device=decay.device) < lengths[:, None]
    return torch.where(real.reshape(*real.shape, *(1,) * (decay.ndim - 2)), decay, 0.0)


def kept_shape(r: Shape, v: Shape) -> Shape:
    """The states in front of every tile, as one axis."""
    batch, length, heads, keys = r
    tile = tile_steps(keys, v[3])
    return (batch * heads * ((length + tile - 1) // tile) * keys * v[3],)


def run_forward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor | None, b: Tensor,
    initial: Tensor | None, resets: Tensor | None, ends: Tensor, kept: Tensor | None, scale: float = 1.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Dense r, w, k, a, b (B, L, H, K), v (B, L, H, V) -> y (B, L, H, V), last state (B, H, K, V).

    Without a, r and k (B, L, G, K) are queries and keys of the gated delta rule, w and b (B, L, H) decays and β.
    """
    batch, length, groups, keys = r.shape
    heads, values = v.shape[2:]
    y, last = empty(v.shape, dtype=v.dtype), empty(batch, heads, keys, values)
    launch(
        delta_forward_jobs, batch * heads * -(-values // PAIR), 5 * batch * length * heads * keys * values // 4,
        forward_scratch(keys), kind(r, k, v), *(address(x) for x in (r, w, k, v, a, b)),
        *(address(x) for x in (initial, resets, ends, y, last, kept)),
        length, heads, groups, keys, values, tile_steps(keys, values), float(scale),
    )  # fmt: skip
    return y, last


def run_backward(
    r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor | None, b: Tensor,
    dy: Tensor, dlast: Tensor | None, resets: Tensor | None, ends: Tensor, kept: Tensor, scale: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor, Tensor]:  # fmt: skip
    """Gradients of r, w, k, v, a, b and of the initial state.

    Without a, those of r and k are of every head, (B, L, H, K) float32.
    """
    batch, length, groups, keys = r.shape
    heads, values = v.shape[2:]
    tile = tile_steps(keys, values)
    dw, dv, db = (empty(x.shape, dtype=x.dtype) for x in (w, v, b))
    da = None if a is None else empty(a.shape, dtype=a.dtype)
    each = (batch, length, heads, keys)
    dr, dk = (empty(each, dtype=torch.float32 if a is None else x.dtype) for x in (r, k))
    dinitial = empty(batch, heads, keys, values)
    launch(
        delta_backward_jobs, batch * heads, 5 * batch * length * heads * keys * values,
        backward_scratch(keys, values, tile), kind(r, k, v, dy),
        *(address(x) for x in (r, w, k, v, a, b, dy, dlast, resets, ends, kept)),
        *(address(x) for x in (dr, dw, dk, dv, da, db, dinitial)),
        length, heads, groups, keys, values, tile, float(scale),
    )  # fmt: skip
    return dr, dw, dk, dv, da, db, dinitial
