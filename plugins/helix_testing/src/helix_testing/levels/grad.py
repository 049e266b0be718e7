"""Level 4: gradients of every op against finite differences of the float64 oracle, so no second autodiff is needed."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from helix_core.kinds.backend import Backend
from helix_core.ops import OPS, Op, Sample
from helix_core.ops.table import OpTable
from helix_testing.levels.base import as_tuple, assert_close, require
from helix_testing.levels.calling import first_sample, oracle, to_backend

EPSILON = 1e-5
TOLERANCE = {"float64": 1e-6, "float32": 2e-4}


class GradLevel:
    """Directional derivatives with respect to every array that has a gradient."""

    @pytest.mark.parametrize("op_name", OPS)
    def test_gradient_equals_the_oracles(
        self, backend_instance: Backend, op_name: str, rng: np.random.Generator
    ) -> None:
        require(backend_instance, "grad")
        for dtype in TOLERANCE:
            if dtype in backend_instance.dtypes():
                F = backend_instance.bind(dtype=dtype, mode="train")
                for sample in OPS[op_name].samples(rng):
                    check_gradient(backend_instance, F, OPS[op_name], sample, dtype, rng)

    @pytest.mark.parametrize("op_name", OPS)
    def test_two_calls_do_not_disturb_each_other(
        self, backend_instance: Backend, op_name: str, rng: np.random.Generator
    ) -> None:
        require(backend_instance, "grad")
        F = backend_instance.bind(mode="train")
        sample = first_sample(OPS[op_name], rng)
        check_gradients_apart(backend_instance, F, OPS[op_name], sample, "float32", rng)
        check_nan_gradient(backend_instance, F, OPS[op_name], sample, "float32", rng)

    def test_a_gradient_asked_for_twice_is_the_same(self, backend_instance: Backend) -> None:
        """And the parameters are left as they were: nothing is added up in them."""
        require(backend_instance, "grad")
        params = {"w": backend_instance.asarray(np.array([1.0, -2.0], np.float32))}
        run = backend_instance.value_and_grad(lambda p: backend_instance.xp.sum(p["w"] * p["w"]))
        for _ in range(2):
            value, grads = run(params)
            assert float(value) == 5.0
            assert backend_instance.to_numpy(grads["w"]).tolist() == [2.0, -4.0]
            assert backend_instance.to_numpy(params["w"]).tolist() == [1.0, -2.0]


def check_gradient(backend: Backend, F: OpTable, op: Op, sample: Sample, dtype: str, rng: np.random.Generator) -> None:
    """One op on one sample: the gradient of a random projection of all outputs, along random directions."""
    weights = [rng.normal(size=value.shape) for value in oracle(op, sample)]
    backend_weights = [backend.asarray(w, dtype) for w in weights]
    arrays = to_backend(backend, sample, dtype)
    wanted = {n: a for n, a in arrays.items() if n not in op.no_grad}
    if not wanted:
        return
    fixed = {n: a for n, a in arrays.items() if n in op.no_grad}

    def projection(params: dict[str, Any]) -> Any:
        every = {**params, **fixed}
        outputs = as_tuple(getattr(F, op.name)(*(every.get(n) for n in op.arrays), **sample.attrs))
        return sum(F.xp.sum(w * value) for w, value in zip(backend_weights, outputs, strict=True))

    total, grads = backend.value_and_grad(projection)(wanted)
    label = f"{op.name} [{F.trail[op.name].chosen}, {dtype}] {sample.label}"
    _check_total(float(total), weights, oracle(op, sample), dtype, label)
    for name in wanted:
        assert dtype in str(grads[name].dtype), f"{label}: d/d{name} is {grads[name].dtype}, not {dtype}"
        grad = backend.to_numpy(grads[name]).astype(np.float64)
        # Signs, so that no value moves much further than the others: over a kink, or to where the function bends.
        direction = rng.choice([-1.0, 1.0], size=grad.shape)
        expected = _difference(op, sample, name, direction, weights)
        # The sum of the terms' sizes, not of the terms: a projection that happens to cancel proves nothing.
        floor = 1e-2 * sum(float(np.sum(np.abs(w))) for w in weights)
        scale = max(float(np.sum(np.abs(grad * direction))), abs(expected), floor, 1e-12)
        error = abs(float(np.sum(grad * direction)) - expected) / scale
        assert error < TOLERANCE[dtype], f"{label}: d/d{name} is off by {error:.1e}"


def _check_total(
    found: float, weights: list[np.ndarray], outputs: tuple[np.ndarray, ...], dtype: str, label: str
) -> None:
    """The forward pass that a gradient begins with has the values of the one without."""
    terms = [w * value for w, value in zip(weights, outputs, strict=True)]
    scale = sum(float(np.sum(np.abs(t))) for t in terms) + 0.1 * sum(float(np.sum(np.abs(w))) for w in weights)
    error = abs(found - sum(float(np.sum(t)) for t in terms)) / max(scale, 1e-12)
    assert error < TOLERANCE[dtype], f"{label}: the forward pass for training is off by {error:.1e}"


def check_gradients_apart(
    backend: Backend, F: OpTable, op: Op, sample: Sample, dtype: str, rng: np.random.Generator
) -> None:
    """Two calls of one op in one function, and each of its outputs alone, have the gradients that they should.

    Two calls that are added up get the same incoming gradient, which neither may write to; what one keeps for its
    backward pass, the other may not overwrite. An output that nobody uses has no incoming gradient, and one that is
    summed up has an incoming gradient whose elements all lie in one place.
    """
    label = f"{op.name} [{F.trail[op.name].chosen}, {dtype}] {sample.label}"
    arrays = to_backend(backend, sample, dtype)
    wanted = {n: a for n, a in arrays.items() if n not in op.no_grad}
    if not wanted:
        return
    fixed = {n: a for n, a in arrays.items() if n in op.no_grad}
    fewer = {f"other {n}": a * 0.5 for n, a in wanted.items()}
    exact = oracle(op, sample)
    weights = [backend.asarray(rng.normal(size=value.shape), dtype) for value in exact]

    def outputs(params: dict[str, Any], prefix: str = "") -> tuple[Any, ...]:
        given = (params.get(prefix + n, fixed.get(n)) for n in op.arrays)
        return as_tuple(getattr(F, op.name)(*given, **sample.attrs))

    def projected(values: tuple[Any, ...]) -> Any:
        return sum(F.xp.sum(w * value) for w, value in zip(weights, values, strict=True))

    def gradient(function: Any, params: dict[str, Any]) -> dict[str, np.ndarray]:
        grads = backend.value_and_grad(function)(params)[1]
        return {n: backend.to_numpy(g).astype(np.float64) for n, g in grads.items()}

    def compare(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], what: str) -> None:
        for name, grad in expected.items():
            assert_close(found[name], grad, TOLERANCE[dtype], f"{label}: d/d{name} {what}")

    one = gradient(lambda p: projected(outputs(p)), wanted)
    other = gradient(lambda p: projected(outputs(p, "other ")), fewer)
    both = gradient(
        lambda p: projected(tuple(a + b for a, b in zip(outputs(p), outputs(p, "other "), strict=True))),
        {**wanted, **fewer},
    )
    compare(both, {**one, **other}, "of two calls that share what follows them")
    ones = [F.xp.ones_like(w) for w in weights]

    def summed(i: int, weight: Any, params: dict[str, Any]) -> Any:
        value = outputs(params)[i]
        # The second term is nothing but a path to every array: an output need not depend on all of them, or on any.
        return F.xp.sum(value if weight is None else weight * value) + 0.0 * sum(map(F.xp.sum, params.values()))

    for i, output in enumerate(op.outputs):
        if exact[i].dtype.kind == "f":
            spread = gradient(partial(summed, i, ones[i]), wanted)
            compare(gradient(partial(summed, i, None), wanted), spread, f"of the sum of {output} alone")


def check_nan_gradient(
    backend: Backend, F: OpTable, op: Op, sample: Sample, dtype: str, rng: np.random.Generator
) -> None:
    """A NaN in the gradient of the first output reaches every gradient that this element of it has a part in."""
    arrays = to_backend(backend, sample, dtype)
    wanted = {n: a for n, a in arrays.items() if n not in op.no_grad}
    shape = oracle(op, sample)[0].shape
    if not wanted or 0 in shape:
        return
    fixed = {n: a for n, a in arrays.items() if n in op.no_grad}

    def gradient(weight: Any) -> dict[str, np.ndarray]:
        def projection(params: dict[str, Any]) -> Any:
            every = {**params, **fixed}
            value = as_tuple(getattr(F, op.name)(*(every.get(n) for n in op.arrays), **sample.attrs))[0]
            return F.xp.sum(weight * value)

        return {n: backend.to_numpy(g) for n, g in backend.value_and_grad(projection)(wanted)[1].items()}

    alone = np.zeros(shape)
    alone.flat[int(rng.integers(alone.size))] = 1.0
    part = gradient(backend.asarray(alone, dtype))
    found = gradient(backend.asarray(np.where(alone == 1.0, np.nan, rng.normal(size=shape)), dtype))
    for name, value in part.items():
        depends = np.abs(value) > 1e-6 * max(float(np.abs(value).max(initial=0)), 1e-3)
        label = f"{op.name} [{F.trail[op.name].chosen}, {dtype}] {sample.label}"
        assert np.isnan(found[name][depends]).all(), f"{label}: d/d{name} swallows a NaN of the gradient that comes in"


def _difference(op: Op, sample: Sample, name: str, direction: np.ndarray, weights: list[np.ndarray]) -> float:
    """Central differences of the projected oracle along `direction`, extrapolated from two steps to none."""

    # A step in proportion to the values: an absolute one would leap over small inputs. All zeros have no size, and a
    # few values that happen to be small say nothing about it.
    size = float(np.sqrt(np.mean(np.square(sample.arrays[name])))) if direction.size else 0.0
    least = 1e-8 if direction.size > 8 else 0.1
    epsilon = EPSILON * (max(size, least) if size else 1.0)

    def value(step: float) -> float:
        moved = Sample({**sample.arrays, name: sample.arrays[name] + step * direction}, sample.attrs)
        return sum(float(np.sum(w * out)) for w, out in zip(weights, oracle(op, moved), strict=True))

    whole, half = ((value(step) - value(-step)) / (2 * step) for step in (epsilon, epsilon / 2))
    return (4 * half - whole) / 3
