"""The host side of linear attention: shapes of work, states between chunks, and the gradient of the gates.

B  sequences    H  heads                                       K  width of a head's keys
L  positions    G  heads of queries and keys, a divisor of H   V  width of a head's values
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from helix_core.errors import UsageError
from helix_core.ops._linear_attention import FORGOTTEN
from helix_plugin_cuda.kernels._arguments import strides
from helix_plugin_cuda.kernels._chunks import carry
from helix_plugin_cuda.kernels._launch import INTERPRETED, blocks, launch, power, precision
from helix_plugin_cuda.kernels._linear_attention import (
    keys_kernel,
    outputs_kernel,
    queries_kernel,
    states_kernel,
    values_kernel,
)
from helix_plugin_cuda.kernels._tune import Way, chosen, size_class

WIDEST = 256
"""Most keys or values of a head: a state is held in registers."""
CHUNK = 32 if INTERPRETED else 256
"""Steps of a chunk: what runs side by side."""
WAYS = tuple({"tile": t, "part": p, "warps": w} for t, p, w in ((64, 32, 4), (32, 32, 4), (64, 64, 4), (64, 64, 8)))
"""Most steps of a tile, keys or values of a program that has some of them, warps."""


@dataclass(frozen=True)
class Problem:
    """Inputs of linear attention, checked. q, k (B, L, G, K), v (B, L, H, V) with unit stride in the last axis.

    gates    (B, L, H, K or 1) float32, contiguous: `effective`
    factor   (B, L, H) float32 that scales v, or None
    initial  (B, H, K, V) or None
    ends     (B,) int32 or None
    skip     (H,) that adds skip_h v, or None
    way      how kernels are launched
    """

    q: Tensor
    k: Tensor
    v: Tensor
    gates: Tensor
    factor: Tensor | None
    initial: Tensor | None
    ends: Tensor | None
    skip: Tensor | None
    scale: float
    way: Way = field(default_factory=lambda: WAYS[0])

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """B, L, H, K, V."""
        return (*self.v.shape[:3], self.k.shape[3], self.v.shape[3])

    @property
    def chunks(self) -> tuple[int, int]:
        """Number of chunks and steps of each."""
        return max(1, blocks(self.v.shape[1], CHUNK)), CHUNK

    @property
    def whole(self) -> tuple[int, int]:
        """All keys and all values, as powers of two."""
        _, _, _, K, V = self.sizes
        return power(K, 16), power(V, 16)

    @property
    def part(self) -> tuple[int, int]:
        """The keys and values of a program that has some of them."""
        keys, values = self.whole
        return min(keys, self.way["part"]), min(values, self.way["part"])

    @property
    def meta(self) -> dict[str, Any]:
        """What all kernels take."""
        per_key = self.gates.shape[3] > 1
        longest = 16 if per_key else min(self.way["tile"], 64 if max(self.whole) <= 64 else 32)
        return {
            "PER_KEY": per_key,
            "PRECISION": precision(self.q, self.k, self.v),
            "T": min(longest, power(self.v.shape[1], 16)),
            "num_warps": self.way["warps"],
            "num_stages": 1,
        }

    def tuned(self, kernel: str, run: Callable[[Problem], Any]) -> Any:
        """What `run` returns for this problem, launched in the way that is fastest for its class of shapes."""
        B, L, H, K, V = self.sizes
        share = (K, V, H, self.shared, self.gates.shape[3] > 1, self.v.dtype)
        key = (size_class(B), size_class(L), *share)
        return run(replace(self, way=chosen(kernel, key, WAYS, lambda way: run(replace(self, way=way)))))

    @property
    def shared(self) -> int:
        """How many heads share queries and keys."""
        return int(self.v.shape[2] // self.k.shape[2])


def residual_shapes(B: int, L: int, H: int, K: int, V: int) -> tuple[tuple[int, ...], ...]:
    """The states in front of every chunk, and the last one."""
    return ((B * H * ((L + CHUNK - 1) // CHUNK) * K * V,), (B * H * K * V,))


def check_width(op: str, K: int, V: int) -> None:
    """Raises UsageError for heads that are too wide for these kernels."""
    if max(K, V) > WIDEST:
        raise UsageError(
            f"{op}: the Triton kernel takes heads of up to {WIDEST} keys and values, not {K} and {V}",
            hint=f"use more heads, or HELIX_KERNEL_{op.upper()}=core/reference",
        )


def effective(log_decay: Tensor, reset: Tensor | None, ends: Tensor | None) -> Tensor:
    """log_decay (B, L, H, K or 1) as float32: FORGOTTEN where a document starts, 0 in padding."""
    gates = log_decay.detach().float().clamp(min=FORGOTTEN)
    if reset is not None:
        gates = gates.masked_fill(reset.to(torch.bool)[:, :, None, None], FORGOTTEN)
    if ends is not None:
        steps = torch.arange(gates.shape[1], dtype=torch.int64, device=gates.device)
        gates = gates.masked_fill((steps >= ends[:, None])[:, :, None, None], 0.0)
    return gates.contiguous()


def gate_slope(slope: Tensor, log_decay: Tensor, reset: Tensor | None, ends: Tensor | None) -> Tensor:
    """The gradient of log_decay from that of the effective gates, both (B, L, H, K or 1)."""
    slope = slope.masked_fill(log_decay < FORGOTTEN, 0.0)
    if reset is not None:
        slope = slope.masked_fill(reset.to(torch.bool)[:, :, None, None], 0.0)
    if ends is not None:
        steps = torch.arange(slope.shape[1], dtype=torch.int64, device=slope.device)
        slope = slope.masked_fill((steps >= ends[:, None])[:, :, None, None], 0.0)
    return slope


def forward(p: Problem, y: Tensor, last: Tensor, kept: Tensor | None) -> None:
    """Fill y (B, L, H, V), last (B, H, K, V) and, if given, kept: the states in front of every chunk."""
    p.tuned("linear attention", lambda p: _forward(p, y, last, kept))


def _forward(p: Problem, y: Tensor, last: Tensor, kept: Tensor | None) -> None:
    B, L, H, K, V = p.sizes
    chunks, steps = p.chunks
    (keys, _), (_, values) = p.whole, p.part
    enter = p.initial
    if chunks > 1:
        enter = _enter(p, p.k, p.v, p.factor, p.initial, adjoint=False)
        if kept is not None:
            kept.copy_(enter.view(-1))
    elif kept is not None and enter is not None:
        kept.copy_(enter.reshape(-1))
    elif kept is not None:
        kept.zero_()
    launch(
        outputs_kernel, (B * H * chunks * blocks(V, values),),
        p.q, p.k, p.v, p.factor, p.gates, p.ends, enter, p.skip, y, last,
        L, H, K, V, chunks, steps, blocks(V, values), p.scale, *strides(p.q, 3), *strides(p.k, 3), *strides(p.v, 3),
        SHARED=p.shared, KEYS=keys, VALUES=values, **p.meta,
    )  # fmt: skip


@dataclass(frozen=True)
class Slopes:
    """Gradients: q, k (B, L, H, K), v of the scaled values (B, L, H, V), gates, initial; float32."""

    q: Tensor
    k: Tensor
    v: Tensor
    gates: Tensor
    initial: Tensor


def backward(p: Problem, kept: Tensor, last: Tensor, dy: Tensor, dlast: Tensor | None) -> Slopes:
    """dy (B, L, H, V), dlast (B, H, K, V), both contiguous -> the gradients of all inputs, for every head."""
    found: Slopes = p.tuned("linear attention backward", lambda p: _backward(p, kept, last, dy, dlast))
    return found


def _backward(p: Problem, kept: Tensor, last: Tensor, dy: Tensor, dlast: Tensor | None) -> Slopes:
    B, L, H, K, V = p.sizes
    chunks, steps = p.chunks
    keys, values = p.whole
    some_keys, some_values = p.part
    sums: dict[str, Any] = {"dtype": torch.float32, "device": p.v.device}
    dq, dk, dv = (torch.empty(B, L, H, size, **sums) for size in (K, K, V))
    dinitial = torch.empty(B, H, K, V, **sums)
    enter = dlast if chunks == 1 else _enter(p, p.q, dy, None, dlast, adjoint=True)
    sizes = (L, H, K, V, chunks, steps)
    programs = B * H * chunks
    q, k, v = (strides(a, 3) for a in (p.q, p.k, p.v))
    per_key = {"SHARED": p.shared, "KEYS": some_keys, "VALUES": values, **p.meta}
    launch(
        queries_kernel, (programs * blocks(K, some_keys),), p.q, p.k, p.v, p.factor, p.gates, p.ends, kept, dy, dq,
        *sizes, blocks(K, some_keys), p.scale, *k, *v, **per_key,
    )  # fmt: skip
    launch(
        keys_kernel, (programs * blocks(K, some_keys),), p.q, p.v, p.factor, p.gates, p.ends, enter, dy, dk, dinitial,
        *sizes, blocks(K, some_keys), p.scale, *q, *v, **per_key,
    )  # fmt: skip
    launch(
        values_kernel, (programs * blocks(V, some_values),), p.q, p.k, p.gates, p.ends, enter, dy, dv,
        *sizes, blocks(V, some_values), p.scale, *q, *k,
        SHARED=p.shared, KEYS=keys, VALUES=some_values, **p.meta,
    )  # fmt: skip
    return Slopes(dq, dk, dv, _gates_slope(p, dq, dk, last, dlast), dinitial)


def _gates_slope(p: Problem, dq: Tensor, dk: Tensor, last: Tensor, dlast: Tensor | None) -> Tensor:
    """With G the running sum of the gates, the gradient of G_t is q_t dq_t - k_t dk_t, and the last G has that of the
    last state too; that of a gate is the sum of all that come after it.
    """
    B, L, H, K, V = p.sizes
    q, k = (a.detach().float() for a in (p.q, p.k))
    if p.shared > 1:
        q, k = q.repeat_interleave(p.shared, dim=2), k.repeat_interleave(p.shared, dim=2)
    terms = q * dq - k * dk
    end = None if dlast is None else (dlast.float() * last.view(B, H, K, V)).sum(-1)
    if p.gates.shape[3] == 1:
        terms = terms.sum(-1, keepdim=True)
        end = None if end is None else end.sum(-1, keepdim=True)
    if p.ends is not None:
        steps = torch.arange(L, dtype=torch.int64, device=terms.device)
        terms = terms.masked_fill((steps >= p.ends[:, None])[:, :, None, None], 0.0)
    summed = terms.double().flip(1).cumsum(1).flip(1)
    return (summed if end is None else summed + end[:, None].double()).float()


def _enter(
    p: Problem, left: Tensor, right: Tensor, factor: Tensor | None, initial: Tensor | None, *, adjoint: bool
) -> Tensor:
    """The states that enter chunks, or the gradients behind them: (B * H, chunks, K * V)."""
    B, L, H, K, V = p.sizes
    chunks, steps = p.chunks
    keys, values = p.part
    made: dict[str, Any] = {"dtype": torch.float32, "device": p.v.device}
    ends = torch.empty(B * H, chunks, K * V, **made)
    decays = torch.empty(B * H, chunks, p.gates.shape[3], **made)
    launch(
        states_kernel, (B * H * chunks * blocks(K, keys) * blocks(V, values),),
        left, right, factor, p.gates, p.ends, ends, decays,
        L, H, K, V, chunks, steps, blocks(V, values), p.scale, *strides(left, 3), *strides(right, 3),
        LEFT_SHARED=p.shared, ADJOINT=adjoint, KEYS=keys, VALUES=values, **p.meta,
    )  # fmt: skip
    return carry(ends, decays, initial, None, reverse=adjoint)
