"""Calling an op on a backend and on the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np

from helix_core.kinds.backend import Backend
from helix_core.ops import Op, Sample
from helix_core.ops.table import OpTable
from helix_testing.levels.base import as_tuple


def first_sample(op: Op, rng: np.random.Generator) -> Sample:
    """The first of an op's samples."""
    return next(iter(op.samples(rng)))


def to_backend(backend: Backend, sample: Sample, dtype: str) -> dict[str, Any]:
    """A sample's arrays on the backend, floats in `dtype`."""
    return {name: backend.asarray(np.asarray(array), dtype) for name, array in sample.arrays.items()}


def call(backend: Backend, F: OpTable, op: Op, arrays: dict[str, Any], sample: Sample) -> tuple[np.ndarray, ...]:
    """An op's outputs as NumPy arrays."""
    with backend.inference():
        result = getattr(F, op.name)(*(arrays.get(name) for name in op.arrays), **sample.attrs)
        return tuple(backend.to_numpy(value) for value in as_tuple(result))


def oracle(op: Op, sample: Sample) -> tuple[np.ndarray, ...]:
    """The op's reference in float64."""
    return as_tuple(op.reference(np, *(sample.arrays.get(name) for name in op.arrays), **sample.attrs))


def as_exact(array: np.ndarray) -> np.ndarray:
    """Floats in float64."""
    return array.astype(np.float64) if array.dtype.kind == "f" else array
