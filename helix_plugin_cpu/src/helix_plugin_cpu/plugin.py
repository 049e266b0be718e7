"""What this distribution provides. Cheap to import: strings only."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.plugin_system.descriptors import BackendDescriptor, KernelDescriptor
from helix_core.plugin_system.hookspecs import hookimpl

PLUGIN_API = "1.0"
NUMBA = "numba>=0.62,<0.69"
"""Kernels use the inside of its compiler: `kernels/_numba.py`."""


@hookimpl
def helix_backends() -> Sequence[BackendDescriptor]:
    return [
        BackendDescriptor(
            name="cpu",
            target="helix_plugin_cpu.backend:CpuBackend",
            summary="torch on the CPU with Numba kernels",
            requires=("torch>=2.6", NUMBA),
            provides=("float64", "grad", "compile"),
            priority=0,
        )
    ]


STORED_SHORT = (
    "add_rms_norm",
    "causal_conv1d",
    "cross_entropy",
    "diagonal_ssm",
    "gated_delta_rule",
    "gated_linear_attention",
    "linear_cross_entropy",
    "linear_scan",
    "long_conv",
    "rms_norm",
    "rwkv7",
    "selective_scan",
    "ssd",
    "swiglu",
)
"""Kernels that read and write half precision themselves; the others get float32 between casts."""
HALF = ("bfloat16", "float16")
DTYPES = {"linear": HALF} | dict.fromkeys(STORED_SHORT, ("float32", *HALF))
"""The rest take float32."""
GRADIENTS = {"adamw": "none", "bit_linear": "none", "linear_cross_entropy": "native"}
"""Those of the rest are backward functions of their own."""


@hookimpl
def helix_kernels() -> Sequence[KernelDescriptor]:
    return [
        KernelDescriptor(
            name=op,
            op=op,
            target=f"helix_plugin_cpu.kernels.table:{op}",
            summary=summary,
            requires=(NUMBA,),
            namespace="torch",
            devices=("cpu",),
            dtypes=DTYPES.get(op, ("float32",)),
            gradient=GRADIENTS.get(op, "vjp"),
            supports="helix_plugin_cpu.kernels._half:refuses" if op == "linear" else None,
            priority=10,
        )
        for op, summary in (
            ("selective_scan", "Numba, 16 channels per vector, backward by recomputation in chunks"),
            ("ssd", "Numba, chunks as matrix products within the cache, backward by recomputation"),
            ("gated_linear_attention", "Numba, chunks as matrix products within the cache, backward by recomputation"),
            ("linear_scan", "Numba, one pass over memory each way"),
            ("diagonal_ssm", "Numba, 16 channels per vector, backward by recomputation in chunks"),
            ("causal_conv1d", "Numba, convolution and SiLU in one pass"),
            ("long_conv", "Numba, Fourier transforms across 16 channels, in place and without padding"),
            ("gated_delta_rule", "Numba, the state in the first-level cache, backward by recomputation"),
            ("rwkv7", "Numba, the state in the first-level cache, backward by recomputation"),
            ("wkv4", "Numba, one pass over memory each way"),
            ("rms_norm", "Numba, one pass over each row"),
            ("add_rms_norm", "Numba, the residual addition in the same pass"),
            ("swiglu", "Numba, one pass"),
            ("cross_entropy", "Numba, keeps one number a row for the backward"),
            ("linear", "half precision in float32, where the processor has no instructions for its products"),
            ("linear_cross_entropy", "BLAS and Numba; many logits in chunks, computed again in the backward"),
            ("embedding", "torch's lookup; the table's gradient summed on all threads"),
            ("bit_linear", "Numba, integers times two-bit codes; a float product for many rows"),
            ("adamw", "Numba, one pass over parameter, gradient and moments"),
        )
    ]
