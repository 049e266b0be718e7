"""BitNet's linear map: ternary weights of two bits, activations of eight."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from helix_core.errors import UsageError
from helix_core.ops.op import Array, Sample, Shape, define_op

LEVELS = 127
"""The largest activation of a row becomes this whole number."""
SMALLEST = 1e-5
"""Rows whose largest activation is smaller are scaled as if it were this."""


def check_shapes(x: Shape, packed: Shape) -> None:
    """Raises UsageError unless `packed` holds the weights of a map from the last axis of x."""
    if len(packed) != 2 or not x or not x[-1] or packed[1] != -(-x[-1] // 4):
        raise UsageError(
            f"packed weights of shape {tuple(packed)} do not fit activations of shape {tuple(x)}",
            hint="the last axis of x must have the columns that `helix_core.ops.ternary.pack_ternary` packed",
        )


def _shapes(x: Shape, packed: Shape, scale: Shape, bias: Shape | None) -> tuple[Shape, ...]:
    return ((*x[:-1], packed[0]),)


def _flops(x: Shape, packed: Shape, scale: Shape, bias: Shape | None) -> float:
    return 2.0 * math.prod(x) * packed[0]


def _samples(rng: Any) -> Iterator[Sample]:
    """Rows whose levels any precision agrees on: far from ties, or exactly on them.

    A value next to a tie may be rounded to either side in float32 and in float64, and both are right; a kernel that
    rounds ties in another direction, or not at all, is wrong.
    """
    import numpy as np

    from helix_core.ops.ternary import pack_ternary

    def weights(rows: int, columns: int, bias: bool) -> dict[str, Any]:
        packed, scale = pack_ternary(rng.normal(size=(rows, columns)))
        return {"packed": packed, "scale": scale} | ({"bias": rng.normal(size=rows)} if bias else {})

    def with_largest(levels: Any) -> Any:
        at = rng.integers(levels.shape[-1], size=(*levels.shape[:-1], 1))
        np.put_along_axis(levels, at, rng.choice([-1.0, 1.0], size=at.shape) * LEVELS, -1)
        return levels

    lead: Shape
    for lead, columns, rows, bias in (((2, 5), 7, 3, True), ((1,), 1, 1, False), ((3, 2), 16, 33, True)):
        levels = rng.integers(-40, 41, size=(*lead, columns)) + rng.uniform(-0.25, 0.25, size=(*lead, columns))
        x = with_largest(levels) * rng.lognormal(size=(*lead, 1))
        yield Sample({"x": x} | weights(rows, columns, bias))
    for lead, columns, rows in (((), 66, 1), ((2,), 301, 5), ((70,), 64, 4), ((1, 1), 1280, 18)):
        quarters = with_largest(rng.integers(-255, 256, size=(*lead, columns)) / 4)
        # Scales that keep sums of 1280 products inside float16.
        x = quarters * 2.0 ** rng.integers(-8, 1, size=(*lead, 1))
        yield Sample({"x": x} | weights(rows, columns, True), label="ties")
    x = with_largest(rng.integers(-LEVELS, LEVELS + 1, size=(3, 9)) * 1.0)
    yield Sample({"x": x * [[0], [1], [0]]} | weights(2, 9, True), label="rows of zeros")
    yield Sample({"x": x[:1] * 4.9e-8} | weights(2, 9, False), label="smaller than the smallest scale")
    flat = weights(6, 12, False)
    yield Sample({"x": with_largest(np.zeros((2, 12)))} | flat | {"scale": flat["scale"][None]}, label="scale (1,)")


@define_op(shapes=_shapes, samples=_samples, flops=_flops, no_grad=("x", "packed", "scale", "bias"))
def bit_linear(xp: Any, x: Array, packed: Array, scale: Array, bias: Array | None = None) -> Array:
    """scale * (levels of x) Wᵀ * max|x| / 127 + b, W of -1, 0 and 1: (..., K), (N, ceil(K / 4)) -> (..., N).

    packed is uint8, laid out as `ops.ternary` says; scale () or (1,) is that of the weights, bias (N,). A row of x
    is rounded to whole numbers, ties to even, the largest of them 127. Sums over K are exact: kernels add integers. For
    inference: it has no gradient. NaN or infinity in a row of x makes the whole row of y NaN. Codes are not checked
    (`unpack_ternary` does).

    Source: Ma et al., The Era of 1-bit LLMs, 2024 (BitNet b1.58). Raises UsageError for shapes that do not fit.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> from helix_core.ops.ternary import pack_ternary
    >>> packed, scale = pack_ternary(np.array([[0.5, -0.5, 0.0, 0.5]]))  # 1, -1, 0, 1 in a byte, and their scale
    >>> F.bit_linear(np.array([[1.0, 2.0, 3.0, 4.0]]), packed, scale).round(2).tolist()
    [[1.12]]
    """
    check_shapes(x.shape, packed.shape)
    largest = xp.max(xp.abs(x), axis=-1, keepdims=True)
    s = LEVELS / xp.clip(largest, min=SMALLEST)
    levels = xp.clip(xp.round(x * s), min=-LEVELS - 1, max=LEVELS)
    codes = xp.concat([packed & 3, (packed >> 2) & 3, (packed >> 4) & 3, (packed >> 6) & 3], axis=1)
    weight = xp.astype(codes[:, : x.shape[-1]], x.dtype) - 1
    y = xp.matmul(levels, xp.matrix_transpose(weight)) * (scale / s)
    return y if bias is None else y + bias
