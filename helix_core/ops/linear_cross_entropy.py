"""The loss of a language model's head from the head's input, so that no kernel needs the logits of all rows at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from helix_core.ops.cross_entropy import cross_entropy
from helix_core.ops.linear import linear
from helix_core.ops.op import Array, Sample, Shape, define_op

CHUNK = 1 << 24
"""Logits that a kernel should hold at a time, about; with fewer, adding to the weight's gradient takes too long."""
FEWEST = 128
"""Rows of a chunk at least, for the same reason."""


def rows_at_once(rows: int, width: int, classes: int, chunk: int | None = None) -> int:
    """How many rows' logits a kernel that works in chunks should hold at a time.

    All, where they are few, or not many more than the inputs: nothing is to be saved then.
    """
    chunk = CHUNK if chunk is None else chunk
    if classes * rows <= max(chunk, 4 * width * rows):
        return rows
    return max(FEWEST, chunk // classes)


def _shapes(x: Shape, weight: Shape, targets: Shape, **attrs: Any) -> tuple[Shape, ...]:
    return (targets,)


def _samples(rng: Any) -> Iterator[Sample]:
    for shape, width, classes in (((2, 5), 7, 11), ((1, 1), 1, 1), ((37,), 33, 130), ((3, 7), 16, 256)):
        arrays = {"x": rng.normal(size=(*shape, width)), "weight": rng.normal(size=(classes, width))}
        yield Sample(arrays | {"targets": rng.integers(classes, size=shape)})
    blank = {"x": rng.normal(size=(5, 6)) * [[1.0], [0.0], [1.0], [1.0], [0.0]], "weight": rng.normal(size=(9, 6))}
    yield Sample(blank | {"targets": rng.integers(9, size=5)}, label="some rows all zeros")
    # Their exponentials overflow in float32.
    large = {"x": 6 * rng.normal(size=(9, 8)), "weight": 6 * rng.normal(size=(50, 8))}
    yield Sample(large | {"targets": rng.integers(50, size=9)}, label="large logits")
    some = {"x": rng.normal(size=(2, 6, 5)), "weight": rng.normal(size=(8, 5)), "targets": rng.integers(8, size=(2, 6))}
    some["targets"][0, 1:] = -100
    yield Sample(some, {"ignore_index": -100}, "ignored")


def _flops(x: Shape, weight: Shape, targets: Shape, **attrs: Any) -> float:
    return 2.0 * math.prod(x) * weight[0]


@define_op(shapes=_shapes, samples=_samples, flops=_flops, no_grad=("targets",), wide=("y",))
def linear_cross_entropy(xp: Any, x: Array, weight: Array, targets: Array, *, ignore_index: int | None = None) -> Array:
    """-log softmax(x Wᵀ)[target], in nats: (..., D), (V, D), integer (...) -> (...).

    Targets that are ignored or outside are treated as `cross_entropy` does.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> F.linear_cross_entropy(np.zeros((2, 3)), np.ones((4, 3)), np.array([0, 3])).round(3).tolist()
    [1.386, 1.386]
    """
    return cross_entropy(xp, linear(xp, x, weight), targets, ignore_index=ignore_index)
