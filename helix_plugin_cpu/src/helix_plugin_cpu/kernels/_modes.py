"""Complex modes along a tile of a block of channels, two at a time: real and imaginary parts are vectors of their own.

h_t = a h_{t-1} + u_t and y_t = Re(c h_t), with c doubled beforehand. A mode's a, c and h are two vectors each, real
and imaginary. Buffers that belong to a step are (steps, 16).
"""

from __future__ import annotations

from helix_plugin_cpu.kernels._jit import inline
from helix_plugin_cpu.kernels._simd import VECTOR, fma, load, splat, store

MODE = 2 * VECTOR
"""Bytes of a mode."""


@inline
def modes2(a: int, c: int, h: int, u: int, y: int, steps: int) -> None:
    """Advance two modes along a tile."""
    ar, ai, br, bi = load(a), load(a + VECTOR), load(a + MODE), load(a + MODE + VECTOR)
    cr, ci, dr, di = load(c), load(c + VECTOR), load(c + MODE), load(c + MODE + VECTOR)
    hr, hi, kr, ki = load(h), load(h + VECTOR), load(h + MODE), load(h + MODE + VECTOR)
    for t in range(steps):
        u_v = load(u + VECTOR * t)
        hr, hi = fma(ar, hr, fma(-ai, hi, u_v)), fma(ar, hi, ai * hr)
        kr, ki = fma(br, kr, fma(-bi, ki, u_v)), fma(br, ki, bi * kr)
        store(y + VECTOR * t, fma(-di, ki, fma(dr, kr, fma(-ci, hi, fma(cr, hr, load(y + VECTOR * t))))))
    store(h, hr)
    store(h + VECTOR, hi)
    store(h + MODE, kr)
    store(h + MODE + VECTOR, ki)


@inline
def modes1(a: int, c: int, h: int, u: int, y: int, steps: int) -> None:
    """`modes2` for the last of an odd number."""
    ar, ai, cr, ci = load(a), load(a + VECTOR), load(c), load(c + VECTOR)
    hr, hi = load(h), load(h + VECTOR)
    for t in range(steps):
        hr, hi = fma(ar, hr, fma(-ai, hi, load(u + VECTOR * t))), fma(ar, hi, ai * hr)
        store(y + VECTOR * t, fma(-ci, hi, fma(cr, hr, load(y + VECTOR * t))))
    store(h, hr)
    store(h + VECTOR, hi)


@inline
def mode_adjoint(
    a: int, c: int, h: int, g: int, da: int, dc: int, u: int, dy: int, du: int, states: int, steps: int
) -> None:
    """A mode along a tile and back; h is 0 where the tile starts a document. `states` has room for steps + 1.

    g, the gradient of the state behind the tile, becomes that of the state in front of it; da, dc and du accumulate.
    """
    ar, ai, cr, ci = load(a), load(a + VECTOR), load(c), load(c + VECTOR)
    hr, hi = splat(0.0), splat(0.0)
    if h != 0:
        hr, hi = load(h), load(h + VECTOR)
    for t in range(steps):
        store(states + MODE * t, hr)
        store(states + MODE * t + VECTOR, hi)
        hr, hi = fma(ar, hr, fma(-ai, hi, load(u + VECTOR * t))), fma(ar, hi, ai * hr)
    gr, gi = load(g), load(g + VECTOR)
    dar, dai, dcr, dci = load(da), load(da + VECTOR), load(dc), load(dc + VECTOR)
    for t in range(steps - 1, -1, -1):
        dy_v = load(dy + VECTOR * t)
        gr, gi = fma(dy_v, cr, gr), fma(-dy_v, ci, gi)
        dcr, dci = fma(dy_v, hr, dcr), fma(-dy_v, hi, dci)
        store(du + VECTOR * t, load(du + VECTOR * t) + gr)
        hr, hi = load(states + MODE * t), load(states + MODE * t + VECTOR)
        dar, dai = fma(gr, hr, fma(gi, hi, dar)), fma(gi, hr, fma(-gr, hi, dai))
        gr, gi = fma(ar, gr, ai * gi), fma(ar, gi, -(ai * gr))
    store(g, gr)
    store(g + VECTOR, gi)
    store(da, dar)
    store(da + VECTOR, dai)
    store(dc, dcr)
    store(dc + VECTOR, dci)
