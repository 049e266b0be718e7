"""The gated delta rule in tiles of time: see `_gated_delta`.

B sequences, L positions, H heads, G heads of queries and keys, K and V widths of a key and a value.

Source: Yang, Kautz and Hatamizadeh, Gated Delta Networks: Improving Mamba2 with Delta Rule, 2024.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from helix_plugin_cuda.kernels._arguments import activation_dtype, ends, like, named, strides
from helix_plugin_cuda.kernels._fused_recurrent import MOST_STEPS, Steps, fused_recurrent
from helix_plugin_cuda.kernels._gated_delta import backward_kernel, forward_kernel, inverses_kernel
from helix_plugin_cuda.kernels._launch import blocks, launch, power, precision
from helix_plugin_cuda.kernels._linear_attention_run import check_width, effective, gate_slope
from helix_plugin_cuda.kernels._tune import Way, chosen, size_class
from helix_plugin_torch.arguments import Shape, check, dense, rows

NAMES = ("q", "k", "v", "log_decay", "beta", "initial_state", "reset", "lengths")
WAYS = tuple({"values": v, "warps": w} for v, w in ((32, 4), (16, 4), (64, 4), (32, 8)))
"""Values of a program, and its warps."""
TILE = 32
"""Steps of a tile."""


def residuals(q: Shape, k: Shape, v: Shape, *rest: Any, **attrs: Any) -> tuple[Shape, ...]:
    """The inverse of each tile, and the state in front of it."""
    tiles = v[0] * v[2] * ((v[1] + TILE - 1) // TILE)
    return (tiles * TILE * TILE,), (tiles * q[3] * v[3],)


def forward(*arrays: Tensor | None, scale: float = 1.0) -> tuple[Tensor, ...]:
    """The eight inputs of the op, in its order -> y (B, L, H, V), last_state (B, H, K, V) float32.

    Raises TypeError for float64, ValueError for shapes that do not fit, UsageError for heads wider than 256.
    """
    given = _checked(arrays)
    if 0 < given["v"].shape[1] <= MOST_STEPS:
        same = {name: given[name] for name in ("q", "k", "v", "reset", "lengths")}
        gates = {"log_decay": given["log_decay"][..., None], "rate": given["beta"]}
        return fused_recurrent(Steps(**same, **gates, initial=given["initial_state"], scale=scale, dtype=_dtype(given)))
    inverses = torch.empty(
        residuals(given["q"].shape, given["k"].shape, given["v"].shape)[0],
        dtype=torch.float32,
        device=given["v"].device,
    )
    way = _way("gated_delta_rule", given, lambda way: _run(given, scale, inverses, None, way))
    return _run(given, scale, inverses, None, way)


def forward_train(*arrays: Tensor | None, scale: float = 1.0) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    given = _checked(arrays)
    inverses, kept = (
        torch.empty(shape, dtype=torch.float32, device=given["v"].device)
        for shape in residuals(given["q"].shape, given["k"].shape, given["v"].shape)
    )
    way = _way("gated_delta_rule train", given, lambda way: _run(given, scale, inverses, kept, way))
    return _run(given, scale, inverses, kept, way), (inverses, kept)


def backward(
    grads: tuple[Tensor | None, ...],
    arrays: tuple[Tensor | None, ...],
    saved: tuple[Tensor, ...],
    *,
    scale: float = 1.0,
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one per array; None for absent ones and flags."""
    given = _checked(arrays)

    def run(way: Way) -> tuple[Tensor | None, ...]:
        return _run_backward(given, grads, saved, scale, way)

    return run(_way("gated_delta_rule backward", given, run))


def _run_backward(
    given: dict[str, Any], grads: tuple[Tensor | None, ...], saved: tuple[Tensor, ...], scale: float, way: Way
) -> tuple[Tensor | None, ...]:
    q, k, v, log_decay, beta = (given[name] for name in NAMES[:5])
    (B, L, H, V), (G, K) = v.shape, q.shape[2:]
    row_ends = ends(given["lengths"], L)
    dy = torch.zeros(v.shape, dtype=torch.float32, device=v.device) if grads[0] is None else dense(grads[0])
    meta = _meta(given, way)
    values = meta["VALUES"]
    pieces, tiles = blocks(V, values), blocks(L, TILE)
    made = {"dtype": torch.float32, "device": v.device}
    dq, dk = (torch.empty(pieces, B, L, H, K, **made) for _ in range(2))
    dbeta, dg = (torch.empty(pieces, B, L, H, **made) for _ in range(2))
    dinitial = like(given["initial_state"])
    dv = torch.empty(v.shape, **made)
    launch(
        backward_kernel, (B * H * pieces,), q, k, v, dense(beta), _gates(given, row_ends), row_ends, *saved,
        dy, dense(grads[1]), dq, dk, dv, dbeta, dg, dinitial, L, H, K, V, tiles, B, scale,
        *strides(q, 3), *strides(k, 3), *strides(v, 3), **meta,
    )  # fmt: skip
    slope = gate_slope(dg.sum(0)[..., None], log_decay[..., None], given["reset"], row_ends)[..., 0]

    def to_groups(grad: Tensor) -> Tensor:
        return grad.sum(0).view(B, L, G, H // G, K).sum(3)

    return (
        to_groups(dq).to(q.dtype),
        to_groups(dk).to(k.dtype),
        dv.to(v.dtype),
        slope.to(log_decay.dtype),
        dbeta.sum(0).to(beta.dtype),
        dinitial,
        None,
        None,
    )


def _run(given: dict[str, Any], scale: float, inverses: Tensor, kept: Tensor | None, way: Way) -> tuple[Tensor, Tensor]:
    q, k, v = given["q"], given["k"], given["v"]
    (B, L, H, V), K = v.shape, q.shape[3]
    y = torch.empty(v.shape, dtype=_dtype(given), device=v.device)
    last = torch.empty(B, H, K, V, dtype=torch.float32, device=v.device)
    row_ends = ends(given["lengths"], L)
    gates, beta = _gates(given, row_ends), dense(given["beta"])
    meta = _meta(given, way)
    tiles = blocks(L, TILE)
    one = {key: value for key, value in meta.items() if key != "VALUES"}
    launch(inverses_kernel, (B * H * tiles,), k, beta, gates, row_ends, inverses, L, H, K, tiles, *strides(k, 3), **one)
    launch(
        forward_kernel, (B * H * blocks(V, meta["VALUES"]),), q, k, v, beta, gates, row_ends, inverses,
        dense(given["initial_state"]), y, last, kept, L, H, K, V, tiles, scale,
        *strides(q, 3), *strides(k, 3), *strides(v, 3), **meta,
    )  # fmt: skip
    return y, last


def _way(kernel: str, given: dict[str, Any], run: Callable[[Way], Any]) -> Way:
    (B, L, H, V), (G, K) = given["v"].shape, given["q"].shape[2:]
    return chosen(kernel, (size_class(B), size_class(L), H, G, K, V, given["v"].dtype), WAYS, run)


def _meta(given: dict[str, Any], way: Way) -> dict[str, Any]:
    q, v = given["q"], given["v"]
    return {
        "SHARED": v.shape[2] // q.shape[2],
        "PRECISION": precision(q, given["k"], v),
        "T": TILE,
        "KEYS": power(q.shape[3], 16),
        "VALUES": min(way["values"], power(v.shape[3], 16)),
        "num_warps": way["warps"],
        "num_stages": 1,
    }


def _dtype(given: dict[str, Any]) -> torch.dtype:
    return activation_dtype(*(given[name] for name in NAMES[:6]))


def _gates(given: dict[str, Any], row_ends: Tensor | None) -> Tensor:
    return effective(given["log_decay"][..., None], given["reset"], row_ends)


def _checked(arrays: tuple[Tensor | None, ...]) -> dict[str, Any]:
    given = named("gated_delta_rule", NAMES, arrays, 5)
    q, v = given["q"], given["v"]
    if q.ndim != 4 or v.ndim != 4 or not q.shape[2] or v.shape[2] % q.shape[2]:
        raise ValueError(
            f"gated_delta_rule: q must be (B, L, G, K) and v (B, L, H, V) with H a multiple of G, "
            f"not {tuple(q.shape)} and {tuple(v.shape)}"
        )
    (B, L, H, V), (G, K) = v.shape, q.shape[2:]
    check_width("gated_delta_rule", K, V)
    keys, head = (B, L, G, K), (B, L, H)
    shapes = (keys, keys, (B, L, H, V), head, head, (B, H, K, V), (B, L), (B,))
    check("gated_delta_rule", {name: (given[name], s) for name, s in zip(NAMES, shapes, strict=True)})
    return {**given, **{name: rows(given[name]) for name in ("q", "k", "v")}}
