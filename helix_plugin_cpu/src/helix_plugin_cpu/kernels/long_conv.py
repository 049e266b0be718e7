"""Causal convolution with a long filter on the CPU, by our own Fourier transforms: forward and backward.

Rows stay as they are, (B, L, D) with channels last: sixteen channels are the lanes of a vector, so that transforms
along time need no shuffles and no transposition. Memory besides inputs and outputs: a transform per thread (three in
the backward pass) and the filter's spectrum. Rows of u and the gates may be strided as long as their last axis has unit
stride. Documents (`reset`) are convolved each with a transform of its own length.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.nn.functional import pad

from helix_plugin_cpu.kernels._arguments import (
    CPU,
    address,
    cast_back,
    check,
    empty,
    flags,
    integers,
    row_ends,
    stored_as,
    zeros,
)
from helix_plugin_cpu.kernels._blocks import blocks_per_job, total
from helix_plugin_cpu.kernels._direct_conv import direct_jobs
from helix_plugin_cpu.kernels._fft_jobs import ADJOINT, CONVOLVE, SPECTRUM, conv_jobs
from helix_plugin_cpu.kernels._fft_plan import Plan, plan
from helix_plugin_cpu.kernels._memory import FLOAT
from helix_plugin_cpu.kernels._simd import LANES, VECTOR
from helix_plugin_cpu.kernels._spectra import kept_spectrum
from helix_plugin_cpu.kernels._storage import FLOAT32, kind
from helix_plugin_cpu.kernels._threads import launch
from helix_plugin_torch.arguments import FLOATS, Shape, dense, rows

NAMES = ("u", "filter", "pre", "post", "initial_state", "reset", "lengths")

DIRECT = 16
"""So many steps that follow an initial state are sums of products; transforms would take in the state anew."""

WIDE = 16384
"""Jobs of several blocks of channels are for transforms up to so many points; they take memory in proportion."""

ENOUGH_JOBS = 8

Group = tuple[Plan, Tensor]
"""A plan and the segments (row, first step, steps) that it fits: int64 (segments, 3)."""


def residuals(u: Shape, filter: Shape, pre: Any = None, post: Any = None, *rest: Any, **attrs: Any) -> tuple[Shape]:
    """What `post` is multiplied with, if there is one."""
    return ((0,) if post is None else u,)


def forward(*arrays: Tensor | None) -> tuple[Tensor]:
    """(u, filter, pre, post, initial_state, reset, lengths) -> y (B, L, D); from pre on they are optional.

    u, the gates and y are float32 or half precision, the rest float32. Raises TypeError for other dtypes,
    ValueError for shapes that do not fit.
    """
    return (_forward(arrays, keep=False)[0],)


def forward_train(*arrays: Tensor | None) -> tuple[tuple[Tensor], tuple[Tensor]]:
    """`forward`, with the residual that `backward` needs."""
    y, kept = _forward(arrays, keep=True)
    return (y,), (empty(0) if kept is None else kept,)


def backward(
    grads: tuple[Tensor | None, ...], arrays: tuple[Tensor | None, ...], saved: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """The gradient of y -> gradients of u, filter, pre, post and initial_state; None for absent ones and flags."""
    given = _checked(arrays)
    u, filter, pre, post, state = (given[name] for name in NAMES[:5])
    batch, length, channels = u.shape
    dy = torch.zeros_like(u) if grads[0] is None else grads[0].to(u.dtype)
    check("long_conv's backward", {"y": (dy, (batch, length, channels))}, dtypes=FLOATS)
    dpost = None if post is None else dy.detach() * saved[0]
    before = 0 if state is None else state.shape[1]
    if channels < LANES:
        u, filter, dy = _widened(u), _widened(filter), _widened(dy)
        pre, post, state = _widened(pre), _widened(post), _widened(state)
    v, v_gate, dc, gate = rows(u), rows(pre), rows(dy), rows(post)
    if state is not None:
        v = torch.cat([state.detach(), v if v_gate is None else v * v_gate], 1)
        dc = torch.cat([zeros(batch, before, dc.shape[2]), dc if gate is None else dc * gate], 1)
        v_gate = gate = None
    assert v is not None
    assert dc is not None
    assert filter is not None
    stored = kind(v, dc, v_gate, gate)
    ragged = given["reset"] is not None or given["lengths"] is not None or before > 0
    fresh = zeros if ragged else empty
    dv = fresh(v.shape, dtype=v.dtype)
    dgate = None if v_gate is None else fresh(v.shape)
    dfilter = zeros(filter.shape)
    for shape, segments in _plans(given, length + before):
        taps = min(filter.shape[0], shape.points)
        groups = -(-filter.shape[1] // LANES)
        parts = 1 if groups >= ENOUGH_JOBS // 2 else min(len(segments), -(-ENOUGH_JOBS // groups))
        part = empty(parts, taps, filter.shape[1])
        _launch(
            ADJOINT, shape, segments, filter.shape[1],
            [(dc, gate), (v, v_gate), (dv, v_gate), (dgate, v if v_gate is not None else None)],
            _spectrum(arrays[1], filter, shape, stored), taps, part, parts, stored,
        )  # fmt: skip
        dfilter[:taps] += total(part)
    du, dpre = dv[:, before:], dgate
    if state is not None and pre is not None:
        du, dpre = du * pre, du * u
    if given["lengths"] is not None:  # what padding holds may be no number, and 0 times it
        real = (
            torch.arange(length, dtype=torch.int64, device=CPU) < row_ends(given["lengths"], batch, length)[:, None]
        )[..., None]
        du = torch.where(real, du, 0.0)
        dpre, dpost = (None if a is None else torch.where(real, a, 0.0) for a in (dpre, dpost))
    dstate = None if len(arrays) < 5 or arrays[4] is None else dv[:, :before]
    found = (du, dfilter, dpre, dpost, dstate)
    return cast_back((*(None if a is None else a[..., :channels].contiguous() for a in found), None, None), arrays)


def _forward(arrays: tuple[Tensor | None, ...], keep: bool) -> tuple[Tensor, Tensor | None]:
    """y and, if it is to be kept, what `post` was multiplied with."""
    given = _checked(arrays)
    u, filter, pre, post, state = (given[name] for name in NAMES[:5])
    _, length, channels = u.shape
    if channels < LANES:
        u, filter, pre, post, state = (_widened(a) for a in (u, filter, pre, post, state))
    v, v_gate, gate = rows(u), rows(pre), rows(post)
    stored = kind(v, v_gate, gate)
    before = 0 if state is None else state.shape[1]
    assert v is not None
    if state is not None and length <= DIRECT:
        y, kept = _direct(given, v if v_gate is None else v * v_gate, state, filter, gate, keep)
    else:
        if state is not None:
            v, v_gate = torch.cat([state.detach(), v if v_gate is None else v * v_gate], 1), None
        fresh = zeros if given["lengths"] is not None or before else empty
        y = fresh(v.shape, dtype=v.dtype)
        kept = zeros(v.shape) if keep and gate is not None and not before else None
        for shape, segments in _plans(given, length + before):
            spectrum = _spectrum(arrays[1], filter, shape, stored)
            into = (y, None if before else gate)
            _launch(
                CONVOLVE, shape, segments, v.shape[2],
                [(v, v_gate), (None, None), into, (kept, None)], spectrum, filter.shape[0], None, 1, stored,
            )  # fmt: skip
        if before:
            y = y[:, before:]
            if gate is not None:
                kept, y = (y if keep else None), y * gate
    y = y.to(stored_as(*arrays[:1], *arrays[2:4]))
    return y[..., :channels].contiguous(), None if kept is None else kept[..., :channels].contiguous()


def _direct(
    given: dict[str, Any], v: Tensor, state: Tensor, filter: Tensor, post: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor | None]:
    """A few steps after a state, as sums of products."""
    batch, length, channels = v.shape
    before, groups = state.shape[1], -(-channels // LANES)
    v_, state_, filter_, post = dense(v), dense(state), dense(filter), dense(post)
    reset, ends = flags(given["reset"]), row_ends(given["lengths"], batch, length)
    y = empty(batch, length, channels)
    kept = torch.empty_like(y) if keep and post is not None else None
    launch(
        direct_jobs, batch * groups, batch * length * min(filter.shape[0], before + length) * channels, 0,
        address(v_), address(state_), before, address(filter_), filter.shape[0],
        address(reset), address(ends), address(post), address(kept), address(y), length, channels, groups,
    )  # fmt: skip
    return y, kept


def _spectrum(key: Tensor | None, filter: Tensor, shape: Plan, stored: float) -> Tensor:
    """The filter's transform in the plan's own order, divided by N: float32 (groups, bytes / 4)."""

    def compute() -> Tensor:
        values = rows(filter)
        assert values is not None
        groups = -(-values.shape[1] // LANES)
        spectrum = empty(groups, shape.bytes // FLOAT)
        none = (None, None)
        _launch(
            SPECTRUM, shape, empty(0, 3, dtype=torch.int64), values.shape[1],
            [(values[None], None), none, none, none], spectrum, min(values.shape[0], shape.points), None, 1, stored,
        )  # fmt: skip
        return spectrum

    assert key is not None
    return kept_spectrum(key, shape.points, compute)


def _launch(
    mode: int, shape: Plan, segments: Tensor, channels: int,
    arrays: Sequence[tuple[Tensor | None, Tensor | None]], spectrum: Tensor, taps: int,
    dfilter: Tensor | None, parts: int, stored: float,
) -> None:  # fmt: skip
    """Run `conv_jobs`; `arrays` are u, v, y and z, each with its gate, and `stored` how activations are."""
    blocks = -(-channels // LANES)
    count = {SPECTRUM: 1, CONVOLVE: len(segments), ADJOINT: parts}[mode]
    staged = any(gate is not None for _, gate in arrays) or arrays[3][0] is not None or stored != FLOAT32
    width = blocks_per_job(count, blocks) if staged and shape.points <= WIDE else 1
    longest = int(segments[:, 2].max()) if len(segments) else 0
    stage = VECTOR * width * (longest + 3) if staged else 0
    scratch = {
        SPECTRUM: 0, CONVOLVE: shape.bytes + stage, ADJOINT: (2 + width) * shape.bytes + 2 * stage
    }[mode]  # fmt: skip
    scale = torch.full((LANES,), 1 / shape.points, dtype=torch.float32, device=CPU)
    places = [number for pair in arrays for array in pair for number in _place(array)]
    rows_done = max(len(segments), 1) * shape.points * channels
    launch(
        conv_jobs, count * -(-blocks // width), 2 * shape.points.bit_length() * rows_done, scratch,
        stored, mode, address(segments), len(segments), longest, channels, width, int(staged), *places,
        address(spectrum), taps, address(dfilter), address(scale), parts, *shape.arguments,
    )  # fmt: skip


def _place(array: Tensor | None) -> tuple[int, int, int]:
    """Address, and bytes between rows of the batch and between steps."""
    size = 0 if array is None else array.element_size()
    return (0, 0, 0) if array is None else (address(array), size * array.stride(0), size * array.stride(1))


def _plans(given: dict[str, Any], length: int) -> list[Group]:
    """Every document, grouped by the plan that fits it. `length` counts the steps of the initial state too."""
    batch, steps, _ = given["u"].shape
    before = length - steps
    if given["reset"] is None and given["lengths"] is None:
        found = [(row, 0, length) for row in range(batch)] if length else []
    else:
        ends = (row_ends(given["lengths"], batch, steps) + before).tolist()
        starts: list[list[int]] = [[0] for _ in range(batch)]
        if given["reset"] is not None:
            for row, step in given["reset"].to(torch.bool).nonzero().tolist():
                if 0 < step + before < ends[row]:
                    starts[row].append(step + before)
        found = [
            (row, begin, end - begin)
            for row in range(batch)
            for begin, end in itertools.pairwise([*starts[row], ends[row]])
            if end > max(begin, before)
        ]
    groups: dict[int, tuple[Plan, list[tuple[int, int, int]]]] = {}
    for segment in found:
        shape = plan(segment[2])
        groups.setdefault(shape.points, (shape, []))[1].append(segment)
    return [(shape, integers(segments)) for shape, segments in groups.values()]


@overload
def _widened(array: Tensor) -> Tensor: ...
@overload
def _widened(array: None) -> None: ...
def _widened(array: Tensor | None) -> Tensor | None:
    """A few channels, with channels of zeros to make a vector."""
    return None if array is None else pad(array.detach(), (0, LANES - array.shape[-1]))


def _checked(arrays: tuple[Tensor | None, ...]) -> dict[str, Any]:
    given: dict[str, Any] = dict(zip(NAMES, (*arrays, *(None,) * (len(NAMES) - len(arrays))), strict=True))
    u, filter, state = given["u"], given["filter"], given["initial_state"]
    if u is None or u.ndim != 3:
        raise ValueError(f"long_conv: u must be (B, L, D), not {None if u is None else tuple(u.shape)}")
    if filter is None or filter.ndim != 2 or filter.shape[0] < 1:
        found = None if filter is None else tuple(filter.shape)
        raise ValueError(f"long_conv: filter must be (K, D) with K >= 1, not {found}")
    if state is not None and state.ndim != 3:
        raise ValueError(f"long_conv: initial_state must be (B, S, D), not {tuple(state.shape)}")
    batch, length, channels = u.shape
    before = 0 if state is None else state.shape[1]
    shapes = (
        u.shape, (filter.shape[0], channels), u.shape, u.shape, (batch, before, channels), (batch, length), (batch,),
    )  # fmt: skip
    expected = {name: (given[name], tuple(shape)) for name, shape in zip(NAMES, shapes, strict=True)}
    check("long_conv", expected, dtypes=FLOATS)
    if state is not None and not before:
        given["initial_state"] = None
    # After a state everything is float32: its history is that, and the few new steps go into one array with it.
    dtype = stored_as(u, given["pre"], given["post"]) if given["initial_state"] is None else torch.float32
    for name in NAMES[:5]:
        if given[name] is not None:
            given[name] = given[name].to(dtype if name in ("u", "pre", "post") else torch.float32)
    return given
