"""What this distribution provides. Cheap to import: strings only."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.plugin_system.descriptors import BackendDescriptor, KernelDescriptor
from helix_core.plugin_system.hookspecs import hookimpl

PLUGIN_API = "1.0"
DTYPES = ("float32", "bfloat16", "float16")

KERNELS = {
    "rms_norm": "Triton, one pass over each row both ways",
    "add_rms_norm": "Triton, the residual addition in the same pass",
    "swiglu": "Triton, one pass",
    "selective_scan": "Triton, in chunks of time, backward by recomputation",
    "diagonal_ssm": "Triton, in chunks of time, backward by recomputation",
    "ssd": "Triton, tiles of time as matrix products, backward by recomputation",
    "gated_delta_rule": "Triton, tiles of time as matrix products, one inverse each",
    "rwkv7": "Triton, tiles of time as matrix products, one inverse each",
    "wkv4": "Triton, in chunks of time, backward by recomputation",
    "gated_linear_attention": "Triton, tiles of time as matrix products, backward by recomputation",
    "linear_scan": "Triton, in chunks of time, backward by recomputation",
    "causal_conv1d": "Triton, convolution and SiLU in one pass",
    "long_conv": "torch's FFT or transforms on tensor cores; gates and transposes in Triton passes around",
    "bit_linear": "Triton, integers times codes that are unpacked in registers; for inference",
    "cross_entropy": "Triton, keeps one number a row for the backward",
    "linear_cross_entropy": "Triton, a running softmax over blocks of classes, backward in chunks of rows",
}

HALF = ("bfloat16", "float16")
PEERS = (
    ("mamba_ssm_selective_scan", "selective_scan", "mamba-ssm>=2.0", DTYPES, "mamba-ssm's CUDA kernel"),
    ("mamba_ssm_ssd", "ssd", "mamba-ssm>=2.2", DTYPES, "mamba-ssm's Triton kernels"),
    ("dao_causal_conv1d", "causal_conv1d", "causal-conv1d>=1.4", DTYPES, "causal-conv1d's CUDA kernel"),
    ("fla_gated_linear_attention", "gated_linear_attention", "flash-linear-attention>=0.3", DTYPES, "fla's kernels"),
    ("fla_gated_delta_rule", "gated_delta_rule", "flash-linear-attention>=0.3", HALF, "fla's kernels"),
    ("fla_rwkv7", "rwkv7", "flash-linear-attention>=0.3", HALF, "fla's kernels"),
)
"""Kernels of other packages: name, op, requirement, dtypes, summary."""


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
            gradient="none" if op == "bit_linear" else "vjp",
            priority=10,
        )
        for op, summary in KERNELS.items()
    ] + [
        KernelDescriptor(
            name=name,
            op=op,
            target=f"helix_plugin_cuda.external:{name}",
            summary=summary,
            requires=("triton>=3.3", requirement),
            namespace="torch",
            devices=("cuda",),
            dtypes=dtypes,
            gradient="native",
            priority=5,
        )
        for name, op, requirement, dtypes, summary in PEERS
    ]
