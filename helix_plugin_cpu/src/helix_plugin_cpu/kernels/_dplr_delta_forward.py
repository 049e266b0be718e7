"""The forward recurrence S <- diag(w) S + b (Sᵀa)ᵀ + k vᵀ, y = Sᵀr, one step after the other.

Columns of S know nothing of each other, so values are the lanes: a job is one head of a row and two blocks of sixteen
columns, whose state stays in the first-level cache. A step goes through it once: what the next step needs, Sᵀa with
its own a, is summed on the way. That is five products an entry, fewer than the chunked form needs.
"""

from __future__ import annotations

from helix_plugin_cpu.kernels._blocks import clear_vectors, starts_at
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
from helix_plugin_cpu.kernels._storage import as_floats, clear_stored, read, size_of, write

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
def row_bytes(keys: int) -> int:
    """Of a row of keys in a buffer."""
    return (keys + LANES - 1) // LANES * VECTOR


@inline
def removal(kind: float, k: int, w: int, a: int, key: int, head: int, keys: int, buffer: int) -> int:
    """Where a step's a stands as float32; `key` and `head` are the places of its row and of its head's numbers."""
    if a != 0:
        return as_floats(kind, a + size_of(kind) * key, keys, buffer)
    shrink = -broadcast(w + FLOAT * head)
    for d in range(0, keys, LANES):
        store(buffer + FLOAT * d, shrink * read(kind, k + size_of(kind) * (key + d), keys - d))
    return buffer


@inline
def inputs(
    kind: float, r: int, w: int, k: int, a: int, b: int, key: int, head: int, scale: float, keys: int, buffer: int
) -> tuple[int, int, int, int]:
    """Where a step's r, w, k and b stand as float32; the gated delta rule's are made of its own inputs."""
    wide, one = size_of(kind), row_bytes(keys)
    if a != 0:
        return (
            as_floats(kind, r + wide * key, keys, buffer),
            w + FLOAT * key,
            as_floats(kind, k + wide * key, keys, buffer + one),
            as_floats(kind, b + wide * key, keys, buffer + 2 * one),
        )
    decay, beta = broadcast(w + FLOAT * head), broadcast(b + FLOAT * head)
    for d in range(0, keys, LANES):
        at, left = wide * (key + d), keys - d
        store(buffer + FLOAT * d, read(kind, r + at, left) * scale)
        store(buffer + one + FLOAT * d, beta * read(kind, k + at, left))
        store(buffer + 2 * one + FLOAT * d, decay)
    return buffer, buffer + 2 * one, buffer + one, buffer + one


@inline
def advance(
    kind: float, r: int, w: int, k: int, b: int, a_next: int, v: int, width: int, state: int, moved: int, y: int,
    keys: int,
) -> None:  # fmt: skip
    """One step of two blocks; `moved` holds Sᵀa of this step and then of the next."""
    half = size_of(kind) * LANES
    v0, v1 = read(kind, v, width), read(kind, v + half, width - LANES)
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
    write(kind, y, y0, width)
    write(kind, y + half, y1, width - LANES)
    store(moved, n0)
    store(moved + VECTOR, n1)


def forward_scratch(keys: int) -> int:
    """Bytes that `delta_forward_jobs` needs per thread."""
    return VECTOR * (2 * keys + 2 + 4 * -(-keys // LANES))


@kernel
def delta_forward_jobs(
    counter: int, jobs: int, scratch: int, kind: float,
    r: int, w: int, k: int, v: int, a: int, b: int, initial: int, resets: int, ends: int,
    y: int, last: int, kept: int, length: int, heads: int, groups: int, keys: int, values: int, tile: int,
    scale: float,
) -> None:  # fmt: skip
    """Dense arrays: r, w, k, a, b (B, L, H, K), v, y (B, L, H, V), states (B, H, K, V). Absent ones have address 0.

    The gated delta rule has no a: its w and b are decays and β (B, L, H), r and k (B, L, G, K) its queries, before the
    scale, and its keys. `kept` (B, H, tiles, K, V) takes the states in front of every tile.
    r, k, v, a, y and RWKV-7's b are stored as `kind` says, the rest as float32.
    """
    wide = size_of(kind)
    pairs = (values + PAIR - 1) // PAIR
    tiles = (length + tile - 1) // tile
    moved = scratch + 2 * VECTOR * keys
    a_l = moved + 2 * VECTOR
    rows_l = a_l + row_bytes(keys)
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        lane = job // pairs  # row and head
        row, head, first = lane // heads, lane % heads, (job % pairs) * PAIR
        group = head // (heads // groups)
        width = min(PAIR, values - first)
        end = get_int(ends + 8 * row)
        flags = resets + row * length if resets != 0 else 0
        state = FLOAT * (lane * keys * values + first)
        if initial != 0:
            load_columns(initial + state, values, keys, width, scratch)
        else:
            clear_vectors(scratch, 2 * keys)
        if end > 0:
            at = row * length
            project(
                removal(kind, k, w, a, (at * groups + group) * keys, at * heads + head, keys, a_l),
                scratch, keys, moved,
            )  # fmt: skip
        for t in range(end):
            if kept != 0 and t % tile == 0:
                into = kept + FLOAT * ((lane * tiles + t // tile) * keys * values + first)
                store_columns(scratch, values, keys, width, into)
            if starts_at(flags, t):
                clear_vectors(scratch, 2 * keys + 2)
            at, following = row * length + t, row * length + min(t + 1, end - 1)
            a_at = removal(kind, k, w, a, (following * groups + group) * keys, following * heads + head, keys, a_l)
            r_at, w_at, k_at, b_at = inputs(
                kind, r, w, k, a, b, (at * groups + group) * keys, at * heads + head, scale, keys, rows_l
            )
            value = wide * ((at * heads + head) * values + first)
            advance(kind, r_at, w_at, k_at, b_at, a_at, v + value, width, scratch, moved, y + value, keys)
        into = y + wide * (((row * length + end) * heads + head) * values + first)
        clear_stored(kind, into, heads * values, length - end, width)
        store_columns(scratch, values, keys, width, last + state)
