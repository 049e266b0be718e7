"""Element types. A device computes in 32 bits; float16 is only how numbers are stored, and uint8 how they came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class DType:
    """name as in NumPy; kind "f", "i" or "b"; stored and computed: its types in the kernel language."""

    name: str
    kind: str
    stored: str
    computed: str
    rank: int

    @property
    def itemsize(self) -> int:
        """Bytes of an element on the device."""
        return {"f16": 2, "u8": 1}.get(self.stored, 4)

    @property
    def host(self) -> np.dtype[Any]:
        """The NumPy dtype of an element's bytes."""
        return np.dtype({"f32": "f4", "f16": "f2", "i32": "i4", "u8": "u1"}[self.stored])

    def __str__(self) -> str:
        return self.name


boolean = DType("bool", "b", "i32", "bool", 0)
uint8 = DType("uint8", "i", "u8", "i32", 1)
int32 = DType("int32", "i", "i32", "i32", 2)
float16 = DType("float16", "f", "f16", "f32", 3)
float32 = DType("float32", "f", "f32", "f32", 4)
BY_NAME = {d.name: d for d in (boolean, int32, float16, float32)} | {"int64": int32}


def promoted(*dtypes: DType) -> DType:
    """The widest of them; int32 for bytes, which are read and never written."""
    widest = max(dtypes, key=lambda d: d.rank)
    return int32 if widest is uint8 else widest


def dtype_of_scalar(value: Any) -> DType:
    """The narrowest dtype of a Python number; it widens to that of an array of the same kind."""
    if isinstance(value, bool | np.bool_):
        return boolean
    return int32 if isinstance(value, int | np.integer) else float16
