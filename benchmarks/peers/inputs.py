"""The inputs that every side of a row gets, the same numbers in every process."""

from __future__ import annotations

import zlib

import numpy as np


def rng(name: str, *shape: int) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr((name, shape)).encode()))


def scan(B: int, L: int, D: int, N: int) -> dict[str, np.ndarray]:
    """u, delta > 0 (B, L, D), A < 0 (D, N), B, C (B, L, N), D (D,) and a gradient of y, all float32."""
    r = rng("scan", B, L, D, N)
    draw = {
        "u": r.normal(size=(B, L, D)),
        "delta": np.exp(r.uniform(np.log(1e-3), np.log(1e-1), (B, L, D))),
        "A": -np.tile(np.arange(1.0, N + 1), (D, 1)) * r.uniform(0.8, 1.2, (D, N)),
        "B": r.normal(size=(B, L, N)),
        "C": r.normal(size=(B, L, N)),
        "D": r.normal(size=(D,)),
        "dy": r.normal(size=(B, L, D)),
    }
    return {name: array.astype(np.float32) for name, array in draw.items()}


def long_conv(B: int, L: int, D: int) -> dict[str, np.ndarray]:
    """u (B, L, D), a decaying filter (L, D), both float32."""
    r = rng("long_conv", B, L, D)
    decay = np.exp(-np.arange(L)[:, None] / L * r.uniform(1, 10, (1, D)))
    draw = {"u": r.normal(size=(B, L, D)), "filter": r.normal(size=(L, D)) * decay}
    return {name: array.astype(np.float32) for name, array in draw.items()}


def features(B: int, L: int, D: int) -> np.ndarray:
    """x (B, L, D), float32."""
    return rng("features", B, L, D).normal(size=(B, L, D)).astype(np.float32)
