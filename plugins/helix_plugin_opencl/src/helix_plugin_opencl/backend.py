"""The OpenCL backend."""

from __future__ import annotations

from typing import Any, ClassVar

import pyopencl as cl

from helix_device_arrays.backend import DeviceBackend
from helix_plugin_opencl.device import OpenCLDevice, chosen, found


class OpenCLBackend(DeviceBackend):
    """Lazy arrays on one OpenCL device, float32 and whole numbers of 32 bits; inference only.

    >>> import numpy as np
    >>> from helix_core import create
    >>> backend = create("backend", "opencl")
    >>> F = backend.bind(mode="infer")
    >>> F.silu(backend.asarray(np.ones((2, 3), np.float32))).shape  # computed when its values are asked for
    (2, 3)
    """

    name = "opencl"
    namespace = "opencl"
    capabilities: ClassVar[frozenset[str]] = frozenset({"traces"})

    def open(self) -> OpenCLDevice:
        return chosen()

    def describe(self) -> dict[str, Any]:
        device = self.arrays
        assert isinstance(device, OpenCLDevice)
        return {
            **super().describe(),
            "platform": device.cl.platform.name.strip(),
            "driver": device.cl.driver_version,
            "pyopencl": cl.VERSION_TEXT,
            "found": [d.name.strip() for d in found()],
        }
