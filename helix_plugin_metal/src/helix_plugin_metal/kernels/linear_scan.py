"""First-order recurrences: one thread for each channel on a GPU, two operations for each step on MLX's CPU device."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import mlx.core as mx

from helix_plugin_metal.kernels._checked import on_metal_gpu, right_here
from helix_plugin_metal.selection import where

Array = Any

SOURCE = """
const uint d = thread_position_in_grid.x, b = thread_position_in_grid.y;
const int L = x_shape[1], D = x_shape[2];
float h = start[b * D + d];
for (int t = 0; t < L; ++t) {
    const size_t row = size_t(b) * L + t, at = row * D + d;
    h = a[at] * (RESET && reset[row] ? 0.0f : h) + x[at];
    y[at] = h;
}
"""
"""One thread: y (B, L, D)."""


def linear_scan(
    a: Array,
    x: Array,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
) -> tuple[Array, Array]:
    """The op `linear_scan`; the backward pass is the same recurrence from the end."""
    batch, length, channels = x.shape
    start = mx.zeros((batch, channels), x.dtype) if initial_state is None else initial_state
    if length == 0:
        return x, start
    real = None
    if lengths is not None:
        # Padding keeps the state.
        real = (mx.arange(length) < lengths[:, None])[..., None]
        a, x = where(real, a, 1), where(real, x, 0)
        reset = None if reset is None else mx.logical_and(reset, real[..., 0])
    y = _scan(mx.broadcast_to(a, x.shape), x, start, *(() if reset is None else (reset,)))
    return (y if real is None else where(real, y, 0)), y[:, -1]


@mx.custom_function
def _scan(a: Array, x: Array, start: Array, *reset: Array) -> Array:
    return _run(a, x, start, *(reset or (None,)))


@_scan.vjp
def _scan_backward(primals: Any, to_y: Array, y: Array) -> tuple[Array, ...]:
    a, _x, start, *reset = primals
    # g_t, the gradient of the state after step t, is to_y_t + a_{t+1} g_{t+1}, unless a document starts at t+1.
    following = mx.concatenate([a[:, 1:], mx.zeros_like(a[:, :1])], axis=1)
    cut = None
    if reset:
        cut = mx.concatenate([reset[0][:, 1:], mx.zeros_like(reset[0][:, :1])], axis=1)
        following = mx.where(cut[..., None], 0, following)  # it may be NaN, and 0 times it too
        cut = cut[:, ::-1]
    g = _run(following[:, ::-1], to_y[:, ::-1], mx.zeros_like(start), cut)[:, ::-1]
    before = mx.concatenate([start[:, None], y[:, :-1]], axis=1)
    to_start = a[:, 0] * g[:, 0]
    if reset:
        before = mx.where(reset[0][..., None], 0, before)
        to_start = mx.where(reset[0][:, :1], 0, to_start)
    return g * before, g, to_start, *(mx.zeros_like(r) for r in reset)


def _run(a: Array, x: Array, start: Array, reset: Array | None) -> Array:
    return in_metal(a, x, start, reset) if metal_works() else in_steps(a, x, start, reset)


def in_steps(a: Array, x: Array, start: Array, reset: Array | None) -> Array:
    """h_t = a_t h_{t-1} + x_t, the state of 0 where `reset` is True: (B, L, D) and (B, D) -> (B, L, D)."""
    h, states = start, []
    new = None if reset is None else mx.unstack(reset[..., None], axis=1)
    for t, (decay, added) in enumerate(zip(mx.unstack(a, axis=1), mx.unstack(x, axis=1), strict=True)):
        if new is not None:
            h = mx.where(new[t], 0, h)
        h = decay * h + added
        states.append(h)
    return mx.stack(states, axis=1)


@functools.cache
def _kernel() -> Callable[..., list[Array]]:
    kernel: Callable[..., list[Array]] = mx.fast.metal_kernel(
        name="helix_linear_scan", input_names=["a", "x", "start", "reset"], output_names=["y"], source=SOURCE
    )
    return kernel


def in_metal(a: Array, x: Array, start: Array, reset: Array | None) -> Array:
    """The same as a Metal kernel."""
    batch, _, channels = x.shape
    (y,) = _kernel()(
        inputs=[a, x, start, mx.zeros((1,), mx.bool_) if reset is None else reset],
        template=[("RESET", reset is not None)],
        grid=(channels, batch, 1),
        threadgroup=(min(-(-channels // 32) * 32, 256), 1, 1),
        output_shapes=[x.shape],
        output_dtypes=[mx.float32],
    )
    return y


def metal_works() -> bool:
    """Whether MLX runs on a GPU through Metal, and the kernel is right on it."""
    return on_metal_gpu() and right_here("linear_scan", kernels_agree)


def kernels_agree() -> bool:
    """Whether the Metal kernel gives, for a small input, what the array operations give."""
    keys = mx.random.split(mx.random.key(0), 4)
    a, x = (mx.random.uniform(shape=(2, 40, 70), key=key) for key in keys[:2])
    start, reset = mx.random.normal((2, 70), key=keys[2]), mx.random.uniform(shape=(2, 40), key=keys[3]) < 0.1
    pairs = [(in_metal(a, x, start, new), in_steps(a, x, start, new)) for new in (None, reset)]
    return all(mx.allclose(ours, theirs, rtol=1e-4, atol=1e-4).item() for ours, theirs in pairs)
