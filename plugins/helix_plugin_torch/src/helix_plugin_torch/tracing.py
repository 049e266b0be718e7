"""Whether a choice may depend on the values of tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def known(holds: Tensor) -> bool | None:
    """A boolean of no axes; None while a compiler or vmap traces it, and where to ask would hold up an accelerator."""
    if torch.compiler.is_compiling() or not holds.is_cpu:
        return None
    try:
        return bool(holds)
    except RuntimeError:  # of vmap: there are as many answers as the batch is large
        return None
