"""Level 3: every op, as this backend binds it, against the float64 oracle."""

from __future__ import annotations

import numpy as np
import pytest

from helix_core.kinds.backend import Backend
from helix_core.ops import OPS, Op, Sample
from helix_core.ops.half import HALF, storage
from helix_core.ops.table import OpTable
from helix_testing.levels.apart import check_apart, check_nan
from helix_testing.levels.base import TOLERANCE, as_tuple, assert_close
from helix_testing.levels.calling import as_exact, call, first_sample, oracle, to_backend

__all__ = ["OpsLevel", "call", "check_values", "oracle", "to_backend"]


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
            check_apart(backend_instance, F, OPS[op_name], sample, "float32")

    @pytest.mark.parametrize("op_name", OPS)
    def test_nan_comes_out_where_it_counts(
        self, backend_instance: Backend, op_name: str, rng: np.random.Generator
    ) -> None:
        F = backend_instance.bind(mode="infer")
        check_nan(backend_instance, F, OPS[op_name], first_sample(OPS[op_name], rng), "float32", rng)


def check_values(backend: Backend, F: OpTable, op: Op, sample: Sample, dtype: str) -> None:
    """One op on one sample: values, shapes and dtype. In half precision, the oracle gets the rounded inputs."""
    arrays = to_backend(backend, sample, dtype)
    with backend.inference():
        results = as_tuple(getattr(F, op.name)(*(arrays.get(name) for name in op.arrays), **sample.attrs))
        found = [backend.to_numpy(value) for value in results]
    if dtype in HALF:
        sample = Sample({n: as_exact(backend.to_numpy(a)) for n, a in arrays.items()}, sample.attrs, sample.label)
    shapes = op.shapes(
        *(np.shape(sample.arrays[n]) if n in sample.arrays else None for n in op.arrays),
        **{**op.attrs, **sample.attrs},
    )
    label = f"{op.name} [{F.trail[op.name].chosen}, {dtype}] {sample.label}"
    for name, value, expected in zip(op.outputs, results, oracle(op, sample), strict=True):
        # A kernel in half precision may keep what stays wide elsewhere as narrow as the rest; nothing may be wider.
        wanted = {dtype, storage(dtype)} if name in op.wide else {dtype}
        if expected.dtype.kind == "f":
            found_dtype = str(value.dtype).rpartition(".")[2]
            assert found_dtype in wanted, f"{label}: {name} is {value.dtype}, not {' or '.join(wanted)}"
    for name, value, expected, shape in zip(op.outputs, found, oracle(op, sample), shapes, strict=True):
        assert value.shape == tuple(shape), f"{label}: {name} has shape {value.shape}, op.shapes says {shape}"
        assert_close(value, expected, TOLERANCE[dtype], f"{label}: {name}")
