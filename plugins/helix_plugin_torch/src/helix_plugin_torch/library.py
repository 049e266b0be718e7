"""Kernels with their own backward as differentiable functions of torch tensors.

Compilers, exporters and dispatch modes see each as torch operators (`operators`), so their graphs have no breaks. Where
nobody looks at operators, the kernel is called without them (`autograd`). `transforms` has what else torch may ask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from helix_core.kinds.kernel import Kernel
from helix_core.ops import Op, as_op
from helix_plugin_torch.autograd import EagerKernel, TransformedKernel
from helix_plugin_torch.flat_kernel import FlatKernel, as_tuple, unwrapped
from helix_plugin_torch.operators import kernel_operators
from helix_plugin_torch.transforms import by_reference, in_forward_mode, transformed

_functions: dict[tuple[str, str], Callable[..., Any]] = {}
_PLAIN = {Tensor, torch.nn.Parameter}


def as_torch_function(op: Op, kernel: Kernel, label: str, devices: Sequence[str] | None = None) -> Callable[..., Any]:
    """The kernel as one function of torch tensors with the op's signature, differentiable.

    `label` names the kernel in profiles and graphs (`cpu_selective_scan`). Registered once per process, for any device
    unless some are named.
    """
    key = (op.name, label)
    if key not in _functions:
        _functions[key] = as_op(op, _dispatching(op, kernel, label, devices))
    return _functions[key]


def _dispatching(op: Op, kernel: Kernel, label: str, devices: Sequence[str] | None) -> Callable[..., Any]:
    """A function that calls the kernel in the quickest way that those who follow the computation can see."""
    flat = FlatKernel(op, kernel)
    n_outputs = flat.n_outputs
    infer_operator, train_operator = kernel_operators(flat, label, devices)
    # Classes of its own, which carry its label into profiles.
    eager: type[torch.autograd.Function] = type(label, (EagerKernel,), {})
    functorch: type[torch.autograd.Function] = type(label, (TransformedKernel,), {})

    def call(*arrays: Tensor | None, **attrs: Any) -> Any:
        values = attrs.values()
        if transformed():
            if in_forward_mode() or torch.compiler.is_compiling():  # neither sees a kernel there
                return by_reference(op, *arrays, **attrs)
            return unwrapped(functorch.apply(flat, *arrays, *values)[:n_outputs])
        by_operator = _needs_operator(arrays, devices)
        if torch.is_grad_enabled() and any(a is not None and a.requires_grad for a in arrays):
            if by_operator:
                return unwrapped(as_tuple(train_operator(*arrays, *values))[:n_outputs])
            return eager.apply(flat, *arrays, *values)
        return infer_operator(*arrays, *values) if by_operator else unwrapped(kernel.forward(*arrays, **attrs))

    return call


def _needs_operator(arrays: Sequence[Tensor | None], devices: Sequence[str] | None) -> bool:
    """Whether a compiler, a tracer, a dispatch mode or a tensor's own class has to see an operator.

    Also for a device that the kernel is not for: torch's dispatcher says so.
    """
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return True
    if torch._C._get_tracing_state() is not None:
        return True
    given = [a for a in arrays if a is not None]
    if devices is not None and given[0].device.type not in devices:
        return True
    return not _PLAIN.issuperset(map(type, given))
