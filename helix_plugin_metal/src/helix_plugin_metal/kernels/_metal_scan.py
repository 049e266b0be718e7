"""The selective scan as Metal kernels: a thread for each channel of each row goes through time with its states at hand.

Not yet run on a GPU by us: one uses them only after they gave on it, for a small input, what array operations give.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import mlx.core as mx

Array = Any
CHUNK = 16
"""Steps between the states that are kept for the backward pass."""
MOST_STATES = 32
"""What a thread has room for."""
LANES = 32
"""Threads of a SIMD group, whose values one instruction adds."""

READ = """
const uint d = thread_position_in_grid.x, b = thread_position_in_grid.y;
const int L = u_shape[1], D = u_shape[2];
float h[N], rate[N];
for (int n = 0; n < N; ++n) {
    rate[n] = A[d * N + n];
}
"""

FORWARD = (
    READ
    + """
for (int n = 0; n < N; ++n) {
    h[n] = start[(b * D + d) * N + n];
}
const int chunks = (L + CHUNK - 1) / CHUNK;
for (int t = 0; t < L; ++t) {
    const size_t row = size_t(b) * L + t, at = row * D + d;
    if (t % CHUNK == 0) {
        const size_t kept = ((size_t(b) * chunks + t / CHUNK) * D + d) * N;
        for (int n = 0; n < N; ++n) {
            starts[kept + n] = h[n];
        }
    }
    const float dt = delta[at], x = dt * u[at];
    const bool fresh = RESET && reset[row];
    float sum = 0;
    for (int n = 0; n < N; ++n) {
        h[n] = metal::exp(dt * rate[n]) * (fresh ? 0.0f : h[n]) + x * B[row * N + n];
        sum += h[n] * C[row * N + n];
    }
    y[at] = sum;
}
for (int n = 0; n < N; ++n) {
    last[(b * D + d) * N + n] = h[n];
}
"""
)
"""One thread: y (B, L, D), last (B, D, N), starts (B, chunks, D, N)."""

BACKWARD = (
    READ
    + """
const int groups = (D + LANES - 1) / LANES;
float g[N], to_rate[N], before[CHUNK][N];
for (int n = 0; n < N; ++n) {
    g[n] = to_last[(b * D + d) * N + n];
    to_rate[n] = 0;
}
const int chunks = (L + CHUNK - 1) / CHUNK;
for (int chunk = chunks - 1; chunk >= 0; --chunk) {
    const int begin = chunk * CHUNK, steps = metal::min(CHUNK, L - begin);
    const size_t kept = ((size_t(b) * chunks + chunk) * D + d) * N;
    for (int n = 0; n < N; ++n) {
        h[n] = starts[kept + n];
    }
    for (int t = 0; t < steps; ++t) {
        const size_t row = size_t(b) * L + begin + t, at = row * D + d;
        const float dt = delta[at], x = dt * u[at];
        const bool fresh = RESET && reset[row];
        for (int n = 0; n < N; ++n) {
            before[t][n] = fresh ? 0.0f : h[n];
            h[n] = metal::exp(dt * rate[n]) * before[t][n] + x * B[row * N + n];
        }
    }
    for (int t = steps - 1; t >= 0; --t) {
        const size_t row = size_t(b) * L + begin + t, at = row * D + d;
        const float dt = delta[at], x = dt * u[at], out = to_y[at];
        const bool fresh = RESET && reset[row];
        float to_x = 0, to_dt = 0;
        for (int n = 0; n < N; ++n) {
            const float into = B[row * N + n], decay = metal::exp(dt * rate[n]);
            g[n] += out * C[row * N + n];
            const float part_b = metal::simd_sum(g[n] * x);
            const float part_c = metal::simd_sum(out * (decay * before[t][n] + x * into));
            if (thread_index_in_simdgroup == 0) {
                const size_t part = (row * N + n) * groups + d / LANES;
                to_b[part] = part_b;
                to_c[part] = part_c;
            }
            const float to_exponent = g[n] * before[t][n] * decay;
            to_x += g[n] * into;
            to_dt += to_exponent * rate[n];
            to_rate[n] += to_exponent * dt;
            g[n] = fresh ? 0.0f : decay * g[n];
        }
        to_u[at] = to_x * dt;
        to_delta[at] = to_x * u[at] + to_dt;
    }
}
for (int n = 0; n < N; ++n) {
    to_start[(b * D + d) * N + n] = g[n];
    to_a[(b * D + d) * N + n] = to_rate[n];
}
"""
)
"""One thread; to_b and to_c (B, L, N, groups) are sums over a SIMD group's channels, to_a (B, D, N) over steps."""


def forward(
    u: Array, delta: Array, A: Array, B: Array, C: Array, start: Array, reset: Array | None
) -> tuple[Array, Array, Array]:
    """y (B, L, D), the last state (B, D, N) and the states that chunks start from (B, chunks, D, N)."""
    batch, length, channels = u.shape
    states = A.shape[1]
    kept = (batch, -(-length // CHUNK), channels, states)
    y, last, starts = _launch("forward", [u, delta, A, B, C, start], reset, [u.shape, start.shape, kept])
    return y, last, starts


def backward(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    starts: Array,
    reset: Array | None,
    to_y: Array,
    to_last: Array,
) -> tuple[Array, ...]:
    """The gradients of u, delta, A, B, C and the first state."""
    parts = (*B.shape, -(-u.shape[2] // LANES))
    shapes = [u.shape, u.shape, to_last.shape, parts, parts, to_last.shape]
    to_u, to_delta, to_a, to_b, to_c, to_start = _launch(
        "backward", [u, delta, A, B, C, starts, to_y, to_last], reset, shapes
    )
    return to_u, to_delta, to_a.sum(axis=0), to_b.sum(axis=-1), to_c.sum(axis=-1), to_start


@functools.cache
def _kernel(which: str) -> Callable[..., list[Array]]:
    inputs = ["u", "delta", "A", "B", "C"]
    if which == "forward":
        names, outputs, source = [*inputs, "start", "reset"], ["y", "last", "starts"], FORWARD
    else:
        names = [*inputs, "starts", "to_y", "to_last", "reset"]
        outputs, source = ["to_u", "to_delta", "to_a", "to_b", "to_c", "to_start"], BACKWARD
    kernel: Callable[..., list[Array]] = mx.fast.metal_kernel(
        name=f"helix_selective_scan_{which}", input_names=names, output_names=outputs, source=source
    )
    return kernel


def _launch(which: str, arrays: list[Array], reset: Array | None, shapes: list[tuple[int, ...]]) -> list[Array]:
    batch, _, channels = arrays[0].shape
    return _kernel(which)(
        inputs=[*arrays, mx.zeros((1,), mx.bool_) if reset is None else reset],
        template=[("N", arrays[2].shape[1]), ("CHUNK", CHUNK), ("LANES", LANES), ("RESET", reset is not None)],
        grid=(channels, batch, 1),
        threadgroup=(min(-(-channels // LANES) * LANES, 256), 1, 1),
        output_shapes=shapes,
        output_dtypes=[mx.float32] * len(shapes),
    )
