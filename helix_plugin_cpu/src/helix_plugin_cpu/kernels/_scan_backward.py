"""The backward selective scan: a job is one row of the batch and a few blocks of channels, last tiles first.

The states within a tile are computed again from the one that the forward kept in front of it. dB and dC sum
over channels: each job sums its own, `add_parts` the jobs, always in the same order.
"""

from __future__ import annotations

from helix_plugin_cpu.kernels._blocks import (
    clear_rows,
    clear_vectors,
    copy_vectors,
    gather_block,
    last_start,
    scatter_block,
    starts_at,
)
from helix_plugin_cpu.kernels._jit import kernel
from helix_plugin_cpu.kernels._math import LOG2_E
from helix_plugin_cpu.kernels._memory import FLOAT, get_int, take_job
from helix_plugin_cpu.kernels._scan_adjoint import (
    adjoint,
    finish_adjoint,
    prepare_adjoint,
    write_sums,
)
from helix_plugin_cpu.kernels._simd import LANES, VECTOR
from helix_plugin_cpu.kernels._storage import clear_stored, size_of

SKEW = 3
"""Rows left free behind each local buffer: 4 KB apart, all would compete for the same few lines of L1."""


def backward_scratch(states: int, tile: int, group: int) -> int:
    """Bytes that `backward_jobs` needs per thread."""
    return VECTOR * (group * (3 * states + 2) + (6 * group + 16) * (tile + SKEW) + 1)


@kernel
def backward_jobs(
    counter: int, jobs: int, scratch: int, kind: float,
    u: int, u_b: int, u_t: int, delta: int, delta_b: int, delta_t: int, B: int, B_b: int, B_t: int,
    C: int, C_b: int, C_t: int, z: int, z_b: int, z_t: int, dy: int, dy_b: int, dy_t: int,
    A: int, D: int, bias: int, dlast: int, resets: int, ends: int, kept: int,
    du: int, ddelta: int, dz: int, dA: int, dB: int, dinitial: int,
    batch: int, length: int, channels: int, states: int, group: int, tile: int, soft: int,
) -> None:  # fmt: skip
    """The gradients of all inputs; dA and dB are partial sums, which hold those of D, delta_bias and C too.

    dA (B, blocks, N + 2, 16)   the last two rows are of D and delta_bias
    dB (groups, B, L, 2 N)      the second half is of C

    u, delta, z, dy, du, ddelta and dz are stored as `kind` says, everything else as float32.
    """
    wide = size_of(kind)
    blocks = (channels + LANES - 1) // LANES
    groups = (blocks + group - 1) // group
    tiles = (length + tile - 1) // tile
    size, per_tile = VECTOR * states, VECTOR * (tile + SKEW)
    a_l, g_l, da_l = scratch, scratch + group * size, scratch + 2 * group * size
    dskip_l = scratch + 3 * group * size
    dbias_l = dskip_l + VECTOR * group
    x_l = dbias_l + VECTOR * group
    xu_l, gated_l = x_l + group * per_tile, x_l + 2 * group * per_tile
    dxu_l, dx_l, y_l = x_l + 3 * group * per_tile, x_l + 4 * group * per_tile, x_l + 5 * group * per_tile
    decay_l = x_l + 6 * group * per_tile
    before_l, db_l, dc_l = decay_l + 4 * per_tile, decay_l + 8 * per_tile, decay_l + 12 * per_tile
    buffer = decay_l + 16 * per_tile
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        row, part = job // groups, job % groups
        first = part * group
        stop = min(blocks, first + group)
        d_first = first * LANES
        end = get_int(ends + 8 * row)
        flags = resets + row * length if resets != 0 else 0
        sums = (part * batch + row) * length
        out = row * length * channels
        clear_vectors(scratch, group * (3 * states + 2))
        for block in range(first, stop):
            d, at = block * LANES, (block - first) * size
            lanes = min(LANES, channels - d)
            gather_block(A + FLOAT * d * states, states, states, lanes, LOG2_E, a_l + at)
            if dlast != 0:
                start = dlast + FLOAT * (row * channels + d) * states
                gather_block(start, states, states, lanes, 1.0, g_l + at)
        t_end = end
        while t_end > 0:
            t = last_start(flags, (t_end - 1) // tile * tile, t_end)
            steps = t_end - t
            fresh = starts_at(flags, t)
            b, c = B + FLOAT * (row * B_b + t * B_t), C + FLOAT * (row * C_b + t * C_t)
            for block in range(first, stop):
                d, at = block * LANES, (block - first) * per_tile
                prepare_adjoint(
                    kind, delta + wide * (row * delta_b + t * delta_t + d), delta_t,
                    u + wide * (row * u_b + t * u_t + d), u_t,
                    z + wide * (row * z_b + t * z_t + d) if z != 0 else 0, z_t,
                    dy + wide * (row * dy_b + t * dy_t + d) if dy != 0 else 0, dy_t,
                    bias + FLOAT * d if bias != 0 else 0,
                    x_l + at, xu_l + at, gated_l + at, dxu_l + at, dx_l + at, y_l + at,
                    steps, min(LANES, channels - d), soft,
                )  # fmt: skip
            n = 0
            while n < states:
                width = 4 if n + 4 <= states else 1
                clear_vectors(db_l, 8 * (tile + SKEW))
                for block in range(first, stop):
                    here, at = (block - first) * size + VECTOR * n, (block - first) * per_tile
                    h = kept + ((row * tiles + t // tile) * blocks + block) * size + VECTOR * n
                    adjoint(
                        width, a_l + here, 0 if fresh else h, g_l + here, da_l + here,
                        b + FLOAT * n, B_t, c + FLOAT * n, C_t,
                        x_l + at, xu_l + at, gated_l + at, dxu_l + at, dx_l + at, y_l + at,
                        db_l, dc_l, decay_l, before_l, steps,
                    )  # fmt: skip
                into = dB + FLOAT * ((sums + t) * 2 * states + n)
                write_sums(db_l, steps, width, buffer, into, 2 * states)
                write_sums(dc_l, steps, width, buffer, into + FLOAT * states, 2 * states)
                n += width
            for block in range(first, stop):
                d, at, here = block * LANES, (block - first) * per_tile, VECTOR * (block - first)
                into = wide * (out + t * channels + d)
                finish_adjoint(
                    kind, delta + wide * (row * delta_b + t * delta_t + d), delta_t,
                    u + wide * (row * u_b + t * u_t + d), u_t,
                    z + wide * (row * z_b + t * z_t + d) if z != 0 else 0, z_t,
                    dy + wide * (row * dy_b + t * dy_t + d) if dy != 0 else 0, dy_t,
                    bias + FLOAT * d if bias != 0 else 0, D + FLOAT * d if D != 0 else 0,
                    x_l + at, gated_l + at, dxu_l + at, dx_l + at, y_l + at,
                    du + into, ddelta + into, dz + into, channels, dskip_l + here, dbias_l + here,
                    steps, min(LANES, channels - d), soft,
                )  # fmt: skip
            if fresh:  # nothing flows into the document before
                clear_vectors(g_l, group * states)
            t_end = t
        width = min(channels, stop * LANES) - d_first
        padding = wide * (out + end * channels + d_first)
        clear_stored(kind, du + padding, channels, length - end, width)
        clear_stored(kind, ddelta + padding, channels, length - end, width)
        if z != 0:
            clear_stored(kind, dz + padding, channels, length - end, width)
        clear_rows(dB + FLOAT * (sums + end) * 2 * states, 2 * states, length - end, 2 * states)
        for block in range(first, stop):
            d, into = block * LANES, dA + (row * blocks + block) * (size + 2 * VECTOR)
            copy_vectors(da_l + (block - first) * size, into, states)
            copy_vectors(dskip_l + (block - first) * VECTOR, into + size, 1)
            copy_vectors(dbias_l + (block - first) * VECTOR, into + size + VECTOR, 1)
            target = dinitial + FLOAT * (row * channels + d) * states
            scatter_block(g_l + (block - first) * size, states, states, min(LANES, channels - d), target)
