"""RWKV-7's recurrence in tiles of time: see `_dplr_delta`.

B sequences, L positions, H heads, K and V widths of a head's keys and values, T steps of a tile.

Source: Peng et al., RWKV-7 "Goose" with Expressive Dynamic State Evolution, 2025.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from helix_plugin_cuda.kernels._arguments import activation_dtype, ends, flags, like, named, strides
from helix_plugin_cuda.kernels._dplr_delta import backward_kernel, forward_kernel, matrices_kernel, pairs_kernel
from helix_plugin_cuda.kernels._fused_recurrent import MOST_STEPS, Steps, fused_recurrent
from helix_plugin_cuda.kernels._launch import blocks, launch, power, precision
from helix_plugin_cuda.kernels._linear_attention_run import check_width, effective, gate_slope
from helix_plugin_cuda.kernels._tune import Way, chosen, size_class
from helix_plugin_torch.arguments import Shape, check, dense, rows

NAMES = ("r", "log_decay", "k", "v", "a", "b", "initial_state", "reset", "lengths")
WAYS = tuple({"values": v, "warps": w} for v, w in ((32, 4), (16, 4), (64, 4), (32, 8)))
"""Values of a program, and its warps."""
TILE = 16
"""Steps of a tile."""


def residuals(r: Shape, log_decay: Shape, k: Shape, v: Shape, *rest: Any) -> tuple[Shape, ...]:
    """The four matrices of each tile, and the state in front of it."""
    tiles = v[0] * v[2] * ((v[1] + TILE - 1) // TILE)
    return (tiles * 4 * TILE * TILE,), (tiles * r[3] * v[3],)


def forward(*arrays: Tensor | None) -> tuple[Tensor, ...]:
    """The nine inputs of the op, in its order -> y (B, L, H, V), last_state (B, H, K, V) float32.

    Raises TypeError for float64, ValueError for shapes that do not fit, UsageError for heads wider than 256.
    """
    given = _checked(arrays)
    if 0 < given["v"].shape[1] <= MOST_STEPS:
        same = {name: given[name] for name in ("k", "v", "log_decay", "a", "b", "reset", "lengths")}
        return fused_recurrent(Steps(q=given["r"], **same, initial=given["initial_state"], dtype=_dtype(given)))
    matrices = _empty_residuals(given)[0]
    way = _way("rwkv7", given, lambda way: _run(given, matrices, None, way))
    return _run(given, matrices, None, way)


def forward_train(*arrays: Tensor | None) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    given = _checked(arrays)
    matrices, kept = _empty_residuals(given)
    way = _way("rwkv7 train", given, lambda way: _run(given, matrices, kept, way))
    return _run(given, matrices, kept, way), (matrices, kept)


def backward(
    grads: tuple[Tensor | None, ...], arrays: tuple[Tensor | None, ...], saved: tuple[Tensor, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients of y and last_state (either may be None) -> one per array; None for absent ones and flags."""
    given = _checked(arrays)

    def run(way: Way) -> tuple[Tensor | None, ...]:
        return _run_backward(given, grads, saved, way)

    return run(_way("rwkv7 backward", given, run))


def _run_backward(
    given: dict[str, Any], grads: tuple[Tensor | None, ...], saved: tuple[Tensor, ...], way: Way
) -> tuple[Tensor | None, ...]:
    r, log_decay, k, v, a, b = (given[name] for name in NAMES[:6])
    (B, L, H, V), K = v.shape, r.shape[3]
    reset, row_ends = flags(given["reset"]), ends(given["lengths"], L)
    gates = effective(log_decay, given["reset"], row_ends)
    dy = torch.zeros(v.shape, dtype=torch.float32, device=v.device) if grads[0] is None else dense(grads[0])
    meta = _meta(given, way)
    pieces, tiles = blocks(V, meta["VALUES"]), blocks(L, TILE)
    made = {"dtype": torch.float32, "device": v.device}
    parts = torch.empty(pieces, B * H, L, 4, K, **made)
    rests = torch.empty(pieces, B * H, tiles, K, **made)
    slopes = torch.empty(pieces, B * H, tiles, 4, TILE, TILE, **made)
    dv, dinitial = like(v), like(given["initial_state"])
    launch(
        backward_kernel, (B * H * pieces,), r, k, v, a, b, gates, reset, row_ends, *saved, dy, dense(grads[1]),
        dv, parts, rests, slopes, dinitial, L, H, K, V, tiles, B * H, *_strides(r, k, v, a, b), **meta,
    )  # fmt: skip
    dr, dk, da, db = (like(x) for x in (r, k, a, b))
    dg = torch.empty(B, L, H, K, **made)
    launch(
        pairs_kernel, (B * H * tiles,), r, k, a, b, gates, reset, row_ends, parts, rests, slopes,
        dr, dk, da, db, dg, L, H, K, tiles, B * H, pieces, *_strides(r, k, a, b), **_pairwise(meta),
    )  # fmt: skip
    dg = gate_slope(dg, log_decay, given["reset"], row_ends).to(log_decay.dtype)
    return dr, dg, dk, dv, da, db, dinitial, None, None


def _run(given: dict[str, Any], matrices: Tensor, kept: Tensor | None, way: Way) -> tuple[Tensor, Tensor]:
    r, log_decay, k, v, a, b = (given[name] for name in NAMES[:6])
    (B, L, H, V), K = v.shape, r.shape[3]
    y = torch.empty(v.shape, dtype=_dtype(given), device=v.device)
    last = torch.empty(B, H, K, V, dtype=torch.float32, device=v.device)
    reset, row_ends = flags(given["reset"]), ends(given["lengths"], L)
    gates = effective(log_decay, given["reset"], row_ends)
    meta, tiles = _meta(given, way), blocks(L, TILE)
    launch(
        matrices_kernel, (B * H * tiles,), r, k, a, b, gates, reset, row_ends, matrices, L, H, K, tiles,
        *_strides(r, k, a, b), **_pairwise(meta),
    )  # fmt: skip
    launch(
        forward_kernel, (B * H * blocks(V, meta["VALUES"]),), r, k, v, a, b, gates, reset, row_ends, matrices,
        dense(given["initial_state"]), y, last, kept, L, H, K, V, tiles, *_strides(r, k, v, a, b), **meta,
    )  # fmt: skip
    return y, last


def _empty_residuals(given: dict[str, Any]) -> tuple[Tensor, ...]:
    shapes = residuals(*(tuple(given[name].shape) for name in NAMES[:4]))
    return tuple(torch.empty(shape, dtype=torch.float32, device=given["v"].device) for shape in shapes)


def _way(kernel: str, given: dict[str, Any], run: Callable[[Way], Any]) -> Way:
    (B, L, H, V), K = given["v"].shape, given["r"].shape[3]
    return chosen(kernel, (size_class(B), size_class(L), H, K, V, given["v"].dtype), WAYS, run)


def _meta(given: dict[str, Any], way: Way) -> dict[str, Any]:
    r, v = given["r"], given["v"]
    return {
        "PRECISION": precision(r, given["k"], v),
        "T": TILE,
        "KEYS": power(r.shape[3], 16),
        "VALUES": min(way["values"], power(v.shape[3], 16)),
        "num_warps": way["warps"],
        "num_stages": 1,
    }


def _pairwise(meta: dict[str, Any]) -> dict[str, Any]:
    """What kernels take that multiply no matrices."""
    return {key: value for key, value in meta.items() if key not in ("PRECISION", "VALUES")}


def _dtype(given: dict[str, Any]) -> torch.dtype:
    return activation_dtype(*(given[name] for name in NAMES[:7]))


def _strides(*arrays: Tensor) -> tuple[int, ...]:
    return tuple(s for array in arrays for s in strides(array, 3))


def _checked(arrays: tuple[Tensor | None, ...]) -> dict[str, Any]:
    given = named("rwkv7", NAMES, arrays, 6)
    r, v = given["r"], given["v"]
    if r.ndim != 4 or v.ndim != 4:
        raise ValueError(f"rwkv7: r must be (B, L, H, K) and v (B, L, H, V), not {tuple(r.shape)} and {tuple(v.shape)}")
    (B, L, H, K), V = r.shape, v.shape[3]
    check_width("rwkv7", K, V)
    keys = (B, L, H, K)
    shapes = (keys, keys, keys, (B, L, H, V), keys, keys, (B, H, K, V), (B, L), (B,))
    check("rwkv7", {name: (given[name], s) for name, s in zip(NAMES, shapes, strict=True)})
    return {**given, **{name: rows(given[name]) for name in ("r", "k", "v", "a", "b")}}
