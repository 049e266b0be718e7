"""Table lookup."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from helix_core.ops.indices import within
from helix_core.ops.op import Array, Sample, Shape, define_op


def _shapes(tokens: Shape, weight: Shape) -> tuple[Shape, ...]:
    return ((*tokens, weight[1]),)


def _samples(rng: Any) -> Iterator[Sample]:
    for shape, vocab, d_model in (((2, 5), 11, 4), ((1, 1), 1, 1), ((3, 17), 256, 9)):
        yield Sample({"tokens": rng.integers(vocab, size=shape), "weight": rng.normal(size=(vocab, d_model))})


@define_op(shapes=_shapes, samples=_samples, no_grad=("tokens",))
def embedding(xp: Any, tokens: Array, weight: Array) -> Array:
    """Rows of a table: integer tokens (...), weight (V, D) -> (..., D).

    A token outside 0..V-1 raises IndexOutOfRange, or gives NaN where numbers are not at hand.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> F.embedding(np.array([[2, 0]]), np.arange(6.0).reshape(3, 2)).tolist()
    [[[4.0, 5.0], [0.0, 1.0]]]
    """
    flat = xp.astype(xp.reshape(tokens, (-1,)), xp.int64)
    inside, counted = within(xp, "embedding: tokens", flat, weight.shape[0])
    rows = xp.take(weight, inside, axis=0)
    rows = xp.where(counted[:, None], rows, xp.full_like(rows[:, :1], float("nan")))
    return xp.reshape(rows, (*tokens.shape, weight.shape[1]))
