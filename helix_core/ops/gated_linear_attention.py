"""Linear attention whose state decays by a gate: GLA, RetNet, lightning attention."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from helix_core.ops._linear_attention import linear_attention
from helix_core.ops.op import Array, Sample, Shape, define_op


def _shapes(
    q: Shape,
    k: Shape,
    v: Shape,
    log_decay: Shape,
    initial_state: Shape | None,
    reset: Shape | None,
    lengths: Shape | None,
    *,
    scale: float,
) -> tuple[Shape, ...]:
    return v, (q[0], q[2], q[3], v[3])


def _samples(rng: Any) -> Iterator[Sample]:
    for (B, L, H, K, V), decay in (
        ((2, 9, 3, 5, 4), "BLHK"),
        ((1, 1, 1, 1, 1), "BLHK"),
        ((2, 70, 2, 16, 17), "H"),
        ((1, 70, 2, 17, 33), "BLHK"),
        ((3, 33, 1, 4, 20), "BLH"),
    ):
        shape = tuple(size if axis in decay else 1 for axis, size in zip("BLHK", (B, L, H, K), strict=True))
        plain = {
            "q": rng.normal(size=(B, L, H, K)),
            "k": rng.normal(size=(B, L, H, K)),
            "v": rng.normal(size=(B, L, H, V)),
            "log_decay": -rng.exponential(0.3, size=shape),
        }
        yield Sample(plain, label=f"decay {decay}")
        strong = {"log_decay": -rng.uniform(0.5, 2, size=shape) * rng.choice([1, 40], size=shape)}
        state = {"initial_state": rng.normal(size=(B, H, K, V))}
        yield Sample(plain | strong | state, {"scale": 0.25}, f"strong decay {decay} and state")
        ragged = {"reset": rng.random((B, L)) < 0.2, "lengths": rng.integers(L + 1, size=B)}
        yield Sample(plain | state | ragged, {"scale": 0.5}, f"decay {decay}, reset and padding")


def _flops(q: Shape, k: Shape, v: Shape, *rest: Shape | None, scale: float) -> float:
    return 5.0 * math.prod(q) * v[3]


@define_op(shapes=_shapes, samples=_samples, flops=_flops, outputs=("y", "last_state"), no_grad=("reset", "lengths"))
def gated_linear_attention(
    xp: Any,
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    *,
    scale: float = 1.0,
) -> tuple[Array, Array]:
    """S_t = diag(exp(log_decay_t)) S_{t-1} + k_t v_tᵀ,  y_t = scale S_tᵀ q_t, for every head.

    q, k (B, L, H, K), v (B, L, H, V), initial_state (B, H, K, V) -> y (B, L, H, V), last_state (B, H, K, V).
    log_decay, usually <= 0, may have 1 in place of B, L and K: (B, L, H, K) is GLA's gate, (B, L, H, 1) a gate for
    each head, (1, 1, H, 1) RetNet's constant.
    reset (B, L) is True where a new document starts: the state before that step, initial_state too, is dropped.
    lengths (B,): steps at or beyond a row's length are padding; they leave the state as it is and their y is 0.

    Sources: Yang, Wang, Shen, Panda and Kim, Gated Linear Attention Transformers with Hardware-Efficient Training,
    2023; Sun et al., Retentive Network: A Successor to Transformer for Large Language Models, 2023.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> rng = np.random.default_rng(0)
    >>> q, k, v = (rng.normal(size=(1, 9, 2, size)) for size in (4, 4, 3))
    >>> y, last_state = F.gated_linear_attention(q, k, v, -rng.random((1, 9, 2, 4)))
    >>> y.shape, last_state.shape
    ((1, 9, 2, 3), (1, 2, 4, 3))
    """
    return linear_attention(xp, scale * q, k, v, log_decay, initial_state, reset, lengths)
