"""The gate of gated MLPs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from helix_core.ops.op import Array, Sample, Shape, define_op


def _shapes(gate: Shape, x: Shape) -> tuple[Shape, ...]:
    return (x,)


def _samples(rng: Any) -> Iterator[Sample]:
    for shape in ((2, 5, 8), (1, 1, 1), (3, 7, 33)):
        yield Sample({"gate": rng.normal(size=shape) * 3, "x": rng.normal(size=shape)})
    yield Sample({"gate": rng.normal(size=(2, 9)) * 60, "x": rng.normal(size=(2, 9))}, label="large values")


@define_op(shapes=_shapes, samples=_samples)
def swiglu(xp: Any, gate: Array, x: Array) -> Array:
    """silu(gate) * x, elementwise: (...), (...) -> (...).

    Source: Shazeer, GLU Variants Improve Transformer, 2020.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> F.swiglu(np.array([[0.0, 1.0]]), np.array([[2.0, 2.0]])).round(3).tolist()
    [[0.0, 1.462]]
    """
    return gate * (0.5 * xp.tanh(0.5 * gate) + 0.5) * x
