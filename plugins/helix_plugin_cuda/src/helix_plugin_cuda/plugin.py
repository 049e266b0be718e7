"""What this distribution provides. Cheap to import: strings only."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.descriptors import BackendDescriptor, KernelDescriptor
from helix_core.hookspecs import hookimpl

PLUGIN_API = "1.0"
DTYPES = ("float32", "bfloat16", "float16")

KERNELS = {
    "rms_norm": "Triton, one pass over each row both ways",
    "add_rms_norm": "Triton, the residual addition in the same pass",
    "swiglu": "Triton, one pass",
    "selective_scan": "Triton, in chunks of time, backward by recomputation",
    "ssd": "Triton, tiles of time as matrix products, backward by recomputation",
    "gated_delta_rule": "Triton, tiles of time as matrix products, one inverse each",
    "gated_linear_attention": "Triton, tiles of time as matrix products, backward by recomputation",
    "linear_scan": "Triton, in chunks of time, backward by recomputation",
    "causal_conv1d": "Triton, convolution and SiLU in one pass",
    "cross_entropy": "Triton, keeps one number a row for the backward",
}


@hookimpl
def helix_backends() -> Sequence[BackendDescriptor]:
    return [
        BackendDescriptor(
            name="cuda",
            target="helix_plugin_cuda.backend:CudaBackend",
            summary="torch on NVIDIA and AMD graphics cards, with Triton kernels",
            requires=("torch>=2.6",),
            probe="helix_plugin_cuda.probe:probe",
            provides=("float64", "grad", "compile"),
            priority=20,
        )
    ]


@hookimpl
def helix_kernels() -> Sequence[KernelDescriptor]:
    return [
        KernelDescriptor(
            name=op,
            op=op,
            target=f"helix_plugin_cuda.kernels.table:{op}",
            summary=summary,
            requires=("torch>=2.6", "triton>=3.3"),
            namespace="torch",
            devices=("cuda",),
            dtypes=DTYPES,
            gradient="vjp",
            priority=10,
        )
        for op, summary in KERNELS.items()
    ]
