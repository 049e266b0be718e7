"""Functions of the array namespace as instructions: elementwise ones, reductions of the last axis, joins and copies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from helix_plugin_cpu.decode.operands import is_readable, row_count, value_of
from helix_plugin_cpu.decode.program import Instruction
from helix_plugin_cpu.decode.record import Recorded, Recorder
from helix_plugin_cpu.kernels._arguments import CPU, address, zeros
from helix_plugin_cpu.kernels._instructions import POINTWISE, REDUCE, pack
from helix_plugin_cpu.kernels._pointwise import BINARY, FUNCTIONS, REDUCTIONS, UNARY
from helix_plugin_cpu.kernels._simd import VECTOR


def pointwise(r: Recorder, name: str, *operands: Any, out: Tensor | None = None) -> Recorded | None:
    """An elementwise function of one or two arrays or numbers, broadcast; into `out` if that is given."""
    arrays = []
    for operand in operands:
        if isinstance(operand, int | float) and not isinstance(operand, bool):
            operand = torch.tensor(float(operand), dtype=torch.float32, device=CPU)
        if operand is None or not is_readable(operand):
            return None
        arrays.append(operand.value if isinstance(operand, Recorded) else r.constant(operand))
    shape = torch.broadcast_shapes(*(a.shape for a in arrays))
    if 0 in shape:
        return None
    result = r.empty(tuple(shape)) if out is None else r.array(out)
    out = result.value
    sources = [a.expand(shape) for a in arrays]
    lead, columns, steps = _rows_and_columns([out, *sources])
    tables = [_row_table(r, a, lead) for a in (out, *sources)]
    rows = math.prod(out.shape[:lead])
    by_rows = rows > 2 * r.batch
    second_rows, second_step = (tables[2], steps[2]) if len(sources) > 1 else (0, 0)
    words = pack(
        POINTWISE,
        function=FUNCTIONS[name],
        out_rows=tables[0],
        first_rows=tables[1],
        first_step=steps[1],
        second_rows=second_rows,
        second_step=second_step,
        columns=columns,
        by_rows=int(by_rows),
        rows=rows,
        out_step=steps[0],
    )
    r.reserve(VECTOR)
    split = ("rows", rows) if by_rows else ("columns", columns)
    cost = 12.0 * (columns if by_rows else rows)
    r.steps.append(Instruction(words, split, cost, reads=[(a, True) for a in sources], writes=[(out, True)]))
    return result


def _rows_and_columns(arrays: list[Tensor]) -> tuple[int, int, list[int]]:
    """Split the axes of arrays of one shape into rows and columns that are a fixed step apart in every array.

    Returns how many axes are rows, how many columns there are, and each array's step.
    """
    shape = arrays[0].shape
    axis, columns, steps = len(shape), 1, [1] * len(arrays)
    # The first axis is the batch: kept apart, so that a job's columns are those of other instructions.
    first = 1 if len(shape) > 1 and shape[0] > 1 else 0
    while axis > first:
        size = shape[axis - 1]
        strides = [a.stride(axis - 1) for a in arrays]
        if size > 1:
            if columns == 1:
                steps = strides
            elif any(s != step * columns for s, step in zip(strides, steps, strict=True)):
                break
            columns *= size
        axis -= 1
    return axis, columns, steps


def _row_table(r: Recorder, a: Tensor, lead: int) -> int:
    """The address of a table of the addresses of rows, over the first `lead` axes."""
    offsets = zeros((), dtype=torch.int64)
    for size, stride in zip(a.shape[:lead], a.stride()[:lead], strict=True):
        offsets = offsets[..., None] + torch.arange(size, dtype=torch.int64, device=CPU) * (4 * stride)
    return address(r.constant((offsets.reshape(-1) + address(a)).contiguous()))


def _pointwise_function(name: str) -> Callable[..., Any]:
    def function(r: Recorder, *operands: Any, **options: Any) -> Recorded | None:
        return None if options else pointwise(r, name, *operands)

    return function


def power(r: Recorder, x: Any, exponent: Any) -> Recorded | None:
    """Squares alone."""
    return pointwise(r, "square", x) if isinstance(exponent, int) and exponent == 2 else None


def _reduction(name: str) -> Callable[..., Any]:
    def function(r: Recorder, x: Any, /, *, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        if not is_readable(x) or options or not isinstance(axis, int) or axis % x.ndim != x.ndim - 1:
            return None
        value = value_of(x)
        if value.numel() == 0:
            return None
        columns, lead = value.shape[-1], value.ndim - 1
        y = r.empty((*value.shape[:-1], 1) if keepdims else tuple(value.shape[:-1]))
        target = y.value if keepdims else y.value[..., None]
        words = pack(
            REDUCE,
            function=REDUCTIONS[name],
            out_rows=_row_table(r, target, lead),
            rows=_row_table(r, value, lead),
            step=value.stride(-1),
            columns=columns,
        )
        r.reserve(VECTOR)
        split = ("rows", row_count(value))
        r.steps.append(Instruction(words, split, 4.0 * columns, reads=[(value, False)], writes=[(y.value, False)]))
        return y

    return function


def concat(r: Recorder, arrays: Sequence[Any], /, *, axis: int | None = 0) -> Recorded | None:
    """Copies of arrays into the parts of a larger one."""
    if axis is None or not is_readable(*arrays):
        return None
    values = [value_of(a) for a in arrays]
    axis = axis % values[0].ndim
    sizes = [value.shape[axis] for value in values]
    shape = list(values[0].shape)
    shape[axis] = sum(sizes)
    y = r.empty(tuple(shape))
    return y if _copy_all(r, arrays, y.value.split(sizes, axis)) else None


def stack(r: Recorder, arrays: Sequence[Any], /, *, axis: int = 0) -> Recorded | None:
    """Copies of arrays side by side along a new axis."""
    if not is_readable(*arrays):
        return None
    shape = list(value_of(arrays[0]).shape)
    axis = axis % (len(shape) + 1)
    shape.insert(axis, len(arrays))
    y = r.empty(tuple(shape))
    return y if _copy_all(r, arrays, y.value.unbind(axis)) else None


def _copy_all(r: Recorder, sources: Sequence[Any], targets: Sequence[Tensor]) -> bool:
    """Copy by instructions, or leave no instruction where one is missing."""
    before = len(r.steps)
    for source, target in zip(sources, targets, strict=True):
        if target.numel() and pointwise(r, "copy", source, out=target) is None:
            del r.steps[before:]
            return False
    return True


def zeros_like(r: Recorder, x: Any, **options: Any) -> Tensor:
    """A constant: it does not depend on the numbers in x."""
    return torch.zeros_like(x.value, **options)


def ones_like(r: Recorder, x: Any, **options: Any) -> Tensor:
    """A constant: it does not depend on the numbers in x."""
    return torch.ones_like(x.value, **options)


def astype(r: Recorder, x: Any, dtype: Any, /, **options: Any) -> Recorded | None:
    """The array itself where it has the dtype."""
    return x if x.dtype == dtype and not options.get("copy") else None


LOWER: dict[str, Callable[..., Any]] = {
    **{name: _pointwise_function(name) for name in BINARY + UNARY if name != "copy"},
    **{name: _reduction(name) for name in REDUCTIONS},
    "pow": power,
    "concat": concat,
    "stack": stack,
    "zeros_like": zeros_like,
    "ones_like": ones_like,
    "astype": astype,
}
