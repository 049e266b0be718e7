"""The loops around the convolution's tiles: rows, channel groups, runs between resets, tiles, blocks of channels."""

from __future__ import annotations

import numpy as np
from numba import njit

from helix_plugin_cpu.kernels._conv_tiles import (
    make_gather,
    make_scatter,
    make_taps,
    silu,
    silu_gradient,
    weight_gradient,
)
from helix_plugin_cpu.kernels._scan_jobs import FLOAT, _clear_rows, _run_end
from helix_plugin_cpu.kernels._simd import LANES
from helix_plugin_cpu.kernels._sources import SOURCES

TILE = 64

gather_full, gather_ragged = make_gather(False), make_gather(True)
scatter_full, scatter_ragged = make_scatter(False), make_scatter(True)
taps4, taps_any = make_taps(4, reverse=False), make_taps(None, reverse=False)
taps4_reverse, taps_any_reverse = make_taps(4, reverse=True), make_taps(None, reverse=True)


@njit(nogil=True, cache=True)
def _gather(source, stride, target, steps, lanes):
    if lanes < LANES:
        gather_ragged(source, stride, target, steps, lanes)
    else:
        gather_full(source, stride, target, steps, lanes)


@njit(nogil=True, cache=True)
def _scatter(source, target, stride, steps, lanes):
    if lanes < LANES:
        scatter_ragged(source, target, stride, steps, lanes)
    else:
        scatter_full(source, target, stride, steps, lanes)


@njit(nogil=True, cache=True)
def _fill_window(window, p_x, x_b, x_t, h0, row, c0, lanes, begin, t, steps, K):
    """The inputs of steps t-K+1 .. t+steps-1 of a run that begins at `begin`; zeros before a run that is new."""
    for k in range(K - 1):
        s = t - (K - 1) + k
        if s >= begin:
            break
        for i in range(LANES):
            # Before the row's first step stands the carried state, unless a document starts there (begin < 0 says no).
            inside = h0.shape[0] > 0 and i < lanes
            window[k, i] = h0[row, s + K - 1, c0 + i] if inside else np.float32(0)
    first = max(begin, t - (K - 1))
    address = window.ctypes.data + FLOAT * LANES * (first - (t - (K - 1)))
    _gather(p_x + FLOAT * (row * x_b + first * x_t + c0), x_t, address, t + steps - first, lanes)


@njit(nogil=True, cache=True)
def conv_forward_jobs(
    start, stop, group, p_x, x_b, x_t, p_w, p_bias, h0, p_y, last, resets, ends, length, channels, K, activate,
    sources=SOURCES,
):  # fmt: skip
    """Forward jobs start..stop-1; job = row * groups + group."""
    groups = (channels + group - 1) // group
    nothing = np.empty((0, 0, 0), np.float32)
    window = np.empty((TILE + K - 1, LANES), np.float32)
    out = np.empty((TILE, LANES), np.float32)
    p_window, p_out = window.ctypes.data, out.ctypes.data
    for job in range(start, stop):
        row = job // groups
        first = (job % groups) * group
        width = min(group, channels - first)
        end = ends[row]
        run = 0
        while run < end:
            fresh = resets.shape[0] > 0 and resets[row, run] != 0
            run_end = _run_end(resets, row, run, end)
            carried = nothing if fresh else h0
            for t in range(run, run_end, TILE):
                steps = min(TILE, run_end - t)
                for block in range((width + LANES - 1) // LANES):
                    c0 = first + block * LANES
                    lanes = min(LANES, channels - c0)
                    _fill_window(window, p_x, x_b, x_t, carried, row, c0, lanes, run, t, steps, K)
                    p_wb, p_biasb = p_w + FLOAT * LANES * K * (c0 // LANES), p_bias + FLOAT * c0
                    if K == 4:
                        taps4(p_window, p_wb, p_biasb, p_out, steps, K)
                    else:
                        taps_any(p_window, p_wb, p_biasb, p_out, steps, K)
                    if activate:
                        silu(p_out, steps)
                    _scatter(p_out, p_y + FLOAT * ((row * length + t) * channels + c0), channels, steps, lanes)
            run = run_end
        _clear_rows(p_y, row, end, length, channels, first, width)
        _last_state(last, p_x, x_b, x_t, h0, resets, row, end, first, width, K)


@njit(nogil=True, cache=True)
def _last_state(last, p_x, x_b, x_t, h0, resets, row, end, first, width, K):
    """The K-1 inputs before `end`, as the document that is open there has seen them."""
    begin, fresh = _document_start(resets, row, end)
    for k in range(K - 1):
        s = end - (K - 1) + k
        if s >= begin:
            _copy_floats(p_x + FLOAT * (row * x_b + s * x_t + first), last[row, k, first:].ctypes.data, width)
        elif not fresh and h0.shape[0]:
            last[row, k, first : first + width] = h0[row, s + K - 1, first : first + width]
        else:
            last[row, k, first : first + width] = 0


@njit(nogil=True, cache=True)
def _document_start(resets, row, end):
    """Where the document that is open at `end` starts, and whether a reset starts it."""
    if resets.shape[0]:
        for t in range(end - 1, -1, -1):
            if resets[row, t]:
                return t, True
    return 0, False


@njit(nogil=True, cache=True)
def _copy_floats(source, target, count):
    full = count // LANES
    if full:
        for i in range(full):
            _gather(source + FLOAT * LANES * i, 0, target + FLOAT * LANES * i, 1, LANES)
    left = count - full * LANES
    if left:
        at = FLOAT * LANES * full
        _scatter_part(source + at, target + at, left)


@njit(nogil=True, cache=True)
def _scatter_part(source, target, lanes):
    buffer = np.empty((1, LANES), np.float32)
    gather_ragged(source, 0, buffer.ctypes.data, 1, lanes)
    scatter_ragged(buffer.ctypes.data, target, 0, 1, lanes)


@njit(nogil=True, cache=True)
def conv_backward_jobs(
    start, stop, group, p_x, x_b, x_t, p_dy, dy_b, dy_t, p_w, p_bias, h0, dlast, p_dx, dw, dbias, dh0,
    resets, ends, length, channels, K, activate, sources=SOURCES,
):  # fmt: skip
    """Backward jobs start..stop-1: runs and tiles last to first, each keeping what later steps owe to its inputs."""
    groups = (channels + group - 1) // group
    nothing = np.empty((0, 0, 0), np.float32)
    n_blocks = group // LANES
    window = np.empty((TILE + K - 1, LANES), np.float32)
    dpre = np.empty((TILE + K - 1, LANES), np.float32)
    pre, dx = np.empty((TILE, LANES), np.float32), np.empty((TILE, LANES), np.float32)
    zero = np.zeros(LANES, np.float32)
    later = np.empty((n_blocks, K, LANES), np.float32)
    dw_l, db_l = np.empty((n_blocks, K, LANES), np.float32), np.empty((n_blocks, LANES), np.float32)
    p_window, p_dpre, p_pre, p_dx_l = window.ctypes.data, dpre.ctypes.data, pre.ctypes.data, dx.ctypes.data
    for job in range(start, stop):
        row = job // groups
        first = (job % groups) * group
        width = min(group, channels - first)
        end = ends[row]
        dw_l[:] = 0
        db_l[:] = 0
        dh0[row, :, first : first + width] = 0
        _clear_rows(p_dx, row, end, length, channels, first, width)
        run_end = end
        while run_end > 0:
            run, fresh = _document_start(resets, row, run_end)
            carried = nothing if fresh else h0
            later[:] = 0
            tiles = (run_end - run + TILE - 1) // TILE
            for tile in range(tiles - 1, -1, -1):
                t = run + tile * TILE
                steps = min(TILE, run_end - t)
                for block in range((width + LANES - 1) // LANES):
                    c0 = first + block * LANES
                    lanes = min(LANES, channels - c0)
                    p_wb, p_biasb = p_w + FLOAT * LANES * K * (c0 // LANES), p_bias + FLOAT * c0
                    _fill_window(window, p_x, x_b, x_t, carried, row, c0, lanes, run, t, steps, K)
                    _gather(p_dy + FLOAT * (row * dy_b + t * dy_t + c0), dy_t, p_dpre, steps, lanes)
                    if activate:
                        if K == 4:
                            taps4(p_window, p_wb, p_biasb, p_pre, steps, K)
                        else:
                            taps_any(p_window, p_wb, p_biasb, p_pre, steps, K)
                        silu_gradient(p_pre, p_dpre, steps)
                    dpre[steps : steps + K - 1] = later[block, : K - 1]
                    if K == 4:
                        taps4_reverse(p_dpre, p_wb, zero.ctypes.data, p_dx_l, steps, K)
                    else:
                        taps_any_reverse(p_dpre, p_wb, zero.ctypes.data, p_dx_l, steps, K)
                    weight_gradient(p_window, p_dpre, dw_l[block].ctypes.data, db_l[block].ctypes.data, steps, K)
                    _scatter(p_dx_l, p_dx + FLOAT * ((row * length + t) * channels + c0), channels, steps, lanes)
                    later[block, : K - 1] = dpre[: K - 1]
                    if t == run and not fresh:
                        # What the first steps owe to the inputs carried in: input -m of step j is tap m + j.
                        for m in range(1, K):
                            for j in range(min(steps, K - m)):
                                w_row = K - 1 - (m + j)
                                for i in range(lanes):
                                    dh0[row, K - 1 - m, c0 + i] += dpre[j, i] * _float(
                                        p_wb + FLOAT * (w_row * LANES + i)
                                    )
            run_end = run
        if dlast.shape[0]:
            _last_state_gradient(dlast, p_dx, dh0, resets, row, end, length, channels, first, width, K)
        for d in range(width):
            dbias[row, first + d] = db_l[d // LANES, d % LANES]
            for k in range(K):
                dw[row, first + d, k] = dw_l[d // LANES, k, d % LANES]


@njit(nogil=True, cache=True)
def _last_state_gradient(dlast, p_dx, dh0, resets, row, end, length, channels, first, width, K):
    begin, fresh = _document_start(resets, row, end)
    for k in range(K - 1):
        s = end - (K - 1) + k
        for d in range(first, first + width):
            if s >= begin:
                _add_float(p_dx + FLOAT * ((row * length + s) * channels + d), dlast[row, k, d])
            elif not fresh:
                dh0[row, s + K - 1, d] += dlast[row, k, d]


@njit(nogil=True, cache=True)
def _float(address):
    buffer = np.empty((1, LANES), np.float32)
    gather_ragged(address, 0, buffer.ctypes.data, 1, 1)
    return buffer[0, 0]


@njit(nogil=True, cache=True)
def _add_float(address, value):
    buffer = np.empty((1, LANES), np.float32)
    gather_ragged(address, 0, buffer.ctypes.data, 1, 1)
    buffer[0, 0] += value
    scatter_ragged(buffer.ctypes.data, address, 0, 1, 1)
