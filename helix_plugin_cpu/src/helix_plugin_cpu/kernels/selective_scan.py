"""Mamba's selective scan on the CPU: forward, and backward by recomputation from states kept every few steps.

Memory is O(B L D): the (B, L, D, N) tensor of states is never built. Rows of u, delta, B, C, z may be strided
(halves of a wider tensor, say) as long as their last axis has unit stride; any other layout is copied first.

Source: Gu and Dao, Mamba: Linear-Time Sequence Modeling with Selective State Spaces, 2023.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from helix_plugin_cpu.kernels._arguments import (
    address,
    cast_back,
    check,
    empty,
    flags,
    from_forward,
    row_ends,
    single,
    stored_like,
    strided,
)
from helix_plugin_cpu.kernels._blocks import blocks_per_job, by_row, total
from helix_plugin_cpu.kernels._scan_backward import backward_jobs, backward_scratch
from helix_plugin_cpu.kernels._scan_forward import forward_jobs, forward_scratch, tile_steps
from helix_plugin_cpu.kernels._simd import LANES
from helix_plugin_cpu.kernels._storage import kind
from helix_plugin_cpu.kernels._threads import launch
from helix_plugin_torch.arguments import FLOATS, Shape, dense, rows

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state", "reset", "lengths")


def residual_shapes(B: int, L: int, D: int, N: int) -> tuple[Shape, ...]:
    """float32 shapes of the residuals: the states in front of every tile, in blocks of sixteen channels.

    One axis: a symbolic number of tiles as an axis of its own would make torch.export tell one tile from more.
    """
    tile = tile_steps(N)
    return ((B * ((L + tile - 1) // tile) * ((D + LANES - 1) // LANES) * N * LANES,),)


def residuals(u: Shape, delta: Shape, A: Shape, *rest: Any, **attrs: Any) -> tuple[Shape, ...]:
    """`residual_shapes` from the shapes of the inputs."""
    return residual_shapes(u[0], u[1], u[2], A[1])


def forward(*arrays: Tensor | None, delta_softplus: bool = False) -> tuple[Tensor, Tensor]:
    """The 11 inputs of the op, in its order -> y (B, L, D), last_state (B, D, N).

    u, delta, z (B, L, D); A (D, N); B, C (B, L, N); D, delta_bias (D,); initial_state (B, D, N); reset (B, L)
    bool; lengths (B,). From D on they are optional. Activations are float32 or half precision,
    the rest float32. Raises TypeError for other dtypes, ValueError for shapes that do not fit.
    """
    return _forward(_checked(arrays), delta_softplus, None)


def forward_train(
    *arrays: Tensor | None, delta_softplus: bool = False
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    given = _checked(arrays)
    kept = empty(residuals(given["u"].shape, given["delta"].shape, given["A"].shape)[0])
    return _forward(given, delta_softplus, kept), (kept,)


def backward(
    grads: tuple[Tensor | None, ...],
    arrays: tuple[Tensor | None, ...],
    saved: tuple[Tensor, ...],
    *,
    delta_softplus: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one per array; None for absent ones and flags."""
    given = _checked(arrays)
    batch, length, channels = given["u"].shape
    states = given["A"].shape[1]
    blocks = -(-channels // LANES)
    group, tile = blocks_per_job(batch, blocks), tile_steps(states)
    groups = -(-blocks // group)
    check(
        "selective_scan's backward",
        {"y": (grads[0], (batch, length, channels)), "last_state": (grads[1], (batch, channels, states))},
        dtypes=FLOATS,
    )
    u, delta, z = (rows(stored_like(given[name], given["u"])) for name in ("u", "delta", "z"))
    B, C = (rows(single(given[name])) for name in ("B", "C"))
    A, D, bias = (dense(single(given[name])) for name in ("A", "D", "delta_bias"))
    reset, ends = flags(given["reset"]), row_ends(given["lengths"], batch, length)
    dy, dlast = rows(stored_like(grads[0], u)), dense(single(grads[1]))
    du, ddelta, dz = (None if a is None else empty(a.shape, dtype=a.dtype) for a in (u, delta, z))
    dinitial = empty(batch, channels, states)
    by_channel = empty(batch, blocks, states + 2, LANES)
    by_step = empty(groups, batch, length, 2 * states)
    kept = from_forward("selective_scan", saved[0], *residuals(u.shape, delta.shape, A.shape))
    work = batch * length * channels * states
    launch(
        backward_jobs, batch * groups, 3 * work, backward_scratch(states, tile, group), kind(u, delta, z, dy),
        *strided(u), *strided(delta), *strided(B), *strided(C), *strided(z), *strided(dy),
        *map(address, (A, D, bias, dlast, reset, ends, kept)),
        *map(address, (du, ddelta, dz, by_channel, by_step, dinitial)),
        batch, length, channels, states, group, tile, int(delta_softplus),
    )  # fmt: skip
    dA, dD, dbias = by_row(total(by_channel), channels).split((states, 1, 1))
    dB, dC = total(by_step).chunk(2, -1)
    grads = (
        du,
        ddelta,
        dA.T.contiguous(),
        dB,
        dC,
        None if D is None else dD[0],
        dz,
        None if bias is None else dbias[0],
        None if given["initial_state"] is None else dinitial,
        None,
        None,
    )
    return cast_back(grads, tuple(given.values()))


def _checked(arrays: tuple[Tensor | None, ...]) -> dict[str, Any]:
    given: dict[str, Any] = dict(zip(NAMES, (*arrays, *(None,) * (len(NAMES) - len(arrays))), strict=True))
    u, A = given["u"], given["A"]
    if u is None or u.ndim != 3:
        raise ValueError(f"selective_scan: u must be (B, L, D), not {None if u is None else tuple(u.shape)}")
    if A is None or A.ndim != 2:
        raise ValueError(f"selective_scan: A must be (D, N), not {None if A is None else tuple(A.shape)}")
    batch, length, channels = u.shape
    states = A.shape[1]
    sequence, projection = (batch, length, channels), (batch, length, states)
    shapes = (
        sequence, sequence, (channels, states), projection, projection, (channels,), sequence, (channels,),
        (batch, channels, states), (batch, length), (batch,),
    )  # fmt: skip
    for name in ("delta", "B", "C"):
        if given[name] is None:
            raise ValueError(f"selective_scan: {name} is missing")
    expected = {name: (given[name], shape) for name, shape in zip(NAMES, shapes, strict=True)}
    check("selective_scan", expected, dtypes=FLOATS)
    return given


def _forward(given: dict[str, Any], delta_softplus: bool, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    batch, length, channels = given["u"].shape
    states = given["A"].shape[1]
    blocks = -(-channels // LANES)
    group, tile = blocks_per_job(batch, blocks), tile_steps(states)
    u, delta, z = (rows(stored_like(given[name], given["u"])) for name in ("u", "delta", "z"))
    B, C = (rows(single(given[name])) for name in ("B", "C"))
    A, D, bias, initial = (dense(single(given[name])) for name in ("A", "D", "delta_bias", "initial_state"))
    reset, ends = flags(given["reset"]), row_ends(given["lengths"], batch, length)
    y, last = empty(u.shape, dtype=u.dtype), empty(batch, channels, states)
    launch(
        forward_jobs, batch * -(-blocks // group), batch * length * channels * states,
        forward_scratch(states, tile, group), kind(u, delta, z),
        *strided(u), *strided(delta), *strided(B), *strided(C), *strided(z),
        *map(address, (A, D, bias, initial, reset, ends, y, last, kept)),
        length, channels, states, group, tile, int(delta_softplus),
    )  # fmt: skip
    return y, last
