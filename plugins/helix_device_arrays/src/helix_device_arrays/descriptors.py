"""The kernels as descriptors: each backend offers them for its own namespace. Cheap to import."""

from __future__ import annotations

from helix_core.plugin_system.descriptors import KernelDescriptor

KERNELS = {
    "add_rms_norm": "sum and norm of a row together",
    "attention": "a running softmax, no matrix of scores",
    "bit_linear": "products of bytes with two-bit codes, in whole numbers",
    "causal_conv1d": "all taps of a step at once, history and documents included",
    "diagonal_ssm": "states in registers through time",
    "gated_delta_rule": "the kernel of rwkv7, with its keys",
    "gated_linear_attention": "columns of the state in registers through time",
    "layer_norm": "a row at a time",
    "linear": "product and bias in one kernel",
    "linear_scan": "channels side by side through time",
    "long_conv": "Stockham transforms of two channels at once; term by term for short ones",
    "rms_norm": "a row at a time",
    "rwkv7": "columns of the state in registers through time",
    "selective_scan": "states in registers; step size, skip and gate on the way",
    "softmax": "a row at a time",
    "ssd": "columns of the state in registers through time",
    "wkv4": "channels side by side through time",
}


def kernels(namespace: str, requires: tuple[str, ...]) -> list[KernelDescriptor]:
    """Every kernel for a backend whose arrays are device arrays."""
    return [
        KernelDescriptor(
            name=op,
            op=op,
            target=f"helix_device_arrays.kernels.{op}:{op}",
            summary=summary,
            requires=requires,
            namespace=namespace,
            devices=("cpu", "gpu"),
            gradient="none",
            priority=10,
        )
        for op, summary in KERNELS.items()
    ]
