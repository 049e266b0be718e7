"""Functions of torch tensors, on whatever device these are: Helix's ops, and names that other libraries gave them.

Every op of the table under its own name, with the signature of its definition (`helix explain op selective_scan`);
what mamba-ssm and causal-conv1d call `selective_scan_fn`, `selective_state_update`, `mamba_chunk_scan_combined`,
`causal_conv1d_fn` and `causal_conv1d_update`; and what flash-linear-attention calls `chunk_*`, each with the published
arguments and layouts. All are differentiable. What one of these libraries has and Helix does not raises UsageError.
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

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    def __getattr__(name: str) -> Callable[..., Any]: ...


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
