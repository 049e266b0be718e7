"""A WebGPU device behind the protocol of device arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import wgpu

from helix_core.errors import ComponentUnavailable
from helix_device_arrays.device import Buffer, Device
from helix_device_arrays.program import Program
from helix_plugin_webgpu.dialect import source

CHOICE = "HELIX_WEBGPU_ADAPTER"
"""Environment variable: "cpu", "gpu" or a part of an adapter's name."""
ROWS = 65535
"""Work-groups along one axis of a dispatch; more go along a second axis."""
TOGETHER = 64
"""Programs that are sent off together."""
INFINITY = 0x7F800000
"""The bits of infinity, which WGSL has no word for."""
USAGE = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
WANTED = (
    "max-buffer-size",
    "max-storage-buffer-binding-size",
    "max-storage-buffers-per-shader-stage",
)
ORDER = {"DiscreteGPU": 0, "IntegratedGPU": 1, "VirtualGPU": 2, "CPU": 4}


class WebGPUDevice(Device):
    """An adapter's device and its queue; programs are recorded and sent off together."""

    lanes, rows, apart, width = 4, 64, 64, 64

    def __init__(self, adapter: Any) -> None:
        super().__init__()
        self.adapter = adapter
        self.name = adapter.info["device"] or adapter.info["description"]
        self.kind = "cpu" if adapter.info["adapter_type"] == "CPU" else "gpu"
        self.vectors = self.kind == "cpu"
        if self.vectors:
            self.apart = 8  # a vector of the processor has one float of each
        self.halves = "shader-f16" in adapter.features
        limits = {name: adapter.limits[name] for name in WANTED}
        features = ["shader-f16"] if self.halves else []
        self._device = adapter.request_device_sync(required_features=features, required_limits=limits)
        self.max_bytes = min(limits["max-buffer-size"], limits["max-storage-buffer-binding-size"])
        self.max_buffers = min(limits["max-storage-buffers-per-shader-stage"], 16)
        self._marker = self._allocate(4)
        self._params: dict[bytes, Any] = {}
        self._encoder: Any = None
        self._pass: Any = None
        self._recorded = 0

    def _allocate(self, nbytes: int) -> Any:
        return self._device.create_buffer(size=nbytes, usage=USAGE)

    def _write(self, raw: Any, array: np.ndarray) -> None:
        self._send()  # what is recorded reads what was there before
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if data.size % 4:
            data = np.concatenate([data, np.zeros(4 - data.size % 4, np.uint8)])
        self._device.queue.write_buffer(raw, 0, data)

    def _read(self, raw: Any, array: np.ndarray) -> None:
        self._send()
        found = self._device.queue.read_buffer(raw, 0, -(-array.nbytes // 4) * 4)
        flat = np.frombuffer(found, np.uint8)[: array.nbytes]
        array.reshape(-1).view(np.uint8)[:] = flat

    def _compile(self, program: Program) -> Any:
        entries = [
            {
                "binding": i,
                "visibility": wgpu.ShaderStage.COMPUTE,
                "buffer": {"type": "storage" if b.writes else "read-only-storage"},
            }
            for i, b in enumerate(program.buffers)
        ]
        entries.append({"binding": len(entries), "visibility": wgpu.ShaderStage.COMPUTE, "buffer": {"type": "uniform"}})
        layout = self._device.create_bind_group_layout(entries=entries)
        pipeline = self._device.create_compute_pipeline(
            layout=self._device.create_pipeline_layout(bind_group_layouts=[layout]),
            compute={"module": self._device.create_shader_module(code=source(program)), "entry_point": "main"},
        )
        return pipeline, layout

    def _run(self, compiled: Any, program: Program, raws: list[Any], params: Sequence[int], groups: int) -> None:
        self._add(compiled[0], self._bound(compiled[1], raws, params, groups), groups)

    def prepared(self, program: Program, buffers: Sequence[Buffer], params: Sequence[int], groups: int) -> Any:
        """A group of bindings that is made once."""
        pipeline, layout = self._programs[program]
        group = self._bound(layout, [b.raw for b in buffers], params, groups)
        return lambda: self._add(pipeline, group, groups)

    def _bound(self, layout: Any, raws: list[Any], params: Sequence[int], groups: int) -> Any:
        resources = [*raws, self._uniform([groups, INFINITY, *params])]
        entries = [
            {"binding": i, "resource": {"buffer": raw, "offset": 0, "size": raw.size}}
            for i, raw in enumerate(resources)
        ]
        return self._device.create_bind_group(layout=layout, entries=entries)

    def _add(self, pipeline: Any, group: Any, groups: int) -> None:
        if self._pass is None:
            self._encoder = self._device.create_command_encoder()
            self._pass = self._encoder.begin_compute_pass()
        self._pass.set_pipeline(pipeline)
        self._pass.set_bind_group(0, group)
        along = min(groups, ROWS)
        self._pass.dispatch_workgroups(along, -(-groups // along))
        self._recorded += 1
        if self._recorded >= TOGETHER:
            self._send()

    def _uniform(self, numbers: list[int]) -> Any:
        """The integers of a launch; equal ones, which every forward pass repeats, stay on the device."""
        data = np.zeros(-(-len(numbers) // 4) * 4, np.int32)
        data[: len(numbers)] = numbers
        key = data.tobytes()
        if key not in self._params:
            if len(self._params) > 4096:
                self._params.clear()
            self._params[key] = self._device.create_buffer_with_data(data=data, usage=wgpu.BufferUsage.UNIFORM)
        return self._params[key]

    def _send(self) -> None:
        if self._pass is not None:
            self._pass.end()
            self._device.queue.submit([self._encoder.finish()])
            self._encoder = self._pass = None
            self._recorded = 0

    def finish(self) -> None:
        self._send()
        self._device.queue.read_buffer(self._marker, 0, 4)  # comes back when all before it is done


def found() -> list[Any]:
    """The adapters that compute, discrete cards first; OpenGL's are left out."""
    adapters = [a for a in wgpu.gpu.enumerate_adapters_sync() if a.info["backend_type"] != "OpenGL"]
    return sorted(adapters, key=lambda a: ORDER.get(a.info["adapter_type"], 3))


def chosen() -> WebGPUDevice:
    """The adapter that `HELIX_WEBGPU_ADAPTER` names, else the first of `found`. Raises ComponentUnavailable."""
    adapters = found()
    wish = os.environ.get(CHOICE, "").strip().lower()
    if wish in ("cpu", "gpu"):
        matches = [a for a in adapters if (a.info["adapter_type"] == "CPU") == (wish == "cpu")]
    else:
        matches = [a for a in adapters if wish in a.summary.lower()]
    if not matches:
        names = ", ".join(a.summary for a in adapters) or "none"
        raise ComponentUnavailable(
            f"no WebGPU adapter fits {CHOICE}={wish!r}" if wish else "no WebGPU adapter is found",
            hint=f"the adapters are: {names}; for processors, install Mesa's Vulkan drivers (mesa-vulkan-drivers)",
        )
    key = matches[0].summary
    if key not in _opened:
        _opened[key] = WebGPUDevice(matches[0])
    return _opened[key]


_opened: dict[str, WebGPUDevice] = {}
"""One for all backends of a process: their arrays mix, and nothing is compiled twice."""
