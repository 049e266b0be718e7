"""A few steps of a long convolution as sums of products: decoding."""

from __future__ import annotations

from helix_plugin_cpu.kernels._fft_jobs import channel
from helix_plugin_cpu.kernels._jit import kernel
from helix_plugin_cpu.kernels._memory import FLOAT, get_flag, get_int, take_job
from helix_plugin_cpu.kernels._simd import Vec, fma, load, splat, store


@kernel
def direct_jobs(
    counter: int, jobs: int, scratch: int, history: int, before: int, filter: int, taps: int,
    reset: int, ends: int, post: int, kept: int, y: int, length: int, channels: int, groups: int,
) -> None:  # fmt: skip
    """history (B, before + length, D), filter (taps, D), the rest (B, length, D): y = post * kept."""
    row = FLOAT * channels
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        b, d = job // groups, channel(job % groups, channels)
        end = get_int(ends + 8 * b)
        start = -before
        for t in range(length):
            if reset != 0 and t < end and get_flag(reset + b * length + t):
                start = t
            newest = history + ((before + length) * b + before + t) * row + d
            # Four sums, so that products do not wait for one another.
            a0, a1, a2, a3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            count = min(taps, t - start + 1) if t < end else 0
            j = 0
            while j + 4 <= count:
                f, v = filter + d + j * row, newest - j * row
                a0 = fma(load(f), load(v), a0)
                a1 = fma(load(f + row), load(v - row), a1)
                a2 = fma(load(f + 2 * row), load(v - 2 * row), a2)
                a3 = fma(load(f + 3 * row), load(v - 3 * row), a3)
                j += 4
            while j < count:
                a0 = fma(load(filter + d + j * row), load(newest - j * row), a0)
                j += 1
            total: Vec = (a0 + a1) + (a2 + a3)
            at = (length * b + t) * row + d
            if kept != 0:
                store(kept + at, total)
            if post != 0:
                total = total * load(post + at)
            store(y + at, total)
