"""Exponentials. On MLX's CPU device those of many numbers are NumPy's; of few and in compiled functions, powers of two:
`power` takes a third of the time of `exp` or `tanh` and is as exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np

from helix_plugin_metal.device import on_cpu
from helix_plugin_metal.host import numbers

Array = Any

LOG2_E = 1.4426950408889634
LARGE = 1 << 14
"""Numbers from which on it pays to wait for them."""


def exp_product(x: Array, rates: Array) -> Array:
    """exp(x * rates) of arrays that broadcast; `rates` is the smaller one."""
    return mx.power(2.0, x * (rates * LOG2_E)) if on_cpu() else mx.exp(x * rates)


def by_shrinking(formula: Callable[[Any, Callable[[Array], Array], Array], Array], x: Array) -> Array:
    """A formula of x and of exp(-x), which is infinite where that is too large: NumPy's where it pays to wait for x."""
    found = numbers(x) if x.size >= LARGE else None
    if found is None:
        return formula(mx, lambda a: mx.power(2.0, a * -LOG2_E), x)
    with np.errstate(all="ignore"):
        return mx.array(formula(np, lambda a: np.exp(-a), found[0]))
