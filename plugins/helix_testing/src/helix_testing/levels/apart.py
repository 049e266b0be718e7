"""What an op must leave alone and keep apart: its inputs, its results, memory that lies differently, and NaN."""

from __future__ import annotations

from typing import Any

import numpy as np

from helix_core.kinds.backend import Backend
from helix_core.ops import Op, Sample
from helix_core.ops.table import OpTable
from helix_testing.levels.base import TOLERANCE, as_tuple, assert_close
from helix_testing.levels.calling import call, oracle, to_backend


def check_apart(backend: Backend, F: OpTable, op: Op, sample: Sample, dtype: str) -> None:
    """One op on one sample: it writes to no input, repeats bit by bit, and its results belong to who asked.

    Neither an input nor a later call may change a result, and where the arrays lie in memory does not count.
    """
    label = f"{op.name} [{F.trail[op.name].chosen}, {dtype}] {sample.label}"
    arrays = to_backend(backend, sample, dtype)
    before = {name: backend.to_numpy(a).copy() for name, a in arrays.items()}
    with backend.inference():
        results = as_tuple(getattr(F, op.name)(*(arrays.get(name) for name in op.arrays), **sample.attrs))
    first = [backend.to_numpy(value).copy() for value in results]
    for name, a in arrays.items():
        assert np.array_equal(backend.to_numpy(a), before[name], equal_nan=True), f"{label}: it wrote to {name}"
    for output, value, exact in zip(op.outputs, results, oracle(op, sample), strict=True):
        for name, a in arrays.items():
            handed_on = np.shares_memory(exact, sample.arrays[name])  # by its definition, as dropout's at rate 0
            assert handed_on or not share_memory(value, a), f"{label}: {output} is the memory of {name}"
    second = call(backend, F, op, arrays, sample)
    for output, a, b in zip(op.outputs, first, second, strict=True):
        assert np.array_equal(a, b, equal_nan=True), f"{label}: {output} differs from one call to the next"
    others = {n: a * 0.5 if a.dtype.kind == "f" else a for n, a in sample.arrays.items()}
    call(backend, F, op, to_backend(backend, Sample(others, sample.attrs), dtype), sample)
    for output, a, value in zip(op.outputs, first, results, strict=True):
        assert np.array_equal(a, backend.to_numpy(value), equal_nan=True), f"{label}: a later call wrote to {output}"
    strided = {name: _strided(F.xp, backend, np.asarray(a), dtype) for name, a in sample.arrays.items()}
    found = call(backend, F, op, strided, sample)
    for output, a, b in zip(op.outputs, first, found, strict=True):
        assert_close(b, a.astype(np.float64), 2 * TOLERANCE[dtype], f"{label}: {output} of arrays that are views")


def check_nan(backend: Backend, F: OpTable, op: Op, sample: Sample, dtype: str, rng: np.random.Generator) -> None:
    """A NaN in any array comes out wherever the value that it replaces makes a difference."""
    label = f"{op.name} [{F.trail[op.name].chosen}] {sample.label}"
    expected = oracle(op, sample)
    for name, array in sample.arrays.items():
        if name in op.no_grad or array.dtype.kind != "f" or not array.size:
            continue
        at = np.unravel_index(int(rng.integers(array.size)), array.shape)
        moved, poisoned = array.copy(), array.copy()
        moved[at] += 0.5
        poisoned[at] = np.nan
        changed = oracle(op, Sample({**sample.arrays, name: moved}, sample.attrs))
        with np.errstate(invalid="ignore"):
            arrays = to_backend(backend, Sample({**sample.arrays, name: poisoned}, sample.attrs), dtype)
            found = call(backend, F, op, arrays, sample)
        for output, a, b, value in zip(op.outputs, expected, changed, found, strict=True):
            depends = np.abs(b - a) > 1e-6 * max(float(np.abs(a).max(initial=0)), 1e-3)
            assert np.isnan(value[depends]).all(), f"{label}: a NaN in {name} does not come out in {output}"


def share_memory(a: Any, b: Any) -> bool:
    """Whether two arrays overlap in memory, where that can be seen: in namespaces whose arrays can be written to."""
    if hasattr(a, "untyped_storage") and hasattr(b, "untyped_storage"):  # torch, on any device
        same = a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
        return bool(same and a.numel() and b.numel() and a.untyped_storage().nbytes())
    return isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and np.shares_memory(a, b)


def _strided(xp: Any, backend: Backend, array: np.ndarray, dtype: str) -> Any:
    """The array as a view whose elements lie in another order."""
    if array.ndim < 2:
        wide = np.stack([array, array], axis=-1) if array.ndim else array
        return backend.asarray(wide, dtype)[..., 0] if array.ndim else backend.asarray(array, dtype)
    turned = np.ascontiguousarray(np.moveaxis(array, -1, 0))
    return xp.permute_dims(backend.asarray(turned, dtype), (*range(1, array.ndim), 0))
