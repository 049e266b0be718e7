"""Level 3: every op, as this backend binds it, against the float64 oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helix_core.kinds.backend import Backend
from helix_core.ops import OPS, Op, Sample
from helix_core.ops.half import HALF
from helix_core.ops.table import OpTable
from helix_testing.levels.base import TOLERANCE, as_tuple, assert_close


class OpsLevel:
    """Values, shapes, repeatability, untouched inputs."""

    @pytest.mark.parametrize("op_name", OPS)
    def test_op_equals_the_oracle(self, backend_instance: Backend, op_name: str, rng: np.random.Generator) -> None:
        for dtype in backend_instance.dtypes():
            F = backend_instance.bind(dtype=dtype, mode="infer")
            for sample in OPS[op_name].samples(rng):
                check_values(backend_instance, F, OPS[op_name], sample, dtype)

    @pytest.mark.parametrize("op_name", OPS)
    def test_op_repeats_bit_by_bit_and_leaves_its_inputs(
        self, backend_instance: Backend, op_name: str, rng: np.random.Generator
    ) -> None:
        F = backend_instance.bind(mode="infer")
        for sample in OPS[op_name].samples(rng):
            arrays = to_backend(backend_instance, sample, "float32")
            before = {name: backend_instance.to_numpy(a).copy() for name, a in arrays.items()}
            first = call(backend_instance, F, OPS[op_name], arrays, sample)
            for name, a in arrays.items():
                assert np.array_equal(backend_instance.to_numpy(a), before[name]), f"{op_name} wrote to {name}"
            second = call(backend_instance, F, OPS[op_name], arrays, sample)
            assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True))

    @pytest.mark.parametrize(
        "op_name",
        ["linear", "linear_cross_entropy", "rms_norm", "softmax", "selective_scan", "linear_scan", "long_conv"],
    )
    def test_nan_comes_out_where_it_went_in(
        self, backend_instance: Backend, op_name: str, rng: np.random.Generator
    ) -> None:
        F, op = backend_instance.bind(mode="infer"), OPS[op_name]
        sample = next(iter(op.samples(rng)))
        name = op.arrays[0]
        poisoned = sample.arrays[name].copy()
        poisoned.reshape(-1)[0] = np.nan
        sample = Sample({**sample.arrays, name: poisoned}, sample.attrs)
        found = call(backend_instance, F, op, to_backend(backend_instance, sample, "float32"), sample)
        assert np.isnan(found[0]).any(), f"{op_name} swallowed a NaN"


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


def _as_exact(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def check_values(backend: Backend, F: OpTable, op: Op, sample: Sample, dtype: str) -> None:
    """One op on one sample: values, shapes and dtype. In half precision, the oracle gets the rounded inputs."""
    arrays = to_backend(backend, sample, dtype)
    found = call(backend, F, op, arrays, sample)
    if dtype in HALF:
        sample = Sample({n: _as_exact(backend.to_numpy(a)) for n, a in arrays.items()}, sample.attrs, sample.label)
    shapes = op.shapes(
        *(np.shape(sample.arrays[n]) if n in sample.arrays else None for n in op.arrays),
        **{**op.attrs, **sample.attrs},
    )
    label = f"{op.name} [{F.trail[op.name].chosen}, {dtype}] {sample.label}"
    for name, value, expected, shape in zip(op.outputs, found, oracle(op, sample), shapes, strict=True):
        assert value.shape == tuple(shape), f"{label}: {name} has shape {value.shape}, op.shapes says {shape}"
        assert_close(value, expected, TOLERANCE[dtype], f"{label}: {name}")
