"""Counting FLOPs: those of a layer by the ops it calls, those of an op by what its reference computes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from helix_core.kinds.layer import Layer
from helix_core.kinds.params import init_params
from helix_core.ops import OPS, DispatchKey, OpTable, as_op
from helix_core.ops.op import Op
from helix_core.tree import tree_map


class CountingTable(OpTable):
    """The reference on NumPy in float64; `flops` adds up those of the ops called and of `F.xp.matmul`.

    `F.dispatch_key.mode` is "infer". Products written as `a @ b`, for what does not depend on tokens, are not seen.
    """

    def __init__(self) -> None:
        self.flops = 0.0
        key = DispatchKey("numpy", "cpu", "float64", "infer")
        bound = {name: self._counted(op) for name, op in OPS.items()}
        super().__init__(_Namespace(self), key, bound, {}, lambda array: np.asarray(array))

    def _counted(self, op: Op) -> Any:
        def call(*arrays: Any, **attrs: Any) -> Any:
            if op.flops is not None:
                self.flops += op.flops(*(None if a is None else a.shape for a in arrays), **attrs)
            return op.reference(np, *arrays, **attrs)

        return as_op(op, call)


class _Namespace:
    """NumPy, with matrix products counted."""

    def __init__(self, table: CountingTable) -> None:
        self._table = table

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def matmul(self, a: Any, b: Any) -> Any:
        y = np.matmul(a, b)
        self._table.flops += 2.0 * math.prod(y.shape) * a.shape[-1]
        return y


def count(layer: Layer[Any], length: int, before: int | None = None) -> float:
    """FLOPs of `length` steps of one sequence: all at once, or going on from a state after `before` others."""
    F = CountingTable()
    params = _params(layer)
    rng = np.random.default_rng(0)

    def inputs(steps: int) -> np.ndarray:
        return rng.normal(size=(1, steps, layer.config.d_model))

    state = None
    if before is not None:
        state = layer.init_state(F, 1)
        if before:
            _, state = layer.apply(F, params, inputs(before), state=state)
    F.flops = 0.0
    layer.apply(F, params, inputs(length), state=state)
    return F.flops


def _params(layer: Layer[Any]) -> dict[str, np.ndarray]:
    return {k: v.astype(np.float64) for k, v in init_params(layer.param_specs(), 0).items()}


class CountedArray(np.ndarray):
    """An array that counts the arithmetic it takes part in: `CountedArray.flops`."""

    flops = 0

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        plain = [a.view(np.ndarray) if isinstance(a, CountedArray) else a for a in inputs]
        if kwargs.get("out"):
            kwargs["out"] = tuple(a.view(np.ndarray) if isinstance(a, CountedArray) else a for a in kwargs["out"])
        result = getattr(ufunc, method)(*plain, **kwargs)
        if ufunc in (np.add, np.subtract, np.multiply, np.exp):
            taken = np.size(plain[0]) - np.size(result) if method == "reduce" else np.size(result)
            CountedArray.flops += taken
        elif ufunc is np.matmul:
            CountedArray.flops += np.size(result) * (2 * np.shape(plain[0])[-1] - 1)
        return result.view(CountedArray) if isinstance(result, np.ndarray) else result

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        result = super().__array_function__(function, types, args, kwargs)
        # Of what references call, only this returns plain arrays, which would count no more.
        return result.view(CountedArray) if function is np.where else result


def count_step(layer: Layer[Any], batch: int) -> int:
    """Additions, multiplications and exponentials of one step of `batch` sequences on the reference."""
    F = CountingTable()
    params = {k: v.view(CountedArray) for k, v in _params(layer).items()}
    x = np.random.default_rng(0).normal(size=(batch, 1, layer.config.d_model))
    state = tree_map(lambda leaf: leaf.view(CountedArray), layer.init_state(F, batch))
    CountedArray.flops = 0
    layer.apply(F, params, x.view(CountedArray), state=state)
    return CountedArray.flops


def count_reference(op: Op, arrays: Mapping[str, np.ndarray], **attrs: Any) -> int:
    """Additions, multiplications and exponentials that the op's reference does."""
    CountedArray.flops = 0
    op.reference(np, **{k: v.view(CountedArray) for k, v in arrays.items()}, **attrs)
    return CountedArray.flops
