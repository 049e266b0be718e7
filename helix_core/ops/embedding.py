"""Table lookup."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from helix_core.ops.op import Array, Sample, Shape, define_op


def _shapes(tokens: Shape, weight: Shape) -> tuple[Shape, ...]:
    return ((*tokens, weight[1]),)


def _samples(rng: Any) -> Iterator[Sample]:
    for shape, vocab, d_model in (((2, 5), 11, 4), ((1, 1), 1, 1), ((3, 17), 256, 9)):
        yield Sample({"tokens": rng.integers(vocab, size=shape), "weight": rng.normal(size=(vocab, d_model))})


@define_op(shapes=_shapes, samples=_samples, no_grad=("tokens",))
def embedding(xp: Any, tokens: Array, weight: Array) -> Array:
    """Rows of a table: integer tokens (...), weight (V, D) -> (..., D)."""
    rows = xp.take(weight, xp.reshape(tokens, (-1,)), axis=0)
    return xp.reshape(rows, (*tokens.shape, weight.shape[1]))
