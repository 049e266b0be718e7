"""The WebGPU backend."""

from __future__ import annotations

from typing import Any, ClassVar

import wgpu

from helix_device_arrays.backend import DeviceBackend
from helix_plugin_webgpu.device import WebGPUDevice, chosen, found


class WebGPUBackend(DeviceBackend):
    """Lazy arrays on one WebGPU adapter, float32 and whole numbers of 32 bits; inference only.

    >>> import numpy as np
    >>> from helix_core import create
    >>> backend = create("backend", "webgpu")
    >>> F = backend.bind(mode="infer")
    >>> gate, x = (backend.asarray(np.ones((1, 3, 1), np.float32) * c) for c in (0.5, 1.0))
    >>> backend.to_numpy(F.linear_scan(gate, x)[0]).ravel().tolist()
    [1.0, 1.5, 1.75]
    """

    name = "webgpu"
    namespace = "webgpu"
    capabilities: ClassVar[frozenset[str]] = frozenset({"traces"})

    def open(self) -> WebGPUDevice:
        return chosen()

    def describe(self) -> dict[str, Any]:
        device = self.arrays
        assert isinstance(device, WebGPUDevice)
        return {
            **super().describe(),
            "through": device.adapter.info["backend_type"],
            "driver": device.adapter.info["description"],
            "f16": device.halves,
            "wgpu": wgpu.__version__,
            "found": [a.summary for a in found()],
        }
