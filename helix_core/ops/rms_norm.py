"""Root-mean-square normalisation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from helix_core.ops.op import Array, Sample, Shape, define_op


def _shapes(x: Shape, weight: Shape, *, eps: float) -> tuple[Shape, ...]:
    return (x,)


def _samples(rng: Any) -> Iterator[Sample]:
    for shape in ((2, 5, 8), (3, 7, 33)):
        yield Sample({"x": rng.normal(size=shape), "weight": rng.normal(size=shape[-1])})
    # The gradient of one channel is eps / (x² + eps)^1.5, the difference of two terms of the size of 1 / x.
    yield Sample({"x": rng.uniform(0.5, 2, size=(1, 1, 1)), "weight": rng.normal(size=1)}, label="one channel")
    yield Sample({"x": rng.normal(size=(2, 3, 8)) * 1e-4, "weight": rng.normal(size=8)}, label="tiny values")


@define_op(shapes=_shapes, samples=_samples)
def rms_norm(xp: Any, x: Array, weight: Array, *, eps: float = 1e-5) -> Array:
    """x / sqrt(mean(x²) + eps) * weight over the last axis: (..., D), (D,) -> (..., D).

    Source: Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> F.rms_norm(np.array([[3.0, -4.0]]), np.ones(2)).round(3).tolist()
    [[0.849, -1.131]]
    """
    return x / xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + eps) * weight
