"""A Helix model or layer as a `torch.nn.Module`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from helix_core.kinds.params import init_params

if TYPE_CHECKING:
    from helix_core.kinds.backend import Backend


class HelixModule(nn.Module):
    """Parameters in nested modules under their Helix names, so `state_dict`, FSDP, compile and export work.

    model    a `LanguageModel` or a `Layer`: anything with `params()` and `apply(F, params, x, ...)`
    params   NumPy arrays by name; fresh ones are drawn from `seed` if absent
    """

    def __init__(
        self,
        model: Any,
        backend: Backend,
        params: Mapping[str, Any] | None = None,
        *,
        seed: int = 0,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        self.model = model
        self.F = backend.bind(dtype=dtype, mode="train")
        if params is None:
            params = model.init(seed) if hasattr(model, "init") else init_params(model.params(), seed)
        self._names = tuple(params)
        for name, value in params.items():
            *path, leaf = name.split(".")
            owner: nn.Module = self
            for part in path:
                if part not in owner._modules:
                    owner.add_module(part, nn.Module())
                owner = owner.get_submodule(part)
            owner.register_parameter(leaf, nn.Parameter(backend.asarray(value, dtype).clone()))

    def forward(self, x: Tensor, *, state: Any = None, **rows: Tensor | None) -> Any:
        """Tokens (B, L) or features (B, L, D) -> outputs; with a `state`, (outputs, next state).

        Further keyword arguments (`mask`, `reset`, `lengths`) are those of the model's or layer's `apply`.
        """
        params = dict(self.named_parameters())
        y, after = self.model.apply(self.F, params, x, state=state, **rows)
        return y if state is None else (y, after)

    def init_state(self, batch: int) -> Any:
        """The state before the first step of `batch` rows."""
        with torch.no_grad():
            return self.model.init_state(self.F, batch)
