"""The backend around a device: arrays in and out, tables bound to its namespace, and the count of what moved."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_core.events import emit
from helix_core.kinds.backend import Backend
from helix_core.ops import OpTable
from helix_core.ops.half import storage
from helix_device_arrays.array import Array, from_numpy
from helix_device_arrays.decoder import RecordedDecoder
from helix_device_arrays.device import Device
from helix_device_arrays.dtypes import BY_NAME, DType
from helix_device_arrays.namespace import Namespace
from helix_device_arrays.nodes import Const

if TYPE_CHECKING:
    from helix_core.kinds.backend import Params
    from helix_core.kinds.decoder import DecodableModel, Decoder

REMEMBERED = 1 << 16
"""Bytes up to which a constant that a layer makes at every call is uploaded once only."""


class DeviceBackend(Backend):
    """A backend of device arrays. `arrays` is the device; `transfers()` says what went to and fro."""

    def __init__(self) -> None:
        self.arrays = self.open()
        if self.arrays.namespace is None:
            self.arrays.namespace = Namespace(self.arrays)
        self._constants: dict[tuple[Any, ...], Array] = {}

    @abstractmethod
    def open(self) -> Device:
        """The device, the same one at every call. Raises ComponentUnavailable where there is none."""

    @property
    def xp(self) -> Any:
        return self.arrays.namespace

    @property
    def device(self) -> str:
        return self.arrays.kind

    def dtypes(self) -> tuple[str, ...]:
        return ("float32", "float16") if self.arrays.halves else ("float32",)

    def asarray(self, array: np.ndarray, dtype: str | None = None) -> Array:
        """Raises UsageError for integers that do not fit into the device's 32 bits."""
        if isinstance(array, Array):
            return array
        array = np.asarray(array)
        wanted: DType | None = BY_NAME[dtype] if dtype and np.issubdtype(array.dtype, np.floating) else None
        return from_numpy(self.arrays, array, wanted)

    def to_numpy(self, array: Array) -> np.ndarray:
        return array.numpy() if isinstance(array, Array) else np.asarray(array)

    def synchronize(self) -> None:
        self.arrays.finish()

    def bind(self, *, dtype: str = "float32", mode: str = "train", pins: Mapping[str, str] | None = None) -> OpTable:
        """The op table; constants that layers make at every call are uploaded once."""
        table = super().bind(dtype=dtype, mode=mode, pins=pins)
        table.asarray = lambda array: self._constant(array, storage(dtype))
        return table

    def _constant(self, array: Any, dtype: str) -> Array:
        if isinstance(array, Array):
            return array
        array = np.asarray(array)
        floating = array.dtype.kind == "f"
        if array.size and floating and (array == array.flat[0]).all():
            return Array(self.arrays, Const(float(array.flat[0]), array.shape, BY_NAME[dtype]))
        if array.nbytes > REMEMBERED:
            return self.asarray(array, dtype)
        key = (array.shape, array.dtype.str, dtype, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.asarray(array, dtype)
        return self._constants[key]

    def decoder(
        self, model: DecodableModel, F: OpTable, params: Params, *, batch: int = 1, weights: str = "float32"
    ) -> Decoder:
        """A decoder whose steps are recorded programs."""
        if weights != "float32":
            return super().decoder(model, F, params, batch=batch, weights=weights)
        return RecordedDecoder(model, self, F, params, batch)

    def transfers(self) -> dict[str, int]:
        """What went to the device and back so far (and is emitted as the event "transfers"), launches and programs."""
        counted = self.arrays.traffic.snapshot()
        emit("transfers", backend=self.name, **counted)
        return counted

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "device_name": self.arrays.name, "transfers": self.arrays.traffic.snapshot()}
