"""Elementwise activations and softmax."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from helix_core.ops.op import Array, Sample, Shape, define_op


def _same_shape(x: Shape, **attrs: Any) -> tuple[Shape, ...]:
    return (x,)


def _samples(rng: Any) -> Iterator[Sample]:
    for shape in ((2, 5, 8), (1, 1, 1), (3, 7, 33)):
        yield Sample({"x": rng.normal(size=shape) * 3})
    yield Sample({"x": rng.normal(size=(2, 9)) * 60}, label="large values")
    some = rng.normal(size=(2, 3))
    some[:, 0] = 0.0
    yield Sample({"x": some}, label="zeros")


@define_op(shapes=_same_shape, samples=_samples)
def sigmoid(xp: Any, x: Array) -> Array:
    """1 / (1 + exp(-x)), elementwise.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> F.sigmoid(np.zeros(2)).tolist()
    [0.5, 0.5]
    """
    # tanh never overflows, exp(-x) does.
    return 0.5 * xp.tanh(0.5 * x) + 0.5


@define_op(shapes=_same_shape, samples=_samples)
def silu(xp: Any, x: Array) -> Array:
    """x * sigmoid(x), elementwise (SiLU, also called swish).

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> F.silu(np.array([0.0, 1.0])).round(3).tolist()
    [0.0, 0.731]
    """
    return x * (0.5 * xp.tanh(0.5 * x) + 0.5)


@define_op(shapes=_same_shape, samples=_samples)
def gelu(xp: Any, x: Array) -> Array:
    """Gaussian error linear unit in its tanh form, elementwise.

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> F.gelu(np.array([0.0, 1.0])).round(3).tolist()
    [0.0, 0.841]
    """
    return 0.5 * x * (1.0 + xp.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


@define_op(shapes=_same_shape, samples=_samples)
def softplus(xp: Any, x: Array) -> Array:
    """log(1 + exp(x)), elementwise and without overflow.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> F.softplus(np.array([0.0, 50.0])).round(3).tolist()
    [0.693, 50.0]
    """
    # -|x|, with the slope 1 at 0: abs has none there, and the gradient would be 0 instead of 1/2.
    return xp.log1p(xp.exp(xp.where(x > 0, -x, x))) + xp.where(x > 0, x, xp.zeros_like(x))


@define_op(shapes=_same_shape, samples=_samples)
def softmax(xp: Any, x: Array) -> Array:
    """exp(x) / sum(exp(x)) over the last axis.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> F.softmax(np.zeros((1, 4))).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """
    e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)
