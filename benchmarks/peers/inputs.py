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


def ssd(B: int, L: int, H: int, P: int, N: int) -> dict[str, np.ndarray]:
    """x (B, L, H, P), dt > 0 (B, L, H), A < 0 (H,), B, C (B, L, 1, N), D (H,) and a gradient of y, all float32."""
    r = rng("ssd", B, L, H, P, N)
    draw = {
        "x": r.normal(size=(B, L, H, P)),
        "dt": np.exp(r.uniform(np.log(1e-3), np.log(1e-1), (B, L, H))),
        "A": -r.uniform(1, 16, H),
        "B": r.normal(size=(B, L, 1, N)),
        "C": r.normal(size=(B, L, 1, N)),
        "D": r.normal(size=H),
        "dy": r.normal(size=(B, L, H, P)),
    }
    return {name: array.astype(np.float32) for name, array in draw.items()}


def ssd_step(B: int, H: int, P: int, N: int) -> dict[str, np.ndarray]:
    """`ssd` for one step, without a gradient but with a state (B, H, N, P) in front of it."""
    arrays = ssd(B, 1, H, P, N)
    del arrays["dy"]
    return arrays | {"state": rng("state", B, H, P, N).normal(size=(B, H, N, P)).astype(np.float32)}


def gated_linear_attention(B: int, L: int, H: int, K: int, V: int) -> dict[str, np.ndarray]:
    """q, k, log_decay < 0 (B, L, H, K), v (B, L, H, V) and a gradient of y, all float32; decays as GLA starts."""
    r = rng("gla", B, L, H, K, V)
    draw = {
        "q": r.normal(size=(B, L, H, K)) * K**-0.5,
        "k": r.normal(size=(B, L, H, K)),
        "v": r.normal(size=(B, L, H, V)),
        "log_decay": -np.logaddexp(0, -r.normal(size=(B, L, H, K))) / 16,
        "dy": r.normal(size=(B, L, H, V)),
    }
    return {name: array.astype(np.float32) for name, array in draw.items()}
