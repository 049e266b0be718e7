"""Attention through torch's `scaled_dot_product_attention`, forward and backward."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from helix_core.ops import OPS
from helix_core.ops.attention import cache_sources, cached_positions
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
        found: tuple[Tensor, Tensor, Tensor] = by_reference(
            OPS["attention"], q, k, v, position, keys, values, lengths, window=window, scale=scale
        )
        return found
    scale = scale or q.shape[3] ** -0.5
    length = q.shape[1]
    if keys is None or values is None:
        if position is None and 0 < window < length:
            y = _banded(q, k, v, window, scale)
        elif position is None:
            y = _sdpa(q, k, v, None, scale)
        else:
            y = _sdpa(q, k, v, _mask(position, 0, window), scale)
        after = k.new_empty(k.shape[0], 0, *k.shape[2:]), v.new_empty(v.shape[0], 0, *v.shape[2:])
    else:
        if position is None:
            position = torch.arange(length, device=q.device).expand(q.shape[0], length)
        every = torch.cat([keys, k], dim=1), torch.cat([values, v], dim=1)
        y = _sdpa(q, *every, _mask(position, keys.shape[1], window), scale)
        source, filled = cache_sources(_namespace(), position, lengths, keys.shape[1])
        after = _gather(every[0], source, filled), _gather(every[1], source, filled)
    if lengths is not None:
        valid = torch.arange(length, device=q.device) < lengths[:, None]
        y = torch.where(valid[:, :, None, None], y, y.new_zeros(()))
    return y, *after


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
    steps = torch.arange(length, device=position.device)
    before = cached_positions(_namespace(), position[:, :1], cached) - position[:, :1]
    at = torch.cat([before, steps.expand(batch, length)], dim=1)[:, None, :]
    here = steps[None, :, None]
    seen = (at <= here) & (at >= here - position[..., None]) & (at >= -position[:, :1, None])
    if window:
        seen = seen & (here - at < window)
    return seen[:, None]


def _banded(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
    """A window over one document, in blocks of queries that see their own keys and a window before them."""
    batch, length = q.shape[:2]
    block = max(window, BLOCK)
    back = window - 1
    blocks = -(-length // block)
    behind = blocks * block - length

    def cut(x: Tensor, before: int) -> Tensor:
        padded = pad(x, (0, 0, 0, 0, before, behind))
        cuts = padded.unfold(1, block + before, block)
        return cuts.movedim(-1, 2).flatten(0, 1)

    here = torch.arange(block, device=q.device)[:, None]
    at = torch.arange(-back, block, device=q.device)[None, :]
    inside = (at <= here) & (here - at < window)
    exists = at + block * torch.arange(blocks, device=q.device)[:, None, None] >= 0
    mask = (inside & exists).repeat(batch, 1, 1)[:, None]
    y = _sdpa(cut(q, 0), cut(k, back), cut(v, back), mask, scale)
    return y.reshape(batch, blocks * block, *y.shape[2:])[:, :length]


def _gather(every: Tensor, source: Tensor, filled: Tensor) -> Tensor:
    index = source[:, :, None, None].expand(*source.shape, *every.shape[2:])
    return torch.where(filled[:, :, None, None], every.gather(1, index), every.new_zeros(()))


def _namespace() -> object:
    from helix_plugin_torch.backend import namespace

    return namespace()
