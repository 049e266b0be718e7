"""Functions of torch tensors, on whatever device these are: Helix's ops, and names that other libraries gave them.

Every op of the table under its own name, with the signature of its definition (`helix explain op selective_scan`);
what mamba-ssm and causal-conv1d call `selective_scan_fn`, `selective_state_update`, `mamba_chunk_scan_combined`,
`causal_conv1d_fn` and `causal_conv1d_update`; and what flash-linear-attention calls `chunk_*`, each with the published
arguments and layouts. All are differentiable. What one of these libraries has and Helix does not raises UsageError.

>>> import torch
>>> from helix_plugin_torch import functional
>>> functional.swiglu(torch.zeros(2, 7, 8), torch.ones(2, 7, 8)).shape
torch.Size([2, 7, 8])
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_plugin_torch.functional import _ops
from helix_plugin_torch.functional._causal_conv1d import causal_conv1d_fn, causal_conv1d_update
from helix_plugin_torch.functional._fla import (
    chunk_delta_rule,
    chunk_gated_delta_rule,
    chunk_gla,
    chunk_retention,
    chunk_rwkv7,
    chunk_simple_gla,
)
from helix_plugin_torch.functional._mamba_ssm import (
    mamba_chunk_scan_combined,
    selective_scan_fn,
    selective_state_update,
)

if TYPE_CHECKING:  # with the signatures of the references
    from helix_core.ops.typed import TypedOps

    adamw = TypedOps.adamw
    add_rms_norm = TypedOps.add_rms_norm
    attention = TypedOps.attention
    bit_linear = TypedOps.bit_linear
    causal_conv1d = TypedOps.causal_conv1d
    cross_entropy = TypedOps.cross_entropy
    diagonal_ssm = TypedOps.diagonal_ssm
    diagonal_ssm_filter = TypedOps.diagonal_ssm_filter
    dropout = TypedOps.dropout
    embedding = TypedOps.embedding
    gated_delta_rule = TypedOps.gated_delta_rule
    gated_linear_attention = TypedOps.gated_linear_attention
    gelu = TypedOps.gelu
    layer_norm = TypedOps.layer_norm
    linear = TypedOps.linear
    linear_cross_entropy = TypedOps.linear_cross_entropy
    linear_scan = TypedOps.linear_scan
    long_conv = TypedOps.long_conv
    rms_norm = TypedOps.rms_norm
    rwkv7 = TypedOps.rwkv7
    selective_scan = TypedOps.selective_scan
    sigmoid = TypedOps.sigmoid
    silu = TypedOps.silu
    softmax = TypedOps.softmax
    softplus = TypedOps.softplus
    ssd = TypedOps.ssd
    swiglu = TypedOps.swiglu
    wkv4 = TypedOps.wkv4

globals().update(_ops.FUNCTIONS)

__all__ = [
    "causal_conv1d_fn",
    "causal_conv1d_update",
    "chunk_delta_rule",
    "chunk_gated_delta_rule",
    "chunk_gla",
    "chunk_retention",
    "chunk_rwkv7",
    "chunk_simple_gla",
    "mamba_chunk_scan_combined",
    "selective_scan_fn",
    "selective_state_update",
    *_ops.FUNCTIONS,
]


def __dir__() -> list[str]:
    return __all__
