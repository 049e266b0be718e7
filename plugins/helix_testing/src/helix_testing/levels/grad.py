"""Level 4: gradients of every op against finite differences of the float64 oracle, so no second autodiff is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helix_core.kinds.backend import Backend
from helix_core.ops import OPS, Op, Sample
from helix_core.ops.table import OpTable
from helix_testing.levels.base import as_tuple, require
from helix_testing.levels.ops import oracle, to_backend

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

    _, grads = backend.value_and_grad(projection)(wanted)
    for name in wanted:
        grad = backend.to_numpy(grads[name]).astype(np.float64)
        # Signs, so that no value moves much further than the others: over a kink, or to where the function bends.
        direction = rng.choice([-1.0, 1.0], size=grad.shape)
        expected = _difference(op, sample, name, direction, weights)
        # The sum of the terms' sizes, not of the terms: a projection that happens to cancel proves nothing.
        floor = 1e-2 * sum(float(np.sum(np.abs(w))) for w in weights)
        scale = max(float(np.sum(np.abs(grad * direction))), abs(expected), floor, 1e-12)
        error = abs(float(np.sum(grad * direction)) - expected) / scale
        label = f"{op.name} [{F.trail[op.name].chosen}, {dtype}] {sample.label}: d/d{name}"
        assert error < TOLERANCE[dtype], f"{label} is off by {error:.1e}"


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
