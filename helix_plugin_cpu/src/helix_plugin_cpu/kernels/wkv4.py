"""RWKV-4's attention on the CPU: sixteen channels a vector, their two states in the first-level cache.

A step is three exponentials and two divisions for three floats moved: arithmetic is the limit. The backward pass
computes the states of a tile again rather than reading them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from helix_core.ops.wkv4 import EMPTY
from helix_plugin_cpu.kernels._arguments import address, check, empty, flags, from_forward, row_ends, strided
from helix_plugin_cpu.kernels._blocks import blocks_per_job, clear_rows, clear_vectors, copy_vectors, starts_at, total
from helix_plugin_cpu.kernels._jit import inline, kernel
from helix_plugin_cpu.kernels._math import absolute, maximum, sigmoid, softplus
from helix_plugin_cpu.kernels._memory import FLOAT, get_int, take_job
from helix_plugin_cpu.kernels._simd import LANES, VECTOR, fma, load, load_first, splat, store, store_first
from helix_plugin_cpu.kernels._threads import launch
from helix_plugin_torch.arguments import Shape, dense, rows

TILE = 32
"""Steps between the states that a training forward keeps."""

NAMES = ("k", "v", "log_decay", "bonus", "initial_state", "reset", "lengths")


@inline
def forget(state: int, group: int, count: int) -> None:
    """The state before any input: averages, then the logarithms of their weights, `group` vectors each."""
    for i in range(count):
        store(state + VECTOR * i, splat(0.0))
        store(state + VECTOR * (group + i), splat(EMPTY))


@inline
def advance(before: int, after: int, group: int, i: int, k: int, v: int, w: int, lanes: int) -> None:
    """The i-th vector of the state `after` a step from the one `before` it."""
    m, key = load(before + VECTOR * i), load_first(k, lanes)
    faded = load(before + VECTOR * (group + i)) + load_first(w, lanes)
    distance = key - faded
    store(after + VECTOR * i, fma(sigmoid(distance), load_first(v, lanes) - m, m))
    store(after + VECTOR * (group + i), maximum(key, faded) + softplus(-absolute(distance)))


@kernel
def forward_jobs(
    counter: int, jobs: int, scratch: int,
    k: int, k_b: int, k_t: int, v: int, v_b: int, v_t: int, w: int, u: int,
    initial: int, resets: int, ends: int, y: int, last: int, kept: int,
    length: int, channels: int, group: int,
) -> None:  # fmt: skip
    """Optional arrays have the address 0. `kept` takes the states in front of every tile."""
    blocks = (channels + LANES - 1) // LANES
    groups = (blocks + group - 1) // group
    tiles = (length + TILE - 1) // TILE
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        row, first = job // groups, (job % groups) * group
        width = min(channels, (first + group) * LANES) - first * LANES
        count = (width + LANES - 1) // LANES
        end = get_int(ends + 8 * row)
        flags = resets + row * length if resets != 0 else 0
        forget(scratch, group, count)
        if initial != 0:
            for i in range(count):
                start = initial + FLOAT * (2 * row * channels + (first + i) * LANES)
                store(scratch + VECTOR * i, load_first(start, width - i * LANES))
                store(scratch + VECTOR * (group + i), load_first(start + FLOAT * channels, width - i * LANES))
        for t in range(end):
            if kept != 0 and t % TILE == 0:
                at = kept + ((row * tiles + t // TILE) * 2 * blocks + first) * VECTOR
                copy_vectors(scratch, at, count)
                copy_vectors(scratch + VECTOR * group, at + VECTOR * blocks, count)
            if starts_at(flags, t):
                forget(scratch, group, count)
            k_row = k + FLOAT * (row * k_b + t * k_t + first * LANES)
            v_row = v + FLOAT * (row * v_b + t * v_t + first * LANES)
            out = y + FLOAT * ((row * length + t) * channels + first * LANES)
            for i in range(count):
                at, lanes = VECTOR * i, width - i * LANES
                channel = FLOAT * (first + i) * LANES
                m = load(scratch + at)
                key = load_first(k_row + at, lanes) + load_first(u + channel, lanes)
                gate = sigmoid(key - load(scratch + VECTOR * group + at))
                store_first(out + at, fma(gate, load_first(v_row + at, lanes) - m, m), lanes)
                advance(scratch, scratch, group, i, k_row + at, v_row + at, w + channel, lanes)
        clear_rows(y + FLOAT * ((row * length + end) * channels + first * LANES), channels, length - end, width)
        for i in range(count):
            into = last + FLOAT * (2 * row * channels + (first + i) * LANES)
            store_first(into, load(scratch + VECTOR * i), width - i * LANES)
            store_first(into + FLOAT * channels, load(scratch + VECTOR * (group + i)), width - i * LANES)


@kernel
def backward_jobs(
    counter: int, jobs: int, scratch: int,
    k: int, k_b: int, k_t: int, v: int, v_b: int, v_t: int, dy: int, dy_b: int, dy_t: int, w: int, u: int,
    dlast: int, resets: int, ends: int, kept: int, dk: int, dv: int, dw: int, du: int, dinitial: int,
    length: int, channels: int, group: int,
) -> None:  # fmt: skip
    """Last tiles first. Scratch: gradients of the state, sums for w and for u, then the states of a tile."""
    blocks = (channels + LANES - 1) // LANES
    groups = (blocks + group - 1) // group
    tiles = (length + TILE - 1) // TILE
    weight_sum, bonus_sum = scratch + VECTOR * 2 * group, scratch + VECTOR * 3 * group
    states = scratch + VECTOR * 4 * group
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        row, first = job // groups, (job % groups) * group
        width = min(channels, (first + group) * LANES) - first * LANES
        count = (width + LANES - 1) // LANES
        end = get_int(ends + 8 * row)
        flags = resets + row * length if resets != 0 else 0
        clear_vectors(scratch, 4 * group)
        if dlast != 0:
            for i in range(count):
                start = dlast + FLOAT * (2 * row * channels + (first + i) * LANES)
                store(scratch + VECTOR * i, load_first(start, width - i * LANES))
                store(scratch + VECTOR * (group + i), load_first(start + FLOAT * channels, width - i * LANES))
        for tile in range((end + TILE - 1) // TILE - 1, -1, -1):
            begin, stop = tile * TILE, min(end, (tile + 1) * TILE)
            at = kept + ((row * tiles + tile) * 2 * blocks + first) * VECTOR
            copy_vectors(at, states, count)
            copy_vectors(at + VECTOR * blocks, states + VECTOR * group, count)
            for t in range(begin, stop):
                here = states + VECTOR * 2 * group * (t - begin)
                if starts_at(flags, t):
                    forget(here, group, count)
                if t + 1 < stop:
                    k_row = k + FLOAT * (row * k_b + t * k_t + first * LANES)
                    v_row = v + FLOAT * (row * v_b + t * v_t + first * LANES)
                    for i in range(count):
                        channel = w + FLOAT * (first + i) * LANES
                        following = here + VECTOR * 2 * group
                        advance(
                            here, following, group, i, k_row + VECTOR * i, v_row + VECTOR * i, channel,
                            width - i * LANES,
                        )  # fmt: skip
            for t in range(stop - 1, begin - 1, -1):
                here = states + VECTOR * 2 * group * (t - begin)
                k_row = k + FLOAT * (row * k_b + t * k_t + first * LANES)
                v_row = v + FLOAT * (row * v_b + t * v_t + first * LANES)
                dy_row = dy + FLOAT * (row * dy_b + t * dy_t + first * LANES)
                out = FLOAT * ((row * length + t) * channels + first * LANES)
                for i in range(count):
                    at, lanes = VECTOR * i, width - i * LANES
                    channel = FLOAT * (first + i) * LANES
                    m, z = load(here + at), load(here + VECTOR * group + at)
                    key, away = load_first(k_row + at, lanes), load_first(v_row + at, lanes) - m
                    dm, dz = load(scratch + at), load(scratch + VECTOR * group + at)
                    g = splat(0.0)
                    if dy != 0:
                        g = load_first(dy_row + at, lanes)
                    gate = sigmoid(key + load_first(u + channel, lanes) - z)
                    share = sigmoid(key - (z + load_first(w + channel, lanes)))
                    to_gate = g * away * gate * (1.0 - gate)
                    to_share = dm * away * share * (1.0 - share)
                    to_faded = fma(dz, 1.0 - share, -to_share)
                    store_first(dv + out + at, fma(g, gate, dm * share), lanes)
                    store_first(dk + out + at, to_gate + fma(dz, share, to_share), lanes)
                    store(weight_sum + at, load(weight_sum + at) + to_faded)
                    store(bonus_sum + at, load(bonus_sum + at) + to_gate)
                    store(scratch + at, fma(g, 1.0 - gate, dm * (1.0 - share)))
                    store(scratch + VECTOR * group + at, to_faded - to_gate)
                if starts_at(flags, t):  # nothing flows into the document before
                    clear_vectors(scratch, 2 * group)
        padding = FLOAT * ((row * length + end) * channels + first * LANES)
        clear_rows(dk + padding, channels, length - end, width)
        clear_rows(dv + padding, channels, length - end, width)
        for i in range(count):
            at, lanes = VECTOR * i, width - i * LANES
            channel = FLOAT * (row * channels + (first + i) * LANES)
            store_first(dw + channel, load(weight_sum + at), lanes)
            store_first(du + channel, load(bonus_sum + at), lanes)
            into = dinitial + FLOAT * (2 * row * channels + (first + i) * LANES)
            store_first(into, load(scratch + at), lanes)
            store_first(into + FLOAT * channels, load(scratch + VECTOR * group + at), lanes)


def residuals(k: Shape, v: Shape, *rest: Any, **attrs: Any) -> tuple[Shape, ...]:
    """The states in front of every tile, in blocks of sixteen channels."""
    return ((2 * v[0] * ((v[1] + TILE - 1) // TILE) * ((v[2] + LANES - 1) // LANES) * LANES,),)


def forward(*arrays: Tensor | None) -> tuple[Tensor, Tensor]:
    """The seven inputs of the op, in its order -> y (B, L, D), last_state (B, 2, D).

    Raises TypeError for arrays that are not float32, ValueError for shapes that do not fit.
    """
    return _forward(_checked(arrays), None)


def forward_train(*arrays: Tensor | None) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    given = _checked(arrays)
    kept = empty(residuals(given["k"].shape, given["v"].shape)[0])
    return _forward(given, kept), (kept,)


def backward(
    grads: tuple[Tensor | None, ...], arrays: tuple[Tensor | None, ...], saved: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one per array; None for absent ones and flags."""
    given = _checked(arrays)
    batch, length, channels = given["k"].shape
    sequence, state = (batch, length, channels), (batch, 2, channels)
    check("wkv4's backward", {"y": (grads[0], sequence), "last_state": (grads[1], state)})
    k, v, dy, dlast = rows(given["k"]), rows(given["v"]), rows(grads[0]), dense(grads[1])
    w, u = dense(given["log_decay"]), dense(given["bonus"])
    reset, ends = flags(given["reset"]), row_ends(given["lengths"], batch, length)
    dk, dv, dinitial = empty(sequence), empty(sequence), empty(state)
    dw, du = empty(batch, channels), empty(batch, channels)
    kept = from_forward("wkv4", saved[0], *residuals(k.shape, v.shape))
    blocks = -(-channels // LANES)
    group = blocks_per_job(batch, blocks)
    launch(
        backward_jobs, batch * -(-blocks // group), 60 * batch * length * channels, VECTOR * group * (2 * TILE + 4),
        *strided(k), *strided(v), *strided(dy),
        *map(address, (w, u, dlast, reset, ends, kept, dk, dv, dw, du, dinitial)),
        length, channels, group,
    )  # fmt: skip
    return dk, dv, total(dw), total(du), None if given["initial_state"] is None else dinitial, None, None


def _checked(arrays: tuple[Tensor | None, ...]) -> dict[str, Any]:
    given: dict[str, Any] = dict(zip(NAMES, (*arrays, *(None,) * (len(NAMES) - len(arrays))), strict=True))
    k = given["k"]
    if k is None or k.ndim != 3:
        raise ValueError(f"wkv4: k must be (B, L, D), not {None if k is None else tuple(k.shape)}")
    for name in NAMES[1:4]:
        if given[name] is None:
            raise ValueError(f"wkv4: {name} is missing")
    batch, length, channels = sequence = tuple(k.shape)
    shapes = (sequence, sequence, (channels,), (channels,), (batch, 2, channels), (batch, length), (batch,))
    expected = {name: (given[name], shape) for name, shape in zip(NAMES, shapes, strict=True)}
    check("wkv4", expected)
    return given


def _forward(given: dict[str, Any], kept: Tensor | None) -> tuple[Tensor, Tensor]:
    batch, length, channels = given["k"].shape
    k, v, initial = rows(given["k"]), rows(given["v"]), dense(given["initial_state"])
    w, u = dense(given["log_decay"]), dense(given["bonus"])
    reset, ends = flags(given["reset"]), row_ends(given["lengths"], batch, length)
    y, last = empty(batch, length, channels), empty(batch, 2, channels)
    blocks = -(-channels // LANES)
    group = blocks_per_job(batch, blocks)
    launch(
        forward_jobs, batch * -(-blocks // group), 30 * batch * length * channels, VECTOR * group * 2,
        *strided(k), *strided(v), *map(address, (w, u, initial, reset, ends, y, last, kept)),
        length, channels, group,
    )  # fmt: skip
    return y, last
