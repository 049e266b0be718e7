"""Every op of the table as a function of torch tensors, bound once for a device, a dtype and the gradient mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from helix_core.errors import UsageError
from helix_core.ops import OPS, Op, OpTable, as_op
from helix_plugin_torch.dtypes import HALF
from helix_plugin_torch.tables import table_of


def _table(name: str, arrays: Sequence[Tensor | None]) -> OpTable:
    """The table for the dtype of the first array, or of one in half precision; others may be float32."""
    given = [a for a in arrays if a is not None]
    kept: Tensor | None = None
    for a in given:
        if not isinstance(a, Tensor):
            raise UsageError(f"{name} takes torch tensors, and got a {type(a).__name__}")
        if a.is_complex():
            raise UsageError(f"{name} takes real tensors, and got {a.dtype}")
        if a.is_floating_point() and (kept is None or a.dtype in HALF):
            kept = a
    if kept is None:
        raise UsageError(f"{name} got no floating-point tensor")
    for a in given:
        if a.device != kept.device:
            raise UsageError(f"{name} got tensors on {kept.device} and on {a.device}", hint="move them to one device")
        if a.is_floating_point() and a.dtype not in (kept.dtype, torch.float32):
            raise UsageError(
                f"{name} got {kept.dtype} and {a.dtype}",
                hint="use one dtype; only float32 may stand beside another that comes first, or beside half precision",
            )
    return table_of(kept.device.type, kept.dtype, "train" if torch.is_grad_enabled() else "infer")


def _function(op: Op) -> Callable[..., Any]:
    name = op.name

    def run(*arrays: Tensor | None, **attrs: Any) -> Any:
        return getattr(_table(name, arrays), name)(*arrays, **attrs)

    function = as_op(op, run)
    function.__module__ = "helix_plugin_torch.functional"
    return function


FUNCTIONS: dict[str, Callable[..., Any]] = {name: _function(op) for name, op in OPS.items()}
"""By the names of the ops."""
