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
    def test_op_is_called_like_its_reference(
        self, backend_instance: Backend, op_name: str, rng: np.random.Generator
    ) -> None:
        """By position or keyword, and nothing that its signature does not name."""
        op, function = OPS[op_name], getattr(backend_instance.bind(mode="infer"), op_name)
        sample = max(op.samples(rng), key=lambda s: len(s.arrays))  # of those with the most optional arrays, the first
        arrays = to_backend(backend_instance, sample, "float32")
        first = op.arrays[0]
        forms = [
            ((*(arrays.get(name) for name in op.arrays),), sample.attrs),
            ((arrays[first],), {n: a for n, a in arrays.items() if n != first} | {**op.attrs, **sample.attrs}),
            ((), {**sample.attrs, **dict(reversed(arrays.items()))}),
        ]
        with backend_instance.inference():
            found = [[backend_instance.to_numpy(y) for y in as_tuple(function(*a, **k))] for a, k in forms]
            for other in found[1:]:
                assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found[0], other, strict=True))
            for word in ("misspelt", *(f"{name}_" for name in (*op.arrays[1:], *op.attrs))):
                with pytest.raises(TypeError, match=rf"{op_name}\(\) got an unexpected keyword argument '{word}'"):
                    function(*forms[0][0], **{word: None})
            with pytest.raises(TypeError, match=rf"{op_name}\(\) takes"):
                function(*forms[0][0], 1)
            with pytest.raises(TypeError, match=rf"{op_name}\(\) missing"):
                function(**{n: a for n, a in arrays.items() if n != first})

    @pytest.mark.parametrize("op_name", ["embedding", "cross_entropy", "linear_cross_entropy"])
    def test_an_index_outside_raises_or_gives_nan(
        self, backend_instance: Backend, op_name: str, rng: np.random.Generator
    ) -> None:
        """And changes nothing else: no number of another row, or of foreign memory."""
        F, op = backend_instance.bind(mode="infer"), OPS[op_name]
        sample = next(iter(op.samples(rng)))
        name = next(iter(op.no_grad))
        size = sample.arrays["logits"].shape[-1] if "logits" in op.arrays else sample.arrays["weight"].shape[0]
        right = call(backend_instance, F, op, to_backend(backend_instance, sample, "float32"), sample)[0]
        for outside in (-100, -1, size, size + 1000):
            indices = sample.arrays[name].copy()
            indices[0, 1] = outside
            wrong = Sample({**sample.arrays, name: indices}, sample.attrs)
            try:
                found = call(backend_instance, F, op, to_backend(backend_instance, wrong, "float32"), wrong)[0].copy()
            except IndexError:
                continue
            assert np.isnan(found[0, 1]).all(), f"{op_name} made a number of index {outside}"
            found[0, 1] = right[0, 1]
            assert np.array_equal(found, right)

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
