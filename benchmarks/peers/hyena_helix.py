"""The Hyena layer on the cpu backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helix_core import create
from helix_core.kinds.params import init_params
from peers import inputs


def operator(shape: list[int]) -> Callable[[], Any]:
    """A forward pass in inference, which computes the filters once."""
    B, L, D = shape
    backend = create("backend", "cpu")
    layer = create("layer", "hyena", d_model=D, l_max=L)
    F = backend.bind(mode="infer")
    params = {name: backend.asarray(a, "float32") for name, a in init_params(layer.param_specs(), 0).items()}
    x = backend.asarray(inputs.features(B, L, D))

    def forward() -> Any:
        with backend.inference():
            return layer.apply(F, params, x)[0]

    return forward
