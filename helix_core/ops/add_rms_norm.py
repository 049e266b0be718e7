"""The residual addition together with the normalisation behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from helix_core.ops.op import Array, Sample, Shape, define_op
from helix_core.ops.rms_norm import rms_norm


def _shapes(x: Shape, residual: Shape, weight: Shape, *, eps: float) -> tuple[Shape, ...]:
    return (x, x)


def _samples(rng: Any) -> Iterator[Sample]:
    for shape in ((2, 5, 8), (1, 1, 1), (3, 7, 33)):
        x, residual = rng.normal(size=shape), rng.normal(size=shape)
        if shape[-1] == 1:  # a row that cancels to the size of eps has no digits left
            residual = abs(residual) * (2 * (x > 0) - 1)
        yield Sample({"x": x, "residual": residual, "weight": rng.normal(size=shape[-1])})


@define_op(shapes=_shapes, samples=_samples, outputs=("y", "sum"))
def add_rms_norm(xp: Any, x: Array, residual: Array, weight: Array, *, eps: float = 1e-5) -> tuple[Array, Array]:
    """x, residual (..., D), weight (D,) -> rms_norm(x + residual) and x + residual, both (..., D)."""
    total = x + residual
    return rms_norm(xp, total, weight, eps=eps), total
