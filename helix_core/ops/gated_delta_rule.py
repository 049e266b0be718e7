"""The gated delta rule: linear attention that first takes out of its state what it holds for a key."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from helix_core.ops._linear_attention import FORGOTTEN, chunks, documents, joined
from helix_core.ops.arrays import device_of, scan, valid_steps, zeros
from helix_core.ops.op import Array, Sample, Shape, define_op

CHUNK = 32


def _shapes(
    q: Shape,
    k: Shape,
    v: Shape,
    log_decay: Shape,
    beta: Shape,
    initial_state: Shape | None,
    reset: Shape | None,
    lengths: Shape | None,
    *,
    scale: float,
) -> tuple[Shape, ...]:
    return v, (q[0], v[2], q[3], v[3])


def _samples(rng: Any) -> Iterator[Sample]:
    import numpy as np

    for B, L, G, H, K, V in ((2, 9, 3, 3, 5, 4), (1, 1, 1, 1, 1, 1), (2, 70, 2, 4, 16, 17), (1, 40, 1, 3, 4, 33)):
        k = rng.normal(size=(B, L, G, K))
        plain = {
            "q": rng.normal(size=(B, L, G, K)),
            "k": k / np.linalg.norm(k, axis=-1, keepdims=True),
            "v": rng.normal(size=(B, L, H, V)),
            "log_decay": -rng.exponential(0.3, size=(B, L, H)),
            "beta": rng.uniform(size=(B, L, H)),
        }
        yield Sample(plain)
        strong = {"log_decay": -rng.exponential(1.0, size=(B, L, H)) * rng.choice([0.01, 1, 30], size=(B, L, H))}
        state = {"initial_state": rng.normal(size=(B, H, K, V))}
        yield Sample(plain | strong | state, {"scale": 0.25}, "strong decay and state")
        ragged = {"reset": rng.random((B, L)) < 0.2, "lengths": rng.integers(L + 1, size=B)}
        yield Sample(plain | state | ragged, {"scale": 0.5}, "reset and padding")


def _flops(q: Shape, k: Shape, v: Shape, *rest: Shape | None, scale: float) -> float:
    return 7.0 * math.prod(v) * q[3]


@define_op(shapes=_shapes, samples=_samples, flops=_flops, outputs=("y", "last_state"), no_grad=("reset", "lengths"))
def gated_delta_rule(
    xp: Any,
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array,
    beta: Array,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    *,
    scale: float = 1.0,
) -> tuple[Array, Array]:
    """S_t = α_t (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ,  y_t = scale S_tᵀ q_t, for every head; α = exp(log_decay).

    q, k (B, L, G, K), v (B, L, H, V), log_decay <= 0 and beta (B, L, H), initial_state (B, H, K, V)
    -> y (B, L, H, V), last_state (B, H, K, V). H is a multiple of G: consecutive heads share queries and keys, which
    should have unit norm.
    reset (B, L) is True where a new document starts: the state before that step, initial_state too, is dropped.
    lengths (B,): steps at or beyond a row's length are padding; they leave the state as it is and their y is 0.

    In chunks, exact for any decay: with u_t = β_t (v_t - α_t S_{t-1}ᵀ k_t), S_t = α_t S_{t-1} + k_t u_tᵀ, so the u of a
    chunk solve one unit lower triangular system.

    Sources: Yang, Kautz and Hatamizadeh, Gated Delta Networks: Improving Mamba2 with Delta Rule, 2024; the chunks:
    Yang, Wang, Zhang, Shen and Kim, Parallelizing Linear Transformers with the Delta Rule over Sequence Length, 2024.
    """
    batch, length, groups, keys = q.shape
    heads, values = v.shape[2], v.shape[3]
    S = zeros(xp, (batch, heads, keys, values), v) if initial_state is None else initial_state
    if length == 0:
        return xp.zeros_like(v), S
    spread = (batch, length, groups, heads // groups, keys)
    q, k = (
        xp.reshape(xp.broadcast_to(a[:, :, :, None, :], spread), (batch, length, heads, keys)) for a in (scale * q, k)
    )
    log_decay, beta = xp.clip(log_decay, FORGOTTEN, None)[..., None], beta[..., None]
    document = xp.zeros((batch, length), dtype=xp.int64, device=device_of(q))
    valid = None
    if lengths is not None:
        valid = valid_steps(xp, length, lengths)
        here = valid[:, :, None, None]
        q, k, v, log_decay, beta = (xp.where(here, a, xp.zeros_like(a)) for a in (q, k, v, log_decay, beta))
    if reset is not None:
        starts = reset if valid is None else xp.logical_and(reset, valid)
        document = xp.cumulative_sum(xp.astype(starts, xp.int64), axis=1)
    chunk = min(length, CHUNK)
    cut = [chunks(xp, a, chunk) for a in (q, k, v, log_decay, beta)]

    def step(carry: tuple[Array, Array], at: tuple[Any, ...]) -> tuple[tuple[Array, Array], Array]:
        (S, before), (q, k, v, log_decay, beta, document) = carry, at
        y, S = _chunk(xp, q, k, v, log_decay, beta, S, document, before)
        return (S, document[:, -1]), y

    (S, _), y = scan(xp, step, (S, zeros(xp, (batch,), document)), (*cut, documents(xp, document, chunk)))
    return joined(xp, y, length), S


def _chunk(
    xp: Any, q: Array, k: Array, v: Array, log_decay: Array, beta: Array, S: Array, document: Array, before: Array
) -> tuple[Array, Array]:
    """q, k, v, log_decay, beta (B, H, T, ...), the documents of its steps (B, T) and of the state before it (B,)."""
    order = xp.arange(q.shape[2], device=device_of(q))
    earlier = order[:, None] > order[None, :]
    # gap[t, s] = Σ log_decay over s < i <= t, one sum for each s: never a difference of two large sums.
    gap = xp.exp(xp.cumulative_sum(xp.where(earlier, log_decay, zeros(xp, (), log_decay)), axis=2))
    sees = xp.logical_not(order[:, None] < order[None, :])
    sees = xp.logical_and(sees, document[:, :, None] == document[:, None, :])[:, None, :, :]
    gap = xp.where(sees, gap, xp.zeros_like(gap))
    since = xp.exp(xp.cumulative_sum(log_decay, axis=2))
    since = xp.where((document == before[:, None])[:, None, :, None], since, xp.zeros_like(since))
    k_t = xp.matrix_transpose(k)
    system = xp.where(earlier, beta * xp.matmul(k, k_t) * gap, xp.zeros_like(gap))
    u = _solve(xp, system, beta * (v - since * xp.matmul(k, S)))
    y = xp.matmul(xp.matmul(q, k_t) * gap, u) + since * xp.matmul(q, S)
    to_end = xp.matrix_transpose(gap[:, :, -1:, :]) * k
    return y, since[:, :, -1:, :] * S + xp.matmul(xp.matrix_transpose(to_end), u)


def _solve(xp: Any, system: Array, right: Array) -> Array:
    """(I + system)⁻¹ right for a strictly lower triangular system (..., T, T), by halves."""
    steps = system.shape[-1]
    if steps == 1:
        return right
    half = steps // 2
    top = _solve(xp, system[..., :half, :half], right[..., :half, :])
    rest = right[..., half:, :] - xp.matmul(system[..., half:, :half], top)
    return xp.concat([top, _solve(xp, system[..., half:, half:], rest)], axis=-2)
