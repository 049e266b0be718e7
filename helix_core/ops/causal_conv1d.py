"""Short depthwise convolution over time, looking back only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from helix_core.ops.arrays import blank_padding, device_of, valid_steps, zeros
from helix_core.ops.op import Array, Sample, Shape, define_op


def _shapes(
    x: Shape,
    weight: Shape,
    bias: Shape | None,
    initial_state: Shape | None,
    reset: Shape | None,
    lengths: Shape | None,
    *,
    activation: str,
) -> tuple[Shape, ...]:
    return x, (x[0], weight[1] - 1, x[2])


def _samples(rng: Any) -> Iterator[Sample]:
    for (B, L, D), K, activation in (
        ((2, 9, 5), 4, "silu"),
        ((1, 1, 1), 1, "none"),
        ((3, 2, 17), 4, "none"),
        ((2, 33, 16), 3, "silu"),
    ):
        plain = {"x": rng.normal(size=(B, L, D)), "weight": rng.normal(size=(D, K))}
        yield Sample(plain, {"activation": activation})
        full = plain | {"bias": rng.normal(size=D), "initial_state": rng.normal(size=(B, K - 1, D))}
        yield Sample(full, {"activation": activation}, "state")
        ragged = {"reset": rng.random((B, L)) < 0.2, "lengths": rng.integers(L + 1, size=B)}
        yield Sample(full | ragged, {"activation": activation}, "reset and padding")


def _flops(x: Shape, weight: Shape, *rest: Shape | None, activation: str) -> float:
    return 2.0 * math.prod(x) * weight[1]


@define_op(shapes=_shapes, samples=_samples, flops=_flops, outputs=("y", "last_state"), no_grad=("reset", "lengths"))
def causal_conv1d(
    xp: Any,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    *,
    activation: str = "none",
) -> tuple[Array, Array]:
    """Depthwise causal convolution: x (B, L, D), weight (D, K) -> y (B, L, D), last_state (B, K-1, D).

    y_t = activation(bias + Σ_j weight[:, K-1-j] x_{t-j}); `activation` is "none" or "silu".
    initial_state (B, K-1, D) holds the inputs before x, oldest first; last_state holds those before the row's end.
    reset (B, L) is True where a new document starts: nothing before such a step is seen at or after it.
    lengths (B,): steps at or beyond a row's length are padding; their y is 0 and they do not enter the state.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> rng = np.random.default_rng(0)
    >>> y, last_state = F.causal_conv1d(rng.normal(size=(2, 9, 3)), rng.normal(size=(3, 4)))
    >>> y.shape, last_state.shape
    ((2, 9, 3), (2, 3, 3))
    """
    B, L, D = x.shape
    K = weight.shape[1]
    valid = None if lengths is None else valid_steps(xp, L, lengths)
    (x,) = blank_padding(xp, valid, x)
    before = zeros(xp, (B, K - 1, D), x) if initial_state is None else initial_state
    inputs = xp.concat([before, x], axis=1)  # input of step t stands at K-1+t
    ends = None if lengths is None else xp.astype(lengths, xp.int64)
    document = None
    if reset is not None:
        # Document number of every entry of `inputs`; carried-over entries belong to document 0.
        starts = xp.astype(reset, xp.int64)
        document = xp.cumulative_sum(starts, axis=1)
        document = xp.concat([zeros(xp, (B, K - 1), document), document], axis=1)

    y = zeros(xp, (B, L, D), x) if bias is None else zeros(xp, (B, L, D), x) + bias
    for j in range(K):
        tap = inputs[:, K - 1 - j : K - 1 - j + L, :]
        if document is not None:
            same = document[:, K - 1 - j : K - 1 - j + L] == document[:, K - 1 :]
            tap = xp.where(same[..., None], tap, xp.zeros_like(tap))
        y = y + weight[:, K - 1 - j] * tap
    if activation == "silu":
        y = y * (0.5 * xp.tanh(0.5 * y) + 0.5)
    elif activation != "none":
        raise ValueError(f"activation must be 'none' or 'silu', not {activation!r}")
    if ends is None:
        index = xp.arange(L, L + K - 1, dtype=xp.int64, device=device_of(x)) + zeros(xp, (B, 1), _int(xp, x))
    else:
        y = blank_padding(xp, valid, y)[0]
        index = xp.arange(K - 1, dtype=xp.int64, device=device_of(x)) + ends[:, None]
    last = xp.take_along_axis(inputs, xp.broadcast_to(index[..., None], (B, K - 1, D)), axis=1)
    if document is not None:
        end = xp.full((B, 1), L, dtype=xp.int64, device=device_of(x)) if ends is None else ends[:, None]
        current = xp.take_along_axis(document, end + (K - 2), axis=1) if K > 1 else document[:, :1]
        same = xp.take_along_axis(document, index, axis=1) == current
        last = xp.where(same[..., None], last, xp.zeros_like(last))
    return y, last


def _int(xp: Any, like: Array) -> Array:
    """An int64 scalar on the device of `like`, to take a dtype from."""
    return xp.zeros((), dtype=xp.int64, device=device_of(like))
