"""The kernels by the names of their ops."""

from __future__ import annotations

from helix_device_arrays.kernels.attention import attention
from helix_device_arrays.kernels.bit_linear import bit_linear
from helix_device_arrays.kernels.convolutions import causal_conv1d, long_conv
from helix_device_arrays.kernels.heads import gated_delta_rule, gated_linear_attention, rwkv7, ssd
from helix_device_arrays.kernels.norms import add_rms_norm, layer_norm, rms_norm, softmax
from helix_device_arrays.kernels.products import linear
from helix_device_arrays.kernels.recurrences import diagonal_ssm, linear_scan, selective_scan, wkv4

__all__ = [
    "add_rms_norm",
    "attention",
    "bit_linear",
    "causal_conv1d",
    "diagonal_ssm",
    "gated_delta_rule",
    "gated_linear_attention",
    "layer_norm",
    "linear",
    "linear_scan",
    "long_conv",
    "rms_norm",
    "rwkv7",
    "selective_scan",
    "softmax",
    "ssd",
    "wkv4",
]
