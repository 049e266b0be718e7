"""The inner loops of the selective scan: sixteen channels, up to TILE steps, all operands in small local buffers.

Local buffers are (steps, 16), states (N, 16). B and C are read from their own rows. Exponents are taken in base 2, so
A arrives multiplied by log2 e where a name ends in 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helix_plugin_cpu.kernels._simd import LANES, Simd, Value, emit

TILE = 16
"""Steps per tile, and between the states that a training forward keeps."""


def _lane_mask(s: Simd, lanes: Value, ragged: bool) -> Value | None:
    return s.first(lanes) if ragged else None


def make_prepare(softplus: bool, ragged: bool) -> Callable[..., None]:
    """prepare(delta, delta_stride, u, u_stride, bias, dt, xu, u_local, steps, lanes): Δ, Δu and u of a block."""

    @emit(10)
    def prepare(s: Simd, delta: Any, delta_stride: Any, u: Any, u_stride: Any, bias: Any, *rest: Any) -> None:
        dt_out, xu_out, u_out, steps, lanes = rest
        mask = _lane_mask(s, lanes, ragged)
        offset = s.load(bias)

        def step(t: Value, _: list[Value]) -> list[Value]:
            dt = s.add(s.load(delta, s.b.mul(t, delta_stride), mask), offset)
            if softplus:
                dt = s.softplus(dt)
            x = s.load(u, s.b.mul(t, u_stride), mask)
            local = s.b.mul(t, s.index(LANES))
            s.store(dt, dt_out, local)
            s.store(s.mul(dt, x), xu_out, local)
            s.store(x, u_out, local)
            return []

        s.loop(steps, [], step)

    return prepare


def make_scan(states: int) -> Callable[..., None]:
    """scan(A2, B, B_stride, C, C_stride, dt, xu, y, h, steps): advance `states` states, adding C h to y."""

    @emit(10)
    def scan(s: Simd, A2: Any, B: Any, B_stride: Any, C: Any, C_stride: Any, dt: Any, xu: Any, *rest: Any) -> None:
        y, h, steps = rest
        rate = [s.load(A2, s.index(LANES * n)) for n in range(states)]
        start = [s.load(h, s.index(LANES * n)) for n in range(states)]

        def step(t: Value, h_now: list[Value]) -> list[Value]:
            local = s.b.mul(t, s.index(LANES))
            B_row, C_row = s.b.mul(t, B_stride), s.b.mul(t, C_stride)
            dt_t, xu_t = s.load(dt, local), s.load(xu, local)
            # Two accumulators: a single one would make every state wait for the one before.
            sums = [s.load(y, local), s.const(0.0)]
            after = []
            for n in range(states):
                b = s.broadcast(B, s.b.add(B_row, s.index(n)))
                c = s.broadcast(C, s.b.add(C_row, s.index(n)))
                decay = s.exp2(s.mul(dt_t, rate[n]))
                value = s.fma(h_now[n], decay, s.mul(xu_t, b))
                sums[n % 2] = s.fma(value, c, sums[n % 2])
                after.append(value)
            s.store(s.add(*sums), y, local)
            return after

        for n, value in enumerate(s.loop(steps, start, step)):
            s.store(value, h, s.index(LANES * n))

    return scan


def make_finish(gate: bool, ragged: bool) -> Callable[..., None]:
    """finish(y, u_local, D, z, z_stride, out, out_stride, steps, lanes): skip, gate and write y."""

    @emit(9)
    def finish(s: Simd, y: Any, u: Any, D: Any, z: Any, z_stride: Any, out: Any, out_stride: Any, *rest: Any) -> None:
        steps, lanes = rest
        mask = _lane_mask(s, lanes, ragged)
        skip = s.load(D)

        def step(t: Value, _: list[Value]) -> list[Value]:
            local = s.b.mul(t, s.index(LANES))
            value = s.fma(skip, s.load(u, local), s.load(y, local))
            if gate:
                z_t = s.load(z, s.b.mul(t, z_stride), mask)
                value = s.mul(value, s.mul(z_t, s.sigmoid(z_t)))
            s.store(value, out, s.b.mul(t, out_stride), mask)
            return []

        s.loop(steps, [], step)

    return finish


def make_recompute(states: int) -> Callable[..., None]:
    """recompute(A2, B, B_stride, dt, xu, h, decays, history, steps, N): keep exp(ΔA) and h of every step.

    decays (steps, N, 16), history (steps + 1, N, 16) with h before the first step in front.
    """

    @emit(10)
    def recompute(s: Simd, A2: Any, B: Any, B_stride: Any, dt: Any, xu: Any, h: Any, *rest: Any) -> None:
        decays, history, steps, N = rest
        rate = [s.load(A2, s.index(LANES * n)) for n in range(states)]
        start = [s.load(h, s.index(LANES * n)) for n in range(states)]
        for n, value in enumerate(start):
            s.store(value, history, s.index(LANES * n))
        row_size = s.b.mul(N, s.index(LANES))

        def step(t: Value, h_now: list[Value]) -> list[Value]:
            local = s.b.mul(t, s.index(LANES))
            B_row, row = s.b.mul(t, B_stride), s.b.mul(t, row_size)
            next_row = s.b.add(row, row_size)
            dt_t, xu_t = s.load(dt, local), s.load(xu, local)
            after = []
            for n in range(states):
                b = s.broadcast(B, s.b.add(B_row, s.index(n)))
                decay = s.exp2(s.mul(dt_t, rate[n]))
                value = s.fma(h_now[n], decay, s.mul(xu_t, b))
                s.store(decay, decays, s.b.add(row, s.index(LANES * n)))
                s.store(value, history, s.b.add(next_row, s.index(LANES * n)))
                after.append(value)
            return after

        for n, value in enumerate(s.loop(steps, start, step)):
            s.store(value, h, s.index(LANES * n))

    return recompute


def make_reverse(states: int) -> Callable[..., None]:
    """reverse(A, B, B_stride, C, C_stride, dt, xu, dy, decays, history, N, g, dA, dB, dC, dx, dd, y, steps).

    Backwards over a tile: g carries the gradient of h, dA and the rows of dB and dC accumulate, and so do
    dx = d/d(Δu), dd = the part of dΔ through exp(ΔA), and y = C h, which the gate's gradient needs.
    """

    @emit(19)
    def reverse(s: Simd, A: Any, B: Any, B_stride: Any, C: Any, C_stride: Any, dt: Any, xu: Any, *rest: Any) -> None:
        dy, decays, history, N, g, dA, dB, dC, dx, dd, y, steps = rest
        rate = [s.load(A, s.index(LANES * n)) for n in range(states)]
        carried = [s.load(p, s.index(LANES * n)) for p in (g, dA) for n in range(states)]
        row_size = s.b.mul(N, s.index(LANES))

        def step(t: Value, now: list[Value]) -> list[Value]:
            g_now, dA_now = now[:states], now[states:]
            local = s.b.mul(t, s.index(LANES))
            B_row, C_row, row = s.b.mul(t, B_stride), s.b.mul(t, C_stride), s.b.mul(t, row_size)
            dt_t, xu_t, dy_t = s.load(dt, local), s.load(xu, local), s.load(dy, local)
            dx_t, dd_t, y_t = s.load(dx, local), s.load(dd, local), s.load(y, local)
            g_next, dA_next, dB_parts, dC_parts = [], [], [], []
            for n in range(states):
                at = s.b.add(row, s.index(LANES * n))
                b = s.broadcast(B, s.b.add(B_row, s.index(n)))
                c = s.broadcast(C, s.b.add(C_row, s.index(n)))
                h_t = s.load(history, s.b.add(at, row_size))
                g_t = s.fma(dy_t, c, g_now[n])
                y_t = s.fma(h_t, c, y_t)
                dC_parts.append(s.mul(dy_t, h_t))
                dB_parts.append(s.mul(g_t, xu_t))
                dx_t = s.fma(g_t, b, dx_t)
                flow = s.mul(g_t, s.load(decays, at))
                through_decay = s.mul(flow, s.load(history, at))
                dd_t = s.fma(through_decay, rate[n], dd_t)
                dA_next.append(s.fma(through_decay, dt_t, dA_now[n]))
                g_next.append(flow)
            N_row = s.b.mul(t, N)
            for target, parts in ((dB, dB_parts), (dC, dC_parts)):
                if states == LANES:
                    s.store(s.add(s.load(target, N_row), s.transpose_sum(parts)), target, N_row)
                else:
                    for n, part in enumerate(parts):
                        pointer = s.pointer(target, s.b.add(N_row, s.index(n)))
                        s.b.store(s.b.fadd(s.b.load(pointer), s.lane_sum(part)), pointer)
            for target, value in ((dx, dx_t), (dd, dd_t), (y, y_t)):
                s.store(value, target, local)
            return g_next + dA_next

        finals = s.loop(steps, carried, step, backwards=True)
        for n in range(states):
            s.store(finals[n], g, s.index(LANES * n))
            s.store(finals[states + n], dA, s.index(LANES * n))

    return reverse


def make_output_gradient(gate: bool, ragged: bool) -> Callable[..., None]:
    """output_gradient(dy, dy_stride, z, z_stride, dy_local, steps, lanes): dy through the gate."""

    @emit(7)
    def output_gradient(s: Simd, dy: Any, dy_stride: Any, z: Any, z_stride: Any, *rest: Any) -> None:
        out, steps, lanes = rest
        mask = _lane_mask(s, lanes, ragged)

        def step(t: Value, _: list[Value]) -> list[Value]:
            value = s.load(dy, s.b.mul(t, dy_stride), mask)
            if gate:
                z_t = s.load(z, s.b.mul(t, z_stride), mask)
                value = s.mul(value, s.mul(z_t, s.sigmoid(z_t)))
            s.store(value, out, s.b.mul(t, s.index(LANES)))
            return []

        s.loop(steps, [], step)

    return output_gradient


def make_input_gradient(softplus: bool, ragged: bool) -> Callable[..., None]:
    """input_gradient(delta, delta_stride, bias, D, dt, u, dy, dx, dd, du, ddelta, out_stride, dD, dbias, steps, lanes).

    du = dx Δ + D dy and ddelta = (dx u + dd) softplus'(delta), written out; dD and dbias accumulate.
    """

    @emit(16)
    def input_gradient(s: Simd, delta: Any, delta_stride: Any, bias: Any, D: Any, dt: Any, u: Any, *rest: Any) -> None:
        dy, dx, dd, du_out, ddelta_out, out_stride, dD, dbias, steps, lanes = rest
        mask = _lane_mask(s, lanes, ragged)
        offset, skip = s.load(bias), s.load(D)

        def step(t: Value, sums: list[Value]) -> list[Value]:
            local, out = s.b.mul(t, s.index(LANES)), s.b.mul(t, out_stride)
            u_t, dy_t, dx_t = s.load(u, local), s.load(dy, local), s.load(dx, local)
            s.store(s.fma(dx_t, s.load(dt, local), s.mul(skip, dy_t)), du_out, out, mask)
            ddelta = s.fma(dx_t, u_t, s.load(dd, local))
            if softplus:
                raw = s.add(s.load(delta, s.b.mul(t, delta_stride), mask), offset)
                ddelta = s.mul(ddelta, s.sigmoid(raw))
            s.store(ddelta, ddelta_out, out, mask)
            return [s.fma(dy_t, u_t, sums[0]), s.add(ddelta, sums[1])]

        totals = s.loop(steps, [s.load(dD), s.load(dbias)], step)
        s.store(totals[0], dD)
        s.store(totals[1], dbias)

    return input_gradient


def make_gate_gradient(ragged: bool) -> Callable[..., None]:
    """gate_gradient(dy, dy_stride, z, z_stride, y, u, D, dz, out_stride, steps, lanes): dy (C h + D u) silu'(z)."""

    @emit(11)
    def gate_gradient(s: Simd, dy: Any, dy_stride: Any, z: Any, z_stride: Any, y: Any, u: Any, *rest: Any) -> None:
        D, dz, out_stride, steps, lanes = rest
        mask = _lane_mask(s, lanes, ragged)
        skip, one = s.load(D), s.const(1.0)

        def step(t: Value, _: list[Value]) -> list[Value]:
            local = s.b.mul(t, s.index(LANES))
            z_t = s.load(z, s.b.mul(t, z_stride), mask)
            gate = s.sigmoid(z_t)
            slope = s.mul(gate, s.fma(z_t, s.sub(one, gate), one))
            before_gate = s.fma(skip, s.load(u, local), s.load(y, local))
            value = s.mul(s.mul(s.load(dy, s.b.mul(t, dy_stride), mask), before_gate), slope)
            s.store(value, dz, s.b.mul(t, out_stride), mask)
            return []

        s.loop(steps, [], step)

    return gate_gradient
