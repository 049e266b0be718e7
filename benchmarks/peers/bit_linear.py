"""BitNet's linear maps: eight matrices one after the other, as the layers of a model, so that no cache holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from helix_core.ops.ternary import pack_ternary, unpack_ternary
from peers import inputs
from side_by_side.row import NotHere

MATRICES = 8
SCALE = 0.02


def work(shape: list[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """x (rows, inputs) and packed weights (outputs, inputs)."""
    rows, columns, outputs = shape
    r = inputs.rng("bit_linear", *shape)
    weights = [pack_ternary(r.integers(-1, 2, (outputs, columns)), 1.0)[0] for _ in range(MATRICES)]
    return r.normal(size=(rows, columns)).astype("float32"), weights


def helix(shape: list[int], backend: str = "cpu", op: str = "bit_linear") -> Callable[[], Any]:
    """The op, or with op="linear" the same maps in float32, of which activations are not rounded."""
    from helix_core import create

    on = create("backend", backend)
    F = on.bind(mode="infer")
    x, weights = work(shape)
    x, scale = on.asarray(x), on.asarray(np.float32(SCALE))
    held = [on.asarray(w if op == "bit_linear" else unpack_ternary(w, shape[1]) * np.float32(SCALE)) for w in weights]

    def run() -> Any:
        with on.inference():
            found = [F.bit_linear(x, w, scale) if op == "bit_linear" else F.linear(x, w) for w in held]
            return [on.to_numpy(y) for y in found]

    return run


def torch_linear(shape: list[int], dtype: str) -> Callable[[], Any]:
    """torch's linear, of which activations are not rounded."""
    import torch

    x, weights = work(shape)
    kind = getattr(torch, dtype)
    x = torch.from_numpy(x).to(kind)
    held = [torch.from_numpy(unpack_ternary(w, shape[1])).to(kind) * SCALE for w in weights]

    def run() -> Any:
        with torch.no_grad():
            return [torch.nn.functional.linear(x, w).float() for w in held]

    return run


def transformers(shape: list[int]) -> Callable[[], Any]:
    """transformers' BitLinear as it stands, without its compiler."""
    import torch

    try:
        from transformers.integrations.bitnet import BitLinear, pack_weights
    except ImportError as error:
        raise NotHere(f"transformers: {error}") from error
    torch.compiler.set_stance("force_eager")
    x, weights = work(shape)
    x = torch.from_numpy(x)
    layers = []
    for w in weights:
        layer = BitLinear(shape[1], shape[2], bias=False, dtype=torch.float32)
        layer.weight = pack_weights(torch.from_numpy(unpack_ternary(w, shape[1])).float())
        layer.weight_scale = torch.tensor([1 / SCALE])
        layers.append(layer)

    def run() -> Any:
        with torch.no_grad():
            return [layer(x) for layer in layers]

    return run
