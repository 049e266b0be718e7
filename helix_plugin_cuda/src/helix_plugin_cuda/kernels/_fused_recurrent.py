"""A few steps of linear attention and its relatives, one after another in a single launch: what decoding does.

The state stays in registers, all keys and some values of a head in each program; its reading and writing is nearly all
the traffic, and nothing is padded to a tile. Gates, rates, resets and padding are the op's own inputs, so no pass goes
before. Under `gated_linear_attention`, `ssd`, `gated_delta_rule` and `rwkv7`.

B sequences, L positions, H heads, G heads of queries and keys, K and V widths of a key and a value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from helix_plugin_cuda.kernels._arguments import ends, flags, strides
from helix_plugin_cuda.kernels._chunks import fresh, limit
from helix_plugin_cuda.kernels._launch import blocks, launch, power, wide
from helix_plugin_cuda.kernels._linear_attention import _row
from helix_plugin_cuda.kernels._math import softplus
from helix_plugin_cuda.kernels._tune import Way, chosen, size_class
from helix_plugin_torch.arguments import dense, rows

MOST_STEPS = 8
"""Most steps that are taken so; more of them go in tiles."""
WAYS = tuple({"elements": e, "warps": w} for e, w in ((2048, 1), (1024, 1), (4096, 2), (4096, 4), (8192, 4)))
"""Elements of state that a program holds (keys times values), and its warps."""


@triton.jit
def fused_recurrent_kernel(
    q, k, v, g, a, b, rate, A, bias, skip, initial, reset, lengths, y, last, L, H, K, V, scale, low, high,
    qb, qt, qh, kb, kt, kh, vb, vt, vh, ab, at, ah, bb, bt, bh, rb, rt, gb, gt, gh, gc,
    SHARED: tl.constexpr, SOFTPLUS: tl.constexpr, KEYS: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """With A, `rate` is Δ of `ssd`; without, β of the delta rule."""
    pieces = tl.cdiv(V, VALUES)
    program = wide(tl.program_id(0))
    head = program // pieces
    row, h = head // H, head % H
    end = limit(lengths, row, L)
    c = tl.arange(0, KEYS)
    w = (program % pieces) * VALUES + tl.arange(0, VALUES)
    inside = (c < K)[:, None] & (w < V)[None, :]
    held = head * K * V + c[:, None] * V + w[None, :]
    state = tl.zeros([KEYS, VALUES], tl.float32)
    if initial is not None:
        state = tl.load(initial + held, mask=inside, other=0.0).to(tl.float32)
    for step in range(L):
        t = wide(step)
        real = t < end
        state = tl.where(fresh(reset, row, t, L, real), 0.0, state)
        asked = _row(q, qb, qt, qh, row, t, h // SHARED, c, K, end) * scale
        key = _row(k, kb, kt, kh, row, t, h // SHARED, c, K, end)
        x = _row(v, vb, vt, vh, row, t, h, w, V, end)
        value = x
        if A is not None:
            delta = tl.load(rate + row * rb + t * rt + h).to(tl.float32)
            if bias is not None:
                delta += tl.load(bias + h).to(tl.float32)
            if SOFTPLUS:
                delta = softplus(delta)
            delta = tl.maximum(delta, low, propagate_nan=tl.PropagateNan.ALL)
            delta = tl.minimum(delta, high, propagate_nan=tl.PropagateNan.ALL)
            value = delta * x
            following = tl.exp(delta * tl.load(A + h).to(tl.float32)) * state
        else:
            gate = tl.load(g + row * gb + t * gt + h * gh + c * gc, mask=c < K, other=0.0).to(tl.float32)
            following = tl.exp(gate)[:, None] * state
        if a is not None:
            mover = _row(a, ab, at, ah, row, t, h, c, K, end)
            adder = _row(b, bb, bt, bh, row, t, h, c, K, end)
            following += adder[:, None] * tl.sum(mover[:, None] * state, axis=0)[None, :]
        if A is None:
            if rate is not None:
                found = tl.sum(key[:, None] * following, axis=0)
                value = tl.load(rate + row * rb + t * rt + h).to(tl.float32) * (x - found)
        following += key[:, None] * value[None, :]
        state = tl.where(real, following, state)
        out = tl.sum(asked[:, None] * state, axis=0)
        if skip is not None:
            out += tl.load(skip + h).to(tl.float32) * x
        tl.store(y + ((row * L + t) * H + h) * V + w, tl.where(real, out, 0.0), mask=w < V)
    tl.store(last + held, state, mask=inside)


@dataclass(frozen=True)
class Steps:
    """Inputs of a few steps, checked.

    q, k       (B, L, G, K), G a divisor of H
    v          (B, L, H, V)
    log_decay  (B, L, H, K) or 1 in any of its axes; None beside A
    a, b       (B, L, H, K) of `rwkv7`
    rate       (B, L, H), A (H,), bias (H,): Δ of `ssd`; without A, β of the delta rule
    skip       (H,) that adds skip_h v
    initial    (B, H, K, V); reset (B, L); lengths (B,)
    """

    q: Tensor
    k: Tensor
    v: Tensor
    dtype: torch.dtype
    log_decay: Tensor | None = None
    a: Tensor | None = None
    b: Tensor | None = None
    rate: Tensor | None = None
    A: Tensor | None = None
    bias: Tensor | None = None
    skip: Tensor | None = None
    initial: Tensor | None = None
    reset: Tensor | None = None
    lengths: Tensor | None = None
    scale: float = 1.0
    softplus: bool = False
    low: float = 0.0
    high: float = math.inf


def fused_recurrent(p: Steps) -> tuple[Tensor, Tensor]:
    """y (B, L, H, V) and the last state (B, H, K, V) float32."""
    (B, L, H, V), K = p.v.shape, p.k.shape[3]
    kind = (p.a is not None, p.A is not None, p.rate is not None)
    shape_class = (size_class(B), L, H, H // p.k.shape[2], K, V, *kind, p.v.dtype)
    return _run(p, chosen("a few steps", shape_class, WAYS, lambda way: _run(p, way)))


def _run(p: Steps, way: Way) -> tuple[Tensor, Tensor]:
    (B, L, H, V), K = p.v.shape, p.k.shape[3]
    y = torch.empty(B, L, H, V, dtype=p.dtype, device=p.v.device)
    last = torch.empty(B, H, K, V, dtype=torch.float32, device=p.v.device)
    keys = power(K)
    values = min(power(V), max(8, way["elements"] // keys))
    rate = rows(p.rate)
    launch(
        fused_recurrent_kernel, (B * H * blocks(V, values),),
        p.q, p.k, p.v, p.log_decay, p.a, p.b, rate, dense(p.A), dense(p.bias), dense(p.skip), dense(p.initial),
        flags(p.reset), ends(p.lengths, L), y, last, L, H, K, V, p.scale, p.low, p.high,
        *(s for array in (p.q, p.k, p.v, p.a, p.b) for s in strides(array, 3)), *strides(rate),
        *_broadcast(p.log_decay),
        SHARED=H // p.k.shape[2], SOFTPLUS=p.softplus, KEYS=keys, VALUES=values,
        num_warps=way["warps"], num_stages=1,
    )  # fmt: skip
    return y, last


def _broadcast(array: Tensor | None) -> tuple[int, ...]:
    """Strides of four axes, 0 along those of size 1."""
    if array is None:
        return (0,) * 4
    return tuple(0 if size == 1 else step for size, step in zip(array.shape, array.stride(), strict=True))
