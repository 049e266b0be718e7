"""AdamW as one program, to which what changes from step to step is an input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Array = Any


@jax.jit
def _adamw(p: Array, g: Array, m: Array, v: Array, numbers: dict[str, Any]) -> tuple[Array, Array, Array]:
    n = numbers
    m = n["beta1"] * m + (1 - n["beta1"]) * g
    v = n["beta2"] * v + (1 - n["beta2"]) * (g * g)
    return p * n["keep"] - n["rate"] * m / (jnp.sqrt(v) / n["root"] + n["eps"]), m, v


def adamw(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    step: int = 1,
) -> tuple[Array, Array, Array]:
    """The op `adamw`; what changes from step to step is an input, not a constant of the program."""
    numbers = {
        "beta1": beta1,
        "beta2": beta2,
        "eps": eps,
        "keep": 1 - lr * weight_decay,
        "rate": lr / (1 - beta1**step),
        "root": math.sqrt(1 - beta2**step),
    }
    updated: tuple[Array, Array, Array] = _adamw(p, g, m, v, numbers)
    return updated


SELF_COMPILED: dict[str, Callable[..., Any]] = {"adamw": adamw}
"""Kernels that must not be compiled with their options as constants."""
