"""torch operators of Helix's kernels, in the namespace `helix`: opaque to compilers, which know their shapes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from helix_core.ops import Op
from helix_plugin_torch.autograd import gradients, save_backward, save_forward, second_order_gradients
from helix_plugin_torch.flat_kernel import FlatKernel, floating, shapes_of, unwrapped

NAMESPACE = "helix"
_library = torch.library.Library(NAMESPACE, "FRAGMENT")

Operator = Callable[..., Any]


def kernel_operators(kernel: FlatKernel, label: str, devices: Sequence[str] | None) -> tuple[Operator, Operator]:
    """Register the operators of inference and of training, which torch differentiates by that of the backward.

    The layout of the residuals is part of the names of the latter two: torch's disk cache of compiled graphs knows
    operators by name only, and must not serve a graph that was compiled for another layout.
    """
    keys = ["CompositeExplicitAutograd"] if devices is None else [device.upper() for device in devices]
    train, backward = (f"{label}_{which}_{kernel.residual_layout}" for which in ("train", "backward"))
    infer_operator = _define(
        label,
        kernel.schema(),
        results=kernel.n_outputs,
        compute=kernel.infer,
        shapes=kernel.infer_shapes,
        keys=keys,
    )
    train_operator = _define(
        train,
        kernel.schema(),
        results=kernel.n_outputs + kernel.n_residuals,
        compute=kernel.train,
        shapes=kernel.train_shapes,
        keys=keys,
    )
    backward_operator = _define(
        backward,
        kernel.backward_schema(),
        results=len(kernel.differentiable),
        compute=kernel.backward_tensors,
        shapes=kernel.backward_shapes,
        keys=keys,
    )
    torch.library.register_autograd(
        f"{NAMESPACE}::{train}",
        lambda ctx, *grads: gradients(ctx, backward_operator, grads),
        setup_context=functools.partial(save_forward, kernel),
        lib=_library,
    )
    torch.library.register_autograd(
        f"{NAMESPACE}::{backward}",
        second_order_gradients,
        setup_context=functools.partial(save_backward, kernel),
        lib=_library,
    )
    return infer_operator, train_operator


def inference_operator(op: Op, kernel: Callable[..., Tensor], label: str, device: str) -> Callable[..., Tensor]:
    """A kernel of an op without attributes and gradients as one operator, which the compiler sees as a whole."""

    def compute(*arrays: Tensor | None) -> tuple[Tensor, ...]:
        return (kernel(*arrays),)

    def shapes(*arrays: Tensor | None) -> tuple[Tensor, ...]:
        absent = (None,) * (len(op.arrays) - len(arrays))
        (shape,) = op.shapes(*shapes_of((*arrays, *absent)))
        return (floating(arrays).new_empty(shape),)

    parameters = [f"Tensor{'? ' + name + '=None' if name in op.optional else ' ' + name}" for name in op.arrays]
    return _define(label, parameters, results=1, compute=compute, shapes=shapes, keys=[device])


def _define(
    name: str,
    parameters: Sequence[str],
    *,
    results: int,
    compute: Callable[..., tuple[Tensor, ...]],
    shapes: Callable[..., tuple[Tensor, ...]],
    keys: Sequence[str],
) -> Operator:
    """Register `compute` for dispatch keys, and `shapes` for whoever wants the results without their values."""
    _library.define(f"{name}({', '.join(parameters)}) -> ({', '.join(['Tensor'] * results)})")
    for key in keys:
        _library.impl(name, lambda *args: unwrapped(compute(*args)), key)
    torch.library.register_fake(f"{NAMESPACE}::{name}", lambda *args: unwrapped(shapes(*args)), lib=_library)
    operator: Operator = getattr(getattr(torch.ops, NAMESPACE), name).default
    return operator
