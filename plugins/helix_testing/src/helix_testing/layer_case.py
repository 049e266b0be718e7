"""A layer with parameters on one backend, in NumPy terms, for the layer kit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from helix_core.kinds.backend import Backend
from helix_core.kinds.layer import Layer
from helix_core.kinds.params import init_params
from helix_core.plugin_system import create
from helix_core.tree import tree_items, tree_map
from helix_plugin_lm.models import LanguageModel, ModelConfig, loss
from helix_testing.levels.base import assert_close

EPSILON = 1e-6

INPUTS = "x"
"""What the gradient of a layer's inputs is called."""


class Case:
    """Runs a layer on a backend: float64 on the reference, float32 with kernels elsewhere."""

    def __init__(self, layer: str, config: Mapping[str, Any], backend: str) -> None:
        self.name, self.config = layer, dict(config)
        self.layer: Layer[Any] = create("layer", layer, **config)
        self.backend: Backend = create("backend", backend)
        self.dtype = "float64" if backend.endswith("/reference") else "float32"
        # Products of random vectors may nearly cancel before a norm, which enlarges their rounding until its epsilon
        # of 1e-5 stops it: 300 times. float64 shows that the two sides are one function, float32 that a kernel is.
        self.tolerance = 1e-9 if self.dtype == "float64" else 1e-4
        self.F = self.backend.bind(dtype=self.dtype, mode="train")
        self.values = init_params(self.layer.param_specs(), seed=0)
        self.params = self.to_backend(self.values)
        self.d_model: int = self.layer.config.d_model
        self._oracle: Backend = create("backend", "core/reference")
        self._oracle_F = self._oracle.bind(dtype="float64")

    def to_backend(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Arrays in the case's dtype."""
        return {k: self.backend.asarray(v, self.dtype) for k, v in arrays.items()}

    def numpy(self, array: Any) -> np.ndarray:
        """A backend array as NumPy."""
        return self.backend.to_numpy(array)

    def init_state(self, batch: int) -> Any:
        """The layer's state before any input."""
        return self.layer.init_state(self.F, batch)

    def run(self, x: np.ndarray, state: Any = None, **rows: np.ndarray) -> tuple[np.ndarray, Any]:
        """x (B, L, D) -> y and the state after it; `rows` are reset and lengths."""
        with self.backend.inference():
            extra = {k: self.backend.asarray(v) for k, v in rows.items()}
            y, after = self.layer.apply(self.F, self.params, self.backend.asarray(x, self.dtype), state=state, **extra)
            return self.numpy(y).astype(np.float64), after

    def parallel(self, x: np.ndarray) -> np.ndarray:
        """The parallel face."""
        return self.run(x)[0]

    def exact(self, x: np.ndarray) -> np.ndarray:
        """The parallel face on the float64 oracle."""
        y, _ = self.layer.apply(self._oracle_F, self._float64(self.values), x)
        return np.asarray(y)

    def copies(self, tree: Any) -> dict[str, np.ndarray]:
        """The arrays of a tree by path, as they are now."""
        return {name: self.numpy(a).copy() for name, a in tree_items(tree)}

    def row(self, state: Any, index: int) -> Any:
        """One row of a state."""
        return tree_map(lambda a: a[index : index + 1], state)

    def assert_states_close(self, found: Any, expected: Any) -> None:
        """Two states agree, leaf by leaf."""
        for (name, a), (_, b) in zip(tree_items(found), tree_items(expected), strict=True):
            assert_close(self.numpy(a), self.numpy(b).astype(np.float64), self.tolerance, f"state {name}")

    def gradients(self, x: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Gradients of Σ weights * y with respect to every parameter."""
        inputs, w = self.backend.asarray(x, self.dtype), self.backend.asarray(weights, self.dtype)

        def projection(params: dict[str, Any]) -> Any:
            return self.F.xp.sum(w * self.layer.apply(self.F, params, inputs)[0])

        _, grads = self.backend.value_and_grad(projection)(self.params)
        return {k: self.numpy(g).astype(np.float64) for k, g in grads.items()}

    def gradient_of_some(
        self, weights: np.ndarray, **rows: np.ndarray
    ) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        """A function of x: gradients of Σ weights * y over outputs that have a weight, for all parameters and INPUTS.

        One function for every x, so that a backend that compiles does so once.
        """
        F, w, used = self.F, self.backend.asarray(weights, self.dtype), self.backend.asarray(weights != 0)
        extra = {k: self.backend.asarray(v) for k, v in rows.items()}

        def projection(given: dict[str, Any]) -> Any:
            y = self.layer.apply(F, {k: given[k] for k in self.params}, given[INPUTS], **extra)[0]
            return F.xp.sum(w * F.xp.where(used, y, F.xp.zeros_like(y)))

        run = self.backend.value_and_grad(projection)

        def gradients(x: np.ndarray) -> dict[str, np.ndarray]:
            _, grads = run({**self.params, INPUTS: self.backend.asarray(x, self.dtype)})
            return {k: self.numpy(g).astype(np.float64) for k, g in grads.items()}

        return gradients

    def scale_of(self, name: str) -> float:
        """The size of a parameter's values, for steps of finite differences."""
        return float(np.sqrt(np.mean(np.square(self.values[name], dtype=np.float64)))) or 1.0

    def difference(self, name: str, direction: np.ndarray, x: np.ndarray, weights: np.ndarray) -> float:
        """The derivative of the same projection along `direction`, by central difference on the oracle."""

        def value(step: float) -> float:
            params = self._float64(self.values)
            params[name] = params[name] + step * direction
            return float(np.sum(weights * self.layer.apply(self._oracle_F, params, x)[0]))

        return (value(EPSILON) - value(-EPSILON)) / (2 * EPSILON)

    @staticmethod
    def _float64(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {k: v.astype(np.float64) for k, v in values.items()}


class ModelCase:
    """A one-block language model of sixteen symbols around the case's layer."""

    def __init__(self, case: Case) -> None:
        self.case = case
        options = {k: v for k, v in case.config.items() if k != "d_model"}
        config = {
            "vocab_size": 16,
            "d_model": case.d_model,
            "n_layers": 1,
            "mixer": {"name": case.name, **options},
            "tie_embeddings": False,
        }
        self.model = LanguageModel(ModelConfig.model_validate(config))
        values = self.model.init(0)
        # Unit-size embeddings, so that errors in the layer are not hidden by the norm's epsilon.
        values["embedding.weight"] = values["embedding.weight"] * 50
        self.params = case.to_backend(values)

    def run(self, tokens: np.ndarray, mask: np.ndarray | None = None) -> tuple[np.ndarray, Any]:
        """tokens (B, L) -> logits and the state after them."""
        case = self.case
        with case.backend.inference():
            state = self.model.init_state(case.F, tokens.shape[0])
            on_backend = None if mask is None else case.backend.asarray(mask)
            logits, after = self.model.apply(
                case.F, self.params, case.backend.asarray(tokens.copy()), state=state, mask=on_backend
            )
            return case.numpy(logits).astype(np.float64), after

    def overfit(self, tokens: np.ndarray, steps: int) -> list[float]:
        """Train on one batch with AdamW; the losses."""
        case, F = self.case, self.case.backend.bind(mode="infer")
        optimizer = create("optimizer", "training/adamw", weight_decay=0.0)
        params, state = self.params, optimizer.init(F, self.params)
        x, y = case.backend.asarray(tokens[:, :-1].copy()), case.backend.asarray(tokens[:, 1:].copy())
        value_and_grad = case.backend.value_and_grad(lambda p: loss(self.model, case.F, p, x, y))
        losses = []
        for step in range(1, steps + 1):
            value, grads = value_and_grad(params)
            losses.append(float(value))
            with case.backend.inference():
                params, state = optimizer.update(F, params, grads, state, lr=2e-2, step=step)
        return losses
