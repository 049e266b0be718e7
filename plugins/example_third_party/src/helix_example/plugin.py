"""What this distribution provides. Helix imports this module to list it, so it imports nothing heavy."""

from helix_core import BackendDescriptor, KernelDescriptor, LayerDescriptor, hookimpl

PLUGIN_API = "1.0"


@hookimpl
def helix_backends():
    return [
        BackendDescriptor(
            name="inplace",
            target="helix_example.backend:InplaceBackend",
            summary="NumPy with a scan that reuses its buffers",
            provides=("float64",),
            priority=-50,
        )
    ]


@hookimpl
def helix_kernels():
    return [
        KernelDescriptor(
            name="selective_scan",
            op="selective_scan",
            target="helix_example.kernels.selective_scan:selective_scan",
            summary="the reference's recurrence, in place",
            namespace="numpy",
            devices=("cpu",),
            dtypes=("float32", "float64"),
        )
    ]


@hookimpl
def helix_layers():
    return [
        LayerDescriptor(
            name="ema",
            target="helix_example.ema:EMA",
            config="helix_example.ema:EMAConfig",
            summary="multi-rate exponential moving averages with a gate",
            provides=("recurrent",),
        )
    ]
