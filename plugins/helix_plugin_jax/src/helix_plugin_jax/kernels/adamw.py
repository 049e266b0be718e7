"""AdamW as one program, to which what changes from step to step is an input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from helix_core.ops.adamw import StepNumbers, step_arrays, step_numbers

Array = Any


def _step(p: Array, g: Array, m: Array, v: Array, numbers: StepNumbers) -> tuple[Array, Array, Array]:
    return step_arrays(jnp, p, g, m, v, numbers)


_adamw = jax.jit(_step)
_adamw_donated = jax.jit(_step, donate_argnames=("p", "m", "v"))


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
    donate: bool = False,
) -> tuple[Array, Array, Array]:
    """The op `adamw`; what changes from step to step is an input, not a constant of the program."""
    numbers = step_numbers(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, step=step)
    compute = _adamw_donated if donate else _adamw
    updated: tuple[Array, Array, Array] = compute(p, g, m, v, numbers)
    return updated


SELF_COMPILED: dict[str, Callable[..., Any]] = {"adamw": adamw}
"""Kernels that must not be compiled with their options as constants."""
