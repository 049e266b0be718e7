"""`where` whose gradient is selected too: that of MLX's own is a product, and 0 times NaN is NaN."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

Array = Any


def where(condition: Array, x: Any, y: Any) -> Array:
    """x where `condition`, else y; arrays or numbers, which broadcast."""
    dtype = mx.result_type(*(a for a in (x, y) if isinstance(a, mx.array)))
    x, y = (mx.array(a, dtype) if isinstance(a, int | float) else a.astype(dtype) for a in (x, y))
    return _where(*mx.broadcast_arrays(condition, x, y))


@mx.custom_function
def _where(condition: Array, x: Array, y: Array) -> Array:
    return mx.where(condition, x, y)


@_where.vjp
def _where_backward(primals: Any, gradient: Array, _: Array) -> tuple[Array, ...]:
    condition = primals[0]
    nothing = mx.zeros_like(gradient)
    return mx.zeros_like(condition), mx.where(condition, gradient, nothing), mx.where(condition, nothing, gradient)
