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
            name="opencl",
            target="helix_plugin_opencl.backend:OpenCLBackend",
            summary="OpenCL 1.2: inference on graphics cards and processors of any maker",
            requires=("pyopencl>=2025.1",),
            probe="helix_plugin_opencl.probe:probe",
            provides=("traces",),
            priority=-20,
        )
    ]


@hookimpl
def helix_kernels() -> Sequence[KernelDescriptor]:
    return kernels("opencl", requires=("pyopencl>=2025.1",))
