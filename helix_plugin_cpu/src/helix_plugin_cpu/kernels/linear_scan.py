"""The first-order linear recurrence on the CPU: one pass over memory forward, one over it backward.

A step is one multiply-add for three floats moved, so memory is the limit: rows are read in pieces of a few cache
lines, and the backward pass computes the states of a tile again rather than reading them.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from helix_plugin_cpu.kernels._arguments import (
    address,
    check,
    empty,
    flags,
    from_forward,
    row_ends,
    single,
    stored_as,
    strided,
)
from helix_plugin_cpu.kernels._blocks import (
    blocks_per_job,
    clear_vectors,
    copy_vectors,
    starts_at,
)
from helix_plugin_cpu.kernels._jit import kernel
from helix_plugin_cpu.kernels._memory import FLOAT, get_int, prefetch, take_job
from helix_plugin_cpu.kernels._simd import LANES, VECTOR, fma, load, load_first, store, store_first
from helix_plugin_cpu.kernels._storage import KINDS, clear_stored, kind, read, size_of, write
from helix_plugin_cpu.kernels._threads import launch
from helix_plugin_torch.arguments import FLOATS, Shape, dense, rows

TILE = 32
"""Steps between the states that a training forward keeps."""

AHEAD = 24
"""Steps between asking for a row and needing it."""

NAMES = ("a", "x", "initial_state", "reset", "lengths")


@kernel
def forward_jobs(
    counter: int, jobs: int, scratch: int, a_kind: float, x_kind: float, y_kind: float,
    a: int, a_b: int, a_t: int, x: int, x_b: int, x_t: int,
    initial: int, resets: int, ends: int, y: int, last: int, kept: int,
    length: int, channels: int, group: int,
) -> None:  # fmt: skip
    """Optional arrays have the address 0. `kept` takes the states in front of every tile.

    a, x and y are stored as their kinds say, states as float32.
    """
    a_size, x_size, y_size = size_of(a_kind), size_of(x_kind), size_of(y_kind)
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
        for i in range(count):
            if initial != 0:
                start = initial + FLOAT * (row * channels + (first + i) * LANES)
                store(scratch + VECTOR * i, load_first(start, width - i * LANES))
            else:
                clear_vectors(scratch + VECTOR * i, 1)
        for t in range(end):
            if kept != 0 and t % TILE == 0:
                copy_vectors(scratch, kept + ((row * tiles + t // TILE) * blocks + first) * VECTOR, count)
            if starts_at(flags, t):
                clear_vectors(scratch, count)
            a_row = a + a_size * (row * a_b + t * a_t + first * LANES)
            x_row = x + x_size * (row * x_b + t * x_t + first * LANES)
            out = y + y_size * ((row * length + t) * channels + first * LANES)
            for i in range(count):
                d, lanes = LANES * i, width - LANES * i
                prefetch(a_row + a_size * (d + AHEAD * a_t))
                prefetch(x_row + x_size * (d + AHEAD * x_t))
                a_v, x_v = read(a_kind, a_row + a_size * d, lanes), read(x_kind, x_row + x_size * d, lanes)
                h = fma(a_v, load(scratch + VECTOR * i), x_v)
                store(scratch + VECTOR * i, h)
                write(y_kind, out + y_size * d, h, lanes)
        clear_stored(
            y_kind, y + y_size * ((row * length + end) * channels + first * LANES), channels, length - end, width
        )
        for i in range(count):
            into = last + FLOAT * (row * channels + (first + i) * LANES)
            store_first(into, load(scratch + VECTOR * i), width - i * LANES)


@kernel
def backward_jobs(
    counter: int, jobs: int, scratch: int, a_kind: float, x_kind: float, y_kind: float,
    a: int, a_b: int, a_t: int, x: int, x_b: int, x_t: int, dy: int, dy_b: int, dy_t: int,
    dlast: int, resets: int, ends: int, kept: int, da: int, dx: int, dinitial: int,
    length: int, channels: int, group: int,
) -> None:  # fmt: skip
    """dx_t = g_t = dy_t + a_{t+1} g_{t+1} and da_t = g_t h_{t-1}, last tiles first.

    dy is stored as y is, da as a and dx as x.
    """
    a_size, x_size, y_size = size_of(a_kind), size_of(x_kind), size_of(y_kind)
    blocks = (channels + LANES - 1) // LANES
    groups = (blocks + group - 1) // group
    tiles = (length + TILE - 1) // TILE
    before = scratch + VECTOR * group
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        row, first = job // groups, (job % groups) * group
        width = min(channels, (first + group) * LANES) - first * LANES
        count = (width + LANES - 1) // LANES
        end = get_int(ends + 8 * row)
        flags = resets + row * length if resets != 0 else 0
        for i in range(count):
            if dlast != 0:
                start = dlast + FLOAT * (row * channels + (first + i) * LANES)
                store(scratch + VECTOR * i, load_first(start, width - i * LANES))
            else:
                clear_vectors(scratch + VECTOR * i, 1)
        for tile in range((end + TILE - 1) // TILE - 1, -1, -1):
            begin, stop = tile * TILE, min(end, (tile + 1) * TILE)
            copy_vectors(kept + ((row * tiles + tile) * blocks + first) * VECTOR, before, count)
            for t in range(begin, stop):
                here = before + VECTOR * group * (t - begin)
                if starts_at(flags, t):
                    clear_vectors(here, count)
                a_row = a + a_size * (row * a_b + t * a_t + first * LANES)
                x_row = x + x_size * (row * x_b + t * x_t + first * LANES)
                for i in range(count):
                    d, lanes = LANES * i, width - LANES * i
                    prefetch(a_row + a_size * (d - TILE * a_t))
                    prefetch(x_row + x_size * (d - TILE * x_t))
                    a_v, x_v = read(a_kind, a_row + a_size * d, lanes), read(x_kind, x_row + x_size * d, lanes)
                    store(here + VECTOR * (group + i), fma(a_v, load(here + VECTOR * i), x_v))
            for t in range(stop - 1, begin - 1, -1):
                here = before + VECTOR * group * (t - begin)
                a_row = a + a_size * (row * a_b + t * a_t + first * LANES)
                dy_row = dy + y_size * (row * dy_b + t * dy_t + first * LANES)
                out = (row * length + t) * channels + first * LANES
                for i in range(count):
                    d, lanes = LANES * i, width - LANES * i
                    g = load(scratch + VECTOR * i)
                    if dy != 0:
                        prefetch(dy_row + y_size * (d - TILE * dy_t))
                        g = g + read(y_kind, dy_row + y_size * d, lanes)
                    write(x_kind, dx + x_size * (out + d), g, lanes)
                    write(a_kind, da + a_size * (out + d), g * load(here + VECTOR * i), lanes)
                    store(scratch + VECTOR * i, g * read(a_kind, a_row + a_size * d, lanes))
                if starts_at(flags, t):  # nothing flows into the document before
                    clear_vectors(scratch, count)
        padding = (row * length + end) * channels + first * LANES
        clear_stored(a_kind, da + a_size * padding, channels, length - end, width)
        clear_stored(x_kind, dx + x_size * padding, channels, length - end, width)
        for i in range(count):
            into = dinitial + FLOAT * (row * channels + (first + i) * LANES)
            store_first(into, load(scratch + VECTOR * i), width - i * LANES)


def residuals(a: Shape, x: Shape, *rest: Any, **attrs: Any) -> tuple[Shape, ...]:
    """The states in front of every tile, in blocks of sixteen channels."""
    return ((x[0] * ((x[1] + TILE - 1) // TILE) * ((x[2] + LANES - 1) // LANES) * LANES,),)


def forward(*arrays: Tensor | None) -> tuple[Tensor, Tensor]:
    """a, x (B, L, D), initial_state (B, D), reset (B, L), lengths (B,) -> y (B, L, D), last_state (B, D).

    The last three are optional. a and x are float32 or half precision, each on its own, and y short if one of them is;
    the rest is float32. Raises TypeError for other dtypes, ValueError for shapes that do not fit.
    """
    return _forward(_checked(arrays), None)


def forward_train(*arrays: Tensor | None) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    given = _checked(arrays)
    kept = empty(residuals(given["a"].shape, given["x"].shape)[0])
    return _forward(given, kept), (kept,)


def backward(
    grads: tuple[Tensor | None, ...], arrays: tuple[Tensor | None, ...], saved: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one per array; None for absent ones and flags."""
    given = _checked(arrays)
    batch, length, channels = given["x"].shape
    check(
        "linear_scan's backward",
        {"y": (grads[0], (batch, length, channels)), "last_state": (grads[1], (batch, channels))},
        dtypes=FLOATS,
    )
    a, x, dlast = rows(given["a"]), rows(given["x"]), dense(single(grads[1]))
    y_dtype = stored_as(a, x)
    dy = None if grads[0] is None else rows(grads[0].to(y_dtype))
    reset, ends = flags(given["reset"]), row_ends(given["lengths"], batch, length)
    da, dx = (empty(z.shape, dtype=z.dtype) for z in (given["a"], given["x"]))
    dinitial = empty(batch, channels)
    kept = from_forward("linear_scan", saved[0], *residuals(a.shape, x.shape))
    blocks = -(-channels // LANES)
    group = blocks_per_job(batch, blocks)
    launch(
        backward_jobs, batch * -(-blocks // group), 5 * batch * length * channels,
        VECTOR * group * (TILE + 2), kind(a), kind(x), KINDS[y_dtype],
        *strided(a), *strided(x), *strided(dy),
        *(address(z) for z in (dlast, reset, ends, kept, da, dx, dinitial)), length, channels, group,
    )  # fmt: skip
    initial = given["initial_state"]
    return da, dx, None if initial is None else dinitial.to(initial.dtype), None, None


def _checked(arrays: tuple[Tensor | None, ...]) -> dict[str, Any]:
    given: dict[str, Any] = dict(zip(NAMES, (*arrays, *(None,) * (len(NAMES) - len(arrays))), strict=True))
    x = given["x"]
    if x is None or x.ndim != 3:
        raise ValueError(f"linear_scan: x must be (B, L, D), not {None if x is None else tuple(x.shape)}")
    if given["a"] is None:
        raise ValueError("linear_scan: a is missing")
    batch, length, channels = x.shape
    sequence = (batch, length, channels)
    shapes = (sequence, sequence, (batch, channels), (batch, length), (batch,))
    expected = {name: (given[name], shape) for name, shape in zip(NAMES, shapes, strict=True)}
    check("linear_scan", expected, dtypes=FLOATS)
    return given


def _forward(given: dict[str, Any], kept: Tensor | None) -> tuple[Tensor, Tensor]:
    batch, length, channels = given["x"].shape
    a, x, initial = rows(given["a"]), rows(given["x"]), dense(single(given["initial_state"]))
    reset, ends = flags(given["reset"]), row_ends(given["lengths"], batch, length)
    y, last = empty(batch, length, channels, dtype=stored_as(a, x)), empty(batch, channels)
    blocks = -(-channels // LANES)
    group = blocks_per_job(batch, blocks)
    launch(
        forward_jobs, batch * -(-blocks // group), 3 * batch * length * channels, VECTOR * group,
        kind(a), kind(x), kind(y), *strided(a), *strided(x),
        *(address(z) for z in (initial, reset, ends, y, last, kept)), length, channels, group,
    )  # fmt: skip
    return y, last
