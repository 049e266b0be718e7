"""Operations on single values, as text of the kernel language."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from helix_device_arrays.dtypes import DType

INFIX = {
    "add": "+", "subtract": "-", "divide": "/",
    "less": "<", "less_equal": "<=", "greater": ">", "greater_equal": ">=", "equal": "==", "not_equal": "!=",
    "bitwise_xor": "^", "bitwise_and": "&", "bitwise_or": "|",
}  # fmt: skip
CALLS = {
    "exp": "exp_", "log": "log_", "log1p": "log1p_", "expm1": "expm1_", "tanh": "tanh_", "sin": "sin_", "cos": "cos_",
    "atan2": "atan2_", "sqrt": "sqrt", "abs": "abs_", "floor": "floor", "round": "round_",
    "pow": "pow_",
}  # fmt: skip


def literal(value: Any, dtype: DType) -> str:
    """A number in the kernel language."""
    if dtype.kind == "b":
        return "true" if value else "false"
    if dtype.kind == "i":
        return f"i32({int(value)})"
    value = float(np.float32(value))
    if math.isnan(value):
        return "nan_()"
    if math.isinf(value):
        return "inf_()" if value > 0 else "(-inf_())"
    text = repr(float(f"{value:.9g}"))
    return f"({text}f)" if value < 0 or str(value) == "-0.0" else f"{text}f"


def operation(name: str, args: list[str], dtypes: list[DType], result: DType) -> str:
    """An elementwise operation on values."""
    kind = dtypes[0].kind
    if name in INFIX:
        return f"({args[0]} {INFIX[name]} {args[1]})"
    if name == "multiply":
        return f"mul_({args[0]}, {args[1]})" if kind == "i" else f"({args[0]} * {args[1]})"
    if name == "shift_right":
        return f"({args[0]} >> u32({args[1]}))"
    if name == "remainder":
        return f"floormod_({args[0]}, {args[1]})" if kind == "i" else f"fmod_({args[0]}, {args[1]})"
    if name == "floor_divide":
        return f"floordiv_({args[0]}, {args[1]})" if kind == "i" else f"floor({args[0]} / {args[1]})"
    if name in ("maximum", "minimum"):
        return f"{name[:3]}{'_' if kind == 'f' else ''}({args[0]}, {args[1]})"
    if name == "where":
        return f"select({args[2]}, {args[1]}, {args[0]})"
    if name == "negative":
        return f"(-{args[0]})"
    if name == "logical_and":
        return f"({args[0]} && {args[1]})"
    if name == "logical_or":
        return f"({args[0]} || {args[1]})"
    if name == "logical_not":
        return f"(!{args[0]})"
    if name == "isnan":
        return f"isnan_({args[0]})" if kind == "f" else "false"
    if name == "cast":
        return cast(args[0], dtypes[0], result)
    return f"{CALLS[name]}({args[0]}{''.join(f', {a}' for a in args[1:])})"


def cast(value: str, found: DType, wanted: DType) -> str:
    """A value of another dtype."""
    if found.computed == wanted.computed:
        return value
    if wanted.kind == "b":
        return f"({value} != {literal(0, found)})"
    if found.kind == "b":
        return f"select({literal(0, wanted)}, {literal(1, wanted)}, {value})"
    return f"{wanted.computed}({value})"


def store(name: str, dtype: DType, place: str, value: str) -> str:
    """Write a value into a buffer."""
    if dtype.stored == "f16":
        return f"STOREH({name}, {place}, {value});"
    return f"{name}[{place}] = {f'select(0, 1, {value})' if dtype.kind == 'b' else value};"
