"""Depthwise causal convolution and SiLU in one pass; the backward computes again what goes into the SiLU.

B sequences, L positions, D channels, K taps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from helix_plugin_cuda.kernels._arguments import activation_dtype, ends, flags, like, named, strides
from helix_plugin_cuda.kernels._chunks import limit
from helix_plugin_cuda.kernels._launch import blocks, launch, power, processors, wide
from helix_plugin_cuda.kernels._math import silu_slope
from helix_plugin_cuda.kernels._tune import Way, chosen, size_class
from helix_plugin_torch.arguments import Shape, check, dense, rows

WAYS = tuple({"steps": t, "channels": c, "warps": 4} for t, c in ((32, 128), (64, 64), (16, 256), (128, 32)))
"""Steps and channels of a program, and its warps."""
NAMES = ("x", "weight", "bias", "initial_state", "reset", "lengths")


@triton.jit
def _place(L, D, tiles, STEPS: tl.constexpr, BLOCK: tl.constexpr):
    """Row, tile, its steps, and the channels of this program."""
    pieces = tl.cdiv(D, BLOCK)
    program = wide(tl.program_id(0))
    tile = program // pieces % tiles
    t = tile * STEPS + tl.arange(0, STEPS)
    return program // (pieces * tiles), tile, t, (program % pieces) * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def _input(x, initial, b, s, d, sxb, sxt, D, wanted, K: tl.constexpr):
    """The input of steps s, those before the first from the state; 0 where it is not wanted."""
    v = tl.load(x + b * sxb + s[:, None] * sxt + d[None, :], mask=wanted & (s >= 0)[:, None], other=0.0)
    v = v.to(tl.float32)
    if initial is not None:
        at = (b * (K - 1) + K - 1 + s)[:, None] * D + d[None, :]
        before = wanted & ((s < 0) & (s >= 1 - K))[:, None]
        v += tl.load(initial + at, mask=before, other=0.0).to(tl.float32)
    return v


@triton.jit
def _unbroken(alive, reset, b, t, L):
    """`alive` where no document starts at step t."""
    if reset is not None:
        fresh = tl.load(reset + b * L + t, mask=(t >= 0) & (t < L), other=0) != 0
        alive = alive & (fresh == 0)
    return alive


@triton.jit
def _weighted(
    x, weight, bias, initial, reset, b, t, d, inside, real, sxb, sxt, L, D,
    K: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The convolution of steps t, before the activation."""
    total = tl.zeros([STEPS, BLOCK], tl.float32)
    if bias is not None:
        total += tl.load(bias + d, mask=inside, other=0.0).to(tl.float32)[None, :]
    alive = real
    for j in tl.static_range(K):
        if j > 0:
            alive = _unbroken(alive, reset, b, t - j + 1, L)
        w = tl.load(weight + d * K + (K - 1 - j), mask=inside, other=0.0).to(tl.float32)
        total += w[None, :] * _input(x, initial, b, t - j, d, sxb, sxt, D, alive[:, None] & inside[None, :], K)
    return total


@triton.jit
def _forward(
    x, weight, bias, initial, reset, lengths, y, last, L, D, tiles, sxb, sxt,
    SILU: tl.constexpr, K: tl.constexpr, TAPS: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    b, tile, t, d = _place(L, D, tiles, STEPS, BLOCK)
    end = limit(lengths, b, L)
    inside = d < D
    real = (t < L) & (t < end)
    v = _weighted(x, weight, bias, initial, reset, b, t, d, inside, real, sxb, sxt, L, D, K, STEPS, BLOCK)
    if SILU:
        v = v * tl.sigmoid(v)
    out = (b * L + t)[:, None] * D + d[None, :]
    tl.store(y + out, tl.where(real[:, None], v, 0.0), mask=(t < L)[:, None] & inside[None, :])
    if K > 1:
        if tile == 0:
            # The last inputs: those that no document start between them and the row's end cuts off.
            k = tl.arange(0, TAPS)
            s = end - (K - 1) + k
            whole = k < K - 1
            for j in tl.static_range(1, K - 1):
                whole = whole & ((s + j >= end) | _unbroken(whole, reset, b, s + j, L))
            tail = _input(x, initial, b, s, d, sxb, sxt, D, whole[:, None] & inside[None, :], K)
            at = (b * (K - 1) + k)[:, None] * D + d[None, :]
            tl.store(last + at, tail, mask=(k < K - 1)[:, None] & inside[None, :])


@triton.jit
def _slopes(
    x, weight, bias, initial, reset, lengths, dy, dpre, dweight, dbias, L, D, tiles, rounds, groups, sxb, sxt,
    SILU: tl.constexpr, K: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of what goes into the activation; those of weight and bias, summed over a share of the tiles."""
    pieces = tl.cdiv(D, BLOCK)
    group = wide(tl.program_id(0)) // pieces
    d = (wide(tl.program_id(0)) % pieces) * BLOCK + tl.arange(0, BLOCK)
    inside = d < D
    summed = tl.zeros([BLOCK], tl.float32)
    taps = ()
    for j in tl.static_range(K):
        taps = taps + (tl.zeros([BLOCK], tl.float32),)  # type: ignore[assignment]  # a tuple may grow in Triton
    for turn in range(rounds):
        work = group * rounds + turn
        b, tile = work // tiles, work % tiles
        t = tile * STEPS + tl.arange(0, STEPS)
        end = limit(lengths, b, L)
        real = (t < L) & (t < end)
        out = (b * L + t)[:, None] * D + d[None, :]
        g = tl.load(dy + out, mask=real[:, None] & inside[None, :], other=0.0).to(tl.float32)
        if SILU:
            v = _weighted(x, weight, bias, initial, reset, b, t, d, inside, real, sxb, sxt, L, D, K, STEPS, BLOCK)
            g = g * silu_slope(v)
        tl.store(dpre + out, g, mask=(t < L)[:, None] & inside[None, :])
        summed += tl.sum(g, axis=0)
        alive = real
        found = ()
        for j in tl.static_range(K):
            if j > 0:
                alive = _unbroken(alive, reset, b, t - j + 1, L)
            v = _input(x, initial, b, t - j, d, sxb, sxt, D, alive[:, None] & inside[None, :], K)
            found = found + (taps[j] + tl.sum(g * v, axis=0),)  # type: ignore[assignment]  # a tuple may grow in Triton
        taps = found
    for j in tl.static_range(K):
        tl.store(dweight + (group * D + d) * K + (K - 1 - j), taps[j], mask=inside)
    if dbias is not None:
        tl.store(dbias + group * D + d, summed, mask=inside)


@triton.jit
def _inputs(
    weight, reset, lengths, dpre, dlast, dx, dinitial, L, D, tiles,
    K: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of every input, those of the state too: steps run from 1-K."""
    b, tile, t, d = _place(L + K - 1, D, tiles, STEPS, BLOCK)
    s = t - (K - 1)
    end = limit(lengths, b, L)
    inside = d < D
    total = tl.zeros([STEPS, BLOCK], tl.float32)
    alive = s < L
    for j in tl.static_range(K):
        if j > 0:
            alive = _unbroken(alive, reset, b, s + j, L)
        seen = alive & (s + j >= 0) & (s + j < L) & (s + j < end)
        w = tl.load(weight + d * K + (K - 1 - j), mask=inside, other=0.0).to(tl.float32)
        at = (b * L + s + j)[:, None] * D + d[None, :]
        total += w[None, :] * tl.load(dpre + at, mask=seen[:, None] & inside[None, :], other=0.0)
    if dlast is not None:
        k = s - (end - (K - 1))
        alive = (k >= 0) & (k < K - 1)
        for j in tl.static_range(1, K - 1):
            alive = alive & ((s + j >= end) | _unbroken(alive, reset, b, s + j, L))
        at = (b * (K - 1) + k)[:, None] * D + d[None, :]
        total += tl.load(dlast + at, mask=alive[:, None] & inside[None, :], other=0.0).to(tl.float32)
    out = (b * L + s)[:, None] * D + d[None, :]
    tl.store(dx + out, total, mask=((s >= 0) & (s < L))[:, None] & inside[None, :])
    if dinitial is not None:
        at = (b * (K - 1) + t)[:, None] * D + d[None, :]
        tl.store(dinitial + at, total, mask=((s < 0) & (t < L + K - 1))[:, None] & inside[None, :])


def residuals(x: Shape, weight: Shape, *rest: Any, activation: str = "none") -> tuple[Shape, ...]:
    """Nothing: the backward computes from the inputs."""
    return ()


def forward(*arrays: Tensor | None, activation: str = "none") -> tuple[Tensor, ...]:
    """The six inputs of the op, in its order -> y (B, L, D), last_state (B, K-1, D) float32.

    Raises TypeError for float64, ValueError for shapes that do not fit or another activation.
    """
    given = _checked(arrays, activation)

    def run(way: Way) -> tuple[Tensor, ...]:
        return _run(given, activation, way)

    return run(_way("causal_conv1d", given, run))


def _run(given: dict[str, Any], activation: str, way: Way) -> tuple[Tensor, ...]:
    x, weight, initial = given["x"], given["weight"], given["initial_state"]
    (B, L, D), K = x.shape, weight.shape[1]
    dtype = activation_dtype(x, weight, given["bias"], initial)
    y = torch.empty(B, L, D, dtype=dtype, device=x.device)
    last = torch.empty(B, K - 1, D, dtype=torch.float32, device=x.device)
    meta = _shape(L, D, way)
    tiles = max(1, blocks(L, meta["STEPS"]))
    launch(
        _forward, (B * tiles * blocks(D, meta["BLOCK"]),),
        x, weight, given["bias"], initial, flags(given["reset"]), ends(given["lengths"], L), y, last,
        L, D, tiles, *strides(x), SILU=activation == "silu", K=K, TAPS=power(K - 1), **meta,
    )  # fmt: skip
    return y, last


def forward_train(*arrays: Tensor | None, activation: str = "none") -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """`forward`; nothing is kept."""
    return forward(*arrays, activation=activation), ()


def backward(
    grads: tuple[Tensor | None, ...],
    arrays: tuple[Tensor | None, ...],
    saved: tuple[Tensor, ...],
    *,
    activation: str = "none",
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one per array; None for absent ones and flags."""
    given = _checked(arrays, activation)

    def run(way: Way) -> tuple[Tensor | None, ...]:
        return _run_backward(given, grads, activation, way)

    return run(_way("causal_conv1d backward", given, run))


def _run_backward(
    given: dict[str, Any], grads: tuple[Tensor | None, ...], activation: str, way: Way
) -> tuple[Tensor | None, ...]:
    x, weight, bias, initial = given["x"], given["weight"], given["bias"], given["initial_state"]
    (B, L, D), K = x.shape, weight.shape[1]
    reset, lengths = flags(given["reset"]), ends(given["lengths"], L)
    dlast = dense(grads[1])
    dy = torch.zeros(x.shape, dtype=torch.float32, device=x.device) if grads[0] is None else dense(grads[0])
    meta = _shape(L, D, way)
    pieces, tiles = blocks(D, meta["BLOCK"]), max(1, blocks(L, meta["STEPS"]))
    # Every group gets as many tiles as every other: their number divides B * tiles.
    groups = next(g for g in range(min(B * tiles, max(1, 8 * processors(x.device.index) // max(pieces, 1))), 0, -1)
                  if B * tiles % g == 0)  # fmt: skip
    dpre = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    dweight = torch.empty(groups, D, K, dtype=torch.float32, device=x.device)
    dbias = None if bias is None else torch.empty(groups, D, dtype=torch.float32, device=x.device)
    launch(
        _slopes, (groups * pieces,), x, weight, bias, initial, reset, lengths, dy, dpre, dweight, dbias,
        L, D, tiles, B * tiles // groups, groups, *strides(x), SILU=activation == "silu", K=K, **meta,
    )  # fmt: skip
    dx, dinitial = like(x), like(initial)
    tiles = blocks(L + K - 1, meta["STEPS"])
    launch(_inputs, (B * tiles * pieces,), weight, reset, lengths, dpre, dlast, dx, dinitial, L, D, tiles, K=K, **meta)
    dweight = dweight.sum(0).to(weight.dtype)
    return dx, dweight, None if dbias is None else dbias.sum(0).to(bias.dtype), dinitial, None, None


def _way(kernel: str, given: dict[str, Any], run: Callable[[Way], Any]) -> Way:
    B, L, D = given["x"].shape
    taps = given["weight"].shape[1]
    if L == 0:
        return WAYS[0]
    return chosen(kernel, (size_class(B), size_class(L), size_class(D), taps, given["x"].dtype), WAYS, run)


def _shape(L: int, D: int, way: Way) -> dict[str, int]:
    return {
        "STEPS": min(way["steps"], power(L)),
        "BLOCK": min(way["channels"], power(D, 16)),
        "num_warps": way["warps"],
    }


def _checked(arrays: tuple[Tensor | None, ...], activation: str) -> dict[str, Any]:
    given = named("causal_conv1d", NAMES, arrays, 2)
    if activation not in ("none", "silu"):
        raise ValueError(f"activation must be 'none' or 'silu', not {activation!r}")
    shape = tuple(given["x"].shape)
    if len(shape) != 3 or given["weight"].ndim != 2:
        raise ValueError(f"causal_conv1d: x must be (B, L, D), not {shape}, and weight (D, K)")
    B, L, D = shape
    K = given["weight"].shape[1]
    shapes = (shape, (D, K), (D,), (B, K - 1, D), (B, L), (B,))
    check("causal_conv1d", {name: (given[name], s) for name, s in zip(NAMES, shapes, strict=True)})
    dense_ones = {name: dense(given[name]) for name in ("weight", "bias", "initial_state")}
    return {**given, **dense_ones, "x": rows(given["x"])}
