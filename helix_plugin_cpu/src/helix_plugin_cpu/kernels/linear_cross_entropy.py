"""The loss of a head on the CPU: BLAS for the products, one pass over each row of logits between them."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as nn

from helix_core.kinds.kernel import Kernel
from helix_core.ops import OPS
from helix_plugin_cpu.kernels import cross_entropy as rows
from helix_plugin_cpu.kernels import linear
from helix_plugin_cpu.kernels._half import WIDENED, add_over_rows, mm
from helix_plugin_torch.library import as_torch_function
from helix_plugin_torch.linear_cross_entropy import chunked, fits


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    return rows.forward(logits, targets)[0]


def _slopes(logits: Tensor, targets: Tensor, dnats: Tensor) -> Tensor:
    (nats,), (log_sums,) = rows.forward_train(logits, targets)
    rows.slopes(logits, targets, log_sums, dnats, logits)
    return nats


_whole = as_torch_function(
    OPS["cross_entropy"],
    Kernel.from_module(rows),
    "cpu_cross_entropy",
    ("cpu",),
)
_in_chunks = as_torch_function(
    OPS["linear_cross_entropy"],
    chunked(_losses, _slopes, mm=mm, add_over_rows=add_over_rows),
    "cpu_linear_cross_entropy",
    ("cpu",),
)
_widened = as_torch_function(
    OPS["linear"],
    Kernel.from_module(linear),
    "cpu_linear",
    ("cpu",),
)


def linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor, *, ignore_index: int | None = None) -> Tensor:
    """x (..., D) float32 or half precision, weight (V, D), integer targets (...) -> nats (...) float32.

    Raises IndexOutOfRange for a target outside 0..V-1 that is not ignored.
    """
    if fits(x, weight):
        logits = _widened(x, weight) if x.dtype in WIDENED else nn.linear(x, weight.to(x.dtype))
        nats: Tensor = _whole(logits, targets, ignore_index=ignore_index)
    else:
        nats = _in_chunks(x, weight, targets, ignore_index=ignore_index)
    return nats
