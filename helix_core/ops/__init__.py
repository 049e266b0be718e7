"""Ops: what a model may ask of a backend, each with one reference definition in the array API."""

# Importing an op's module defines the op.
from helix_core.ops import (
    activations,
    adamw,
    add_rms_norm,
    causal_conv1d,
    cross_entropy,
    diagonal_ssm,
    embedding,
    gated_delta_rule,
    gated_linear_attention,
    layer_norm,
    linear,
    linear_scan,
    long_conv,
    rms_norm,
    rwkv7,
    selective_scan,
    ssd,
    swiglu,
    wkv4,
)
from helix_core.ops.kernel import Kernel
from helix_core.ops.op import OPS, Op, Sample, define_op
from helix_core.ops.table import Choice, Facts, OpTable, Refusal, bind_ops

__all__ = [
    "OPS",
    "Choice",
    "Facts",
    "Kernel",
    "Op",
    "OpTable",
    "Refusal",
    "Sample",
    "activations",
    "adamw",
    "add_rms_norm",
    "bind_ops",
    "causal_conv1d",
    "cross_entropy",
    "define_op",
    "diagonal_ssm",
    "embedding",
    "gated_delta_rule",
    "gated_linear_attention",
    "layer_norm",
    "linear",
    "linear_scan",
    "long_conv",
    "rms_norm",
    "rwkv7",
    "selective_scan",
    "ssd",
    "swiglu",
    "wkv4",
]
