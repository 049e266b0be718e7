"""A Helix model or layer as an `mlx.nn.Module`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten

from helix_core.kinds.params import init_params

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend

Array = Any


class HelixModule(nn.Module):
    """Parameters in nested modules under their Helix names: `parameters()`, `load_weights`, `freeze`, MLX's optimizers.

    model    a `LanguageModel` or a `Layer`: anything with `param_specs()` and `apply(F, params, x, ...)`
    params   NumPy arrays by name; fresh ones are drawn if absent, from `seed` or else from MLX's own generator
    """

    def __init__(
        self,
        model: Any,
        backend: Backend,
        params: Mapping[str, Any] | None = None,
        *,
        seed: int | None = None,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        # What begins with "_" is no parameter to MLX.
        self._model, self._F = model, backend.bind(dtype=dtype, mode="train")
        if params is None:
            if seed is None:
                seed = int(mx.random.randint(0, 2**31 - 1).item())
            params = model.init(seed) if hasattr(model, "init") else init_params(model.param_specs(), seed)
        arrays = [(name, backend.asarray(value, "float32")) for name, value in params.items()]
        for name, child in tree_unflatten(arrays).items():
            setattr(self, name, _as_module(child))

    def __call__(self, x: Array, *, state: Any = None, **rows: Array | None) -> Any:
        """Tokens (B, L) or features (B, L, D) -> outputs; with a `state`, (outputs, next state).

        Further keyword arguments (`mask`, `reset`, `lengths`) are those of the model's or layer's `apply`.
        """
        params = dict(tree_flatten(self.parameters()))
        y, after = self._model.apply(self._F, params, x, state=state, **rows)
        return y if state is None else (y, after)

    def init_state(self, batch: int) -> Any:
        """The state before the first step of `batch` rows."""
        return self._model.init_state(self._F, batch)

    def to_numpy(self) -> dict[str, Any]:
        """The parameters under their Helix names, as checkpoints hold them."""
        import numpy as np

        return {name: np.array(value.astype(mx.float32)) for name, value in tree_flatten(self.parameters())}


def _as_module(tree: Any) -> Any:
    """Dicts as modules and lists as lists of them, which is how MLX keeps numbered layers."""
    if isinstance(tree, list):
        return [_as_module(child) for child in tree]
    if not isinstance(tree, dict):
        return tree
    module = nn.Module()
    for name, child in tree.items():
        setattr(module, name, _as_module(child))
    return module
