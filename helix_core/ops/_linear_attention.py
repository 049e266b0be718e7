"""Linear attention with a decaying state, in chunks: what the references of its ops share."""

from __future__ import annotations

from typing import Any

from helix_core.ops.arrays import blank_padding, device_of, scan, valid_steps, zeros
from helix_core.ops.quarantine import quarantined, released

Array = Any

FORGOTTEN = -1e4
"""A log-decay below it is held here: exp is 0 all the same, and sums of it stay exact."""


def linear_attention(
    xp: Any,
    q: Array,
    k: Array,
    v: Array,
    log_decay: Array,
    initial_state: Array | None,
    reset: Array | None,
    lengths: Array | None,
) -> tuple[Array, Array]:
    """S_t = diag(exp(log_decay_t)) S_{t-1} + k_t v_tᵀ,  y_t = S_tᵀ q_t: the recurrence, many steps at a time.

    q, k (B, L, H, K), v (B, L, H, V), log_decay broadcastable to (B, L, H, K) -> y (B, L, H, V), S (B, H, K, V).
    Within a chunk every pair of steps has its decay, a sum of log_decay over the steps between, never a difference
    of two large sums: so it is as exact as the recurrence for any decay, and in float32 too.
    What is no number reaches the steps behind it in its document, all values of its head, and no others.
    """
    batch, length, heads, keys = q.shape
    values = v.shape[3]
    S = zeros(xp, (batch, heads, keys, values), v) if initial_state is None else initial_state
    if length == 0:
        return xp.zeros_like(v), S
    log_decay = xp.broadcast_to(log_decay, (log_decay.shape[0], length, heads, log_decay.shape[3]))
    document = xp.zeros((batch, length), dtype=xp.int64, device=device_of(q))
    valid = None if lengths is None else valid_steps(xp, length, lengths)
    q, k, v = blank_padding(xp, valid, q, k, v)
    if valid is not None:
        log_decay = xp.where(valid[:, :, None, None], log_decay, zeros(xp, (), log_decay))
    log_decay = xp.clip(log_decay, FORGOTTEN, None)
    (q,), silent = quarantined(xp, q)
    (k, v, log_decay), lost = quarantined(xp, k, v, xp.broadcast_to(log_decay, (batch, *log_decay.shape[1:])))
    S, broken = sound(xp, S)
    if reset is not None:
        starts = reset if valid is None else xp.logical_and(reset, valid)
        document = xp.cumulative_sum(xp.astype(starts, xp.int64), axis=1)
    # A decay for each key needs a number for each pair of steps and key: shorter chunks.
    chunk = min(length, 64 if log_decay.shape[3] == 1 else 16)
    cut = [chunks(xp, a, chunk) for a in (q, k, v, log_decay, lost)]

    def step(carry: tuple[Array, ...], at: tuple[Any, ...]) -> tuple[tuple[Array, ...], Array]:
        (S, broken, before), (q, k, v, log_decay, lost, document) = carry, at
        sees, carried = visible(xp, document, before)
        y, S = _chunk(xp, q, k, v, log_decay, S, sees, carried)
        reached = reach(xp, sees, carried, lost, broken)
        S, overflown = sound(xp, S)
        return (S, reached[:, :, -1:, :] + overflown, document[:, -1]), released(xp, y, reached)

    start = S, broken, zeros(xp, (batch,), document)
    (S, broken, _), y = scan(xp, step, start, (*cut, documents(xp, document, chunk)))
    y = released(xp, joined(xp, y, length), silent)
    return blank_padding(xp, valid, y)[0], released(xp, S, broken)


def visible(xp: Any, document: Array, before: Array) -> tuple[Array, Array]:
    """Which steps of a chunk each sees (B, 1, T, T), and whether it sees the state before (B, 1, T, 1): booleans.

    From the documents of the steps (B, T) and of that state (B,).
    """
    order = xp.arange(document.shape[1], device=device_of(document))
    sees = xp.logical_not(order[:, None] < order[None, :])
    sees = xp.logical_and(sees, document[:, :, None] == document[:, None, :])[:, None]
    return sees, (document == before[:, None])[:, None, :, None]


def reach(xp: Any, sees: Array, carried: Array, lost: Array, broken: Array) -> Array:
    """Above 0 for steps (B, H, T, 1) that see one that is lost (B, H, T, 1), or a broken state (B, H, 1, 1)."""
    seen = xp.any(xp.logical_and(sees, xp.matrix_transpose(lost) > 0), axis=-1, keepdims=True)
    return xp.astype(seen, lost.dtype) + xp.where(carried, broken, xp.zeros_like(broken))


def sound(xp: Any, S: Array) -> tuple[Array, Array]:
    """S (B, H, K, V) with zeros for what is no number, and whether it had any: float (B, H, 1, 1)."""
    (S,), broken = quarantined(xp, S)
    return S, xp.max(broken, axis=2, keepdims=True)


def chunks(xp: Any, a: Array, chunk: int) -> Array:
    """(B, L, H, D) -> (B, count, H, chunk, D), the last one filled up with zeros: they leave the state as it is."""
    B, L, H, D = a.shape
    count = -(-L // chunk)
    if count * chunk > L:
        a = xp.concat([a, zeros(xp, (B, count * chunk - L, H, D), a)], axis=1)
    return xp.permute_dims(xp.reshape(a, (B, count, chunk, H, D)), (0, 1, 3, 2, 4))


def documents(xp: Any, document: Array, chunk: int) -> Array:
    """(B, L) -> (B, count, chunk), the last one filled up with the last document."""
    B, L = document.shape
    count = -(-L // chunk)
    if count * chunk > L:
        last = document[:, -1:] + zeros(xp, (B, count * chunk - L), document)
        document = xp.concat([document, last], axis=1)
    return xp.reshape(document, (B, count, chunk))


def joined(xp: Any, y: Array, length: int) -> Array:
    """(B, count, H, chunk, D) -> (B, length, H, D): `chunks` undone."""
    B, count, H, chunk, D = y.shape
    return xp.reshape(xp.permute_dims(y, (0, 1, 3, 2, 4)), (B, count * chunk, H, D))[:, :length, :, :]


def _chunk(
    xp: Any, q: Array, k: Array, v: Array, log_decay: Array, S: Array, sees: Array, carried: Array
) -> tuple[Array, Array]:
    """q, k, v, log_decay (B, H, T, ...), all of numbers; sees and carried as in `visible`."""
    steps = q.shape[2]
    order = xp.arange(steps, device=device_of(q))
    earlier = order[:, None] > order[None, :]
    # gap[t, s] = Σ log_decay over s < i <= t, one sum for each s.
    terms = xp.where(earlier[..., None], log_decay[:, :, :, None, :], zeros(xp, (), log_decay))
    gap = exp_where(xp, sees[..., None], xp.cumulative_sum(terms, axis=2))
    if log_decay.shape[3] == 1:
        products = xp.matmul(q, xp.matrix_transpose(k))
        scores = xp.where(sees, products, xp.zeros_like(products)) * gap[..., 0]
    else:
        scores = xp.sum(q[:, :, :, None, :] * (k[:, :, None, :, :] * gap), axis=-1)
    since = exp_where(xp, carried, xp.cumulative_sum(log_decay, axis=2))
    y = xp.matmul(scores, v) + xp.matmul(q * since, S)
    to_end = k * gap[:, :, -1, :, :]
    S = xp.matrix_transpose(since[:, :, -1:, :]) * S + xp.matmul(xp.matrix_transpose(to_end), v)
    return y, S


def exp_where(xp: Any, here: Array, x: Array) -> Array:
    """exp(x) where `here`, else 0; so is its gradient there, whatever x is."""
    x = xp.exp(xp.where(here, x, xp.zeros_like(x)))
    return xp.where(here, x, xp.zeros_like(x))
