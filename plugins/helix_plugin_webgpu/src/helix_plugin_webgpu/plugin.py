"""What this distribution provides. Cheap to import: strings only."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.plugin_system.descriptors import BackendDescriptor, KernelDescriptor
from helix_core.plugin_system.hookspecs import hookimpl
from helix_device_arrays.descriptors import kernels

PLUGIN_API = "1.0"


@hookimpl
def helix_backends() -> Sequence[BackendDescriptor]:
    return [
        BackendDescriptor(
            name="webgpu",
            target="helix_plugin_webgpu.backend:WebGPUBackend",
            summary="WebGPU: inference through Vulkan, Metal or Direct3D 12",
            requires=("wgpu>=0.20",),
            probe="helix_plugin_webgpu.probe:probe",
            provides=("traces",),
            priority=-30,
        )
    ]


@hookimpl
def helix_kernels() -> Sequence[KernelDescriptor]:
    return kernels("webgpu", requires=("wgpu>=0.20",))
