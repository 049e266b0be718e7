"""The residual addition together with the normalisation behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from helix_core.ops.op import Array, Sample, Shape, define_op
from helix_core.ops.rms_norm import rms_norm


def _shapes(x: Shape, residual: Shape, weight: Shape, *, eps: float) -> tuple[Shape, ...]:
    return (x, x)


def _samples(rng: Any) -> Iterator[Sample]:
    for shape in ((2, 5, 8), (3, 7, 33)):
        arrays = {name: rng.normal(size=shape) for name in ("x", "residual")}
        yield Sample({**arrays, "weight": rng.normal(size=shape[-1])})
    arrays = {name: rng.uniform(0.5, 2, size=(1, 1, 1)) for name in ("x", "residual")}
    yield Sample({**arrays, "weight": rng.normal(size=1)}, label="one channel")


@define_op(shapes=_shapes, samples=_samples, outputs=("y", "sum"))
def add_rms_norm(xp: Any, x: Array, residual: Array, weight: Array, *, eps: float = 1e-5) -> tuple[Array, Array]:
    """x, residual (..., D), weight (D,) -> rms_norm(x + residual) and x + residual, both (..., D).

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> y, total = F.add_rms_norm(np.array([[1.0, -4.0]]), np.array([[2.0, 0.0]]), np.ones(2))
    >>> y.round(3).tolist(), total.tolist()
    ([[0.849, -1.131]], [[3.0, -4.0]])
    """
    total = x + residual
    return rms_norm(xp, total, weight, eps=eps), total
