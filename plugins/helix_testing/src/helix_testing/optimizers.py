"""The optimizer kit: decoupled decay, convergence, exact resumption."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from helix_core.errors import ConfigError
from helix_core.kinds.optimizer import Optimizer
from helix_core.ops import OpTable
from helix_core.plugin_system import create
from helix_core.tree import tree_items, tree_map

Arrays = dict[str, np.ndarray]


@functools.cache
def reference_table(dtype: str = "float64") -> OpTable:
    """The references, on NumPy arrays."""
    table: OpTable = create("backend", "core/reference").bind(dtype=dtype, mode="infer")
    return table


class BaseOptimizerTests:
    """Set `optimizer` to its name and `config` to options with which it should converge.

    steps   how many it gets to bring a quadratic down to a hundredth
    """

    optimizer: ClassVar[str] = ""
    config: ClassVar[Mapping[str, Any]] = {}
    steps: ClassVar[int] = 1000

    @property
    def F(self) -> OpTable:
        """The references, on NumPy arrays of float64."""
        return reference_table()

    def make(self, **options: Any) -> Optimizer[Any]:
        """The optimizer, with options over those of `config`."""
        made: Optimizer[Any] = create("optimizer", self.optimizer, **{**self.config, **options})
        return made

    def start(self, rng: np.random.Generator) -> tuple[Arrays, Arrays]:
        """Parameters and gradients of several shapes, under names that models give them."""
        shapes = {"w": (3, 4), "b": (4,), "experts": (2, 3, 4), "embedding.weight": (5, 4)}
        return tuple({k: rng.normal(size=s) for k, s in shapes.items()} for _ in range(2))  # type: ignore[return-value]

    def test_unknown_options_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="no_such_option"):
            self.make(no_such_option=1)

    def test_its_state_stays_one_of_its_slots(self, rng: np.random.Generator) -> None:
        """`{slot: {parameter: array}}` in any shapes, which a step keeps: checkpoints are read into them."""
        params, grads = self.start(rng)
        optimizer = self.make()
        state = optimizer.init(self.F, params)
        assert set(state) == set(optimizer.slots)
        assert not any("/" in slot for slot in state), "checkpoints write slot/parameter"
        _, after = optimizer.update(self.F, params, grads, state, lr=0.1, step=1)
        assert _forms(after) == _forms(state)

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_dtypes_stay_as_they_are(self, rng: np.random.Generator, dtype: str) -> None:
        F, optimizer = reference_table(dtype), self.make()
        params, grads = ({k: v.astype(dtype) for k, v in arrays.items()} for arrays in self.start(rng))
        state = optimizer.init(F, params)
        after, moments = optimizer.update(F, params, grads, state, lr=0.1, step=1)
        assert {v.dtype for v in after.values()} == {np.dtype(dtype)}
        assert _forms(moments) == _forms(state)

    def test_a_step_leaves_its_inputs_untouched(self, rng: np.random.Generator) -> None:
        params, grads = self.start(rng)
        optimizer = self.make()
        state = optimizer.init(self.F, params)
        copies = tree_map(np.copy, (params, grads, state))
        optimizer.update(self.F, params, grads, state, lr=0.1, step=1)
        for (_, before), (_, after) in zip(tree_items(copies), tree_items((params, grads, state)), strict=True):
            assert np.array_equal(before, after)

    def test_what_it_keeps_is_its_own(self, rng: np.random.Generator) -> None:
        """A gradient's memory is the backend's to use again."""
        params, grads = self.start(rng)
        optimizer = self.make(weight_decay=0.0)
        found = optimizer.update(self.F, params, grads, optimizer.init(self.F, params), lr=0.1, step=1)
        for name, array in tree_items(found):
            assert not any(np.shares_memory(array, g) for g in grads.values()), f"{name} is a gradient's own memory"

    def test_a_rate_of_zero_moves_nothing(self, rng: np.random.Generator) -> None:
        params, grads = self.start(rng)
        optimizer = self.make(weight_decay=0.5)
        after, _ = optimizer.update(self.F, params, grads, optimizer.init(self.F, params), lr=0.0, step=1)
        assert all(np.array_equal(after[k], params[k]) for k in params)

    def test_the_order_of_parameters_does_not_matter(self, rng: np.random.Generator) -> None:
        params, grads = self.start(rng)

        def go(names: list[str]) -> Any:
            optimizer, p = self.make(), {k: params[k] for k in names}
            state = optimizer.init(self.F, p)
            for step in (1, 2):
                p, state = optimizer.update(self.F, p, {k: grads[k] for k in names}, state, lr=0.1, step=step)
            return dict(tree_items((p, state)))

        one, other = go(list(params)), go(list(reversed(params)))
        assert all(np.array_equal(one[k], other[k]) for k in one)

    def test_a_step_that_may_write_over_its_inputs_is_the_same(self, rng: np.random.Generator) -> None:
        params, grads = self.start(rng)
        optimizer = self.make(weight_decay=0.1)
        state = optimizer.init(self.F, params)
        expected = optimizer.update(self.F, params, grads, state, lr=0.1, step=1)
        donated = optimizer.update(self.F, *tree_map(np.copy, (params, grads, state)), lr=0.1, step=1, donate=True)
        for (name, a), (_, b) in zip(tree_items(expected), tree_items(donated), strict=True):
            assert np.array_equal(a, b), name

    def test_decay_is_decoupled_and_goes_where_it_should(self, rng: np.random.Generator) -> None:
        params, _ = self.start(rng)
        nothing = {k: np.zeros_like(v) for k, v in params.items()}
        optimizer = self.make(weight_decay=0.5)
        after, _ = optimizer.update(
            self.F, params, nothing, optimizer.init(self.F, params), lr=0.1, step=1, decayed=frozenset({"w"})
        )
        assert np.allclose(after["w"], params["w"] * (1 - 0.1 * 0.5), rtol=1e-12)
        assert all(np.array_equal(after[k], params[k]) for k in params if k != "w")

    def test_decay_does_not_pass_through_the_moments(self, rng: np.random.Generator) -> None:
        params, grads = self.start(rng)
        states = []
        for decay in (0.0, 0.5):
            optimizer = self.make(weight_decay=decay)
            states.append(optimizer.update(self.F, params, grads, optimizer.init(self.F, params), lr=0.1, step=1)[1])
        for (_, a), (_, b) in zip(tree_items(states[0]), tree_items(states[1]), strict=True):
            assert np.array_equal(a, b)

    def test_a_step_goes_downhill(self, rng: np.random.Generator) -> None:
        params, grads = self.start(rng)
        optimizer = self.make(weight_decay=0.0)
        after, _ = optimizer.update(self.F, params, grads, optimizer.init(self.F, params), lr=1e-3, step=1)
        assert sum(float(np.sum((after[k] - params[k]) * grads[k])) for k in params) < 0

    def test_it_converges_on_a_quadratic(self, rng: np.random.Generator) -> None:
        optimizer = self.make(weight_decay=0.0)
        curvature = {"x": np.geomspace(0.1, 1.0, 8), "w": np.geomspace(0.1, 1.0, 12).reshape(3, 4)}
        # A start far from zero everywhere: a factored second moment moves one small value among large ones slowly.
        params = {k: _away_from_zero(rng.normal(size=c.shape)) for k, c in curvature.items()}
        state = optimizer.init(self.F, params)
        first = {k: float(np.sum(c * params[k] ** 2)) for k, c in curvature.items()}
        for step in range(1, self.steps + 1):
            # The rate falls to zero, as sign-based rules need.
            rate = optimizer.config.lr * (1 - (step - 1) / self.steps)
            grads = {k: 2 * c * params[k] for k, c in curvature.items()}
            params, state = optimizer.update(self.F, params, grads, state, lr=rate, step=step)
        for k, c in curvature.items():
            assert float(np.sum(c * params[k] ** 2)) < 0.01 * first[k], f"a quadratic of shape {c.shape}"

    def test_lr_scale_scales_the_rate_of_its_parameter(self, rng: np.random.Generator) -> None:
        params, grads = self.start(rng)
        optimizer = self.make()
        state = optimizer.init(self.F, params)
        scaled, _ = optimizer.update(self.F, params, grads, state, lr=0.1, step=1, lr_scale={"w": 0.5})
        halved, _ = optimizer.update(self.F, params, grads, state, lr=0.05, step=1)
        whole, _ = optimizer.update(self.F, params, grads, state, lr=0.1, step=1)
        assert np.array_equal(scaled["w"], halved["w"])
        assert np.array_equal(scaled["b"], whole["b"])

    def test_it_resumes_bit_by_bit(self, rng: np.random.Generator) -> None:
        params, _ = self.start(rng)
        gradients = [{k: rng.normal(size=v.shape) for k, v in params.items()} for _ in range(6)]

        def go(params: Arrays, state: Any, steps: range) -> tuple[Arrays, Any]:
            optimizer = self.make()
            for step in steps:
                params, state = optimizer.update(self.F, params, gradients[step], state, lr=0.01, step=step + 1)
            return params, state

        initial = self.make().init(self.F, params)
        whole = go(params, initial, range(6))
        half = go(params, initial, range(3))
        copied_params, copied_state = tree_map(np.copy, half)
        resumed = go(copied_params, copied_state, range(3, 6))
        for (_, a), (_, b) in zip(tree_items(whole), tree_items(resumed), strict=True):
            assert np.array_equal(a, b)


def _away_from_zero(values: np.ndarray) -> np.ndarray:
    away: np.ndarray = values + np.sign(values)
    return away


def _forms(state: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every array of a state."""
    return {name: (np.shape(a), str(np.asarray(a).dtype)) for name, a in tree_items(state)}
