"""What this distribution provides. Cheap to import: strings only."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.plugin_system.descriptors import BackendDescriptor, KernelDescriptor
from helix_core.plugin_system.hookspecs import hookimpl
from helix_plugin_metal.probe import on_apple_silicon

PLUGIN_API = "1.0"

FULL, HALF = ("float32",), ("float32", "bfloat16", "float16")
KERNELS = (
    ("adamw", "functional", FULL, "one kernel on a GPU"),
    ("add_rms_norm", "functional", HALF, "MLX's rms_norm"),
    ("attention", "functional", HALF, "MLX's scaled_dot_product_attention"),
    ("bit_linear", "bit_linear", FULL, "MLX's product with weights of two bits"),
    ("causal_conv1d", "functional", FULL, "the reference, and `silu` by powers of two or NumPy on MLX's CPU device"),
    ("cross_entropy", "functional", HALF, "MLX's cross_entropy"),
    ("layer_norm", "functional", HALF, "MLX's layer_norm"),
    ("linear", "products", HALF, "MLX's matmul; NumPy's on its CPU device"),
    ("linear_cross_entropy", "linear_cross_entropy", HALF, "MLX's cross_entropy; many logits in chunks of rows"),
    ("linear_scan", "linear_scan", FULL, "a Metal kernel on Apple's GPUs, a loop elsewhere; backwards the same"),
    ("rms_norm", "functional", HALF, "MLX's rms_norm"),
    (
        "selective_scan",
        "selective_scan",
        FULL,
        "Metal kernels on Apple's GPUs, chunks elsewhere, forwards in NumPy; computed again in the backward pass",
    ),
    ("sigmoid", "elementwise", FULL, "MLX's sigmoid, by powers of two or NumPy on its CPU device"),
    ("silu", "elementwise", FULL, "MLX's sigmoid, by powers of two or NumPy on its CPU device"),
    ("softmax", "functional", HALF, "MLX's softmax, summed in float32"),
    ("softplus", "elementwise", FULL, "MLX's logaddexp, by powers of two or NumPy on its CPU device"),
    ("swiglu", "elementwise", FULL, "MLX's sigmoid, by powers of two or NumPy on its CPU device"),
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
            target=f"helix_plugin_metal.{module}:{op}",
            summary=summary,
            requires=("mlx>=0.32",),
            namespace="mlx",
            devices=("metal", "cpu", "cuda"),
            dtypes=dtypes,
            gradient="native",
        )
        for op, module, dtypes, summary in KERNELS
    ]
