"""Half precision: activations in sixteen bits, everything that accumulates in float32.

In a table bound for bfloat16 or float16, parameters, states, sums and losses stay float32, and an op's activations come
out in half precision. A kernel that names the dtype reads and writes it itself; any other op works in float32 between
casts, so every op serves every dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helix_core.ops.op import Op

HALF = ("bfloat16", "float16")


def storage(dtype: str) -> str:
    """The dtype of parameters and states beside activations of `dtype`."""
    return "float32" if dtype in HALF else dtype


def between_casts(xp: Any, op: Op, function: Callable[..., Any], dtype: str) -> Callable[..., Any]:
    """`function`, which computes in float32, with activations in and out in half precision."""
    halves = [getattr(xp, name) for name in HALF if hasattr(xp, name)]

    def widen(array: Any) -> Any:
        return array if array is None or array.dtype not in halves else xp.astype(array, xp.float32)

    return narrowed(xp, op, lambda *arrays, **attrs: function(*map(widen, arrays), **attrs), dtype)


def narrowed(xp: Any, op: Op, function: Callable[..., Any], dtype: str) -> Callable[..., Any]:
    """`function` with activations out in half precision, also where all that it got was float32."""
    half = getattr(xp, dtype)

    def narrow(name: str, value: Any) -> Any:
        return value if name in op.wide or value.dtype == half else xp.astype(value, half)

    def run(*arrays: Any, **attrs: Any) -> Any:
        result = function(*arrays, **attrs)
        if len(op.outputs) == 1:
            return narrow(op.outputs[0], result)
        return tuple(narrow(name, value) for name, value in zip(op.outputs, result, strict=True))

    return run
