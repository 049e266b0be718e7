"""Negative log-likelihood of target classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from helix_core.ops.op import Array, Sample, Shape, define_op


def _shapes(logits: Shape, targets: Shape) -> tuple[Shape, ...]:
    return (targets,)


def _samples(rng: Any) -> Iterator[Sample]:
    for shape, vocab in (((2, 5), 11), ((1, 1), 1), ((3, 7), 256)):
        yield Sample({"logits": rng.normal(size=(*shape, vocab)) * 4, "targets": rng.integers(vocab, size=shape)})


@define_op(shapes=_shapes, samples=_samples, no_grad=("targets",), wide=("y",))
def cross_entropy(xp: Any, logits: Array, targets: Array) -> Array:
    """-log softmax(logits)[target], in nats: (..., V), integer (...) -> (...)."""
    shifted = logits - xp.max(logits, axis=-1, keepdims=True)
    log_sum = xp.log(xp.sum(xp.exp(shifted), axis=-1))
    picked = xp.take_along_axis(shifted, targets[..., None], axis=-1)[..., 0]
    return log_sum - picked
