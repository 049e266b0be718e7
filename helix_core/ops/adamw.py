"""One step of AdamW on one parameter, in one pass over memory where a kernel does it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from helix_core.ops.op import Array, Sample, Shape, define_op


class StepNumbers(NamedTuple):
    """What one step multiplies by: keep = 1 - lr λ, rate = lr / (1 - β1^step), root = sqrt(1 - β2^step)."""

    beta1: Any
    beta2: Any
    eps: Any
    keep: Any
    rate: Any
    root: Any


def step_numbers(*, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, step: int) -> StepNumbers:
    """Return the numbers of a step, of which kernels take those that change as inputs."""
    return StepNumbers(beta1, beta2, eps, 1 - lr * weight_decay, lr / (1 - beta1**step), math.sqrt(1 - beta2**step))


def step_arrays(xp: Any, p: Array, g: Array, m: Array, v: Array, n: StepNumbers) -> tuple[Array, Array, Array]:
    """Return the next p, m and v, in any namespace that has `sqrt`."""
    m = n.beta1 * m + (1 - n.beta1) * g
    v = n.beta2 * v + (1 - n.beta2) * (g * g)
    return p * n.keep - n.rate * m / (xp.sqrt(v) / n.root + n.eps), m, v


def _shapes(p: Shape, g: Shape, m: Shape, v: Shape, **attrs: Any) -> tuple[Shape, ...]:
    return (p, m, v)


def _samples(rng: Any) -> Iterator[Sample]:
    for shape, step, decay in (((3, 5), 1, 0.0), ((1,), 7, 0.1), ((33, 17), 1000, 0.01)):
        arrays = {name: rng.normal(size=shape) for name in ("p", "g", "m")}
        yield Sample(
            {**arrays, "v": rng.random(shape)}, {"lr": 1e-2, "weight_decay": decay, "step": step, "beta2": 0.95}
        )
    still = {name: rng.normal(size=4) * 0 for name in ("p", "g", "m", "v")}
    yield Sample(still, {"lr": 1e-2, "step": 3}, label="nothing moves")


@define_op(
    shapes=_shapes,
    samples=_samples,
    outputs=("p", "m", "v"),
    no_grad=("p", "g", "m", "v"),
    wide=("p", "m", "v"),
)
def adamw(
    xp: Any,
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    step: int = 1,
    donate: bool = False,
) -> tuple[Array, Array, Array]:
    """p, gradient g, moments m and v, all of one shape -> the next p, m, v; `step` counts from 1.

        p <- (1 - lr λ) p,   m <- β1 m + (1 - β1) g,   v <- β2 v + (1 - β2) g²
        p <- p - lr m̂ / (sqrt(v̂) + eps),   m̂ = m / (1 - β1^step),   v̂ = v / (1 - β2^step)

    With `donate`, a kernel may write over p, m and v, which the caller uses no more.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> p, g = np.array([1.0, 2.0]), np.array([0.1, -3.0])
    >>> p, m, v = F.adamw(p, g, m=np.zeros(2), v=np.zeros(2), lr=0.1)
    >>> p.round(3).tolist()
    [0.9, 2.1]
    """
    numbers = step_numbers(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, step=step)
    return step_arrays(xp, p, g, m, v, numbers)
