"""Attention through torch's `scaled_dot_product_attention`, forward and backward.

B  sequences                H  heads of queries
L  new positions            G  heads of keys and values, a divisor of H
T  cached and new ones      K, V  widths of a key and of a value
"""

from __future__ import annotations

from collections.abc import Callable

import array_api_compat.torch as xp
import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from helix_core.ops import OPS
from helix_core.ops.arrays import blank_padding, valid_steps
from helix_core.ops.attention import LIMIT, cache_sources, cached_positions
from helix_core.ops.quarantine import quarantined, released
from helix_plugin_torch.tracing import known, readable
from helix_plugin_torch.transforms import by_reference, transformed

BLOCK = 128
"""Fewest queries that a window is cut into."""


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    position: Tensor | None = None,
    keys: Tensor | None = None,
    values: Tensor | None = None,
    lengths: Tensor | None = None,
    *,
    window: int = 0,
    scale: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """q (B, L, H, K), k (B, L, G, K), v (B, L, G, V) -> (B, L, H, V) and the cache; see the op."""
    if transformed():  # torch's kernels have neither a rule for vmap nor a forward derivative
        outputs: tuple[Tensor, Tensor, Tensor] = by_reference(
            OPS["attention"], q, k, v, position, keys, values, lengths, window=window, scale=scale
        )
        return outputs
    scale = scale or q.shape[3] ** -0.5
    length = q.shape[1]
    valid = None if lengths is None else valid_steps(xp, length, lengths)
    q, k, v = blank_padding(xp, valid, q, k, v)
    if 0 in q.shape[:2]:
        after = (k[:, :0], v[:, :0]) if keys is None or values is None else (keys, values)
        return v.new_zeros(*q.shape[:3], v.shape[3]), *after
    mask = None
    if keys is None or values is None:
        all_keys, all_values = k, v
        after = (k.new_empty(k.shape[0], 0, *k.shape[2:]), v.new_empty(v.shape[0], 0, *v.shape[2:]))
        if position is not None:
            mask = _mask(position, 0, window)
    else:
        if position is None:
            position = torch.arange(length, dtype=torch.int64, device=q.device).expand(q.shape[0], length)
        all_keys, all_values = torch.cat([keys, k], dim=1), torch.cat([values, v], dim=1)
        mask = _mask(position, keys.shape[1], window)
        source, filled = cache_sources(xp, position, lengths, keys.shape[1])
        after = _gather(all_keys, source, filled), _gather(all_values, source, filled)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if mask is None and 0 < window < length:
            return _sliding_window(q, k, v, window, scale)
        return _sdpa(q, k, v, mask, scale)

    # A weight of 0 hides no NaN or infinity, which then shows in the outputs, where these can be looked at.
    y = attend(q, all_keys, all_values) if readable(q) else None
    if y is None or known(y.isfinite().all()) is not True:
        y = _quarantined(attend, q, all_keys, all_values, mask, window)
    return blank_padding(xp, valid, y)[0], *after


def _quarantined(
    attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, window: int
) -> Tensor:
    """`attend` to numbers alone; then NaN for the outputs that see a NaN or an infinity: mask (B, 1, L, T)."""
    (q,), bad_query = quarantined(xp, q, limit=LIMIT)
    (k,), bad_key = quarantined(xp, k, limit=LIMIT)
    (v,), bad_value = quarantined(xp, v)
    bad = (bad_value + bad_key)[..., 0]
    if mask is not None:
        reached = mask[:, 0].to(bad.dtype) @ bad
    else:
        reached = bad.cumsum(1)
        if 0 < window < bad.shape[1]:
            reached = reached - pad(reached, (0, 0, window, 0))[:, :-window]
    y = attend(q, k, v)
    reached = reached.repeat_interleave(y.shape[2] // bad.shape[2], 2)[..., None]
    outputs: Tensor = released(xp, y, bad_query + reached)
    return outputs


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """All (B, steps, heads, width); mask (B or 1, 1, L, T), or None for a causal one."""
    y = scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=q.shape[2] != k.shape[2],
    )
    return y.transpose(1, 2)


def _mask(position: Tensor, cached: int, window: int) -> Tensor:
    """Which of the cached and new keys each query sees: position (B, L) -> (B, 1, L, cached + L)."""
    batch, length = position.shape
    steps = torch.arange(length, dtype=torch.int64, device=position.device)
    cached_steps = cached_positions(xp, position[:, :1], cached) - position[:, :1]
    key = torch.cat([cached_steps, steps.expand(batch, length)], dim=1)[:, None, :]
    query = steps[None, :, None]
    mask = (key <= query) & (key >= query - position[..., None]) & (key >= -position[:, :1, None])
    if window:
        mask = mask & (query - key < window)
    return mask[:, None]


def _sliding_window(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
    """A window over one document, in blocks of queries that see their own keys and a window before them."""
    batch, length = q.shape[:2]
    block = max(window, BLOCK)
    back = window - 1
    blocks = -(-length // block)
    padding = blocks * block - length

    def cut(x: Tensor, before: int) -> Tensor:
        padded = pad(x, (0, 0, 0, 0, before, padding))
        cuts = padded.unfold(1, block + before, block)
        return cuts.movedim(-1, 2).flatten(0, 1)

    query = torch.arange(block, dtype=torch.int64, device=q.device)[:, None]
    key = torch.arange(-back, block, dtype=torch.int64, device=q.device)[None, :]
    inside = (key <= query) & (query - key < window)
    exists = key + block * torch.arange(blocks, dtype=torch.int64, device=q.device)[:, None, None] >= 0
    mask = (inside & exists).repeat(batch, 1, 1)[:, None]
    y = _sdpa(cut(q, 0), cut(k, back), cut(v, back), mask, scale)
    return y.reshape(batch, blocks * block, *y.shape[2:])[:, :length]


def _gather(entries: Tensor, source: Tensor, filled: Tensor) -> Tensor:
    """The cache (B, S, G, K): of entries (B, T, G, K) those at `source` (B, S), zeros where it is not `filled`."""
    index = source[:, :, None, None].expand(*source.shape, *entries.shape[2:])
    return torch.where(filled[:, :, None, None], entries.gather(1, index), entries.new_zeros(()))
