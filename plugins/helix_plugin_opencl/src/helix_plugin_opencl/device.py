"""An OpenCL device behind the protocol of device arrays."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyopencl as cl

from helix_core.errors import ComponentUnavailable
from helix_device_arrays.device import Buffer, Device
from helix_device_arrays.program import Program
from helix_plugin_opencl.dialect import source

CHOICE = "HELIX_OPENCL_DEVICE"
"""Environment variable: "cpu", "gpu", a number in the list of devices, or a part of a device's name."""


class OpenCLDevice(Device):
    """A device, a context and one queue in order."""

    def __init__(self, device: Any) -> None:
        super().__init__()
        self.cl = device
        self.name = device.name.strip()
        self.kind = "cpu" if device.type & cl.device_type.CPU else "gpu"
        self.max_bytes = device.max_mem_alloc_size
        self.max_buffers = 16
        self.halves = "cl_khr_fp16" in device.extensions
        most = device.max_work_group_size
        if self.kind == "cpu":
            self.vectors, self.lanes, self.rows, self.apart, self.width = True, 8, 1, 1, min(256, most)
        else:
            self.lanes, self.rows, self.apart, self.width = 4, min(64, most), min(64, most), min(128, most)
        self._context = cl.Context([device])
        self._queue = cl.CommandQueue(self._context)

    def _allocate(self, nbytes: int) -> Any:
        return cl.Buffer(self._context, cl.mem_flags.READ_WRITE, nbytes)

    def _write(self, raw: Any, array: np.ndarray) -> None:
        cl.enqueue_copy(self._queue, raw, array, is_blocking=True)

    def _read(self, raw: Any, array: np.ndarray) -> None:
        cl.enqueue_copy(self._queue, array, raw, is_blocking=True)

    def _compile(self, program: Program) -> Any:
        with warnings.catch_warnings():
            # Drivers write remarks about sound programs; a program that cannot be built raises.
            warnings.simplefilter("ignore", cl.CompilerWarning)
            built = cl.Program(self._context, source(program, direct=self.kind == "cpu")).build()
        return cl.Kernel(built, f"helix_{program.name}")

    def _run(self, compiled: Any, program: Program, raws: list[Any], params: Sequence[int], groups: int) -> None:
        compiled.set_args(*raws, np.array([groups, *params], np.int32))
        cl.enqueue_nd_range_kernel(self._queue, compiled, (groups * program.width,), (program.width,))

    def prepared(self, program: Program, buffers: Sequence[Buffer], params: Sequence[int], groups: int) -> Any:
        """A kernel of its own whose arguments are set once."""
        kernel = cl.Kernel(self._programs[program].program, f"helix_{program.name}")
        kernel.set_args(*(b.raw for b in buffers), np.array([groups, *params], np.int32))
        size, width = (groups * program.width,), (program.width,)
        return lambda: cl.enqueue_nd_range_kernel(self._queue, kernel, size, width)

    def finish(self) -> None:
        self._queue.finish()


def found() -> list[Any]:
    """All devices of all drivers: graphics cards before processors, larger ones first."""
    try:
        platforms = cl.get_platforms()
    except cl.Error as error:
        raise ComponentUnavailable(
            f"no OpenCL driver answers ({error})",
            hint="install your device's OpenCL driver, or `pip install pyopencl[pocl]` for processors",
        ) from error
    devices = []
    for platform in platforms:
        try:
            devices += platform.get_devices()
        except cl.Error as error:  # a driver without devices must not hide those of others
            warnings.warn(f"OpenCL platform {platform.name.strip()!r}: {error}", RuntimeWarning, stacklevel=2)
    order = {cl.device_type.GPU: 0, cl.device_type.ACCELERATOR: 1}
    return sorted(devices, key=lambda d: (order.get(d.type & ~cl.device_type.DEFAULT, 2), -d.max_compute_units))


def chosen() -> OpenCLDevice:
    """The device that `HELIX_OPENCL_DEVICE` names, else the first of `found`. Raises ComponentUnavailable."""
    devices = found()
    wish = os.environ.get(CHOICE, "").strip().lower()
    if wish.isdigit():
        matches = devices[int(wish) : int(wish) + 1]
    elif wish in ("cpu", "gpu"):
        kind = cl.device_type.CPU if wish == "cpu" else cl.device_type.GPU
        matches = [d for d in devices if d.type & kind]
    else:
        matches = [d for d in devices if wish in f"{d.platform.name} {d.name}".lower()]
    if not matches:
        names = ", ".join(d.name.strip() for d in devices) or "none"
        raise ComponentUnavailable(
            f"no OpenCL device fits {CHOICE}={wish!r}" if wish else "the OpenCL drivers have no device",
            hint=f"the devices are: {names}",
        )
    key = matches[0].int_ptr
    if key not in _opened:
        _opened[key] = OpenCLDevice(matches[0])
    return _opened[key]


_opened: dict[int, OpenCLDevice] = {}
"""One for all backends of a process: their arrays mix, and nothing is compiled twice."""
