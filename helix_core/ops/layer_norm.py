"""Layer normalisation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from helix_core.ops.op import Array, Sample, Shape, define_op


def _shapes(x: Shape, weight: Shape, bias: Shape | None, *, eps: float) -> tuple[Shape, ...]:
    return (x,)


def _samples(rng: Any) -> Iterator[Sample]:
    for shape, bias in (((2, 5, 8), True), ((1, 1, 6), False), ((3, 7, 33), True)):
        arrays = {"x": rng.normal(size=shape), "weight": rng.normal(size=shape[-1])}
        yield Sample(arrays | ({"bias": rng.normal(size=shape[-1])} if bias else {}))


@define_op(shapes=_shapes, samples=_samples)
def layer_norm(xp: Any, x: Array, weight: Array, bias: Array | None = None, *, eps: float = 1e-5) -> Array:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axis: (..., D) -> (..., D).

    Source: Ba, Kiros and Hinton, Layer Normalization, 2016.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> F.layer_norm(np.array([[3.0, -1.0]]), np.ones(2)).round(3).tolist()
    [[1.0, -1.0]]
    """
    centred = x - xp.mean(x, axis=-1, keepdims=True)
    y = centred / xp.sqrt(xp.mean(centred * centred, axis=-1, keepdims=True) + eps) * weight
    return y if bias is None else y + bias
