"""Softmax attention over a document's past, with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from helix_core.ops.activations import softmax
from helix_core.ops.arrays import blank_padding, device_of, valid_steps, zeros
from helix_core.ops.op import Array, Sample, Shape, define_op
from helix_core.ops.quarantine import quarantined, released

LIMIT = 1e18
"""Where scores come out of a fused kernel, queries and keys of this size and more count as no numbers: their products
overflow, in rows that nobody looks at too, and the gradients of those would be NaN for all they have read."""


def _shapes(
    q: Shape,
    k: Shape,
    v: Shape,
    position: Shape | None,
    keys: Shape | None,
    values: Shape | None,
    lengths: Shape | None,
    *,
    window: int,
    scale: float,
) -> tuple[Shape, ...]:
    empty = (k[0], 0)
    return (*q[:3], v[3]), keys or (*empty, *k[2:]), values or (*empty, *v[2:])


def _samples(rng: Any) -> Iterator[Sample]:
    import numpy as np

    for batch, length, heads, groups, d_key, d_value, cache in (
        (2, 9, 4, 2, 6, 5, 12),
        (1, 1, 1, 1, 1, 1, 1),
        (3, 17, 3, 1, 8, 8, 5),
        (2, 70, 2, 2, 16, 16, 7),
        (2, 1, 6, 2, 32, 32, 33),
    ):
        plain = {
            "q": rng.normal(size=(batch, length, heads, d_key)),
            "k": rng.normal(size=(batch, length, groups, d_key)),
            "v": rng.normal(size=(batch, length, groups, d_value)),
        }
        yield Sample(plain)
        yield Sample(plain, {"window": 4, "scale": 0.3}, "window")
        count, restart = rng.integers(2 * cache, size=batch), rng.random((length, batch)) < 0.2
        places = []
        for t in range(length):
            count = np.where(restart[t], 0, count + (t > 0))
            places.append(count)
        position = np.stack(places, axis=1)
        ring = {
            "position": position,
            "keys": rng.normal(size=(batch, cache, groups, d_key)),
            "values": rng.normal(size=(batch, cache, groups, d_value)),
        }
        yield Sample(plain | ring, {"window": cache}, "documents and a ring")
        lengths = {"lengths": rng.integers(length + 1, size=batch)}
        yield Sample(plain | ring | lengths, {"window": max(1, cache - 1)}, "padding")
        yield Sample(plain | {"position": np.zeros_like(position)} | lengths, label="every step a document")
    # The exponential of some overflows in float32; larger ones would leave nothing but rounding in the gradient.
    large = {name: rng.uniform(-size, size, (1, 6, 1, 4)) for name, size in (("q", 12), ("k", 12), ("v", 1))}
    yield Sample(large, label="large scores")


@define_op(
    shapes=_shapes,
    samples=_samples,
    outputs=("y", "last_keys", "last_values"),
    no_grad=("position", "lengths"),
)
def attention(
    xp: Any,
    q: Array,
    k: Array,
    v: Array,
    position: Array | None = None,
    keys: Array | None = None,
    values: Array | None = None,
    lengths: Array | None = None,
    *,
    window: int = 0,
    scale: float = 0.0,
) -> tuple[Array, Array, Array]:
    """y_i = Σ_j softmax_j(scale q_i·k_j) v_j over the steps j <= i of i's document.

    q (B, L, H, K); k (B, L, G, K), v (B, L, G, V): head h reads group h // (H/G)
    position (B, L)  place of each step in its document, one more with each step; 0 starts a document. Default: one
                     document from its start. A row that starts at position n goes on from n cached steps
    keys (B, S, G, K), values (B, S, G, V)  the cache: position p lies in slot p % S, the newest S are kept
    lengths (B,)     steps at or beyond a row's length are padding; they are not cached and their y is 0
    window           how many steps a query sees, its own included; 0: all. Cached, at most S of them
    scale            default (0): 1/sqrt(K)
    -> y (B, L, H, V) and the cache after the last step, its unused slots 0; without a cache, one of no slots.

    Source: Vaswani et al., Attention Is All You Need, 2017; Ainslie et al., GQA, 2023.

    >>> import numpy as np
    >>> from helix_core import create
    >>> F = create("backend", "reference").bind()
    >>> rng = np.random.default_rng(0)
    >>> q, k, v = (rng.normal(size=(1, 5, heads, 8)) for heads in (4, 2, 2))
    >>> F.attention(q, k, v)[0].shape
    (1, 5, 4, 8)
    """
    batch, length, heads, d_key = q.shape
    groups = k.shape[2]
    scale = scale or d_key**-0.5
    valid = None if lengths is None else valid_steps(xp, length, lengths)
    q, k, v = blank_padding(xp, valid, q, k, v)
    steps = xp.arange(length, dtype=xp.int64, device=device_of(q))
    if position is None:
        position = xp.broadcast_to(steps[None, :], (batch, length))
    if keys is None or values is None:
        keys, values = (zeros(xp, (batch, 0, *a.shape[2:]), a) for a in (k, v))
    size = keys.shape[1]
    if length == 0:
        return zeros(xp, (batch, 0, heads, v.shape[3]), v), keys, values
    # Places of all keys counted from the first step: cached ones lie before it.
    cached = cached_positions(xp, position[:, :1], size) - position[:, :1]
    at = xp.concat([cached, xp.broadcast_to(steps[None, :], (batch, length))], axis=1)[:, None, :]
    here = steps[None, :, None]
    seen = xp.logical_and(at <= here, at >= here - position[..., None])
    seen = xp.logical_and(seen, at >= -position[:, :1, None])
    if window:
        seen = xp.logical_and(seen, here - at < window)
    every_key, every_value = xp.concat([keys, k], axis=1), xp.concat([values, v], axis=1)
    (q,), silent = quarantined(xp, q)
    (key, value), lost = quarantined(xp, every_key, every_value)
    # (B, G, H/G, L, S + L), the heads of a group side by side.
    turned = xp.permute_dims(xp.reshape(q, (batch, length, groups, heads // groups, d_key)), (0, 2, 3, 1, 4))
    scores = scale * (turned @ xp.permute_dims(key, (0, 2, 3, 1))[:, :, None])
    scores = xp.where(seen[:, None, None], scores, xp.full_like(scores, -xp.inf))
    weights = softmax(xp, scores)
    weights = xp.where(seen[:, None, None], weights, xp.zeros_like(weights))  # of scores that overflow, all are NaN
    y = weights @ xp.permute_dims(value, (0, 2, 1, 3))[:, :, None]
    reached = xp.matmul(xp.astype(seen, lost.dtype)[:, None], xp.permute_dims(lost, (0, 2, 1, 3)))
    y = released(xp, y, reached[:, :, None])
    y = xp.reshape(xp.permute_dims(y, (0, 3, 1, 2, 4)), (batch, length, heads, v.shape[3]))
    (y,) = blank_padding(xp, valid, released(xp, y, silent))
    source, filled = cache_sources(xp, position, lengths, size)
    return y, _cached(xp, every_key, source, filled), _cached(xp, every_value, source, filled)


def cached_positions(xp: Any, count: Array, size: int) -> Array:
    """The position (B, S) in each slot of a cache that `count` (B, 1) steps of a document went through; unused: < 0."""
    slots = xp.arange(size, dtype=xp.int64, device=device_of(count))[None, :]
    return count - 1 - (count - 1 - slots) % max(size, 1)


def cache_sources(xp: Any, position: Array, lengths: Array | None, size: int) -> tuple[Array, Array]:
    """Where each slot's content after a call comes from: an index (B, S) into cache and steps, and whether it has any.

    position (B, L); lengths (B,) or None. Slots without content have index 0.
    """
    batch, length = position.shape
    if lengths is None:
        ends = xp.full((batch, 1), length, dtype=xp.int64, device=device_of(position))
    else:
        ends = xp.astype(lengths, xp.int64)[:, None]
    last = xp.take_along_axis(position, xp.where(ends > 0, ends - 1, xp.zeros_like(ends)), axis=1)
    count = xp.where(ends > 0, last + 1, last)
    held = cached_positions(xp, count, size)
    filled = held >= 0
    step = ends - count + held
    slots = xp.broadcast_to(xp.arange(size, dtype=xp.int64, device=device_of(position))[None, :], step.shape)
    source = xp.where(step >= 0, step + size, slots)
    return xp.where(filled, source, xp.zeros_like(source)), filled


def _cached(xp: Any, every: Array, source: Array, filled: Array) -> Array:
    index = xp.broadcast_to(source[:, :, None, None], (*source.shape, *every.shape[2:]))
    chosen = xp.take_along_axis(every, index, axis=1)
    return xp.where(filled[:, :, None, None], chosen, xp.zeros_like(chosen))
