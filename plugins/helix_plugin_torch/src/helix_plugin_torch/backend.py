"""The backend that torch devices share: torch tensors as the array namespace, torch autograd for gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from helix_core.kinds.backend import Backend
from helix_core.kinds.kernel import Kernel
from helix_core.ops import Op, OpTable

if TYPE_CHECKING:
    from helix_core.kinds.decoder import DecodableModel
    from helix_core.kinds.layer import Layer
    from helix_core.plugin_system.descriptors import KernelDescriptor
    from helix_plugin_torch.module import HelixModule


@functools.cache
def namespace() -> Any:
    """torch behind the array API."""
    from helix_plugin_torch import namespace as module

    return module


def _known(known: Callable[[Tensor], int | None], scalar: Tensor) -> int | None:
    """`OpTable.concrete`, for which vmap has an error of its own."""
    try:
        return known(scalar)
    except RuntimeError:
        if torch._C._are_functorch_transforms_active():
            return None
        raise


class TorchBackend(Backend):
    """Torch tensors on one device. Subclasses set `name` and `device`.

    >>> import helix_core, torch
    >>> backend = helix_core.create("backend", "cpu")
    >>> F = backend.bind()
    >>> F.softmax(torch.zeros(2, 4))
    tensor([[0.2500, 0.2500, 0.2500, 0.2500],
            [0.2500, 0.2500, 0.2500, 0.2500]])
    """

    namespace = "torch"
    capabilities: ClassVar[frozenset[str]] = frozenset({"float64", "grad", "compile"})

    @property
    def xp(self) -> Any:
        return namespace()

    @property
    def home(self) -> torch.device:
        """Where torch keeps the tensors."""
        return torch.device(self.device)

    def dtypes(self) -> tuple[str, ...]:
        return ("float32", "float64", "bfloat16", "float16")

    def asarray(self, array: np.ndarray, dtype: str | None = None) -> Tensor:
        array = np.asarray(array)
        tensor = torch.from_numpy(array if array.flags.writeable and array.flags.c_contiguous else array.copy())
        if dtype is not None and tensor.is_floating_point():
            return tensor.to(self.home, getattr(torch, dtype))
        return tensor.to(self.home)

    def to_numpy(self, array: Tensor) -> np.ndarray:
        tensor = array.detach().cpu()
        return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()

    def value_and_grad(self, function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
        def run(params: dict[str, Tensor], *args: Any) -> tuple[Tensor, dict[str, Tensor]]:
            leaves = {name: p.detach().requires_grad_(True) for name, p in params.items()}
            with torch.enable_grad():
                value = function(leaves, *args)
            grads = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
            return value.detach(), dict(zip(leaves, grads, strict=True))

        return run

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        compiled: Callable[..., Any] = torch.compile(function, fullgraph=True)
        return compiled

    def inference(self) -> AbstractContextManager[Any]:
        # Not inference_mode: its tensors could never take part in training again.
        return torch.no_grad()

    def wrap(self, op: Op, descriptor: KernelDescriptor, kernel: Any) -> Callable[..., Any]:
        if isinstance(kernel, Kernel):
            from helix_plugin_torch.library import as_torch_function

            plugin = descriptor.target.partition(":")[0].partition(".")[0].removeprefix("helix_plugin_")
            return as_torch_function(op, kernel, f"{plugin}_{descriptor.name}", (self.home.type,))
        if descriptor.gradient == "none":
            from helix_plugin_torch.transforms import with_reference_gradient

            return with_reference_gradient(op, kernel)
        return super().wrap(op, descriptor, kernel)

    def bind(self, *, dtype: str = "float32", mode: str = "train", pins: Mapping[str, str] | None = None) -> OpTable:
        """The op table; under `torch.func.vmap`, where a sample's numbers cannot be told, they are not known."""
        table = super().bind(dtype=dtype, mode=mode, pins=pins)
        return table.replace(concrete=functools.partial(_known, table.concrete))

    def module(
        self, model: DecodableModel | Layer[Any], *, seed: int | None = None, dtype: str = "float32"
    ) -> HelixModule:
        """A real `torch.nn.Module` of a model or a layer, with fresh parameters.

        They are drawn from `seed`, the same on every backend, or else from torch's generator (`torch.manual_seed`).
        Raises ComponentUnavailable for a dtype that the backend does not compute in.

        >>> import helix_core
        >>> layer = helix_core.create("layer", "mamba", d_model=16)
        >>> module = helix_core.create("backend", "cpu").module(layer, seed=0)
        >>> type(module).__name__, [*module.state_dict()][:2]
        ('HelixModule', ['A_log', 'D'])
        """
        from helix_plugin_torch.module import HelixModule

        return HelixModule(model, self, seed=seed, dtype=dtype)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "torch": torch.__version__, "threads": torch.get_num_threads()}
