"""The diagonal complex recurrence (S4D) on the CPU: forward, and backward by recomputation from states kept per tile.

Sixteen channels are the lanes of a vector, real and imaginary parts vectors of their own. Memory is O(B L D).

Source: Gu, Gupta, Goel and Ré, On the Parameterization and Initialization of Diagonal State Space Models, 2022.
"""

from __future__ import annotations

from typing import Any

import torch
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
from helix_plugin_cpu.kernels._blocks import (
    blocks_per_job,
    clear_vectors,
    copy_vectors,
    gather_block,
    last_start,
    next_start,
    scatter_block,
    starts_at,
    total,
)
from helix_plugin_cpu.kernels._jit import kernel
from helix_plugin_cpu.kernels._memory import FLOAT, get_int, prefetch, take_job
from helix_plugin_cpu.kernels._modes import MODE, mode_adjoint, modes1, modes2
from helix_plugin_cpu.kernels._scan_forward import tile_steps
from helix_plugin_cpu.kernels._simd import LANES, VECTOR, load, store
from helix_plugin_cpu.kernels._storage import clear_stored, kind, read, size_of, write
from helix_plugin_cpu.kernels._threads import launch
from helix_plugin_torch.arguments import FLOATS, Shape, dense, rows

NAMES = ("u", "log_a", "c", "initial_state", "reset", "lengths")


@kernel
def forward_jobs(
    counter: int, jobs: int, scratch: int, kind: float,
    u: int, u_b: int, u_t: int, a: int, c: int, initial: int, resets: int, ends: int,
    y: int, last: int, kept: int, length: int, channels: int, modes: int, group: int, tile: int,
) -> None:  # fmt: skip
    """Optional arrays have the address 0. `kept` takes the states in front of every tile.

    u and y are stored as `kind` says, everything else as float32.
    """
    wide = size_of(kind)
    blocks = (channels + LANES - 1) // LANES
    groups = (blocks + group - 1) // group
    tiles = (length + tile - 1) // tile
    size = MODE * modes
    a_l, c_l, h_l = scratch, scratch + group * size, scratch + 2 * group * size
    u_l = h_l + group * size
    y_l = u_l + VECTOR * tile
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        row, first = job // groups, (job % groups) * group
        stop = min(blocks, first + group)
        end = get_int(ends + 8 * row)
        flags = resets + row * length if resets != 0 else 0
        for block in range(first, stop):
            d, at = block * LANES, (block - first) * size
            lanes, here = min(LANES, channels - d), FLOAT * 2 * modes * d
            gather_block(a + here, 2 * modes, 2 * modes, lanes, 1.0, a_l + at)
            gather_block(c + here, 2 * modes, 2 * modes, lanes, 2.0, c_l + at)
            if initial != 0:
                start = initial + FLOAT * (row * channels + d) * 2 * modes
                gather_block(start, 2 * modes, 2 * modes, lanes, 1.0, h_l + at)
            else:
                clear_vectors(h_l + at, 2 * modes)
        t = 0
        while t < end:
            t_end = next_start(flags, t, min((t // tile + 1) * tile, end))
            steps = t_end - t
            for block in range(first, stop):
                d, at = block * LANES, (block - first) * size
                lanes = min(LANES, channels - d)
                if kept != 0 and t % tile == 0:
                    copy_vectors(h_l + at, kept + ((row * tiles + t // tile) * blocks + block) * size, 2 * modes)
                if starts_at(flags, t):
                    clear_vectors(h_l + at, 2 * modes)
                u_row = u + wide * (row * u_b + t * u_t + d)
                for i in range(steps):
                    prefetch(u_row + wide * (i + tile) * u_t)
                    store(u_l + VECTOR * i, read(kind, u_row + wide * i * u_t, lanes))
                clear_vectors(y_l, steps)
                for n in range(0, modes - 1, 2):
                    here = at + MODE * n
                    modes2(a_l + here, c_l + here, h_l + here, u_l, y_l, steps)
                if modes % 2:
                    here = at + MODE * (modes - 1)
                    modes1(a_l + here, c_l + here, h_l + here, u_l, y_l, steps)
                out = y + wide * ((row * length + t) * channels + d)
                for i in range(steps):
                    write(kind, out + wide * i * channels, load(y_l + VECTOR * i), lanes)
            t = t_end
        d = first * LANES
        width = min(channels, stop * LANES) - d
        clear_stored(kind, y + wide * ((row * length + end) * channels + d), channels, length - end, width)
        for block in range(first, stop):
            d = block * LANES
            target = last + FLOAT * (row * channels + d) * 2 * modes
            scatter_block(
                h_l + (block - first) * size, 2 * modes, 2 * modes, min(LANES, channels - d), target
            )  # fmt: skip


@kernel
def backward_jobs(
    counter: int, jobs: int, scratch: int, kind: float,
    u: int, u_b: int, u_t: int, dy: int, dy_b: int, dy_t: int, a: int, c: int, dlast: int, resets: int, ends: int,
    kept: int, du: int, da: int, dc: int, dinitial: int, length: int, channels: int, modes: int, tile: int,
) -> None:  # fmt: skip
    """da and dc (B, blocks, 2 N, 16) are partial sums; dc is that of the doubled c. A job is one row of one block.

    u, dy and du are stored as `kind` says, everything else as float32.
    """
    wide = size_of(kind)
    blocks = (channels + LANES - 1) // LANES
    tiles = (length + tile - 1) // tile
    size = MODE * modes
    a_l, c_l, g_l, da_l, dc_l = scratch, scratch + size, scratch + 2 * size, scratch + 3 * size, scratch + 4 * size
    u_l = scratch + 5 * size
    dy_l, du_l, states_l = u_l + VECTOR * tile, u_l + 2 * VECTOR * tile, u_l + 3 * VECTOR * tile
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        row, block = job // blocks, job % blocks
        d = block * LANES
        lanes, here = min(LANES, channels - d), FLOAT * 2 * modes * d
        end = get_int(ends + 8 * row)
        flags = resets + row * length if resets != 0 else 0
        gather_block(a + here, 2 * modes, 2 * modes, lanes, 1.0, a_l)
        gather_block(c + here, 2 * modes, 2 * modes, lanes, 2.0, c_l)
        clear_vectors(g_l, 6 * modes)
        if dlast != 0:
            start = dlast + FLOAT * (row * channels + d) * 2 * modes
            gather_block(start, 2 * modes, 2 * modes, lanes, 1.0, g_l)
        t_end = end
        while t_end > 0:
            t = last_start(flags, (t_end - 1) // tile * tile, t_end)
            steps = t_end - t
            fresh = starts_at(flags, t)
            u_row, dy_row = u + wide * (row * u_b + t * u_t + d), dy + wide * (row * dy_b + t * dy_t + d)
            for i in range(steps):
                store(u_l + VECTOR * i, read(kind, u_row + wide * i * u_t, lanes))
                if dy != 0:
                    store(dy_l + VECTOR * i, read(kind, dy_row + wide * i * dy_t, lanes))
                else:
                    clear_vectors(dy_l + VECTOR * i, 1)
            clear_vectors(du_l, steps)
            for n in range(modes):
                at = MODE * n
                h = 0 if fresh else kept + ((row * tiles + t // tile) * blocks + block) * size + at
                mode_adjoint(
                    a_l + at, c_l + at, h, g_l + at, da_l + at, dc_l + at, u_l, dy_l, du_l, states_l, steps
                )  # fmt: skip
            for i in range(steps):
                write(kind, du + wide * ((row * length + t + i) * channels + d), load(du_l + VECTOR * i), lanes)
            if fresh:  # nothing flows into the document before
                clear_vectors(g_l, 2 * modes)
            t_end = t
        clear_stored(kind, du + wide * ((row * length + end) * channels + d), channels, length - end, lanes)
        copy_vectors(da_l, da + (row * blocks + block) * size, 2 * modes)
        copy_vectors(dc_l, dc + (row * blocks + block) * size, 2 * modes)
        scatter_block(g_l, 2 * modes, 2 * modes, lanes, dinitial + FLOAT * (row * channels + d) * 2 * modes)


def residuals(u: Shape, log_a: Shape, *rest: Any, **attrs: Any) -> tuple[Shape, ...]:
    """The states in front of every tile, in blocks of sixteen channels."""
    tile = tile_steps(2 * log_a[1])
    tiles, blocks = (u[1] + tile - 1) // tile, (u[2] + LANES - 1) // LANES
    return ((u[0] * tiles * blocks * 2 * log_a[1] * LANES,),)


def forward(*arrays: Tensor | None) -> tuple[Tensor, Tensor]:
    """The inputs of the op, in its order -> y (B, L, D), last_state (B, D, N, 2).

    u (B, L, D); log_a, c (D, N, 2); optionally initial_state (B, D, N, 2), reset (B, L), lengths (B,). u and y are
    float32 or half precision, the rest float32. Raises TypeError for other dtypes, ValueError for shapes.
    """
    return _forward(_checked(arrays), None)


def forward_train(*arrays: Tensor | None) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    given = _checked(arrays)
    kept = empty(residuals(given["u"].shape, given["log_a"].shape)[0])
    return _forward(given, kept), (kept,)


def backward(
    grads: tuple[Tensor | None, ...], arrays: tuple[Tensor | None, ...], saved: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one per array; None for absent ones and flags."""
    given = _checked(arrays)
    batch, length, channels = given["u"].shape
    modes = given["log_a"].shape[1]
    check(
        "diagonal_ssm's backward",
        {"y": (grads[0], (batch, length, channels)), "last_state": (grads[1], (batch, channels, modes, 2))},
        dtypes=FLOATS,
    )
    u, dy = rows(given["u"]), rows(stored_like(grads[0], given["u"]))
    c, dlast = dense(single(given["c"])), dense(single(grads[1]))
    a = _exponential(given["log_a"])
    reset, ends = flags(given["reset"]), row_ends(given["lengths"], batch, length)
    kept = from_forward("diagonal_ssm", saved[0], *residuals(given["u"].shape, given["log_a"].shape))
    blocks, tile = -(-channels // LANES), tile_steps(2 * modes)
    du, dinitial = (
        torch.empty_like(given["u"], memory_format=torch.contiguous_format),
        empty(batch, channels, modes, 2),
    )
    da, dc = empty(batch, blocks, 2 * modes, LANES), empty(batch, blocks, 2 * modes, LANES)
    launch(
        backward_jobs, batch * blocks, 16 * batch * length * channels * modes,
        VECTOR * (10 * modes + 5 * tile), kind(u, dy),
        *strided(u), *strided(dy), *(address(z) for z in (a, c, dlast, reset, ends, kept)),
        *(address(z) for z in (du, da, dc, dinitial)), length, channels, modes, tile,
    )  # fmt: skip
    da, dc = _by_channel(da, channels), 2 * _by_channel(dc, channels)
    real, imaginary = da[..., 0], da[..., 1]
    # d/d(log a) = conj(a) d/da.
    dlog_a = torch.stack([a[..., 0] * real + a[..., 1] * imaginary, a[..., 0] * imaginary - a[..., 1] * real], dim=-1)
    return cast_back((du, dlog_a, dc, None if given["initial_state"] is None else dinitial, None, None), arrays)


def _by_channel(parts: Tensor, channels: int) -> Tensor:
    """(B, blocks, 2 N, 16) -> (D, N, 2), summed over the batch."""
    summed = total(parts).transpose(1, 2).reshape(-1, parts.shape[2])[:channels]
    return summed.reshape(channels, -1, 2).contiguous()


def _exponential(log_a: Tensor) -> Tensor:
    """exp(log_a) as (real, imaginary), rounded once: what is off in a decay is off again at every step."""
    log_a = log_a.detach().double()
    size = log_a[..., 0].exp()
    return torch.stack([size * log_a[..., 1].cos(), size * log_a[..., 1].sin()], dim=-1).float()


def _checked(arrays: tuple[Tensor | None, ...]) -> dict[str, Any]:
    given: dict[str, Any] = dict(zip(NAMES, (*arrays, *(None,) * (len(NAMES) - len(arrays))), strict=True))
    u, log_a = given["u"], given["log_a"]
    if u is None or u.ndim != 3:
        raise ValueError(f"diagonal_ssm: u must be (B, L, D), not {None if u is None else tuple(u.shape)}")
    if log_a is None or log_a.ndim != 3:
        raise ValueError(f"diagonal_ssm: log_a must be (D, N, 2), not {None if log_a is None else tuple(log_a.shape)}")
    if given["c"] is None:
        raise ValueError("diagonal_ssm: c is missing")
    batch, length, channels = u.shape
    system = (channels, log_a.shape[1], 2)
    shapes = ((batch, length, channels), system, system, (batch, *system), (batch, length), (batch,))
    expected = {name: (given[name], shape) for name, shape in zip(NAMES, shapes, strict=True)}
    check("diagonal_ssm", expected, dtypes=FLOATS)
    return given


def _forward(given: dict[str, Any], kept: Tensor | None) -> tuple[Tensor, Tensor]:
    batch, length, channels = given["u"].shape
    modes = given["log_a"].shape[1]
    u, c, initial = rows(given["u"]), dense(single(given["c"])), dense(single(given["initial_state"]))
    a = _exponential(given["log_a"])
    reset, ends = flags(given["reset"]), row_ends(given["lengths"], batch, length)
    y, last = (
        torch.empty_like(given["u"], memory_format=torch.contiguous_format),
        empty(batch, channels, modes, 2),
    )
    blocks, tile = -(-channels // LANES), tile_steps(2 * modes)
    group = blocks_per_job(batch, blocks)
    launch(
        forward_jobs, batch * -(-blocks // group), 6 * batch * length * channels * modes,
        VECTOR * (6 * modes * group + 2 * tile), kind(u),
        *strided(u), *(address(z) for z in (a, c, initial, reset, ends, y, last, kept)),
        length, channels, modes, group, tile,
    )  # fmt: skip
    return y, last
