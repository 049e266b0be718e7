"""Parameter specs and initialisers. Values are drawn with NumPy, so a seed means the same model on every backend."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Initializer = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


@dataclass(frozen=True)
class ParamSpec:
    """One parameter of a layer.

    shape          its shape
    init           draws its first value
    weight_decay   whether weight decay applies to it
    residual       whether it writes into the residual stream; a deep model scales such weights down by 1/sqrt(depth)
    lr_scale       factor on the learning rate
    """

    shape: tuple[int, ...]
    init: Initializer
    weight_decay: bool = True
    residual: bool = False
    lr_scale: float = 1.0


def normal(std: float) -> Initializer:
    """Gaussian with mean 0."""
    return lambda rng, shape: rng.normal(0.0, std, shape)


def uniform(bound: float) -> Initializer:
    """Uniform on [-bound, bound]."""
    return lambda rng, shape: rng.uniform(-bound, bound, shape)


def constant(value: float) -> Initializer:
    """The same value everywhere."""
    return lambda rng, shape: np.full(shape, value)


def values(array: np.ndarray | Callable[[], np.ndarray]) -> Initializer:
    """Exactly `array`, or what it gives if it is called: then a model of any size can be described at no cost."""
    return lambda rng, shape: np.broadcast_to(array() if callable(array) else array, shape).copy()


def fan_in(scale: float = 1.0) -> Initializer:
    """Uniform with bound scale/sqrt(D_in) for a (D_out, D_in) weight: what torch's Linear starts from."""
    return lambda rng, shape: uniform(scale / math.sqrt(shape[-1]))(rng, shape)


def init_params(specs: Mapping[str, ParamSpec], seed: int, *, residual_scale: float = 1.0) -> dict[str, np.ndarray]:
    """Draw float32 parameters. Each depends on the seed and its own name only, not on the others or their order."""
    params = {}
    for name, spec in specs.items():
        key = int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).digest(), "little")
        value = spec.init(np.random.Generator(np.random.Philox(key=key)), spec.shape)
        if spec.residual:
            value = value * residual_scale
        params[name] = np.ascontiguousarray(value, dtype=np.float32)
    return params
