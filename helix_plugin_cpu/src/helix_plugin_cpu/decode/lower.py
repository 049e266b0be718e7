"""What ops and functions of the array namespace become: native instructions for one step.

`LOWER[name](recorder, *args, **kwargs)` returns recorded arrays, or None where it has no instruction for such
arguments; the op is called from Python then.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from helix_plugin_cpu.decode.program import Instruction
from helix_plugin_cpu.decode.record import Recorded, Recorder
from helix_plugin_cpu.kernels import _executor
from helix_plugin_cpu.kernels._arguments import CPU, address, zeros
from helix_plugin_cpu.kernels._instructions import CONV, GATHER, LINEAR, NORM, POINTWISE, REDUCE, SCAN, pack
from helix_plugin_cpu.kernels._math import LOG2_E
from helix_plugin_cpu.kernels._pointwise import BINARY, FUNCTIONS, REDUCTIONS, UNARY
from helix_plugin_cpu.kernels._products import BLOCK, INT8
from helix_plugin_cpu.kernels._simd import LANES, VECTOR

LOWER: dict[str, Callable[..., Any]] = {}


def lowers(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        LOWER.update(dict.fromkeys(names, function))
        return function

    return register


def _values(*arrays: Any) -> list[Tensor | None] | None:
    """The arrays' memory if instructions can read all of them."""
    found = [a.value if isinstance(a, Recorded) else a for a in arrays]
    return found if all(a is None or _readable(a) for a in found) else None


def _readable(a: Any) -> bool:
    """Whether it holds float32 numbers in main memory, as they are."""
    floats = isinstance(a, Tensor) and a.dtype == torch.float32 and a.is_cpu
    return floats and a.layout == torch.strided and not a.is_neg()


def _fit(*arrays: tuple[Any, tuple[int, ...]]) -> bool:
    """Whether all that are given have their shapes: an instruction would read on past the end of a smaller one."""
    return all(a is None or tuple(a.shape) == shape for a, shape in arrays)


def _row(a: Tensor | None) -> int:
    """Bytes from one row of (B, 1, D) to the next."""
    return 0 if a is None else 4 * a.stride(0)


def _step(a: Tensor, width: int) -> bool:
    """Whether an array is (B, 1, D) with D = width in one piece."""
    return a.ndim == 3 and a.shape[1] == 1 and a.shape[2] == width and (a.stride(2) == 1 or width == 1)


def _used(*arrays: tuple[Tensor | None, bool]) -> list[tuple[Tensor, bool]]:
    return [(a, own) for a, own in arrays if a is not None]


@lowers("linear")
def linear(r: Recorder, x: Any, weight: Any, bias: Any = None) -> Recorded | None:
    found = _values(x, weight, bias)
    if found is None or isinstance(weight, Recorded) or isinstance(bias, Recorded):
        return None
    x_v = found[0]
    assert x_v is not None
    N, K = weight.shape
    if x_v.shape[-1] != K or not _fit((bias, (N,))):
        return None
    if x_v.ndim < 2 or math.prod(x_v.shape[:-1]) != x_v.shape[0] or (x_v.stride(-1) != 1 and K > 1):
        return None
    stored = r.weight(weight)
    B = x_v.shape[0]
    y = r.empty((*x_v.shape[:-1], N))
    bias = None if bias is None else r.constant(bias.contiguous())
    r.scratch = max(r.scratch, _executor.SUMS + B * -(-K // BLOCK) * (2 * BLOCK + 16))
    words = pack(
        LINEAR,
        kind=stored.kind,
        x=address(x_v),
        x_row=_row(x_v),
        batch=B,
        K=K,
        w=address(stored.data),
        w_row=stored.row,
        bias=address(bias),
        y=address(y.value),
        y_row=4 * N,
        contents=_contents(r, x),
    )
    used = _used((x_v, False)), _used((y.value, True))
    r.steps.append(Instruction(words, ("columns", N), stored.column_bytes, *used, fine=stored.kind != INT8))
    return y


def _contents(r: Recorder, x: Recorded) -> int:
    """A number for what an array holds: equal only for the same numbers at the same place."""
    names = r.contents
    return names.setdefault((x.memory.version, address(x.value), x.value.shape[-1]), len(names) + 1)


@lowers("embedding")
def embedding(r: Recorder, tokens: Any, weight: Any) -> Recorded | None:
    if isinstance(weight, Recorded) or not _readable(weight) or tokens.dtype != torch.int64:
        return None
    t = tokens.value
    if address(t) != r.tokens or not t.is_contiguous():
        return None  # numbers that nobody has checked
    stored, D, B = r.weight(weight), weight.shape[1], t.numel()
    y = r.empty((*t.shape, D))
    words = pack(
        GATHER,
        kind=stored.kind,
        tokens=address(t),
        w=address(stored.data),
        w_row=stored.row,
        D=D,
        y=address(y.value),
        y_row=4 * D,
    )
    r.steps.append(Instruction(words, ("rows", B), 4 * D, _used((t, False)), _used((y.value, True))))
    return y


def _norm(
    r: Recorder, centred: bool, x: Any, residual: Any, weight: Any, bias: Any, eps: float
) -> tuple[Recorded, Recorded | None] | None:
    found = _values(x, residual, weight, bias)
    if found is None or isinstance(weight, Recorded) or isinstance(bias, Recorded):
        return None
    x_v, residual_v, weight_v, bias_v = found
    assert x_v is not None
    assert weight_v is not None
    D = x_v.shape[-1]
    rows = math.prod(x_v.shape[:-1])
    if not _fit((weight_v, (D,)), (bias_v, (D,))):
        return None
    for a in (x_v, residual_v):
        if a is not None and (a.shape != x_v.shape or not (a.is_contiguous() or _step(a, D))):
            return None
    y = r.empty(tuple(x_v.shape))
    sums = None if residual_v is None else r.empty(tuple(x_v.shape))
    weight_v = r.constant(weight_v.contiguous())
    bias_v = None if bias_v is None else r.constant(bias_v.contiguous())
    limit = r.constant(torch.tensor([eps], dtype=torch.float32, device=CPU))
    r.scratch = max(r.scratch, VECTOR)
    words = pack(
        NORM,
        centred=int(centred),
        x=address(x_v),
        x_row=_norm_row(x_v),
        residual=address(residual_v),
        residual_row=_norm_row(residual_v),
        weight=address(weight_v),
        bias=address(bias_v),
        eps=address(limit),
        y=address(y.value),
        y_row=4 * D,
        sums=0 if sums is None else address(sums.value),
        sums_row=4 * D,
        D=D,
    )
    r.steps.append(
        Instruction(
            words, ("rows", rows), 8 * D, _used((x_v, True), (residual_v, True)),
            _used((y.value, True), (None if sums is None else sums.value, True)),
        )
    )  # fmt: skip
    return y, sums


def _norm_row(a: Tensor | None) -> int:
    return 0 if a is None else 4 * a.shape[-1] if a.is_contiguous() else _row(a)


@lowers("rms_norm")
def rms_norm(r: Recorder, x: Any, weight: Any, *, eps: float = 1e-5) -> Recorded | None:
    found = _norm(r, False, x, None, weight, None, eps)
    return found and found[0]


@lowers("add_rms_norm")
def add_rms_norm(r: Recorder, x: Any, residual: Any, weight: Any, *, eps: float = 1e-5) -> Any:
    return _norm(r, False, x, residual, weight, None, eps)


@lowers("layer_norm")
def layer_norm(r: Recorder, x: Any, weight: Any, bias: Any = None, *, eps: float = 1e-5) -> Recorded | None:
    found = _norm(r, True, x, None, weight, bias, eps)
    return found and found[0]


def _state_after(r: Recorder, before: Any, value: Tensor | None, shape: tuple[int, ...]) -> tuple[Tensor, Recorded]:
    """Where a state is read and where the new one goes: the same place if it is the model's own state."""
    if value is None:
        value = r.constant(zeros(shape))
    elif not value.is_contiguous():
        copied = pointwise(r, "copy", before)
        assert copied is not None
        return copied.value, r.empty(shape)
    if r.in_place and isinstance(before, Recorded) and address(value) in r.states:
        after = r.array(value)
        before.memory.stale = True
        return value, after
    return value, r.empty(shape)


@lowers("causal_conv1d")
def causal_conv1d(
    r: Recorder, x: Any, weight: Any, bias: Any = None, initial_state: Any = None, reset: Any = None,
    lengths: Any = None, *, activation: str = "none",
) -> tuple[Recorded, Recorded] | None:  # fmt: skip
    found = _values(x, initial_state, weight, bias)
    if found is None or reset is not None or lengths is not None or activation not in ("none", "silu"):
        return None
    if isinstance(weight, Recorded) or isinstance(bias, Recorded):
        return None
    x_v, state_v = found[:2]
    assert x_v is not None
    D, K = weight.shape
    B = x_v.shape[0]
    if not _step(x_v, D) or not _fit((state_v, (B, K - 1, D)), (bias, (D,))):
        return None
    before, after = _state_after(r, initial_state, state_v, (B, K - 1, D))
    y = r.empty((B, 1, D))
    taps = r.constant(weight.T.contiguous())
    bias = None if bias is None else r.constant(bias.contiguous())
    words = pack(
        CONV,
        batch=B,
        K=K,
        D=D,
        x=address(x_v),
        x_row=_row(x_v),
        weight=address(taps),
        bias=address(bias),
        before=address(before),
        after=address(after.value),
        y=address(y.value),
        y_row=4 * D,
        silu=int(activation == "silu"),
    )
    r.steps.append(
        Instruction(
            words, ("columns", D), 16 * K * B, _used((x_v, True), (before, True)),
            _used((y.value, True), (after.value, True)),
        )
    )  # fmt: skip
    return y, after


@lowers("selective_scan")
def selective_scan(
    r: Recorder, u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any = None, z: Any = None, delta_bias: Any = None,
    initial_state: Any = None, reset: Any = None, lengths: Any = None, *, delta_softplus: bool = False,
) -> tuple[Recorded, Recorded] | None:  # fmt: skip
    found = _values(u, delta, B, C, z, initial_state, A, D, delta_bias)
    if found is None or reset is not None or lengths is not None:
        return None
    if any(isinstance(a, Recorded) for a in (A, D, delta_bias)):
        return None
    u_v, delta_v, B_v, C_v, z_v, state_v = found[:6]
    assert u_v is not None
    assert delta_v is not None
    assert B_v is not None
    assert C_v is not None
    batch, _, channels = u_v.shape
    N = A.shape[1]
    rows = [a for a in (u_v, delta_v, z_v) if a is not None]
    if not all(_step(a, channels) for a in rows) or not all(_step(a, N) for a in (B_v, C_v)):
        return None
    state = (batch, channels, N)
    if not _fit((A, state[1:]), (D, (channels,)), (delta_bias, (channels,)), (state_v, state)):
        return None
    before, after = _state_after(r, initial_state, state_v, state)
    y = r.empty((batch, 1, channels))
    rates = r.constant((A * LOG2_E).contiguous())
    skip = None if D is None else r.constant(D.contiguous())
    bias = None if delta_bias is None else r.constant(delta_bias.contiguous())
    r.scratch = max(r.scratch, (LANES + 2) * VECTOR)
    words = pack(
        SCAN,
        batch=batch,
        N=N,
        D=channels,
        u=address(u_v),
        u_row=_row(u_v),
        delta=address(delta_v),
        delta_row=_row(delta_v),
        A=address(rates),
        B=address(B_v),
        B_row=_row(B_v),
        C=address(C_v),
        C_row=_row(C_v),
        skip=address(skip),
        z=address(z_v),
        z_row=_row(z_v),
        bias=address(bias),
        before=address(before),
        after=address(after.value),
        y=address(y.value),
        y_row=4 * channels,
        softplus=int(delta_softplus),
    )
    reads = _used((u_v, True), (delta_v, True), (z_v, True), (before, True), (B_v, False), (C_v, False))
    # An update takes about as long as reading sixteen bytes.
    cost = 16 * N * batch
    r.steps.append(Instruction(words, ("columns", channels), cost, reads, _used((y.value, True), (after.value, True))))
    return y, after


def pointwise(r: Recorder, name: str, *operands: Any, out: Tensor | None = None) -> Recorded | None:
    """An elementwise function of one or two arrays or numbers."""
    arrays = []
    for operand in operands:
        if isinstance(operand, int | float) and not isinstance(operand, bool):
            operand = r.constant(torch.tensor(float(operand), dtype=torch.float32, device=CPU))
        value = operand.value if isinstance(operand, Recorded) else operand
        if not _readable(value):
            return None
        arrays.append(value if isinstance(operand, Recorded) else r.constant(value))
    shape = torch.broadcast_shapes(*(a.shape for a in arrays))
    if 0 in shape:
        return None
    result = None
    if out is None:
        result = r.empty(tuple(shape))
        out = result.value
    sources = [a.expand(shape) for a in arrays]
    lead, columns, steps = _rows_and_columns([out, *sources], r.batch)
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
    r.scratch = max(r.scratch, VECTOR)
    split = ("rows", rows) if by_rows else ("columns", columns)
    cost = 12.0 * (columns if by_rows else rows)
    r.steps.append(Instruction(words, split, cost, [(a, True) for a in sources], [(out, True)]))
    return r.array(out) if result is None else result


def _rows_and_columns(arrays: list[Tensor], batch: int) -> tuple[int, int, list[int]]:
    """Split the axes of arrays of one shape into rows and columns that are a fixed step apart in every array."""
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
    """The address of a table of the addresses of rows."""
    offsets = zeros((), dtype=torch.int64)
    for size, stride in zip(a.shape[:lead], a.stride()[:lead], strict=True):
        offsets = offsets[..., None] + torch.arange(size, dtype=torch.int64, device=CPU) * (4 * stride)
    return address(r.constant((offsets.reshape(-1) + address(a)).contiguous()))


def _pointwise_function(name: str) -> Callable[..., Any]:
    def function(r: Recorder, *operands: Any, **options: Any) -> Any:
        return None if options else pointwise(r, name, *operands)

    return function


for _name in BINARY + UNARY:
    if _name != "copy":
        LOWER[_name] = _pointwise_function(_name)


@lowers("pow")
def power(r: Recorder, x: Any, exponent: Any) -> Recorded | None:
    return pointwise(r, "square", x) if isinstance(exponent, int) and exponent == 2 else None


@lowers("swiglu")
def swiglu(r: Recorder, gate: Any, x: Any) -> Recorded | None:
    if _values(gate, x) is None:
        return None
    return pointwise(r, "multiply", pointwise(r, "silu", gate), x)


def _reduction(name: str) -> Callable[..., Any]:
    def function(r: Recorder, x: Any, /, *, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        found = _values(x)
        if found is None or options or not isinstance(axis, int) or axis % x.ndim != x.ndim - 1:
            return None
        value = found[0]
        assert value is not None
        columns = value.shape[-1]
        if columns == 0 or value.numel() == 0:
            return None
        y = r.empty((*value.shape[:-1], 1) if keepdims else tuple(value.shape[:-1]))
        rows = math.prod(value.shape[:-1])
        lead = value.ndim - 1
        target = y.value if keepdims else y.value[..., None]
        words = pack(
            REDUCE,
            function=REDUCTIONS[name],
            out_rows=_row_table(r, target, lead),
            rows=_row_table(r, value, lead),
            step=value.stride(-1),
            columns=columns,
        )
        r.scratch = max(r.scratch, VECTOR)
        r.steps.append(Instruction(words, ("rows", rows), 4.0 * columns, [(value, False)], [(y.value, False)]))
        return y

    return function


for _name in REDUCTIONS:
    LOWER[_name] = _reduction(_name)


def _copy_into(r: Recorder, source: Any, target: Tensor) -> bool:
    """Copy by an instruction, if there is one for such arrays."""
    return target.dtype == torch.float32 and pointwise(r, "copy", source, out=target) is not None


def _joining(stacked: bool) -> Callable[..., Any]:
    def function(r: Recorder, arrays: Any, /, *, axis: int | None = 0) -> Recorded | None:
        found = _values(*arrays)
        if found is None or axis is None:
            return None
        parts = [a for a in found if a is not None]
        if stacked:
            axis = axis % (parts[0].ndim + 1)
            shape = [*parts[0].shape[:axis], len(parts), *parts[0].shape[axis:]]
        else:
            axis = axis % parts[0].ndim
            shape = list(parts[0].shape)
            shape[axis] = sum(a.shape[axis] for a in parts)
        y = r.empty(tuple(shape))
        at = 0
        before = len(r.steps)
        for source, part in zip(arrays, parts, strict=True):
            size = 1 if stacked else part.shape[axis]
            target = y.value.narrow(axis, at, size)
            at += size
            if part.numel() and not _copy_into(r, source, target.squeeze(axis) if stacked else target):
                del r.steps[before:]
                return None
        return y

    return function


LOWER["concat"], LOWER["stack"] = _joining(False), _joining(True)


@lowers("zeros_like")
def zeros_like(r: Recorder, x: Any, **options: Any) -> Tensor:
    return torch.zeros_like(x.value, **options)


@lowers("ones_like")
def ones_like(r: Recorder, x: Any, **options: Any) -> Tensor:
    return torch.ones_like(x.value, **options)


@lowers("astype")
def astype(r: Recorder, x: Any, dtype: Any, /, **options: Any) -> Recorded | None:
    return x if x.dtype == dtype and not options.get("copy") else None
