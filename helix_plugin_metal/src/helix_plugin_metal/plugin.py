"""What this distribution provides. Cheap to import: strings only."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.plugin_system.descriptors import BackendDescriptor, KernelDescriptor
from helix_core.plugin_system.hookspecs import hookimpl
from helix_plugin_metal.probe import on_apple_silicon

PLUGIN_API = "1.0"

FULL, HALF = ("float32",), ("float32", "bfloat16", "float16")
KERNELS = (
    ("adamw", FULL, "one kernel on a GPU"),
    ("add_rms_norm", HALF, "MLX's rms_norm"),
    ("attention", HALF, "MLX's scaled_dot_product_attention"),
    ("bit_linear", FULL, "MLX's product with weights of two bits"),
    ("causal_conv1d", FULL, "the reference, and `silu` by powers of two or NumPy on MLX's CPU device"),
    ("cross_entropy", HALF, "MLX's cross_entropy"),
    ("layer_norm", HALF, "MLX's layer_norm"),
    ("linear", HALF, "MLX's matmul; NumPy's on its CPU device"),
    ("linear_cross_entropy", HALF, "MLX's cross_entropy; many logits in chunks of rows"),
    ("linear_scan", FULL, "a Metal kernel on Apple's GPUs, a loop elsewhere; backwards the same"),
    ("rms_norm", HALF, "MLX's rms_norm"),
    (
        "selective_scan",
        FULL,
        "Metal kernels on Apple's GPUs, chunks elsewhere, forwards in NumPy; computed again in the backward pass",
    ),
    ("sigmoid", FULL, "MLX's sigmoid, by powers of two or NumPy on its CPU device"),
    ("silu", FULL, "MLX's sigmoid, by powers of two or NumPy on its CPU device"),
    ("softmax", HALF, "MLX's softmax, summed in float32"),
    ("softplus", FULL, "MLX's logaddexp, by powers of two or NumPy on its CPU device"),
    ("swiglu", FULL, "MLX's sigmoid, by powers of two or NumPy on its CPU device"),
)


@hookimpl
def helix_backends() -> Sequence[BackendDescriptor]:
    return [
        BackendDescriptor(
            name="metal",
            target="helix_plugin_metal.backend:MetalBackend",
            summary="MLX: the GPU of Apple silicon; under Linux, MLX's CPU device",
            requires=("mlx>=0.32",),
            probe="helix_plugin_metal.probe:probe",
            provides=("grad", "compile", "traces"),
            # The first choice where there is a GPU for it; on other machines `cpu` is several times as fast.
            priority=10 if on_apple_silicon() else -20,
        )
    ]


@hookimpl
def helix_kernels() -> Sequence[KernelDescriptor]:
    return [
        KernelDescriptor(
            name=op,
            op=op,
            target=f"helix_plugin_metal.kernels.{op}:{op}",
            summary=summary,
            requires=("mlx>=0.32",),
            namespace="mlx",
            devices=("metal", "cpu", "cuda"),
            dtypes=dtypes,
            gradient="native",
        )
        for op, dtypes, summary in KERNELS
    ]
