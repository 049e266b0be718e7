"""The MLX backend: the GPU of Apple silicon through Metal, MLX's CPU device under Linux."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import mlx.core as mx
import numpy as np

from helix_core.kinds.backend import Backend
from helix_plugin_metal.kernels import linear_scan, selective_scan
from helix_plugin_metal.kernels._checked import on_metal_gpu
from helix_plugin_metal.namespace import xp

if TYPE_CHECKING:
    from helix_core.kinds.backend import Params
    from helix_core.kinds.decoder import DecodableModel, Decoder
    from helix_core.ops import OpTable
    from helix_plugin_metal.module import HelixModule

Array = Any


class MetalBackend(Backend):
    """MLX's arrays on its default device (`mlx.core.set_default_device`).

    No float64: MLX has it on its CPU device only, and there computes sines and transforms in 32 bits.

    >>> import numpy as np
    >>> from helix_core import create
    >>> backend = create("backend", "metal")
    >>> F = backend.bind(mode="infer")
    >>> gate, x = (backend.asarray(np.ones((1, 3, 1), np.float32) * c) for c in (0.5, 1.0))
    >>> backend.to_numpy(F.linear_scan(gate, x)[0]).ravel().tolist()
    [1.0, 1.5, 1.75]
    """

    name = "metal"
    namespace = "mlx"
    capabilities: ClassVar[frozenset[str]] = frozenset({"grad", "compile", "traces"})

    @property
    def xp(self) -> Any:
        return xp

    @property
    def device(self) -> str:
        if mx.default_device().type == mx.cpu:
            return "cpu"
        return "metal" if mx.metal.is_available() else "cuda"

    def dtypes(self) -> tuple[str, ...]:
        return ("float32", "bfloat16", "float16")

    def asarray(self, array: np.ndarray, dtype: str | None = None) -> Array:
        array = np.asarray(array)
        if any(stride < 0 for stride in array.strides):
            array = array.copy()
        if array.dtype.kind == "f" and dtype is not None:
            return mx.array(array, getattr(mx, dtype))
        return mx.array(array)

    def to_numpy(self, array: Array) -> np.ndarray:
        return np.array(array.astype(mx.float32) if array.dtype == mx.bfloat16 else array)

    def value_and_grad(self, function: Callable[..., Array]) -> Callable[..., tuple[Array, dict[str, Array]]]:
        """The function and its gradient; on a GPU as one program, compiled for every new shape of the arguments.

        MLX's compiler joins elementwise operations, which saves a GPU's launches and memory. Its CPU device gains
        nothing, and would need a C++ compiler on the user's machine.
        """
        both = mx.value_and_grad(function)
        if self.device != "cpu":
            both = mx.compile(both)

        def run(params: dict[str, Array], *args: Any) -> tuple[Array, dict[str, Array]]:
            value, grads = both(dict(params), *args)
            mx.async_eval(value, grads)  # MLX is lazy: without it, a step's graph would wait for the next one's
            return value, grads

        return run

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Through `mlx.core.compile`, for every new shape; under Linux that needs g++, and is no faster."""
        if self.device == "cpu" and shutil.which("g++") is None:
            return function
        compiled: Callable[..., Any] = mx.compile(function)
        return compiled

    def synchronize(self) -> None:
        mx.synchronize()

    def bind(self, *, dtype: str = "float32", mode: str = "train", pins: Mapping[str, str] | None = None) -> OpTable:
        if on_metal_gpu():  # what kernels can do is found out now: it takes a run, and none is possible in a compiler
            selective_scan.metal_works()
            linear_scan.metal_works()
        return super().bind(dtype=dtype, mode=mode, pins=pins)

    def decoder(
        self, model: DecodableModel, F: OpTable, params: Params, *, batch: int = 1, weights: str = "float32"
    ) -> Decoder:
        from helix_plugin_metal.decoder import MetalDecoder

        if weights != "float32":
            return super().decoder(model, F, params, batch=batch, weights=weights)
        return MetalDecoder(model, F, params, batch)

    def module(self, model: DecodableModel | Any, *, seed: int | None = None, dtype: str = "float32") -> HelixModule:
        """An `mlx.nn.Module` of a model or a layer, with fresh parameters.

        They are drawn from `seed`, the same on every backend, or else from MLX's generator (`mx.random.seed`).
        """
        from helix_plugin_metal.module import HelixModule

        return HelixModule(model, self, seed=seed, dtype=dtype)

    def describe(self) -> dict[str, Any]:
        info = mx.device_info()
        return {**super().describe(), "mlx": mx.__version__, "device_name": str(info.get("device_name", "unknown"))}
