"""The inner loops of the short convolution: sixteen channels, all operands in small local buffers of rows of 16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helix_plugin_cpu.kernels._simd import LANES, Simd, Value, emit


def make_gather(ragged: bool) -> Callable[..., None]:
    """gather(source, stride, target, steps, lanes): rows of an array into a local buffer."""

    @emit(5)
    def gather(s: Simd, source: Any, stride: Any, target: Any, steps: Any, lanes: Any) -> None:
        mask = s.first(lanes) if ragged else None

        def step(t: Value, _: list[Value]) -> list[Value]:
            s.store(s.load(source, s.b.mul(t, stride), mask), target, s.b.mul(t, s.index(LANES)))
            return []

        s.loop(steps, [], step)

    return gather


def make_scatter(ragged: bool) -> Callable[..., None]:
    """scatter(source, target, stride, steps, lanes): a local buffer into rows of an array."""

    @emit(5)
    def scatter(s: Simd, source: Any, target: Any, stride: Any, steps: Any, lanes: Any) -> None:
        mask = s.first(lanes) if ragged else None

        def step(t: Value, _: list[Value]) -> list[Value]:
            s.store(s.load(source, s.b.mul(t, s.index(LANES))), target, s.b.mul(t, stride), mask)
            return []

        s.loop(steps, [], step)

    return scatter


def _over_taps(
    s: Simd,
    count: Value,
    taps: int | None,
    start: list[Value],
    body: Callable[[Value, list[Value]], list[Value]],
) -> list[Value]:
    """Run `body` for every tap, unrolled if their number is known."""
    if taps is None:
        return s.loop(count, start, body)
    for k in range(taps):
        start = body(s.index(k), start)
    return start


def make_taps(taps: int | None, *, reverse: bool) -> Callable[..., None]:
    """taps(window, weight, start, out, steps, K): out_t = start + Σ_k weight_k window_{t+k}; weight_{K-1-k} if reverse.

    window has steps + K - 1 rows, weight K rows, start one.
    """

    @emit(6)
    def apply(s: Simd, window: Any, weight: Any, start: Any, out: Any, steps: Any, K: Any) -> None:
        first = s.load(start)

        def step(t: Value, _: list[Value]) -> list[Value]:
            def tap(k: Value, total: list[Value]) -> list[Value]:
                w = s.b.sub(s.b.sub(K, s.index(1)), k) if reverse else k
                value = s.load(window, s.b.mul(s.b.add(t, k), s.index(LANES)))
                return [s.fma(s.load(weight, s.b.mul(w, s.index(LANES))), value, total[0])]

            (total,) = _over_taps(s, K, taps, [first], tap)
            s.store(total, out, s.b.mul(t, s.index(LANES)))
            return []

        s.loop(steps, [], step)

    return apply


@emit(6)
def weight_gradient(s: Simd, window: Any, dpre: Any, dweight: Any, dbias: Any, steps: Any, K: Any) -> None:
    """dweight_k += Σ_t dpre_t window_{t+k}, dbias += Σ_t dpre_t."""

    def tap(k: Value, _: list[Value]) -> list[Value]:
        def step(t: Value, total: list[Value]) -> list[Value]:
            value = s.load(window, s.b.mul(s.b.add(t, k), s.index(LANES)))
            return [s.fma(s.load(dpre, s.b.mul(t, s.index(LANES))), value, total[0])]

        at = s.b.mul(k, s.index(LANES))
        (total,) = s.loop(steps, [s.load(dweight, at)], step)
        s.store(total, dweight, at)
        return []

    s.loop(K, [], tap)

    def step(t: Value, total: list[Value]) -> list[Value]:
        return [s.add(total[0], s.load(dpre, s.b.mul(t, s.index(LANES))))]

    (total,) = s.loop(steps, [s.load(dbias)], step)
    s.store(total, dbias)


@emit(2)
def silu(s: Simd, values: Any, steps: Any) -> None:
    """values <- values sigmoid(values)."""

    def step(t: Value, _: list[Value]) -> list[Value]:
        at = s.b.mul(t, s.index(LANES))
        x = s.load(values, at)
        s.store(s.mul(x, s.sigmoid(x)), values, at)
        return []

    s.loop(steps, [], step)


@emit(3)
def silu_gradient(s: Simd, before: Any, grad: Any, steps: Any) -> None:
    """grad <- grad silu'(before)."""

    def step(t: Value, _: list[Value]) -> list[Value]:
        at = s.b.mul(t, s.index(LANES))
        x = s.load(before, at)
        gate = s.sigmoid(x)
        slope = s.mul(gate, s.fma(x, s.sub(s.const(1.0), gate), s.const(1.0)))
        s.store(s.mul(s.load(grad, at), slope), grad, at)
        return []

    s.loop(steps, [], step)
