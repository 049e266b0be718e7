"""What a backend is: an array namespace on a device, and the kernels bound to it."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

from helix_core.errors import ComponentUnavailable
from helix_core.machine import available_memory
from helix_core.ops.half import storage
from helix_core.ops.table import DispatchKey, OpTable, bind_ops

if TYPE_CHECKING:
    import numpy as np

    from helix_core.kinds.decoder import DecodableModel, Decoder
    from helix_core.ops.op import Op
    from helix_core.plugin_system.descriptors import KernelDescriptor

Array = Any
Params = Mapping[str, Array]


class Backend(ABC):
    """Array namespace x device x kernel table.

    A subclass sets `name` and `namespace`, and implements `xp`, `asarray` and `to_numpy`. Everything else has a
    working default; a backend adds the faces it has and names them in `capabilities`:

    "float64"   arrays of that dtype work
    "grad"      `value_and_grad` works
    "compile"   `compile` makes a function faster and keeps its meaning
    "traces"    everything is compiled for every new shape: the layer kit, which has many, goes to the slow tier
    """

    name: ClassVar[str]
    namespace: ClassVar[str]
    capabilities: ClassVar[frozenset[str]] = frozenset()
    use_kernels: ClassVar[bool] = True

    @property
    @abstractmethod
    def xp(self) -> Any:
        """The array-API namespace that references run on."""

    @property
    def device(self) -> str:
        """The device type arrays live on: "cpu", "cuda", ..."""
        return "cpu"

    def devices(self) -> tuple[str, ...]:
        """The devices this backend could use here."""
        return (self.device,)

    def memory(self) -> int | None:
        """Bytes that new arrays may take there; None if that is not known."""
        return available_memory() if self.device == "cpu" else None

    def dtypes(self) -> tuple[str, ...]:
        """The floating dtypes it computes in."""
        return ("float32", "float64") if "float64" in self.capabilities else ("float32",)

    @abstractmethod
    def asarray(self, array: np.ndarray, dtype: str | None = None) -> Array:
        """An array of this backend from a NumPy array; `dtype` converts floating arrays only."""

    @abstractmethod
    def to_numpy(self, array: Array) -> np.ndarray:
        """A NumPy array with the values of `array`, cut off from any gradient graph."""

    def value_and_grad(self, function: Callable[..., Array]) -> Callable[..., tuple[Array, dict[str, Array]]]:
        """Turn `function(params, *args) -> scalar` into `(params, *args) -> (scalar, gradient by name)`."""
        raise ComponentUnavailable(
            f"backend {self.name!r} does not differentiate, so it cannot train",
            hint="`helix explain backend` lists the backends; those that provide 'grad' train",
        )

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A faster function of the same meaning, where the backend has a compiler; else the function itself."""
        return function

    def inference(self) -> AbstractContextManager[Any]:
        """A context in which no gradient is recorded."""
        return nullcontext()

    def synchronize(self) -> None:
        """Wait until all queued work is done."""
        return None

    def wrap(self, op: Op, descriptor: KernelDescriptor, kernel: Any) -> Callable[..., Any]:
        """Make a loaded kernel callable with the op's signature on this backend's arrays."""
        from helix_core.kinds.kernel import Kernel

        if isinstance(kernel, Kernel):
            return kernel.forward
        function: Callable[..., Any] = kernel
        return function

    def bind(self, *, dtype: str = "float32", mode: str = "train", pins: Mapping[str, str] | None = None) -> OpTable:
        """The op table `F` for a dtype and a mode ("train" needs gradients, "infer" does not).

        `pins` adds to the user's kernel pins (settings and `HELIX_KERNEL_<OP>`), and is all that counts for a backend
        without kernels. Raises ComponentUnavailable for a dtype that it does not compute in, and what `bind_ops` does.
        """
        from helix_core.plugin_system import kernel_descriptors, kernel_pins

        if dtype not in self.dtypes():
            raise ComponentUnavailable(
                f"backend {self.name!r} does not compute in {dtype}",
                hint=f"it does in {', '.join(self.dtypes())}",
            )
        key = DispatchKey(self.namespace, self.device, dtype, mode if "grad" in self.capabilities else "infer")
        table = bind_ops(
            self.xp,
            key,
            kernel_descriptors() if self.use_kernels else (),
            wrap=self.wrap,
            asarray=lambda array: self.asarray(array, storage(dtype)),
            bound_by=functools.partial(self.bind, dtype=dtype, mode=mode, pins=pins),
            pins={**kernel_pins(), **(pins or {})} if self.use_kernels else pins,
        )
        from helix_core.events import emit

        emit("bound", backend=self.name, dtype=dtype, mode=key.mode, kernels=_chosen(table))
        return table

    def decoder(
        self, model: DecodableModel, F: OpTable, params: Params, *, batch: int = 1, weights: str = "float32"
    ) -> Decoder:
        """A decoder for `batch` rows, in the initial state. F should be bound with mode "infer".

        `weights` is one of `helix_core.kinds.decoder.WEIGHTS`, the format that weights are kept in; "float32" leaves
        them as they are. Raises ComponentUnavailable for a format that the backend does not have.
        """
        from helix_core.kinds.decoder import PlainDecoder

        if weights != "float32":
            raise ComponentUnavailable(
                f"backend {self.name!r} does not decode with {weights} weights",
                hint="use float32, or another backend: `cpu` has bfloat16 and int8",
            )
        return PlainDecoder(model, self, F, params, batch)

    def describe(self) -> dict[str, Any]:
        """Where this backend runs: device names, threads, versions, for `helix doctor` and summaries."""
        return {"device": self.device, "devices": list(self.devices())}


def _chosen(table: OpTable) -> dict[str, str]:
    return {op: choice.chosen for op, choice in table.trail.items()}
