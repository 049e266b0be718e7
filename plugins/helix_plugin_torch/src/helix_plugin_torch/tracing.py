"""Whether a choice may depend on the values of tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def readable(tensor: Tensor) -> bool:
    """Whether numbers may be looked at: no compiler traces them, and no accelerator would be held up."""
    return tensor.is_cpu and not torch.compiler.is_compiling()


def known(holds: Tensor) -> bool | None:
    """A boolean of no axes; None where it is not `readable`, and under vmap."""
    if not readable(holds):
        return None
    try:
        return bool(holds)
    except RuntimeError:  # of vmap: there are as many answers as the batch is large
        return None
