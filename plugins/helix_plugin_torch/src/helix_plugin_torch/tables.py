"""Which op table serves tensors: that of the backend of their device, for their dtype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from helix_core.errors import ComponentNotFound, ComponentUnavailable
from helix_core.ops import OpTable
from helix_core.plugin_system import create
from helix_plugin_torch.dtypes import dtype_name


class TensorBackend(Protocol):
    """What tables and modules ask of a `TorchBackend`, which makes them."""

    @property
    def home(self) -> torch.device:
        """Where torch keeps the tensors."""

    def asarray(self, array: np.ndarray, dtype: str | None = None) -> Tensor:
        """A tensor from a NumPy array; `dtype` converts floating arrays only."""

    def bind(self, *, dtype: str = "float32", mode: str = "train", pins: Mapping[str, str] | None = None) -> OpTable:
        """The op table for a dtype and a mode, "train" or "infer"."""


_backends: dict[str, TensorBackend] = {}
_tables: dict[tuple[str, torch.dtype, str], OpTable] = {}


def backend_of(device: str) -> TensorBackend:
    """The `TorchBackend` named as torch names a type of device: "cpu", "cuda". Raises ComponentUnavailable."""
    if device not in _backends:
        try:
            backend = create("backend", device)
        except ComponentNotFound as error:
            raise ComponentUnavailable(
                f"no installed backend computes on torch tensors on {device!r}",
                hint=error.hint or "move them to 'cpu' or 'cuda'; `helix plugins` lists what is installed",
            ) from error
        if backend.namespace != "torch":
            raise ComponentUnavailable(f"backend {backend.name!r} does not compute on torch tensors")
        _backends[device] = backend
    return _backends[device]


def table_of(device: str, dtype: torch.dtype, mode: str) -> OpTable:
    """The op table for a type of device, a dtype and a mode ("train", "infer"), bound once in a process."""
    key = (device, dtype, mode)
    if torch.compiler.is_compiling() or key not in _tables:
        _bind(device, dtype, mode)
    return _tables[key]


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch's is not annotated
def _bind(device: str, dtype: torch.dtype, mode: str) -> None:
    """Called, not traced, by compilers, so that they find a table."""
    key = (device, dtype, mode)
    if key not in _tables:
        _tables[key] = backend_of(device).bind(dtype=dtype_name(dtype), mode=mode)
