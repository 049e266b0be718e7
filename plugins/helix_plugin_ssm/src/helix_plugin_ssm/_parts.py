"""One matrix as several: what is cut is the matrix, not its product.

The gradient of a slice is a copy of the whole filled up with zeros. Of a product, as long as the sequence, that would
cost more than the product; of a matrix it is small, and where all parts are of one size, it is one stack.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from helix_core.ops import OpTable

Array = Any


def halves(xp: Any, x: Array, axis: int) -> tuple[Array, Array]:
    """The first and the second half of an axis, given by its number from the end, such as -1."""
    lead, size, rest = x.shape[:axis], x.shape[axis], x.shape[axis:][1:]
    first, second = xp.unstack(xp.reshape(x, (*lead, 2, size // 2, *rest)), axis=axis - 1)
    return first, second


def linear_parts(F: OpTable, x: Array, weight: Array, bias: Array | None, sizes: Sequence[int]) -> list[Array]:
    """x (B, L, D) times the rows of weight (sum of sizes, D), so many at a time -> arrays (B, L, size)."""
    if list(sizes) == [weight.shape[0] // 2] * 2:
        weights = halves(F.xp, weight, -2)
        biases = (None, None) if bias is None else halves(F.xp, bias, -1)
        return [F.linear(x, w, b) for w, b in zip(weights, biases, strict=True)]
    cuts = itertools.pairwise(itertools.accumulate(sizes, initial=0))
    return [F.linear(x, weight[start:end], None if bias is None else bias[start:end]) for start, end in cuts]
