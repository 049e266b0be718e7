"""What this distribution provides: torch's own fused functions as kernels, on every torch device."""

from __future__ import annotations

from collections.abc import Sequence

from helix_core.plugin_system.descriptors import KernelDescriptor
from helix_core.plugin_system.hookspecs import hookimpl

PLUGIN_API = "1.0"

OPS = (
    "attention",
    "causal_conv1d",
    "cross_entropy",
    "embedding",
    "gelu",
    "layer_norm",
    "linear",
    "linear_cross_entropy",
    "long_conv",
    "rms_norm",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
)

FULL, HALF = ("float32", "float64"), ("bfloat16", "float16")
IN_HALF = ("gelu", "linear", "linear_cross_entropy", "sigmoid", "silu", "softmax", "softplus")
"""What torch computes in half precision on half-precision arrays, accumulating in float32."""


@hookimpl
def helix_kernels() -> Sequence[KernelDescriptor]:
    return [
        KernelDescriptor(
            name=op,
            op=op,
            target=f"helix_plugin_torch.native:{op}",
            summary="scaled_dot_product_attention" if op == "attention" else f"torch's own {op}",
            namespace="torch",
            devices=("cpu", "cuda", "mps", "xpu"),
            dtypes=FULL + (HALF if op in IN_HALF else ()),
            gradient="native",
        )
        for op in OPS
    ]
