"""Negative log-likelihood of target classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from helix_core.ops.indices import at_targets
from helix_core.ops.op import Array, Sample, Shape, define_op


def _shapes(logits: Shape, targets: Shape, **attrs: Any) -> tuple[Shape, ...]:
    return (targets,)


def _samples(rng: Any) -> Iterator[Sample]:
    for shape, vocab in (((2, 5), 11), ((1, 1), 1), ((3, 7), 256)):
        yield Sample({"logits": rng.normal(size=(*shape, vocab)) * 4, "targets": rng.integers(vocab, size=shape)})
    for ignore in (-100, 2):
        targets = rng.integers(7, size=(3, 5))
        targets[:, 1::2] = ignore
        yield Sample({"logits": rng.normal(size=(3, 5, 7)), "targets": targets}, {"ignore_index": ignore}, "ignored")
    nothing = {"logits": rng.normal(size=(4, 3)), "targets": rng.integers(1, size=4) - 1}
    yield Sample(nothing, {"ignore_index": -1}, "all ignored")


@define_op(shapes=_shapes, samples=_samples, no_grad=("targets",), wide=("y",))
def cross_entropy(xp: Any, logits: Array, targets: Array, *, ignore_index: int | None = None) -> Array:
    """-log softmax(logits)[target], in nats: (..., V), integer (...) -> (...).

    A target equal to `ignore_index` gives 0, and no gradient. Another outside 0..V-1 raises IndexOutOfRange, or gives
    NaN where numbers are not at hand.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> F.cross_entropy(np.zeros((1, 2, 4)), np.array([[0, 3]])).round(3).tolist()  # log 4, twice
    [[1.386, 1.386]]
    """
    shifted = logits - xp.max(logits, axis=-1, keepdims=True)
    log_sum = xp.log(xp.sum(xp.exp(shifted), axis=-1))

    def nats(targets: Array) -> Array:
        return log_sum - xp.take_along_axis(shifted, targets[..., None], axis=-1)[..., 0]

    return at_targets(xp, "cross_entropy: targets", nats, targets, logits.shape[-1], ignore_index)
