"""The selective scan in array operations, a chunk of steps at a time."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from helix_plugin_metal.kernels._exponentials import exp_product

Array = Any
CHUNK_NUMBERS = 1 << 18
"""About how many numbers the states of a chunk have: they should stay in a processor's cache."""


def forward(
    u: Array, delta: Array, A: Array, B: Array, C: Array, start: Array, reset: Array | None
) -> tuple[Array, Array, Array]:
    """y (B, L, D), the last state (B, D, N), and the states that chunks start from, for `backward`."""
    rates, h = A.T, mx.swapaxes(start, 1, 2)
    starts: list[Array] = []
    ys: list[Array] = []
    for piece in pieces(u.shape, A.shape[1]):
        starts.append(h)
        dt, x, b, c, new = _cut(piece, ys[-1:], u, delta, B, C, reset)
        _, states = _states(dt, dt * x, rates, b, h, new)
        h = states[-1]
        ys.append((c[:, :, None, :] @ mx.stack(states))[:, :, 0, :])
    return mx.swapaxes(mx.concatenate(ys), 0, 1), mx.swapaxes(h, 1, 2), mx.stack(starts)


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
    rates, g = A.T, mx.swapaxes(to_last, 1, 2)
    to_rates = mx.zeros_like(rates)
    parts: list[tuple[Array, ...]] = []
    chunks = pieces(u.shape, A.shape[1])
    for index in reversed(range(len(chunks))):
        after = [to_rates, *parts[-1]] if parts else []
        dt, x, b, c, new = _cut(chunks[index], after, u, delta, B, C, reset)
        h = starts[index]
        added = dt * x
        decays, states = _states(dt, added, rates, b, h, new)
        before = [h, *states[:-1]]
        out = mx.swapaxes(to_y[:, chunks[index]], 0, 1)[:, :, None, :]
        into = out * c[..., None]
        # g_t: the gradient of the state after step t.
        gs: list[Array] = []
        for t in reversed(range(len(states))):
            gs.append(into[t] + g)
            g = decays[t] * gs[-1]
            if new is not None:
                g, before[t] = mx.where(new[t], 0, g), mx.where(new[t], 0, before[t])
        every = mx.stack(gs[::-1])
        to_added = (b[:, :, None, :] @ every)[:, :, 0, :]
        to_exponent = every * mx.stack(before) * decays
        to_rates = to_rates + mx.sum(to_exponent * dt[:, :, None, :], axis=(0, 1))
        parts.append(
            (
                to_added * dt,
                to_added * x + mx.sum(to_exponent * rates, axis=2),
                mx.sum(every * added[:, :, None, :], axis=-1),
                mx.sum(mx.stack(states) * out, axis=-1),
            )
        )
    to_u, to_delta, to_b, to_c = (mx.swapaxes(mx.concatenate(p), 0, 1) for p in zip(*parts[::-1], strict=True))
    return to_u, to_delta, to_rates.T, to_b, to_c, mx.swapaxes(g, 1, 2)


def pieces(shape: tuple[int, ...], states: int) -> list[slice]:
    """The steps of the chunks."""
    batch, length, channels = shape
    steps = min(max(CHUNK_NUMBERS // max(batch * channels * states, 1), 8), 64)
    return [slice(begin, begin + steps) for begin in range(0, length, steps)]


def _cut(piece: slice, after: list[Array], u: Array, delta: Array, B: Array, C: Array, reset: Array | None) -> Any:
    """The steps of a chunk, time first: its slices are then contiguous.

    Not before `after`, results of the chunk before, is known: in MLX's own order, all chunks' states are kept.
    """
    steps = [mx.swapaxes(a[:, piece], 0, 1) for a in (delta, u, B, C)]
    dt, x, b, c = mx.depends(steps, after) if after else steps
    return dt, x, b, c, None if reset is None else mx.swapaxes(reset[:, piece], 0, 1)[:, :, None, None]


def _states(dt: Array, added: Array, rates: Array, b: Array, h: Array, new: Array | None) -> tuple[Array, list[Array]]:
    """dt, added (T, B, D), rates (N, D), b (T, B, N), h (B, N, D) -> decays (T, B, N, D) and the states after steps.

    Channels come last, so that no operation has a short inner axis.
    """
    decays = exp_product(dt[:, :, None, :], rates)
    inputs = added[:, :, None, :] * b[..., None]
    states = []
    for t in range(dt.shape[0]):
        if new is not None:
            h = mx.where(new[t], 0, h)
        h = decays[t] * h + inputs[t]
        states.append(h)
    return decays, states
