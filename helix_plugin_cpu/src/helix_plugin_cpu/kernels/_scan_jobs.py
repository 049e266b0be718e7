"""The loops around the scan's tiles: rows, channel groups, tiles, blocks of channels, runs between resets."""

from __future__ import annotations

import numpy as np
from numba import njit

from helix_plugin_cpu.kernels._scan_tiles import (
    TILE,
    make_finish,
    make_gate_gradient,
    make_input_gradient,
    make_output_gradient,
    make_prepare,
    make_recompute,
    make_reverse,
    make_scan,
)
from helix_plugin_cpu.kernels._simd import LANES, clear, copy16
from helix_plugin_cpu.kernels._sources import SOURCES

FLOAT = 4

prepare, prepare_ragged = make_prepare(False, False), make_prepare(False, True)
prepare_soft, prepare_soft_ragged = make_prepare(True, False), make_prepare(True, True)
scan16, scan1 = make_scan(16), make_scan(1)
finish, finish_ragged = make_finish(False, False), make_finish(False, True)
finish_gate, finish_gate_ragged = make_finish(True, False), make_finish(True, True)
recompute16, recompute1 = make_recompute(16), make_recompute(1)
reverse16, reverse1 = make_reverse(16), make_reverse(1)
output_gradient, output_gradient_ragged = (
    make_output_gradient(False, False),
    make_output_gradient(False, True),
)
output_gradient_gate = make_output_gradient(True, False)
output_gradient_gate_ragged = make_output_gradient(True, True)
input_gradient, input_gradient_ragged = make_input_gradient(False, False), make_input_gradient(False, True)
input_gradient_soft = make_input_gradient(True, False)
input_gradient_soft_ragged = make_input_gradient(True, True)
gate_gradient, gate_gradient_ragged = make_gate_gradient(False), make_gate_gradient(True)


@njit(nogil=True, cache=True)
def _prepare(delta, delta_t, u, u_t, bias, dt, xu, u_local, steps, lanes, softplus):
    if softplus:
        if lanes < LANES:
            prepare_soft_ragged(delta, delta_t, u, u_t, bias, dt, xu, u_local, steps, lanes)
        else:
            prepare_soft(delta, delta_t, u, u_t, bias, dt, xu, u_local, steps, lanes)
    elif lanes < LANES:
        prepare_ragged(delta, delta_t, u, u_t, bias, dt, xu, u_local, steps, lanes)
    else:
        prepare(delta, delta_t, u, u_t, bias, dt, xu, u_local, steps, lanes)


@njit(nogil=True, cache=True)
def _run_end(resets, row, begin, end):
    """The first step after `begin` at which a document starts, or `end`."""
    if resets.shape[0]:
        for t in range(begin + 1, end):
            if resets[row, t]:
                return t
    return end


@njit(nogil=True, cache=True)
def forward_jobs(
    start, stop, group,
    p_u, u_b, u_t, p_delta, delta_b, delta_t, p_B, B_b, B_t, p_C, C_b, C_t, p_z, z_b, z_t,
    p_A2, p_D, p_bias, h0, p_y, last, p_states, resets, ends, length, channels, N, softplus, keep_states,
    sources=SOURCES,
):  # fmt: skip
    """Forward jobs start..stop-1; job = row * groups + group."""
    groups = (channels + group - 1) // group
    blocks = (channels + LANES - 1) // LANES
    tiles = (length + TILE - 1) // TILE
    h = np.empty((group // LANES, N, LANES), np.float32)
    local = np.empty((4, TILE, LANES), np.float32)
    p_h, p_local = h.ctypes.data, local.ctypes.data
    size = FLOAT * TILE * LANES
    dt, xu, u_l, y_l = p_local, p_local + size, p_local + 2 * size, p_local + 3 * size
    h_size = FLOAT * N * LANES
    for job in range(start, stop):
        row = job // groups
        first = (job % groups) * group
        width = min(group, channels - first)
        h[:] = 0
        if h0.shape[0]:
            for d in range(width):
                for n in range(N):
                    h[d // LANES, n, d % LANES] = h0[row, first + d, n]
        end = ends[row]
        for tile in range(tiles):
            t0 = tile * TILE
            t1 = min(t0 + TILE, end)
            for block in range((width + LANES - 1) // LANES):
                c0 = first + block * LANES
                lanes = min(LANES, channels - c0)
                p_hb = p_h + block * h_size
                p_A2b = p_A2 + (c0 // LANES) * h_size
                if keep_states:
                    kept = p_states + ((row * tiles + tile) * blocks + c0 // LANES) * h_size
                    _copy(p_hb, kept, N * LANES)
                t = t0
                while t < t1:
                    if resets.shape[0] and resets[row, t]:
                        h[block] = 0
                    t_end = _run_end(resets, row, t, t1)
                    steps = t_end - t
                    _prepare(
                        p_delta + FLOAT * (row * delta_b + t * delta_t + c0), delta_t,
                        p_u + FLOAT * (row * u_b + t * u_t + c0), u_t,
                        p_bias + FLOAT * c0, dt, xu, u_l, steps, lanes, softplus,
                    )  # fmt: skip
                    local[3, :steps] = 0
                    B_row = p_B + FLOAT * (row * B_b + t * B_t)
                    C_row = p_C + FLOAT * (row * C_b + t * C_t)
                    n = 0
                    while n + 16 <= N:
                        off = FLOAT * LANES * n
                        scan16(
                            p_A2b + off,
                            B_row + FLOAT * n,
                            B_t,
                            C_row + FLOAT * n,
                            C_t,
                            dt,
                            xu,
                            y_l,
                            p_hb + off,
                            steps,
                        )
                        n += 16
                    while n < N:
                        off = FLOAT * LANES * n
                        scan1(
                            p_A2b + off,
                            B_row + FLOAT * n,
                            B_t,
                            C_row + FLOAT * n,
                            C_t,
                            dt,
                            xu,
                            y_l,
                            p_hb + off,
                            steps,
                        )
                        n += 1
                    out = p_y + FLOAT * ((row * length + t) * channels + c0)
                    p_Db = p_D + FLOAT * c0
                    z_row = p_z + FLOAT * (row * z_b + t * z_t + c0)
                    if p_z != 0:
                        if lanes < LANES:
                            finish_gate_ragged(y_l, u_l, p_Db, z_row, z_t, out, channels, steps, lanes)
                        else:
                            finish_gate(y_l, u_l, p_Db, z_row, z_t, out, channels, steps, lanes)
                    elif lanes < LANES:
                        finish_ragged(y_l, u_l, p_Db, z_row, z_t, out, channels, steps, lanes)
                    else:
                        finish(y_l, u_l, p_Db, z_row, z_t, out, channels, steps, lanes)
                    t = t_end
        _clear_rows(p_y, row, end, length, channels, first, width)
        for d in range(width):
            for n in range(N):
                last[row, first + d, n] = h[d // LANES, n, d % LANES]


@njit(nogil=True, cache=True)
def backward_jobs(
    start, stop, group,
    p_u, u_b, u_t, p_delta, delta_b, delta_t, p_B, B_b, B_t, p_C, C_b, C_t, p_z, z_b, z_t, p_dy, dy_b, dy_t,
    p_A, p_A2, p_D, p_bias, dlast, p_states, p_du, p_ddelta, p_dz, dA, dB, dC, dD, dbias, dh0,
    resets, ends, length, channels, N, softplus, gate, sources=SOURCES,
):  # fmt: skip
    """Backward jobs start..stop-1; each sums dB and dC over its own channels."""
    groups = (channels + group - 1) // group
    blocks = (channels + LANES - 1) // LANES
    tiles = (length + TILE - 1) // TILE
    g = np.empty((group // LANES, N, LANES), np.float32)
    dA_l = np.empty_like(g)
    h = np.empty((N, LANES), np.float32)
    decays = np.empty((TILE, N, LANES), np.float32)
    history = np.empty((TILE + 1, N, LANES), np.float32)
    local = np.empty((7, TILE, LANES), np.float32)
    sums = np.empty((2, group // LANES, LANES), np.float32)
    p_h, p_decays, p_history = h.ctypes.data, decays.ctypes.data, history.ctypes.data
    size = FLOAT * TILE * LANES
    dt = local.ctypes.data
    xu, u_l, dy_l, dx, dd, y_l = (
        dt + size,
        dt + 2 * size,
        dt + 3 * size,
        dt + 4 * size,
        dt + 5 * size,
        dt + 6 * size,
    )
    h_size = FLOAT * N * LANES
    for job in range(start, stop):
        row = job // groups
        part = job % groups
        first = part * group
        width = min(group, channels - first)
        g[:] = 0
        dA_l[:] = 0
        sums[:] = 0
        if dlast.shape[0]:
            for d in range(width):
                for n in range(N):
                    g[d // LANES, n, d % LANES] = dlast[row, first + d, n]
        dB[part, row] = 0
        dC[part, row] = 0
        end = ends[row]
        for tile in range(tiles - 1, -1, -1):
            t0 = tile * TILE
            stop_t = min(t0 + TILE, end)
            while stop_t > t0:
                # Runs between resets, last one first. A run that a reset begins starts from zero; only a tile's
                # first run can start from the kept state.
                t = t0
                while True:
                    following = _run_end(resets, row, t, stop_t)
                    if following == stop_t:
                        break
                    t = following
                fresh = resets.shape[0] > 0 and resets[row, t] != 0
                steps = stop_t - t
                B_row, C_row = p_B + FLOAT * (row * B_b + t * B_t), p_C + FLOAT * (row * C_b + t * C_t)
                p_dB = dB.ctypes.data + FLOAT * ((part * ends.size + row) * length + t) * N
                p_dC = dC.ctypes.data + FLOAT * ((part * ends.size + row) * length + t) * N
                for block in range((width + LANES - 1) // LANES):
                    c0 = first + block * LANES
                    lanes = min(LANES, channels - c0)
                    p_Ab, p_A2b = p_A + (c0 // LANES) * h_size, p_A2 + (c0 // LANES) * h_size
                    p_g, p_dA = g.ctypes.data + block * h_size, dA_l.ctypes.data + block * h_size
                    delta_row = p_delta + FLOAT * (row * delta_b + t * delta_t + c0)
                    z_row = p_z + FLOAT * (row * z_b + t * z_t + c0)
                    dy_row = p_dy + FLOAT * (row * dy_b + t * dy_t + c0)
                    u_row = p_u + FLOAT * (row * u_b + t * u_t + c0)
                    p_biasb, p_Db = p_bias + FLOAT * c0, p_D + FLOAT * c0
                    _prepare(delta_row, delta_t, u_row, u_t, p_biasb, dt, xu, u_l, steps, lanes, softplus)
                    _output_gradient(dy_row, dy_t, z_row, z_t, dy_l, steps, lanes, gate)
                    local[4:, :steps] = 0
                    if fresh:
                        h[:] = 0
                    else:
                        _copy(p_states + ((row * tiles + tile) * blocks + c0 // LANES) * h_size, p_h, N * LANES)
                    n = 0
                    while n < N:
                        off, of = FLOAT * LANES * n, FLOAT * n
                        if n + 16 <= N:
                            recompute16(
                                p_A2b + off, B_row + of, B_t, dt, xu, p_h + off, p_decays + off, p_history + off,
                                steps, N,
                            )  # fmt: skip
                            reverse16(
                                p_Ab + off, B_row + of, B_t, C_row + of, C_t, dt, xu, dy_l, p_decays + off,
                                p_history + off, N, p_g + off, p_dA + off, p_dB + of, p_dC + of, dx, dd, y_l, steps,
                            )  # fmt: skip
                            n += 16
                        else:
                            recompute1(
                                p_A2b + off, B_row + of, B_t, dt, xu, p_h + off, p_decays + off, p_history + off,
                                steps, N,
                            )  # fmt: skip
                            reverse1(
                                p_Ab + off, B_row + of, B_t, C_row + of, C_t, dt, xu, dy_l, p_decays + off,
                                p_history + off, N, p_g + off, p_dA + off, p_dB + of, p_dC + of, dx, dd, y_l, steps,
                            )  # fmt: skip
                            n += 1
                    if fresh:
                        g[block] = 0
                    at = FLOAT * ((row * length + t) * channels + c0)
                    _input_gradient(
                        delta_row, delta_t, p_biasb, p_Db, dt, u_l, dy_l, dx, dd, p_du + at, p_ddelta + at, channels,
                        sums[0, block].ctypes.data, sums[1, block].ctypes.data, steps, lanes, softplus,
                    )  # fmt: skip
                    if gate:
                        if lanes < LANES:
                            gate_gradient_ragged(
                                dy_row, dy_t, z_row, z_t, y_l, u_l, p_Db, p_dz + at, channels, steps, lanes
                            )
                        else:
                            gate_gradient(dy_row, dy_t, z_row, z_t, y_l, u_l, p_Db, p_dz + at, channels, steps, lanes)
                stop_t = t
        _clear_rows(p_du, row, end, length, channels, first, width)
        _clear_rows(p_ddelta, row, end, length, channels, first, width)
        if gate:
            _clear_rows(p_dz, row, end, length, channels, first, width)
        for d in range(width):
            dD[row, first + d] = sums[0, d // LANES, d % LANES]
            dbias[row, first + d] = sums[1, d // LANES, d % LANES]
            for n in range(N):
                dA[row, first + d, n] = dA_l[d // LANES, n, d % LANES]
                dh0[row, first + d, n] = g[d // LANES, n, d % LANES]


@njit(nogil=True, cache=True)
def _output_gradient(dy, dy_t, z, z_t, out, steps, lanes, gate):
    if gate:
        if lanes < LANES:
            output_gradient_gate_ragged(dy, dy_t, z, z_t, out, steps, lanes)
        else:
            output_gradient_gate(dy, dy_t, z, z_t, out, steps, lanes)
    elif lanes < LANES:
        output_gradient_ragged(dy, dy_t, z, z_t, out, steps, lanes)
    else:
        output_gradient(dy, dy_t, z, z_t, out, steps, lanes)


@njit(nogil=True, cache=True)
def _input_gradient(
    delta, delta_t, bias, D, dt, u, dy, dx, dd, du, ddelta, stride, dD, dbias, steps, lanes, softplus
):  # fmt: skip
    if softplus:
        if lanes < LANES:
            input_gradient_soft_ragged(
                delta, delta_t, bias, D, dt, u, dy, dx, dd, du, ddelta, stride, dD, dbias, steps, lanes
            )
        else:
            input_gradient_soft(delta, delta_t, bias, D, dt, u, dy, dx, dd, du, ddelta, stride, dD, dbias, steps, lanes)
    elif lanes < LANES:
        input_gradient_ragged(delta, delta_t, bias, D, dt, u, dy, dx, dd, du, ddelta, stride, dD, dbias, steps, lanes)
    else:
        input_gradient(delta, delta_t, bias, D, dt, u, dy, dx, dd, du, ddelta, stride, dD, dbias, steps, lanes)


@njit(nogil=True, cache=True)
def _copy(source, target, count):
    """Copy `count` floats, a multiple of 16, between addresses."""
    copy16(source, target, count // LANES)


@njit(nogil=True, cache=True)
def _clear_rows(address, row, begin, end, channels, first, width):
    """Write zeros to steps begin..end-1 of a row's channels in a contiguous (B, L, D) array."""
    for t in range(begin, end):
        clear(address + FLOAT * ((row * end + t) * channels + first), width)
