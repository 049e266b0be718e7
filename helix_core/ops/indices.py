"""Indices that users give, tokens and targets: what is outside the vocabulary is an error, or NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helix_core.errors import IndexOutOfRange
from helix_core.ops.op import Array


def out_of_range(what: str, least: int, most: int, size: int) -> IndexOutOfRange:
    """The error for indices `least` to `most`; `what` names op and argument."""
    return IndexOutOfRange(
        f"{what} run from {least} to {most}, and only 0..{size - 1} are there",
        hint="check the tokenizer against the model's vocabulary; the losses skip targets equal to `ignore_index`",
    )


def within(xp: Any, what: str, indices: Array, size: int, ignored: Array | None = None) -> tuple[Array, Array]:
    """`indices` with 0 for those that do not count, and which do: those within 0..size-1 that are not `ignored`.

    Raises IndexOutOfRange for others than the ignored ones where numbers are at hand, which is in NumPy's arrays; a
    device would have to be waited for, and a compiler has none.
    """
    import numpy as np

    inside = xp.logical_and(indices >= 0, indices < size)
    fine = inside if ignored is None else xp.logical_or(inside, ignored)
    if isinstance(indices, np.ndarray) and not np.all(fine):
        raise out_of_range(what, indices[~fine].min(), indices[~fine].max(), size)
    counted = inside if ignored is None else xp.logical_and(inside, xp.logical_not(ignored))
    return xp.where(counted, indices, xp.zeros_like(indices)), counted


def at_targets(
    xp: Any, what: str, nats: Callable[[Array], Array], targets: Array, classes: int, ignore_index: int | None
) -> Array:
    """`nats(targets)` of a loss; 0 where a target is `ignore_index`, NaN where another is outside 0..classes-1.

    `nats` gets targets within the range only, and no gradient for those that do not count. Raises what `within` does.
    """
    targets = xp.astype(targets, xp.int64)  # in which any `ignore_index` can be compared
    ignored = None if ignore_index is None else targets == ignore_index
    inside, counted = within(xp, what, targets, classes, ignored)
    found = nats(inside)
    rest = xp.full_like(found, float("nan"))
    if ignored is not None:
        rest = xp.where(ignored, xp.zeros_like(found), rest)
    return xp.where(counted, found, rest)
