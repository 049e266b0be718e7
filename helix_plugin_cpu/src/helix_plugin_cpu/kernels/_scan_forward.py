"""The forward selective scan: a job is one row of the batch and a few blocks of sixteen channels.

Time goes in tiles, and a tile goes through its blocks, so that rows are read a few cache lines at a time
while they are near. Within a tile four states at a time run along it: what they carry stays in registers, and
four exponentials at once hide each other's latency.
"""

from __future__ import annotations

from typing import Any

from helix_plugin_cpu.kernels._blocks import (
    clear_vectors,
    copy_vectors,
    gather_block,
    next_start,
    scatter_block,
    starts_at,
)
from helix_plugin_cpu.kernels._jit import inline, kernel
from helix_plugin_cpu.kernels._math import (
    EXP2_WITHIN,
    LOG2_E,
    all_within,
    canonical,
    exp2,
    exp2_within,
    larger_magnitude,
    sigmoid,
    softplus,
)
from helix_plugin_cpu.kernels._memory import FLOAT, get_int, prefetch, take_job
from helix_plugin_cpu.kernels._simd import (
    LANES,
    VECTOR,
    Vec,
    broadcast,
    fma,
    load,
    load_first,
    splat,
    store,
)
from helix_plugin_cpu.kernels._storage import clear_stored, read, size_of, write

TILE = 32
"""Steps per tile, for up to 64 states."""


def tile_steps(states: int) -> int:
    """Steps per tile, and between the states that a training forward keeps; these then take O(B L D)."""
    return TILE * max(1, (states + 63) // 64)


def forward_scratch(states: int, tile: int, group: int) -> int:
    """Bytes that `forward_jobs` needs per thread."""
    return VECTOR * (2 * group * states + 3 * tile)


@inline
def prepare(
    kind: float, delta: int, delta_t: int, u: int, u_t: int, bias: int, skip: int, x: int, xu: int, y: int,
    steps: int, lanes: int, soft: int,
) -> Vec:  # fmt: skip
    """x = Δ, xu = Δ u and y = D u for a tile of a block; bias and skip are addresses or 0.

    Returns the largest |Δ| of each channel.
    """
    largest = splat(0.0)
    bias_v = load_first(bias, lanes) if bias != 0 else splat(0.0)
    skip_v = load_first(skip, lanes) if skip != 0 else splat(0.0)
    for t in range(steps):
        u_v = read(kind, u + size_of(kind) * t * u_t, lanes)
        x_v = read(kind, delta + size_of(kind) * t * delta_t, lanes) + bias_v
        x_v = canonical(softplus(x_v) if soft else x_v)
        largest = larger_magnitude(largest, x_v)
        store(x + VECTOR * t, x_v)
        store(xu + VECTOR * t, x_v * u_v)
        store(y + VECTOR * t, skip_v * u_v)
    return largest


@inline
def within_bounds(a: int, largest: Vec) -> Any:
    """Whether no |Δ A| of four states leaves the bounds of `exp2_within`."""
    a_v = larger_magnitude(larger_magnitude(splat(0.0), load(a)), load(a + VECTOR))
    a_v = larger_magnitude(larger_magnitude(a_v, load(a + 2 * VECTOR)), load(a + 3 * VECTOR))
    return all_within(a_v * largest, EXP2_WITHIN)


@inline
def scan4(
    power: Any, a: int, h: int, b: int, b_t: int, c: int, c_t: int, x: int, xu: int, y: int, steps: int,
    ahead: int, ahead_t: int,
) -> None:  # fmt: skip
    """Advance four states along a tile: h = exp(Δ A) h + Δ u B, y += C h. `a` holds A log2 e, `power` is an exp2.

    On the way it asks for the rows at `ahead`, which the next tile needs: memory works while the cores
    compute.
    """
    a0, a1, a2, a3 = load(a), load(a + VECTOR), load(a + 2 * VECTOR), load(a + 3 * VECTOR)
    h0, h1, h2, h3 = load(h), load(h + VECTOR), load(h + 2 * VECTOR), load(h + 3 * VECTOR)
    for t in range(steps):
        prefetch(ahead + t * ahead_t)
        x_v, xu_v, y_v = load(x + VECTOR * t), load(xu + VECTOR * t), load(y + VECTOR * t)
        h0 = fma(h0, power(x_v * a0), xu_v * broadcast(b))
        h1 = fma(h1, power(x_v * a1), xu_v * broadcast(b + FLOAT))
        h2 = fma(h2, power(x_v * a2), xu_v * broadcast(b + 2 * FLOAT))
        h3 = fma(h3, power(x_v * a3), xu_v * broadcast(b + 3 * FLOAT))
        y_v = fma(h0, broadcast(c), y_v)
        y_v = fma(h1, broadcast(c + FLOAT), y_v)
        y_v = fma(h2, broadcast(c + 2 * FLOAT), y_v)
        y_v = fma(h3, broadcast(c + 3 * FLOAT), y_v)
        store(y + VECTOR * t, y_v)
        b += FLOAT * b_t
        c += FLOAT * c_t
    store(h, h0)
    store(h + VECTOR, h1)
    store(h + 2 * VECTOR, h2)
    store(h + 3 * VECTOR, h3)


@inline
def scan1(a: int, h: int, b: int, b_t: int, c: int, c_t: int, x: int, xu: int, y: int, steps: int) -> None:
    """`scan4` for one state, where their number is not a multiple of four."""
    a_v, h_v = load(a), load(h)
    for t in range(steps):
        h_v = fma(h_v, exp2(load(x + VECTOR * t) * a_v), load(xu + VECTOR * t) * broadcast(b))
        store(y + VECTOR * t, fma(h_v, broadcast(c), load(y + VECTOR * t)))
        b += FLOAT * b_t
        c += FLOAT * c_t
    store(h, h_v)


@inline
def finish(kind: float, y: int, z: int, z_t: int, out: int, out_t: int, steps: int, lanes: int) -> None:
    """Gate y with silu(z), unless z is 0, and write it out."""
    for t in range(steps):
        y_v = load(y + VECTOR * t)
        if z != 0:
            z_v = read(kind, z + size_of(kind) * t * z_t, lanes)
            y_v = y_v * (z_v * sigmoid(z_v))
        write(kind, out + size_of(kind) * t * out_t, y_v, lanes)


@kernel
def forward_jobs(
    counter: int, jobs: int, scratch: int, kind: float,
    u: int, u_b: int, u_t: int, delta: int, delta_b: int, delta_t: int, B: int, B_b: int, B_t: int,
    C: int, C_b: int, C_t: int, z: int, z_b: int, z_t: int,
    A: int, D: int, bias: int, initial: int, resets: int, ends: int, y: int, last: int, kept: int,
    length: int, channels: int, states: int, group: int, tile: int, soft: int,
) -> None:  # fmt: skip
    """Optional arrays have the address 0. `kept` takes the states in front of every tile.

    u, delta, z and y are stored as `kind` says, everything else as float32.
    """
    wide = size_of(kind)
    blocks = (channels + LANES - 1) // LANES
    groups = (blocks + group - 1) // group
    tiles = (length + tile - 1) // tile
    size = VECTOR * states
    a_l, h_l = scratch, scratch + group * size
    x_l = h_l + group * size
    xu_l, y_l = x_l + VECTOR * tile, x_l + 2 * VECTOR * tile
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
            lanes = min(LANES, channels - d)
            gather_block(A + FLOAT * d * states, states, states, lanes, LOG2_E, a_l + at)
            if initial != 0:
                start = initial + FLOAT * (row * channels + d) * states
                gather_block(start, states, states, lanes, 1.0, h_l + at)
            else:
                clear_vectors(h_l + at, states)
        t = 0
        while t < end:
            t_end = next_start(flags, t, min((t // tile + 1) * tile, end))
            steps = t_end - t
            for block in range(first, stop):
                d, at = block * LANES, (block - first) * size
                lanes = min(LANES, channels - d)
                if kept != 0 and t % tile == 0:
                    copy_vectors(h_l + at, kept + ((row * tiles + t // tile) * blocks + block) * size, states)
                if starts_at(flags, t):
                    clear_vectors(h_l + at, states)
                delta_row, u_row = (
                    delta + wide * (row * delta_b + t * delta_t + d),
                    u + wide * (row * u_b + t * u_t + d),
                )
                out = y + wide * ((row * length + t) * channels + d)
                z_row = z + wide * (row * z_b + t * z_t + d) if z != 0 else 0
                ahead = (
                    (delta_row, delta_t), (u_row, u_t), (z_row, z_t) if z != 0 else (u_row, u_t),
                    (out, channels),
                )  # fmt: skip
                largest = prepare(
                    kind, delta_row, delta_t, u_row, u_t, bias + FLOAT * d if bias != 0 else 0,
                    D + FLOAT * d if D != 0 else 0, x_l, xu_l, y_l, steps, lanes, soft,
                )  # fmt: skip
                b, c = B + FLOAT * (row * B_b + t * B_t), C + FLOAT * (row * C_b + t * C_t)
                for n in range(0, states - 3, 4):
                    here = at + VECTOR * n
                    next_row, next_t = ahead[n // 4 % 4]
                    if within_bounds(a_l + here, largest):
                        scan4(
                            exp2_within, a_l + here, h_l + here, b + FLOAT * n, B_t, c + FLOAT * n, C_t,
                            x_l, xu_l, y_l, steps, next_row + wide * tile * next_t, wide * next_t,
                        )  # fmt: skip
                    else:
                        scan4(
                            exp2, a_l + here, h_l + here, b + FLOAT * n, B_t, c + FLOAT * n, C_t,
                            x_l, xu_l, y_l, steps, next_row + wide * tile * next_t, wide * next_t,
                        )  # fmt: skip
                for n in range(states - states % 4, states):
                    here = at + VECTOR * n
                    scan1(
                        a_l + here, h_l + here, b + FLOAT * n, B_t, c + FLOAT * n, C_t, x_l, xu_l, y_l, steps
                    )  # fmt: skip
                finish(kind, y_l, z_row, z_t, out, channels, steps, lanes)
            t = t_end
        d = first * LANES
        width = min(channels, stop * LANES) - d
        clear_stored(kind, y + wide * ((row * length + end) * channels + d), channels, length - end, width)
        for block in range(first, stop):
            d, at = block * LANES, (block - first) * size
            target = last + FLOAT * (row * channels + d) * states
            scatter_block(h_l + at, states, states, min(LANES, channels - d), target)
