"""Mamba-2's op and gated linear attention in plain torch, by the chunked formulations of the papers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from peers import inputs
from side_by_side.row import NotHere

CHUNK = 64


def segment_sums(a: Tensor) -> Tensor:
    """(..., T) -> (..., T, T): the sum of a over s < i <= t, minus infinity for s > t."""
    T = a.shape[-1]
    earlier = torch.ones(T, T, dtype=torch.bool).tril(-1)
    sums = a[..., None].expand(*a.shape, T).masked_fill(~earlier, 0).cumsum(-2)
    return sums.masked_fill(~torch.ones(T, T, dtype=torch.bool).tril(), -torch.inf)


def ssd_chunked(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The minimal listing of the Mamba-2 paper, all chunks at once; B and C stay shared by the heads of one group."""
    batch, length, heads, width = x.shape
    chunks = length // CHUNK
    v = (x * dt[..., None]).unflatten(1, (chunks, CHUNK))
    a = (dt * A).unflatten(1, (chunks, CHUNK)).permute(0, 3, 1, 2)
    B, C = (t[:, :, 0].unflatten(1, (chunks, CHUNK)) for t in (B, C))
    sums = a.cumsum(-1)
    scores = torch.einsum("bcln,bcsn->bcls", C, B)[:, None] * segment_sums(a).exp()
    y = torch.einsum("bhcls,bcshp->bclhp", scores, v)
    to_end = (sums[..., -1:] - sums).exp()
    states = torch.einsum("bcsn,bhcs,bcshp->bchnp", B, to_end, v)
    states = torch.cat([torch.zeros_like(states[:, :1]), states], dim=1)
    between = segment_sums(torch.nn.functional.pad(sums[..., -1], (1, 0))).exp()
    states = torch.einsum("bhzc,bchnp->bzhnp", between, states)[:, :-1]
    y = y + torch.einsum("bcln,bchnp,bhcl->bclhp", C, states, sums.exp())
    return y.reshape(batch, length, heads, width) + D[:, None] * x


def ssd_transformers() -> Callable[..., Tensor]:
    """What transformers runs without CUDA kernels."""
    try:
        from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan
    except ImportError as error:
        raise NotHere("transformers is not installed, or has no mamba2_chunk_scan") from error

    def scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        y: Tensor = mamba2_chunk_scan(x, dt, A, B, C, chunk_size=256, D=D)
        return y

    return scan


def gla_chunked(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """Chunks of sixteen steps, decays of pairs built in full, a loop over chunks for the state."""
    size = 16
    q, k, v, g = (t.transpose(1, 2).unflatten(2, (-1, size)) for t in (q, k, v, log_decay))
    sums = g.cumsum(3)
    gap = sums[..., :, None, :] - sums[..., None, :, :]
    causal = torch.ones(size, size, dtype=torch.bool).tril()[..., None]
    decay = gap.masked_fill(~causal, -torch.inf).exp()
    scores = torch.einsum("bhctk,bhcsk,bhctsk->bhcts", q, k, decay)
    y = scores @ v
    added = (k * (sums[..., -1:, :] - sums).exp()).mT @ v
    keep = sums[..., -1, :, None].exp()
    S, before = torch.zeros_like(added[:, :, 0]), []
    for one, kept in zip(added.unbind(2), keep.unbind(2), strict=True):
        before.append(S)
        S = kept * S + one
    y = y + (q * sums.exp()) @ torch.stack(before, 2)
    return y.flatten(2, 3).transpose(1, 2)


WAYS: dict[str, Callable[[], Callable[..., Tensor]]] = {
    "ssd": lambda: ssd_chunked,
    "ssd_transformers": ssd_transformers,
    "gated_linear_attention": lambda: gla_chunked,
}


def op(name: str, shape: list[int], backward: bool, how: str = "") -> Callable[[], Any]:
    function = WAYS[how or name]()
    arrays = {k: torch.from_numpy(a) for k, a in getattr(inputs, name)(*shape).items()}
    dy = arrays.pop("dy")
    given = list(arrays.values())
    if not backward:

        def forward() -> Any:
            with torch.no_grad():
                return function(*given)

        return forward
    leaves = [a.requires_grad_(True) for a in given]

    def train() -> Any:
        y = function(*leaves)
        return [y.detach(), *torch.autograd.grad(y, leaves, dy)]

    return train


def step(shape: list[int]) -> Callable[[], Any]:
    """One token of ssd with a state: the recurrence in a few torch calls."""
    given = [torch.from_numpy(a) for a in inputs.ssd_step(*shape).values()]
    x, dt, A, B, C, D = (t[:, 0] if t.ndim > 1 else t for t in given[:6])
    state = given[6]

    def run() -> Any:
        with torch.no_grad():
            decay = torch.exp(dt * A)[..., None, None]
            after = torch.addcmul(decay * state, B[:, :, :, None], (dt[..., None] * x)[:, :, None, :])
            y = (C[:, :, None, :] @ after)[:, :, 0] + D[:, None] * x
            return [y[:, None], after]

    return run
