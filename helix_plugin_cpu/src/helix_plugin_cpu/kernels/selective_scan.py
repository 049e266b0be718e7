"""Mamba's selective scan on the CPU: forward, and backward by recomputation from a state every TILE steps.

A job is one row of the batch and a group of channels; inside it, time goes in tiles and each tile goes through its
blocks of sixteen channels, so that rows are read a cache line at a time while they are near. Memory is O(B L D):
the (B, L, D, N) tensor of states is never built.

Source: Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from helix_plugin_cpu.kernels._inputs import dense, flags_and_ends, rows, vector
from helix_plugin_cpu.kernels._scan_jobs import backward_jobs, forward_jobs
from helix_plugin_cpu.kernels._scan_tiles import TILE
from helix_plugin_cpu.kernels._simd import LANES
from helix_plugin_cpu.kernels._threads import run_jobs

FORWARD_GROUP = 64
BACKWARD_JOBS = 8

Shape = tuple[int, ...]


def residuals(u: Shape, delta: Shape, A: Shape, *rest: Any, delta_softplus: bool = False) -> tuple[Shape, ...]:
    """The states in front of every tile, in blocks of sixteen channels.

    Flat, since a compiler that traces with a symbolic length would tie itself to a number of tiles that is one.
    """
    tiles, blocks = (u[1] + TILE - 1) // TILE, (u[2] + LANES - 1) // LANES
    return ((u[0] * tiles * blocks * A[1] * LANES,),)


def forward(*arrays: Tensor | None, delta_softplus: bool = False) -> tuple[Tensor, Tensor]:
    """(u, delta, A, B, C, D, z, delta_bias, initial_state, reset, lengths) -> y (B, L, D), last_state (B, D, N).

    Raises TypeError for arrays that are not float32, ValueError for shapes that do not fit.
    """
    outputs, _ = _run_forward(arrays, delta_softplus, keep_states=False)
    return outputs


def forward_train(
    *arrays: Tensor | None, delta_softplus: bool = False
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    return _run_forward(arrays, delta_softplus, keep_states=True)


def _check(arrays: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    given = (*arrays, *(None,) * (11 - len(arrays)))
    u, delta, A, B, C, D, z, bias, h0, reset, lengths = given
    assert u is not None
    assert A is not None
    batch, length, channels = u.shape
    N = A.shape[1]
    expected = {
        "delta": (delta, (batch, length, channels)),
        "A": (A, (channels, N)),
        "B": (B, (batch, length, N)),
        "C": (C, (batch, length, N)),
        "D": (D, (channels,)),
        "z": (z, (batch, length, channels)),
        "delta_bias": (bias, (channels,)),
        "initial_state": (h0, (batch, channels, N)),
        "reset": (reset, (batch, length)),
        "lengths": (lengths, (batch,)),
    }
    for name, (array, shape) in expected.items():
        if array is not None and tuple(array.shape) != shape:
            raise ValueError(f"selective_scan: {name} has shape {tuple(array.shape)}, expected {shape}")
        if array is not None and name not in ("reset", "lengths") and array.dtype != torch.float32:
            raise TypeError(f"selective_scan: {name} is {array.dtype}; this kernel takes float32")
    if u.dtype != torch.float32:
        raise TypeError(f"selective_scan: u is {u.dtype}; this kernel takes float32")
    return given


def _run_forward(
    arrays: tuple[Tensor | None, ...], delta_softplus: bool, keep_states: bool
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    u, delta, A, B, C, D, z, bias, h0, reset, lengths = _check(arrays)
    assert u is not None
    assert A is not None
    batch, length, channels = u.shape
    N = A.shape[1]
    y = torch.empty(batch, length, channels)
    last = torch.empty(batch, channels, N)
    shapes = residuals(tuple(u.shape), (), tuple(A.shape)) if keep_states else ((0,),)
    states = torch.empty(shapes[0])
    A2 = blocked(A.detach() * math.log2(math.e))
    sources = [rows(a) for a in (u, delta, B, C, z)]
    D_v, bias_v, h0_d = vector(D, channels), vector(bias, channels), dense(h0)
    resets, ends = flags_and_ends(reset, lengths, batch, length)
    addresses = [value for source in sources for value in source.parts]

    def job(start: int, stop: int) -> None:
        forward_jobs(
            start,
            stop,
            FORWARD_GROUP,
            *addresses,
            A2.data_ptr(),
            D_v.data_ptr(),
            bias_v.data_ptr(),
            h0_d.numpy(),
            y.data_ptr(),
            last.numpy(),
            states.data_ptr(),
            resets,
            ends,
            length,
            channels,
            N,
            delta_softplus,
            keep_states,
        )

    groups = -(-channels // FORWARD_GROUP)
    run_jobs(job, batch * groups, batch * length * channels * N)
    return (y, last), (states,) if keep_states else ()


def backward(
    grads: tuple[Tensor | None, ...],
    arrays: tuple[Tensor | None, ...],
    saved: tuple[Tensor, ...],
    *,
    delta_softplus: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one gradient or None per array."""
    u, delta, A, B, C, D, z, bias, h0, reset, lengths = _check(arrays)
    assert u is not None
    assert A is not None
    batch, length, channels = u.shape
    N = A.shape[1]
    dy = torch.zeros(batch, length, channels) if grads[0] is None else grads[0]
    # Enough jobs for any common number of threads, few enough that the partial sums of dB and dC stay small; a
    # function of the shape only, so that results do not depend on the number of threads.
    groups = max(1, min(-(-BACKWARD_JOBS // max(batch, 1)), -(-channels // FORWARD_GROUP)))
    group = LANES * -(-channels // (LANES * groups))
    groups = -(-channels // group)
    du, ddelta = torch.empty(batch, length, channels), torch.empty(batch, length, channels)
    dz = torch.empty(batch, length, channels) if z is not None else torch.empty(0)
    dA = torch.empty(batch, channels, N)
    dB, dC = torch.empty(groups, batch, length, N), torch.empty(groups, batch, length, N)
    dD, dbias = torch.empty(batch, channels), torch.empty(batch, channels)
    dh0 = torch.empty(batch, channels, N)
    A1, A2 = blocked(A.detach()), blocked(A.detach() * math.log2(math.e))
    sources = [rows(a) for a in (u, delta, B, C, z, dy)]
    D_v, bias_v, dlast = vector(D, channels), vector(bias, channels), dense(grads[1])
    resets, ends = flags_and_ends(reset, lengths, batch, length)
    addresses = [value for source in sources for value in source.parts]

    def job(start: int, stop: int) -> None:
        backward_jobs(
            start,
            stop,
            group,
            *addresses,
            A1.data_ptr(),
            A2.data_ptr(),
            D_v.data_ptr(),
            bias_v.data_ptr(),
            dlast.numpy(),
            saved[0].data_ptr(),
            du.data_ptr(),
            ddelta.data_ptr(),
            dz.data_ptr(),
            dA.numpy(),
            dB.numpy(),
            dC.numpy(),
            dD.numpy(),
            dbias.numpy(),
            dh0.numpy(),
            resets,
            ends,
            length,
            channels,
            N,
            delta_softplus,
            z is not None,
        )

    run_jobs(job, batch * groups, 3 * batch * length * channels * N)
    return (
        du,
        ddelta,
        dA.sum(0),
        dB.sum(0),
        dC.sum(0),
        None if D is None else dD.sum(0),
        None if z is None else dz,
        None if bias is None else dbias.sum(0),
        None if h0 is None else dh0,
        None,
        None,
    )


def blocked(A: Tensor) -> Tensor:
    """(D, N) -> (blocks, N, 16), zeros in the lanes beyond D."""
    channels, N = A.shape
    blocks = -(-channels // LANES)
    padded = torch.zeros(blocks * LANES, N)
    padded[:channels] = A
    return padded.view(blocks, LANES, N).transpose(1, 2).contiguous()
