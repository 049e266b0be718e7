"""The backward selective scan within a tile: recompute the states forwards, carry their gradients backwards.

Buffers are local to a tile: (steps, 16) for what belongs to a step, (steps, w, 16) for w states at a time.
"""

from __future__ import annotations

from helix_plugin_cpu.kernels._jit import inline
from helix_plugin_cpu.kernels._math import LN_2, canonical, exp2, sigmoid, silu_slope, softplus
from helix_plugin_cpu.kernels._memory import FLOAT, get, prefetch, put
from helix_plugin_cpu.kernels._simd import (
    LANES,
    VECTOR,
    Vec,
    broadcast,
    fma,
    load,
    load_first,
    splat,
    store,
    sum_lanes,
)
from helix_plugin_cpu.kernels._storage import read, size_of, write


@inline
def prepare_adjoint(
    kind: float, delta: int, delta_t: int, u: int, u_t: int, z: int, z_t: int, dy: int, dy_t: int, bias: int,
    x: int, xu: int, gated: int, dxu: int, dx: int, y: int, steps: int, lanes: int, soft: int,
) -> None:  # fmt: skip
    """x = Δ, xu = Δ u, gated = dy silu(z), and zeros in dxu, dx and y, for a tile of a block."""
    bias_v = load_first(bias, lanes) if bias != 0 else splat(0.0)
    for t in range(steps):
        # The next tile to come is the one in front.
        prefetch(delta + size_of(kind) * (t - steps) * delta_t)
        prefetch(u + size_of(kind) * (t - steps) * u_t)
        x_v = read(kind, delta + size_of(kind) * t * delta_t, lanes) + bias_v
        x_v = canonical(softplus(x_v) if soft else x_v)
        store(x + VECTOR * t, x_v)
        store(xu + VECTOR * t, x_v * read(kind, u + size_of(kind) * t * u_t, lanes))
        dy_v = splat(0.0)
        if dy != 0:
            prefetch(dy + size_of(kind) * (t - steps) * dy_t)
            dy_v = read(kind, dy + size_of(kind) * t * dy_t, lanes)
        if z != 0:
            prefetch(z + size_of(kind) * (t - steps) * z_t)
            z_v = read(kind, z + size_of(kind) * t * z_t, lanes)
            dy_v = dy_v * (z_v * sigmoid(z_v))
        store(gated + VECTOR * t, dy_v)
        store(dxu + VECTOR * t, splat(0.0))
        store(dx + VECTOR * t, splat(0.0))
        store(y + VECTOR * t, splat(0.0))


@inline
def recompute(h: Vec, a: Vec, b: int, x_v: Vec, xu_v: Vec, decay: int, before: int) -> Vec:
    """A step of one state, that keeps its decay and the state before it; returns the state after it."""
    e = exp2(x_v * a)
    store(decay, e)
    store(before, h)
    return fma(h, e, xu_v * broadcast(b))


@inline
def adjoint4(
    a: int, h: int, g: int, da: int, b: int, b_t: int, c: int, c_t: int, x: int, xu: int, gated: int,
    dxu: int, dx: int, y: int, db: int, dc: int, decay: int, before: int, steps: int,
) -> None:  # fmt: skip
    """Four states along a tile and back. h is 0 where the tile starts a document.

    g, the gradient of the state behind the tile, becomes that of the state in front of it. da, db, dc and, for
    each step, dxu = d/d(Δ u), dx = d/dΔ through exp(Δ A) but for a factor ln 2, and y = C h accumulate.
    """
    a0, a1, a2, a3 = load(a), load(a + VECTOR), load(a + 2 * VECTOR), load(a + 3 * VECTOR)
    h0, h1, h2, h3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    if h != 0:
        h0, h1, h2, h3 = load(h), load(h + VECTOR), load(h + 2 * VECTOR), load(h + 3 * VECTOR)
    for t in range(steps):
        x_v, xu_v = load(x + VECTOR * t), load(xu + VECTOR * t)
        e, p = decay + 4 * VECTOR * t, before + 4 * VECTOR * t
        h0 = recompute(h0, a0, b, x_v, xu_v, e, p)
        h1 = recompute(h1, a1, b + FLOAT, x_v, xu_v, e + VECTOR, p + VECTOR)
        h2 = recompute(h2, a2, b + 2 * FLOAT, x_v, xu_v, e + 2 * VECTOR, p + 2 * VECTOR)
        h3 = recompute(h3, a3, b + 3 * FLOAT, x_v, xu_v, e + 3 * VECTOR, p + 3 * VECTOR)
        b += FLOAT * b_t
    c += FLOAT * c_t * steps
    g0, g1, g2, g3 = load(g), load(g + VECTOR), load(g + 2 * VECTOR), load(g + 3 * VECTOR)
    da0, da1, da2, da3 = load(da), load(da + VECTOR), load(da + 2 * VECTOR), load(da + 3 * VECTOR)
    for t in range(steps - 1, -1, -1):
        b -= FLOAT * b_t
        c -= FLOAT * c_t
        x_v, xu_v, dy_v = load(x + VECTOR * t), load(xu + VECTOR * t), load(gated + VECTOR * t)
        dxu_v, dx_v, y_v = load(dxu + VECTOR * t), load(dx + VECTOR * t), load(y + VECTOR * t)
        at = 4 * VECTOR * t

        c_v = broadcast(c)
        g0 = fma(dy_v, c_v, g0)
        y_v = fma(h0, c_v, y_v)
        store(dc + at, fma(dy_v, h0, load(dc + at)))
        store(db + at, fma(g0, xu_v, load(db + at)))
        dxu_v = fma(g0, broadcast(b), dxu_v)
        h0 = load(before + at)
        g0 = g0 * load(decay + at)
        dx_v = fma(g0 * h0, a0, dx_v)
        da0 = fma(g0 * h0, x_v, da0)

        at += VECTOR
        c_v = broadcast(c + FLOAT)
        g1 = fma(dy_v, c_v, g1)
        y_v = fma(h1, c_v, y_v)
        store(dc + at, fma(dy_v, h1, load(dc + at)))
        store(db + at, fma(g1, xu_v, load(db + at)))
        dxu_v = fma(g1, broadcast(b + FLOAT), dxu_v)
        h1 = load(before + at)
        g1 = g1 * load(decay + at)
        dx_v = fma(g1 * h1, a1, dx_v)
        da1 = fma(g1 * h1, x_v, da1)

        at += VECTOR
        c_v = broadcast(c + 2 * FLOAT)
        g2 = fma(dy_v, c_v, g2)
        y_v = fma(h2, c_v, y_v)
        store(dc + at, fma(dy_v, h2, load(dc + at)))
        store(db + at, fma(g2, xu_v, load(db + at)))
        dxu_v = fma(g2, broadcast(b + 2 * FLOAT), dxu_v)
        h2 = load(before + at)
        g2 = g2 * load(decay + at)
        dx_v = fma(g2 * h2, a2, dx_v)
        da2 = fma(g2 * h2, x_v, da2)

        at += VECTOR
        c_v = broadcast(c + 3 * FLOAT)
        g3 = fma(dy_v, c_v, g3)
        y_v = fma(h3, c_v, y_v)
        store(dc + at, fma(dy_v, h3, load(dc + at)))
        store(db + at, fma(g3, xu_v, load(db + at)))
        dxu_v = fma(g3, broadcast(b + 3 * FLOAT), dxu_v)
        h3 = load(before + at)
        g3 = g3 * load(decay + at)
        dx_v = fma(g3 * h3, a3, dx_v)
        da3 = fma(g3 * h3, x_v, da3)

        store(dxu + VECTOR * t, dxu_v)
        store(dx + VECTOR * t, dx_v)
        store(y + VECTOR * t, y_v)
    store(g, g0)
    store(g + VECTOR, g1)
    store(g + 2 * VECTOR, g2)
    store(g + 3 * VECTOR, g3)
    store(da, da0)
    store(da + VECTOR, da1)
    store(da + 2 * VECTOR, da2)
    store(da + 3 * VECTOR, da3)


@inline
def adjoint1(
    a: int, h: int, g: int, da: int, b: int, b_t: int, c: int, c_t: int, x: int, xu: int, gated: int,
    dxu: int, dx: int, y: int, db: int, dc: int, decay: int, before: int, steps: int,
) -> None:  # fmt: skip
    """`adjoint4` for one state."""
    a_v, h_v = load(a), load(h) if h != 0 else splat(0.0)
    for t in range(steps):
        at = VECTOR * t
        h_v = recompute(h_v, a_v, b + FLOAT * b_t * t, load(x + at), load(xu + at), decay + at, before + at)
    g_v, da_v = load(g), load(da)
    for t in range(steps - 1, -1, -1):
        at = VECTOR * t
        c_v, dy_v = broadcast(c + FLOAT * c_t * t), load(gated + at)
        g_v = fma(dy_v, c_v, g_v)
        store(y + at, fma(h_v, c_v, load(y + at)))
        store(dc + at, fma(dy_v, h_v, load(dc + at)))
        store(db + at, fma(g_v, load(xu + at), load(db + at)))
        store(dxu + at, fma(g_v, broadcast(b + FLOAT * b_t * t), load(dxu + at)))
        h_v = load(before + at)
        g_v = g_v * load(decay + at)
        store(dx + at, fma(g_v * h_v, a_v, load(dx + at)))
        da_v = fma(g_v * h_v, load(x + at), da_v)
    store(g, g_v)
    store(da, da_v)


@inline
def adjoint(
    width: int, a: int, h: int, g: int, da: int, b: int, b_t: int, c: int, c_t: int, x: int, xu: int,
    gated: int, dxu: int, dx: int, y: int, db: int, dc: int, decay: int, before: int, steps: int,
) -> None:  # fmt: skip
    """`adjoint4` or `adjoint1`."""
    if width == 4:
        adjoint4(a, h, g, da, b, b_t, c, c_t, x, xu, gated, dxu, dx, y, db, dc, decay, before, steps)
    else:
        adjoint1(a, h, g, da, b, b_t, c, c_t, x, xu, gated, dxu, dx, y, db, dc, decay, before, steps)


@inline
def write_sums(source: int, steps: int, width: int, buffer: int, target: int, target_t: int) -> None:
    """(steps, width, 16) summed over lanes -> (steps, width) at `target`, `target_t` floats apart."""
    rows = LANES // width
    for i in range(0, steps, rows):
        store(buffer, sum_lanes(source + VECTOR * width * i))
        for k in range(min(rows, steps - i)):
            for j in range(width):
                put(target + FLOAT * ((i + k) * target_t + j), get(buffer + FLOAT * (k * width + j)))


@inline
def finish_adjoint(
    kind: float, delta: int, delta_t: int, u: int, u_t: int, z: int, z_t: int, dy: int, dy_t: int, bias: int, skip: int,
    x: int, gated: int, dxu: int, dx: int, y: int, du: int, ddelta: int, dz: int, out_t: int,
    dskip: int, dbias: int, steps: int, lanes: int, soft: int,
) -> None:  # fmt: skip
    """Write du, ddelta and dz of a tile of a block; dskip and dbias accumulate."""
    bias_v = load_first(bias, lanes) if bias != 0 else splat(0.0)
    skip_v = load_first(skip, lanes) if skip != 0 else splat(0.0)
    dskip_v, dbias_v = load(dskip), load(dbias)
    for t in range(steps):
        at = VECTOR * t
        u_v, dxu_v, gated_v = read(kind, u + size_of(kind) * t * u_t, lanes), load(dxu + at), load(gated + at)
        write(kind, du + size_of(kind) * t * out_t, fma(dxu_v, load(x + at), skip_v * gated_v), lanes)
        dskip_v = fma(gated_v, u_v, dskip_v)
        # `a` holds A log2 e, of which dx is a multiple.
        ddelta_v = fma(dxu_v, u_v, load(dx + at) * LN_2)
        if soft:
            ddelta_v = ddelta_v * sigmoid(read(kind, delta + size_of(kind) * t * delta_t, lanes) + bias_v)
        dbias_v = dbias_v + ddelta_v
        write(kind, ddelta + size_of(kind) * t * out_t, ddelta_v, lanes)
        if z != 0:
            dz_v = splat(0.0)
            if dy != 0:
                z_v = read(kind, z + size_of(kind) * t * z_t, lanes)
                dz_v = read(kind, dy + size_of(kind) * t * dy_t, lanes) * silu_slope(z_v, sigmoid(z_v))
                dz_v = dz_v * fma(skip_v, u_v, load(y + at))
            write(kind, dz + size_of(kind) * t * out_t, dz_v, lanes)
    store(dskip, dskip_v)
    store(dbias, dbias_v)
