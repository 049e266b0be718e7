"""AdamW, on a GPU as one kernel."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from helix_core.ops.adamw import StepNumbers, step_arrays, step_numbers
from helix_plugin_metal.device import on_cpu

Array = Any


def _adamw(p: Array, g: Array, m: Array, v: Array, numbers: Array) -> tuple[Array, Array, Array]:
    return step_arrays(mx, p, g, m, v, StepNumbers(*numbers))


_fused_adamw = mx.compile(_adamw, shapeless=True)


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
    """The op `adamw`; on a GPU in one kernel, to which what changes from step to step is an input.

    MLX reuses the memory of what nobody holds, whatever `donate` says.
    """
    numbers = step_numbers(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, step=step)
    if on_cpu():
        return _adamw(p, g, m, v, numbers)
    found: tuple[Array, Array, Array] = _fused_adamw(p, g, m, v, [mx.array(n) for n in numbers])
    return found
