"""Mamba's scan: Metal kernels on Apple's GPUs, chunks of steps elsewhere, forwards in NumPy on MLX's CPU device.

The backward pass computes the states again.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from helix_plugin_metal.kernels import _chunked_scan as chunked_scan
from helix_plugin_metal.kernels import _host_scan as host_scan
from helix_plugin_metal.kernels import _metal_scan as metal_scan
from helix_plugin_metal.kernels._checked import on_metal_gpu, right_here
from helix_plugin_metal.kernels.silu import silu
from helix_plugin_metal.kernels.softplus import softplus
from helix_plugin_metal.selection import where

Array = Any


def selective_scan(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array | None = None,
    z: Array | None = None,
    delta_bias: Array | None = None,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    *,
    delta_softplus: bool = False,
) -> tuple[Array, Array]:
    """The op `selective_scan`."""
    batch, length, channels = u.shape
    real = None
    if lengths is not None:
        real = (mx.arange(length) < lengths[:, None])[..., None]
        u, delta, B, C = (where(real, a, 0) for a in (u, delta, B, C))
        z = None if z is None else where(real, z, 0)
    if delta_bias is not None:
        delta = delta + delta_bias
    if delta_softplus:
        delta = softplus(delta)
    start = mx.zeros((batch, channels, A.shape[1]), u.dtype) if initial_state is None else initial_state
    if length == 0:
        return mx.zeros_like(u), start
    if real is not None:
        # Padding is a step of length 0 without an input.
        delta = where(real, delta, 0)
        reset = None if reset is None else mx.logical_and(reset, real[..., 0])
    y, last, _ = _scan(u, delta, A, B, C, start, *(() if reset is None else (reset,)))
    if D is not None:
        y = y + u * D
    if z is not None:
        y = y * silu(z)
    return (y if real is None else where(real, y, 0)), last


@mx.custom_function
def _scan(u: Array, delta: Array, A: Array, B: Array, C: Array, start: Array, *reset: Array) -> tuple[Array, ...]:
    """y (B, L, D) of C and the states alone, the last state (B, D, N), and what the backward pass starts from."""
    how, given = _how(A), (u, delta, A, B, C, start, *(reset or (None,)))
    found = host_scan.forward(*given) if how is chunked_scan else None
    return how.forward(*given) if found is None else found


@_scan.vjp
def _scan_backward(primals: Any, gradients: Any, outputs: Any) -> tuple[Array, ...]:
    u, delta, A, B, C, _start, *reset = primals
    to_y, to_last, _ = gradients
    found = _how(A).backward(u, delta, A, B, C, outputs[2], *(reset or (None,)), to_y, to_last)
    return *found, *(mx.zeros_like(r) for r in reset)


def _how(A: Array) -> Any:
    """The module that does the work."""
    return metal_scan if A.shape[1] <= metal_scan.MOST_STATES and metal_works() else chunked_scan


def metal_works() -> bool:
    """Whether MLX runs on a GPU through Metal, and the kernels are right on it."""
    return on_metal_gpu() and right_here("selective_scan", kernels_agree)


def kernels_agree() -> bool:
    """Whether the Metal kernels give, for a small input, what the array operations give."""
    shapes = [(2, 40, 70), (2, 40, 70), (70, 5), (2, 40, 5), (2, 40, 5), (2, 70, 5), (2, 40, 70), (2, 70, 5), (2, 40)]
    keys = mx.random.split(mx.random.key(0), len(shapes))
    arrays = [mx.random.normal(shape, key=key) for shape, key in zip(shapes, keys, strict=True)]
    u, delta, A, B, C, start, to_y, to_last, chance = arrays
    scanned, reset = (u, mx.abs(delta), -mx.abs(A), B, C), chance > 1
    results = []
    for how in (metal_scan, chunked_scan):
        y, last, starts = how.forward(*scanned, start, reset)
        results.append((y, last, *how.backward(*scanned, starts, reset, to_y, to_last)))
    close = [mx.max(mx.abs(a - b)) <= 1e-4 * mx.max(mx.abs(b)) for a, b in zip(*results, strict=True)]
    return bool(mx.all(mx.stack(close)))
