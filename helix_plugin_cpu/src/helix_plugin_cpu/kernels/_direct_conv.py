"""A few steps of a long convolution as sums of products: decoding."""

from __future__ import annotations

from helix_plugin_cpu.kernels._fft_jobs import channel
from helix_plugin_cpu.kernels._jit import inline, kernel
from helix_plugin_cpu.kernels._memory import FLOAT, get_flag, get_int, take_job
from helix_plugin_cpu.kernels._simd import Vec, fma, load, splat, store


@inline
def products(filter: int, newest: int, count: int, row: int) -> Vec:
    """Σ filter_j v_j for rows of a filter and inputs, newest first. Four sums, so that none waits for another."""
    a0, a1, a2, a3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    j = 0
    while j + 4 <= count:
        f, v = filter + j * row, newest - j * row
        a0 = fma(load(f), load(v), a0)
        a1 = fma(load(f + row), load(v - row), a1)
        a2 = fma(load(f + 2 * row), load(v - 2 * row), a2)
        a3 = fma(load(f + 3 * row), load(v - 3 * row), a3)
        j += 4
    while j < count:
        a0 = fma(load(filter + j * row), load(newest - j * row), a0)
        j += 1
    return (a0 + a1) + (a2 + a3)


@kernel
def direct_jobs(
    counter: int, jobs: int, scratch: int, v: int, state: int, before: int, filter: int, taps: int,
    reset: int, ends: int, post: int, kept: int, y: int, length: int, channels: int, groups: int,
) -> None:  # fmt: skip
    """state (B, before, D), filter (taps, D), the rest (B, length, D): y = post * kept."""
    row = FLOAT * channels
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        b, d = job // groups, FLOAT * channel(job % groups, channels)
        end = get_int(ends + 8 * b)
        start = -before
        for t in range(length):
            if reset != 0 and t < end and get_flag(reset + b * length + t):
                start = t
            at = (length * b + t) * row + d
            total = splat(0.0)
            if t < end:
                fresh = min(taps, t - max(start, 0) + 1)
                total = products(filter + d, v + at, fresh, row)
                if start < 0 and taps > t + 1:
                    last = state + (before * (b + 1) - 1) * row + d
                    total = total + products(filter + d + (t + 1) * row, last, min(taps - t - 1, before), row)
            if kept != 0:
                store(kept + at, total)
            if post != 0:
                total = total * load(post + at)
            store(y + at, total)
