"""One step of AdamW on one parameter, in one pass over memory where a kernel does it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from helix_core.ops.op import Array, Sample, Shape, define_op


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
) -> tuple[Array, Array, Array]:
    """p, gradient g, moments m and v, all of one shape -> the next p, m, v; `step` counts from 1.

        p <- (1 - lr λ) p,   m <- β1 m + (1 - β1) g,   v <- β2 v + (1 - β2) g²
        p <- p - lr m̂ / (sqrt(v̂) + eps),   m̂ = m / (1 - β1^step),   v̂ = v / (1 - β2^step)

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019.
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * (g * g)
    unbias1, unbias2 = 1 - beta1**step, 1 - beta2**step
    p = p * (1 - lr * weight_decay)
    return p - (lr / unbias1) * m / (xp.sqrt(v) / math.sqrt(unbias2) + eps), m, v
