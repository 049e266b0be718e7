"""The forward pass of the selective scan in NumPy: `chunked_scan.forward` in buffers that stay in a cache."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from helix_plugin_metal.host import numbers
from helix_plugin_metal.kernels._chunked_scan import pieces

Array = Any


def forward(
    u: Array, delta: Array, A: Array, B: Array, C: Array, start: Array, reset: Array | None
) -> tuple[Array, Array, Array] | None:
    """What `chunked_scan.forward` returns; None where `numbers` has none."""
    given = numbers(u, delta, A, B, C, start, *(() if reset is None else (reset,)))
    if given is None:
        return None
    u, delta, A, B, C, start, *marks = given
    batch, length, channels = u.shape
    chunks = pieces(u.shape, A.shape[1])
    rates, h = np.ascontiguousarray(A.T), np.swapaxes(start, 1, 2).copy()
    y, starts = np.empty((length, batch, channels), np.float32), np.empty((len(chunks), *h.shape), np.float32)
    decays, states = np.empty((2, chunks[0].stop, *h.shape), np.float32)
    with np.errstate(all="ignore"):
        for index, piece in enumerate(chunks):
            starts[index] = h
            dt, x, b, c = (np.swapaxes(a[:, piece], 0, 1) for a in (delta, u, B, C))
            decay, after = decays[: len(dt)], states[: len(dt)]
            np.exp(np.multiply(dt[:, :, None, :], rates, out=decay), out=decay)
            np.multiply((dt * x)[:, :, None, :], b[..., None], out=after)
            new = np.swapaxes(marks[0][:, piece], 0, 1)[:, :, None, None] if marks else None
            for t in range(len(dt)):
                if new is not None:
                    h = np.where(new[t], np.float32(0), h)
                after[t] += np.multiply(decay[t], h, out=decay[t])
                h = after[t]
            h = h.copy()  # the next chunk's states take its place
            np.matmul(c[:, :, None, :], after, out=y[piece, :, None, :])
    return mx.array(np.swapaxes(y, 0, 1)), mx.array(np.swapaxes(h, 1, 2)), mx.array(starts)
