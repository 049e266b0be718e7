"""Blocks of sixteen channels: (channels, columns) arrays as vectors and back, zero rows, sums of partials."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from helix_plugin_cpu.kernels._arguments import address, empty, zeros
from helix_plugin_cpu.kernels._jit import inline, kernel
from helix_plugin_cpu.kernels._memory import FLOAT, get, get_flag, put, take_job
from helix_plugin_cpu.kernels._simd import LANES, VECTOR, load, splat, store, store_first
from helix_plugin_cpu.kernels._threads import launch

NAN = np.float32(np.nan)
CHUNK = 1024
"""Floats that one job of `add_parts` sums."""

MAX_BLOCKS = 4
"""Blocks of a job: rows are read 256 bytes at a time, and its state still fits into the L2 cache."""

ENOUGH_JOBS = 16


def blocks_per_job(batch: int, blocks: int) -> int:
    """At most MAX_BLOCKS, fewer if there would be too few jobs.

    From the shape only, never from the thread count: partial sums depend on it, and results must not.
    """
    size = MAX_BLOCKS
    while size > 1 and batch * -(-blocks // size) < ENOUGH_JOBS:
        size //= 2
    return size


@inline
def gather_block(source: int, row: int, columns: int, lanes: int, factor: float, target: int) -> None:
    """(lanes, columns) at `source`, rows `row` floats apart, times a factor -> (columns, 16), zero-padded.

    Any NaN becomes the one that `exp2` expects.
    """
    for n in range(columns):
        for lane in range(LANES):
            value = np.float32(0.0)
            if lane < lanes:
                value = np.float32(get(source + FLOAT * (lane * row + n)) * factor)
                if value != value:
                    value = NAN
            put(target + VECTOR * n + FLOAT * lane, value)


@inline
def scatter_block(source: int, row: int, columns: int, lanes: int, target: int) -> None:
    """The way back: (columns, 16) at `source` -> (lanes, columns) at `target`, `row` floats apart."""
    for lane in range(lanes):
        for n in range(columns):
            put(target + FLOAT * (lane * row + n), get(source + VECTOR * n + FLOAT * lane))


@inline
def copy_vectors(source: int, target: int, count: int) -> None:
    """Copy `count` vectors from `source` to `target`."""
    for i in range(count):
        store(target + VECTOR * i, load(source + VECTOR * i))


@inline
def clear_vectors(target: int, count: int) -> None:
    """Write zeros to `count` vectors."""
    for i in range(count):
        store(target + VECTOR * i, splat(0.0))


@inline
def clear_rows(target: int, row: int, rows: int, width: int) -> None:
    """Write zeros to `width` floats in each of several rows, `row` floats apart."""
    for t in range(rows):
        for d in range(0, width, LANES):
            store_first(target + FLOAT * (t * row + d), splat(0.0), width - d)


@inline
def next_start(resets: int, begin: int, end: int) -> int:
    """The first step after `begin` where a document starts, or `end`. resets is a row's flags, or 0."""
    if resets != 0:
        for t in range(begin + 1, end):
            if get_flag(resets + t):
                return t
    return end


@inline
def last_start(resets: int, begin: int, end: int) -> int:
    """The last step in begin..end-1 where a document starts, or `begin`."""
    if resets != 0:
        for t in range(end - 1, begin, -1):
            if get_flag(resets + t):
                return t
    return begin


@inline
def starts_at(resets: int, t: int) -> bool:
    """Whether a document starts at step t. resets is a row's flags, or 0."""
    return resets != 0 and get_flag(resets + t) != 0


@kernel
def add_parts(counter: int, jobs: int, scratch: int, source: int, parts: int, size: int, target: int) -> None:
    """(parts, size) -> (size,), summed in the order of the parts."""
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        for at in range(job * CHUNK, min(size, (job + 1) * CHUNK), LANES):
            if at + LANES <= size:
                total = load(source + FLOAT * at)
                for part in range(1, parts):
                    total = total + load(source + FLOAT * (part * size + at))
                store(target + FLOAT * at, total)
            else:
                for i in range(at, size):
                    rest = get(source + FLOAT * i)
                    for part in range(1, parts):
                        rest += get(source + FLOAT * (part * size + i))
                    put(target + FLOAT * i, rest)


def by_row(blocks: Tensor, channels: int) -> Tensor:
    """Rows of every block of sixteen channels, (blocks, R, 16), as rows of all of them: (R, channels)."""
    return blocks.transpose(0, 1).reshape(blocks.shape[1], -1)[:, :channels]


def total(parts: Tensor) -> Tensor:
    """The sum over the first axis, in its order whatever the number of threads."""
    if parts.shape[0] == 1:
        return parts[0]
    if parts.shape[0] == 0:
        return zeros(parts.shape[1:])
    result = empty(parts.shape[1:])
    size = result.numel()
    arguments = (address(parts), parts.shape[0], size, address(result))
    launch(add_parts, -(-size // CHUNK), parts.numel(), 0, *arguments)
    return result
