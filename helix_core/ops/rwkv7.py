"""RWKV-7's recurrence: a state that decays, and whose entries a rank-one map moves, before it takes in a value."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from helix_core.ops.arrays import blank_padding, scan, valid_steps, zeros
from helix_core.ops.op import Array, Sample, Shape, define_op


def _shapes(
    r: Shape,
    log_decay: Shape,
    k: Shape,
    v: Shape,
    a: Shape,
    b: Shape,
    initial_state: Shape | None,
    reset: Shape | None,
    lengths: Shape | None,
) -> tuple[Shape, ...]:
    return v, (v[0], v[2], r[3], v[3])


def _samples(rng: Any) -> Iterator[Sample]:
    import numpy as np

    for B, L, H, K, V in ((2, 9, 3, 5, 4), (1, 1, 1, 1, 1), (2, 70, 2, 16, 33), (1, 37, 1, 4, 17)):
        key = rng.normal(size=(B, L, H, K))
        key = key / np.linalg.norm(key, axis=-1, keepdims=True)
        plain = {
            "r": rng.normal(size=(B, L, H, K)),
            "log_decay": -rng.exponential(0.3, size=(B, L, H, K)),
            "k": rng.normal(size=(B, L, H, K)),
            "v": rng.normal(size=(B, L, H, V)),
            "a": -key,
            "b": key * rng.uniform(size=(B, L, H, K)),
        }
        yield Sample(plain)
        ragged = {
            "initial_state": rng.normal(size=(B, H, K, V)),
            "reset": rng.random((B, L)) < 0.15,
            "lengths": rng.integers(L + 1, size=B),
        }
        yield Sample(plain | ragged, label="state, reset and padding")


def _flops(r: Shape, log_decay: Shape, k: Shape, v: Shape, *rest: Shape | None) -> float:
    return 9.0 * math.prod(r) * v[3]


@define_op(shapes=_shapes, samples=_samples, flops=_flops, outputs=("y", "last_state"), no_grad=("reset", "lengths"))
def rwkv7(
    xp: Any,
    r: Array,
    log_decay: Array,
    k: Array,
    v: Array,
    a: Array,
    b: Array,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
) -> tuple[Array, Array]:
    """S_t = diag(exp(log_decay_t)) S_{t-1} + b_t (S_{t-1}ᵀ a_t)ᵀ + k_t v_tᵀ,  y_t = S_tᵀ r_t, for every head.

    r, log_decay <= 0, k, a, b (B, L, H, K), v (B, L, H, V), initial_state (B, H, K, V)
    -> y (B, L, H, V), last_state (B, H, K, V). RWKV-7 has a = -κ and b = κ ⊙ (its learning rate), κ of unit norm.
    reset (B, L) is True where a new document starts: the state before that step, initial_state too, is dropped.
    lengths (B,): steps at or beyond a row's length are padding; they leave the state as it is and their y is 0.

    Source: Peng et al., RWKV-7 "Goose" with Expressive Dynamic State Evolution, 2025.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> rng = np.random.default_rng(0)
    >>> r, k, v, a, b = (rng.normal(size=(1, 9, 2, 4)) for _ in "rkvab")
    >>> y, last_state = F.rwkv7(r, -rng.random((1, 9, 2, 4)), k, v, a, b)
    >>> y.shape, last_state.shape
    ((1, 9, 2, 4), (1, 2, 4, 4))
    """
    batch, length, heads, keys = r.shape
    S = zeros(xp, (batch, heads, keys, v.shape[3]), v) if initial_state is None else initial_state
    valid = None if lengths is None else valid_steps(xp, length, lengths)
    if reset is not None and valid is not None:
        reset = xp.logical_and(reset, valid)
    r, log_decay, k, v, a, b = blank_padding(xp, valid, r, log_decay, k, v, a, b)
    if length == 0:
        return xp.zeros_like(v), S

    def step(S: Array, at: tuple[Any, ...]) -> tuple[Array, Array]:
        r, decay, k, v, a, b, new, real = at
        if new is not None:
            S = xp.where(new[:, None, None, None], xp.zeros_like(S), S)
        moved = xp.matmul(a[..., None, :], S)
        following = decay[..., None] * S + b[..., None] * moved + k[..., None] * v[..., None, :]
        S = following if real is None else xp.where(real[:, None, None, None], following, S)
        return S, xp.matmul(r[..., None, :], S)[:, :, 0, :]

    S, y = scan(xp, step, S, (r, xp.exp(log_decay), k, v, a, b, reset, valid))
    if valid is not None:
        y = xp.where(valid[:, :, None, None], y, xp.zeros_like(y))
    return y, S
