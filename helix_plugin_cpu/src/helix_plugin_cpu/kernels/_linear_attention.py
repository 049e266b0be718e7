"""Linear attention with a decaying state, for the ops that are that: addresses, sizes and buffers of its kernels."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from helix_plugin_cpu.kernels._arguments import address, empty, flags, row_ends, single, stored_as, zeros
from helix_plugin_cpu.kernels._blocks import total
from helix_plugin_cpu.kernels._linear_attention_backward import backward_jobs, backward_scratch
from helix_plugin_cpu.kernels._linear_attention_chunk import round_up
from helix_plugin_cpu.kernels._linear_attention_forward import forward_jobs, forward_scratch
from helix_plugin_cpu.kernels._linear_attention_parts import EACH_KEY, SSD
from helix_plugin_cpu.kernels._linear_attention_step import step_jobs, step_scratch
from helix_plugin_cpu.kernels._storage import kind
from helix_plugin_cpu.kernels._threads import launch
from helix_plugin_torch.arguments import Shape, dense, rows

FEW_JOBS = 8
"""Heads that do not share a job each write their own gradients of q and k, as large as those of all together."""


class Plan(NamedTuple):
    """Sizes that follow from the shapes alone, never from the thread count: results must not depend on it."""

    batch: int
    length: int
    heads: int
    groups: int
    keys: int
    values: int
    kind: int

    @property
    def chunk(self) -> int:
        """Steps that meet in one product: a pair costs a pass over the values, and over the keys if each decays."""
        if self.kind == EACH_KEY:
            return 16
        return 64 if self.keys >= 64 else 32

    @property
    def span(self) -> int:
        """Steps between states that are kept for the backward pass: so many that they are twice v at most."""
        return max(self.chunk, -(-self.keys // 2 // self.chunk) * self.chunk)

    @property
    def share(self) -> int:
        """Heads of a job: those of one group share q kᵀ and sum the gradients of q and k, if there are jobs enough."""
        together = self.heads // self.groups
        for share in (4, 3, 2):
            if together % share == 0 and self.batch * self.heads // share >= FEW_JOBS:
                return share
        return 1

    @property
    def jobs(self) -> int:
        """How many jobs there are: a job is `share` heads of a row."""
        return self.batch * self.heads // self.share

    @property
    def kept(self) -> Shape:
        """The states in front of every span, padded, on one axis: see `selective_scan.residual_shapes`."""
        spans = (self.length + self.span - 1) // self.span
        return (self.batch * spans * self.heads * round_up(self.keys) * round_up(self.values),)

    @property
    def work(self) -> int:
        """Elementary operations in all, roughly."""
        return self.batch * self.length * self.heads * self.values * (2 * self.keys + self.chunk) // 8


class Inputs(NamedTuple):
    """The tensors of a call as the kernels read them. g is dt for SSD."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    A: Tensor | None
    bias: Tensor | None
    D: Tensor | None
    initial: Tensor | None
    reset: Tensor | None
    lengths: Tensor | None
    soft: bool = False
    low: float = 0.0
    high: float = math.inf
    scale: float = 1.0


def headed(array: Tensor) -> tuple[int, int, int, int]:
    """Address and strides, in elements, over the first three axes of (B, L, H, ...); 0 along axes of length 1."""
    sizes, steps = array.shape, array.stride()
    return (
        address(array), steps[0] if sizes[0] > 1 else 0, steps[1] if sizes[1] > 1 else 0,
        steps[2] if sizes[2] > 1 else 0,
    )  # fmt: skip


def ends(lengths: Tensor | None, plan: Plan) -> Tensor | None:
    """Where rows end, or None if all are full."""
    return None if lengths is None else row_ends(lengths, plan.batch, plan.length)


def unit(array: Tensor) -> Tensor:
    """The same values, the last axis with unit stride."""
    found = rows(array)
    assert found is not None
    return found


def forward(plan: Plan, given: Inputs, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """y (B, L, H, V) and the last state (B, H, K, V); `kept` takes what `backward` needs."""
    q, k, v, g = _activations(plan, given)
    y = empty(plan.batch, plan.length, plan.heads, plan.values, dtype=v.dtype)
    last = empty(plan.batch, plan.heads, plan.keys, plan.values)
    A, bias, D, initial = (dense(single(a)) for a in (given.A, given.bias, given.D, given.initial))
    reset, stops = flags(given.reset), ends(given.lengths, plan)
    if plan.length == 1 and kept is None:
        launch(
            step_jobs, plan.batch * plan.heads, last.numel(), step_scratch(plan.keys, plan.values),
            kind(q, k, v), kind(g),
            *headed(q), *headed(k), *headed(v), *headed(g),
            *map(address, (A, bias, D, initial, reset, stops, y, last)),
            plan.heads, plan.groups, plan.keys, plan.values,
            plan.kind, int(given.soft), float(given.low), float(given.high), float(given.scale),
        )  # fmt: skip
        return y, last
    launch(
        forward_jobs, plan.jobs, plan.work,
        forward_scratch(plan.keys, plan.values, plan.chunk, plan.share), kind(q, k, v), kind(g),
        *headed(q), *headed(k), *headed(v), *headed(g),
        *map(address, (A, bias, D, initial, reset, stops, y, last, kept)),
        plan.batch, plan.length, plan.heads, plan.groups, plan.share, plan.keys, plan.values,
        plan.kind, plan.chunk, plan.span, int(given.soft), float(given.low), float(given.high), float(given.scale),
    )  # fmt: skip
    return y, last


def _activations(plan: Plan, given: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v, stored alike, and g, which keeps its digits."""
    q, k, v = given.q, given.k, given.v
    if not q.dtype == k.dtype == v.dtype:
        dtype = stored_as(q, k, v)
        q, k, v = (a.detach().to(dtype) for a in (q, k, v))
    q, k, v = unit(q), unit(k), unit(v)
    return q, k, v, unit(given.g) if plan.kind == EACH_KEY else given.g.resolve_neg()


class Gradients(NamedTuple):
    """What `backward` returns, by the names of `Inputs`."""

    q: Tensor
    k: Tensor
    v: Tensor
    g: Tensor
    A: Tensor | None
    bias: Tensor | None
    D: Tensor | None
    initial: Tensor


def backward(plan: Plan, given: Inputs, kept: Tensor, dy: Tensor | None, dlast: Tensor | None) -> Gradients:
    """Gradients of y and the last state -> of the inputs. That of g has the full (B, L, H, ...)."""
    B, L, H, G = plan.batch, plan.length, plan.heads, plan.groups
    each_key = plan.kind == EACH_KEY
    q, k, v, g = _activations(plan, given)
    dy = zeros(B, L, H, plan.values, dtype=v.dtype) if dy is None else unit(dy.to(v.dtype))
    A, bias, D, dlast = (dense(single(a)) for a in (given.A, given.bias, given.D, dlast))
    reset, stops = flags(given.reset), ends(given.lengths, plan)
    parts = H // G // plan.share
    summed = v.dtype if parts == 1 else torch.float32
    dq, dk = (empty(parts, B, L, G, plan.keys, dtype=summed) for _ in range(2))
    dv, dinitial = empty(v.shape, dtype=v.dtype), empty(B, H, plan.keys, plan.values)
    dg = empty(B, L, H, plan.keys, dtype=g.dtype) if each_key else empty(B, L, H)
    dA, dbias, dD = (empty(B, H) if plan.kind == SSD else None for _ in range(3))
    launch(
        backward_jobs, plan.jobs, 3 * plan.work,
        backward_scratch(plan.keys, plan.values, plan.chunk, plan.share, plan.span),
        kind(q, k, v, dy), kind(g), kind(dq),
        *headed(q), *headed(k), *headed(v), *headed(g), *headed(dy),
        *map(address, (A, bias, D, dlast, reset, stops, kept)),
        *map(address, (dq, dk, dv, dg, dA, dbias, dD, dinitial)),
        B, L, H, G, plan.share, plan.keys, plan.values,
        plan.kind, plan.chunk, plan.span, int(given.soft), float(given.low), float(given.high), float(given.scale),
    )  # fmt: skip
    dA, dbias, dD = (None if a is None else total(a) for a in (dA, dbias, dD))
    return Gradients(total(dq), total(dk), dv, dg, dA, dbias, dD, dinitial)
