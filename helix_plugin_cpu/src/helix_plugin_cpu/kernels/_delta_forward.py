"""The forward recurrence S <- diag(w) S + b (Sᵀa)ᵀ + k vᵀ, y = Sᵀr, one step after the other.

Columns of S know nothing of each other, so values are the lanes: a job is one head of a row and two blocks of sixteen
columns, whose state stays in the first-level cache. A step goes through it once: what the next step needs, Sᵀa with
its own a, is summed on the way. That is five products an entry, fewer than the chunked form needs.
"""

from __future__ import annotations

from helix_plugin_cpu.kernels._blocks import clear_rows, clear_vectors, starts_at
from helix_plugin_cpu.kernels._jit import inline, kernel
from helix_plugin_cpu.kernels._memory import FLOAT, get_int, take_job
from helix_plugin_cpu.kernels._simd import (
    LANES,
    VECTOR,
    broadcast,
    fma,
    load,
    load_first,
    splat,
    store,
    store_first,
)

PAIR = 2 * LANES
"""Columns of a job."""


def tile_steps(keys: int, values: int) -> int:
    """Steps between the states that a training forward keeps: the states of a tile fit into the second-level cache."""
    return 32 if keys * values <= 4096 else 16


@inline
def load_columns(source: int, values: int, keys: int, width: int, target: int) -> None:
    """(K, V) rows `values` floats apart at `source`, `width` of them from its start -> (K, 2, 16), zero-padded."""
    for k in range(keys):
        at = source + FLOAT * k * values
        store(target + 2 * VECTOR * k, load_first(at, width))
        store(target + 2 * VECTOR * k + VECTOR, load_first(at + VECTOR, width - LANES))


@inline
def store_columns(source: int, values: int, keys: int, width: int, target: int) -> None:
    """The way back."""
    for k in range(keys):
        at = target + FLOAT * k * values
        store_first(at, load(source + 2 * VECTOR * k), width)
        store_first(at + VECTOR, load(source + 2 * VECTOR * k + VECTOR), width - LANES)


@inline
def project(a: int, state: int, keys: int, target: int) -> None:
    """Sᵀa of two blocks."""
    d0, d1 = splat(0.0), splat(0.0)
    for k in range(keys):
        a_v = broadcast(a + FLOAT * k)
        d0 = fma(a_v, load(state + 2 * VECTOR * k), d0)
        d1 = fma(a_v, load(state + 2 * VECTOR * k + VECTOR), d1)
    store(target, d0)
    store(target + VECTOR, d1)


@inline
def advance(
    r: int, w: int, k: int, b: int, a_next: int, v: int, width: int, state: int, moved: int, y: int, keys: int
) -> None:
    """One step of two blocks; `moved` holds Sᵀa of this step and then of the next."""
    v0, v1 = load_first(v, width), load_first(v + VECTOR, width - LANES)
    d0, d1 = load(moved), load(moved + VECTOR)
    y0, y1, n0, n1 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    for i in range(keys):
        here, at = state + 2 * VECTOR * i, FLOAT * i
        w_v, b_v, k_v = broadcast(w + at), broadcast(b + at), broadcast(k + at)
        s0 = fma(w_v, load(here), fma(b_v, d0, k_v * v0))
        s1 = fma(w_v, load(here + VECTOR), fma(b_v, d1, k_v * v1))
        store(here, s0)
        store(here + VECTOR, s1)
        r_v, a_v = broadcast(r + at), broadcast(a_next + at)
        y0, y1 = fma(r_v, s0, y0), fma(r_v, s1, y1)
        n0, n1 = fma(a_v, s0, n0), fma(a_v, s1, n1)
    store_first(y, y0, width)
    store_first(y + VECTOR, y1, width - LANES)
    store(moved, n0)
    store(moved + VECTOR, n1)


def forward_scratch(keys: int) -> int:
    """Bytes that `delta_forward_jobs` needs per thread."""
    return VECTOR * (2 * keys + 2)


@kernel
def delta_forward_jobs(
    counter: int, jobs: int, scratch: int,
    r: int, w: int, k: int, v: int, a: int, b: int, initial: int, resets: int, ends: int,
    y: int, last: int, kept: int, length: int, heads: int, keys: int, values: int, tile: int,
) -> None:  # fmt: skip
    """Dense arrays: r, w, k, a, b (B, L, H, K), v, y (B, L, H, V), states (B, H, K, V). Absent ones have address 0.

    `kept` (B, H, tiles, K, V) takes the states in front of every tile.
    """
    pairs = (values + PAIR - 1) // PAIR
    tiles = (length + tile - 1) // tile
    moved = scratch + 2 * VECTOR * keys
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        lane = job // pairs  # row and head
        row, head, first = lane // heads, lane % heads, (job % pairs) * PAIR
        width = min(PAIR, values - first)
        end = get_int(ends + 8 * row)
        flags = resets + row * length if resets != 0 else 0
        state = FLOAT * (lane * keys * values + first)
        if initial != 0:
            load_columns(initial + state, values, keys, width, scratch)
        else:
            clear_vectors(scratch, 2 * keys)
        if end > 0:
            project(a + FLOAT * (row * length * heads + head) * keys, scratch, keys, moved)
        for t in range(end):
            if kept != 0 and t % tile == 0:
                into = kept + FLOAT * ((lane * tiles + t // tile) * keys * values + first)
                store_columns(scratch, values, keys, width, into)
            if starts_at(flags, t):
                clear_vectors(scratch, 2 * keys + 2)
            at = (row * length + t) * heads + head
            key, value = FLOAT * at * keys, FLOAT * (at * values + first)
            following = key + FLOAT * heads * keys if t + 1 < end else key
            advance(
                r + key, w + key, k + key, b + key, a + following, v + value, width, scratch, moved, y + value, keys
            )
        into = y + FLOAT * (((row * length + end) * heads + head) * values + first)
        clear_rows(into, heads * values, length - end, width)
        store_columns(scratch, values, keys, width, last + state)
