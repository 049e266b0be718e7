"""A sum and its root mean square normalisation."""

from __future__ import annotations

from helix_device_arrays.array import Array
from helix_device_arrays.kernels._arguments import fresh
from helix_device_arrays.kernels._rows import frame_of, launch
from helix_device_arrays.kernels.rms_norm import program_of


def add_rms_norm(x: Array, residual: Array, weight: Array, *, eps: float = 1e-5) -> tuple[Array, Array]:
    """The op `add_rms_norm`."""
    how = frame_of(x.device, x.shape[-1])
    y, total = fresh(x.device, x.shape), fresh(x.device, x.shape)
    launch(x.device, program_of(*how, True, eps), [y, total], [x, residual, weight])
    return Array(x.device, y), Array(x.device, total)
