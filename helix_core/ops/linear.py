"""Affine map."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from helix_core.ops.op import Array, Sample, Shape, define_op


def _shapes(x: Shape, weight: Shape, bias: Shape | None) -> tuple[Shape, ...]:
    return ((*x[:-1], weight[0]),)


def _samples(rng: Any) -> Iterator[Sample]:
    for lead, d_in, d_out, bias in (((2, 5), 7, 3, True), ((1,), 1, 1, False), ((3, 4, 2), 16, 33, True)):
        arrays = {"x": rng.normal(size=(*lead, d_in)), "weight": rng.normal(size=(d_out, d_in))}
        yield Sample(arrays | ({"bias": rng.normal(size=d_out)} if bias else {}))


def _flops(x: Shape, weight: Shape, bias: Shape | None) -> float:
    return 2.0 * math.prod(x) * weight[0]


@define_op(shapes=_shapes, samples=_samples, flops=_flops)
def linear(xp: Any, x: Array, weight: Array, bias: Array | None = None) -> Array:
    """x Wᵀ + b over the last axis: (..., D_in), (D_out, D_in), (D_out,) -> (..., D_out).

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> F.linear(np.ones((2, 3)), np.ones((4, 3))).shape
    (2, 4)
    """
    y = xp.matmul(x, xp.matrix_transpose(weight))
    return y if bias is None else y + bias
