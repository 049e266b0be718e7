"""The gated delta rule: linear attention that first takes out of its state what it holds for a key."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from helix_core.ops._linear_attention import (
    FORGOTTEN,
    chunks,
    documents,
    exp_where,
    joined,
    reach,
    sound,
    visible,
)
from helix_core.ops.arrays import blank_padding, device_of, scan, valid_steps, zeros
from helix_core.ops.op import Array, Sample, Shape, define_op
from helix_core.ops.quarantine import quarantined, released

CHUNK = 32
LIMIT = 1e12
"""From this size on, keys (of unit norm), β and growth count as no numbers, and solutions from its square on. Where
products of them overflow, so do their gradients, and those of other documents in the same system."""


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

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> rng = np.random.default_rng(0)
    >>> q, k, v = (rng.normal(size=(1, 9, 2, size)) for size in (4, 4, 3))
    >>> gates = {"log_decay": -rng.random((1, 9, 2)), "beta": rng.random((1, 9, 2))}
    >>> y, last_state = F.gated_delta_rule(q, k, v, **gates)
    >>> y.shape, last_state.shape
    ((1, 9, 2, 3), (1, 2, 4, 3))
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
    document = xp.zeros((batch, length), dtype=xp.int64, device=device_of(q))
    valid = None if lengths is None else valid_steps(xp, length, lengths)
    q, k, v, log_decay, beta = blank_padding(xp, valid, q, k, v, log_decay[..., None], beta[..., None])
    (q,), silent = quarantined(xp, q)
    decays = xp.clip(log_decay, FORGOTTEN, None)
    (k, beta), lost = quarantined(xp, k, beta, limit=LIMIT)
    (v, log_decay), without = quarantined(xp, v, decays)
    lost = lost + without
    S, broken = sound(xp, S)
    if reset is not None:
        starts = reset if valid is None else xp.logical_and(reset, valid)
        document = xp.cumulative_sum(xp.astype(starts, xp.int64), axis=1)
    chunk = min(length, CHUNK)
    cut = [chunks(xp, a, chunk) for a in (q, k, v, log_decay, beta, lost)]

    def step(carry: tuple[Array, ...], at: tuple[Any, ...]) -> tuple[tuple[Array, ...], Array]:
        (S, broken, before), (q, k, v, log_decay, beta, lost, document) = carry, at
        sees, carried = visible(xp, document, before)
        y, S, overflown = _chunk(xp, q, k, v, log_decay, beta, S, sees, carried)
        reached = reach(xp, sees, carried, lost + overflown, broken)
        S, burst = sound(xp, S)
        return (S, reached[:, :, -1:, :] + burst, document[:, -1]), released(xp, y, reached)

    start = S, broken, zeros(xp, (batch,), document)
    (S, broken, _), y = scan(xp, step, start, (*cut, documents(xp, document, chunk)))
    y = released(xp, joined(xp, y, length), silent)
    return blank_padding(xp, valid, y)[0], released(xp, S, broken)


def _chunk(
    xp: Any, q: Array, k: Array, v: Array, log_decay: Array, beta: Array, S: Array, sees: Array, carried: Array
) -> tuple[Array, Array, Array]:
    """q, k, v, log_decay, beta (B, H, T, ...), all of numbers; sees and carried as in `visible`.

    -> y, S and the steps whose u overflows: float (B, H, T, 1).
    """
    order = xp.arange(q.shape[2], device=device_of(q))
    earlier = order[:, None] > order[None, :]
    # gap[t, s] = Σ log_decay over s < i <= t, one sum for each s: never a difference of two large sums.
    gap = exp_where(xp, sees, xp.cumulative_sum(xp.where(earlier, log_decay, zeros(xp, (), log_decay)), axis=2))
    since = exp_where(xp, carried, xp.cumulative_sum(log_decay, axis=2))
    (gap,), grown = quarantined(xp, gap, limit=LIMIT)
    (since,), grown_since = quarantined(xp, since, limit=LIMIT)

    def seen(a: Array, b: Array) -> Array:
        products = xp.matmul(a, xp.matrix_transpose(b))
        return xp.where(sees, products, xp.zeros_like(products)) * gap

    def known(a: Array) -> Array:
        products = xp.matmul(a, S)
        return since * xp.where(carried, products, xp.zeros_like(products))

    system = xp.where(earlier, beta * seen(k, k), xp.zeros_like(gap))
    (u,), overflown = quarantined(xp, _solve(xp, system, beta * (v - known(k))), limit=LIMIT**2)
    overflown = overflown + grown + grown_since
    y = xp.matmul(seen(q, k), u) + known(q)
    to_end = xp.matrix_transpose(gap[:, :, -1:, :]) * k
    return y, since[:, :, -1:, :] * S + xp.matmul(xp.matrix_transpose(to_end), u), overflown


def _solve(xp: Any, system: Array, right: Array) -> Array:
    """(I + system)⁻¹ right for a strictly lower triangular system (..., T, T), by halves.

    What overflows stays with its row, and with those that the caller finds out to see it.
    """
    steps = system.shape[-1]
    if steps == 1:
        return right
    half = steps // 2
    top = _solve(xp, system[..., :half, :half], right[..., :half, :])
    (numbers,), _ = quarantined(xp, top, limit=LIMIT**2)
    rest = right[..., half:, :] - xp.matmul(system[..., half:, :half], numbers)
    return xp.concat([top, _solve(xp, system[..., half:, half:], rest)], axis=-2)
