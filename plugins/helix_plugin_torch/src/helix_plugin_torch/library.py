"""Kernels with their own backward, registered with torch.library so that autograd, compile and export see them.

Each becomes three torch operators: one for inference, one for training that also returns what the backward needs,
and the backward itself. All are opaque to the compiler and carry shape functions, so graphs have no breaks. Where
nobody looks at operators, the kernel is called without them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from helix_core.kinds.kernel import Kernel
from helix_core.ops import Op

NAMESPACE = "helix"
_SCHEMA_TYPES = {bool: "bool", int: "int", float: "float", str: "str"}
_registered: dict[tuple[str, str], Callable[..., Any]] = {}
_library = torch.library.Library(NAMESPACE, "FRAGMENT")
_PLAIN = {Tensor, torch.nn.Parameter}


def as_torch_function(op: Op, kernel: Kernel, label: str, devices: Sequence[str] | None = None) -> Callable[..., Any]:
    """The kernel as one function of torch tensors with the op's signature, differentiable.

    `label` names the kernel in profiles and graphs (`cpu_selective_scan`). Registered once per process, for any device
    unless some are named.
    """
    key = (op.name, label)
    if key not in _registered:
        _registered[key] = _register(op, kernel, label, devices)
    return _registered[key]


def _register(op: Op, kernel: Kernel, label: str, devices: Sequence[str] | None) -> Callable[..., Any]:
    n_arrays, n_outputs = len(op.arrays), len(op.outputs)
    sample = next(iter(op.samples(np.random.default_rng(0))))
    sample_shapes = [np.shape(sample.arrays[name]) if name in sample.arrays else None for name in op.arrays]
    sample_attrs = {**op.attrs, **sample.attrs}
    sample_residuals = kernel.residuals(*sample_shapes, **sample_attrs)
    n_residuals = len(sample_residuals)
    # Part of the training operators' names: torch's disk cache of compiled graphs knows operators by name only, and
    # must not serve a graph that was compiled for another layout of what is saved.
    layout = f"{zlib.crc32(repr(sample_residuals).encode()):08x}"
    attr_names = tuple(op.attrs)
    arrays = [f"Tensor{'?' if name in op.optional else ''} {name}" for name in op.arrays]
    attrs = [f"{_SCHEMA_TYPES[type(default)]} {name}" for name, default in op.attrs.items()]
    grads = [f"Tensor? grad_{name}" for name in op.outputs]
    residuals = [f"Tensor residual_{i}" for i in range(n_residuals)]

    def shapes(given: Sequence[Tensor | None]) -> list[Any]:
        return [None if a is None else tuple(a.shape) for a in given]

    def named(values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(attr_names, values, strict=True))

    def empty_outputs(args: Sequence[Any]) -> tuple[Tensor, ...]:
        out = op.shapes(*shapes(args[:n_arrays]), **named(args[n_arrays:]))
        like = _floating(args[:n_arrays])
        return tuple(
            like.new_empty(shape, dtype=_wide(like) if name in op.wide else like.dtype)
            for name, shape in zip(op.outputs, out, strict=True)
        )

    def infer(*args: Any) -> Any:
        return _bare(kernel.forward(*args[:n_arrays], **named(args[n_arrays:])))

    def infer_fake(*args: Any) -> Any:
        return _bare(empty_outputs(args))

    def train(*args: Any) -> Any:
        outputs, saved = kernel.forward_train(*args[:n_arrays], **named(args[n_arrays:]))
        return _bare((*outputs, *saved))

    def train_fake(*args: Any) -> Any:
        saved = kernel.residuals(*shapes(args[:n_arrays]), **named(args[n_arrays:]))
        like = _floating(args[:n_arrays])
        return _bare((*empty_outputs(args), *(like.new_empty(shape, dtype=_wide(like)) for shape in saved)))

    first_array, first_saved = n_outputs, n_outputs + n_arrays
    first_attr = first_saved + n_residuals
    differentiable = [i for i, name in enumerate(op.arrays) if name not in op.no_grad and name not in kernel.shared]
    shared = [(op.arrays.index(name), op.arrays.index(other)) for name, other in kernel.shared.items()]

    def backward(*args: Any) -> list[Tensor | None]:
        given = args[first_array:first_saved]
        grads = kernel.backward(args[:n_outputs], given, args[first_saved:first_attr], **named(args[first_attr:]))
        return [grads[i] for i in differentiable]

    def backward_real(*args: Any) -> Any:
        # An operator returns tensors only, laid out as its fake's: an absent gradient travels as an empty one.
        absent = _floating(args[first_array:first_saved])
        return _bare(tuple(absent.new_empty(0) if g is None else g.contiguous() for g in backward(*args)))

    def backward_fake(*args: Any) -> Any:
        given = args[first_array:first_saved]
        like = _floating(given)
        return _bare(
            tuple(like.new_empty(0) if (a := given[i]) is None else a.new_empty(a.shape) for i in differentiable)
        )

    def define(suffix: str, parameters: list[str], returns: int, real: Any, fake: Any) -> Any:
        name = f"{label}{suffix}"
        result = ", ".join(["Tensor"] * returns)
        _library.define(f"{name}({', '.join(parameters)}) -> ({result})")
        for key in ["CompositeExplicitAutograd"] if devices is None else map(str.upper, devices):
            _library.impl(name, real, key)
        torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_library)
        return getattr(getattr(torch.ops, NAMESPACE), name).default

    infer_op = define("", arrays + attrs, n_outputs, infer, infer_fake)
    train_op = define(f"_train_{layout}", arrays + attrs, n_outputs + n_residuals, train, train_fake)
    backward_op = define(
        f"_backward_{layout}",
        grads + arrays + residuals + attrs,
        len(differentiable),
        backward_real,
        backward_fake,
    )

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.attrs = inputs[n_arrays:]
        ctx.save_for_backward(*inputs[:n_arrays], *_tuple(output)[n_outputs:])
        ctx.set_materialize_grads(False)

    def gradients(ctx: Any, found: Callable[..., Any], grad_outputs: tuple[Tensor | None, ...]) -> tuple[Any, ...]:
        """Those of all arguments, from what `found(*grads, *arrays, *residuals, *attrs)` returns."""
        saved = ctx.saved_tensors
        result: list[Tensor | None] = [None] * (n_arrays + len(attr_names))
        grads = grad_outputs[:n_outputs]
        if any(g is not None for g in grads):
            values = _tuple(found(*grads, *saved, *ctx.attrs))
            for index, grad in zip(differentiable, values, strict=True):
                result[index] = None if saved[index] is None else grad
            for index, other in shared:
                result[index] = result[other]
        return tuple(result)

    torch.library.register_autograd(
        f"{NAMESPACE}::{label}_train_{layout}",
        lambda ctx, *grads: gradients(ctx, backward_op, grads),
        setup_context=setup_context,
        lib=_library,
    )

    class Direct(torch.autograd.Function):
        """The same without torch's dispatcher, which takes longer than a small kernel."""

        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            outputs, saved = kernel.forward_train(*args[:n_arrays], **named(args[n_arrays:]))
            setup_context(ctx, args, (*outputs, *saved))
            return _bare(outputs)

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, *grads: Any) -> Any:
            return gradients(ctx, backward, grads)

    Direct.__name__ = label
    defaults = tuple(op.attrs.values())

    def call(*args: Tensor | None, **attrs: Any) -> Any:
        given = args if len(args) == n_arrays else (*args, *(None,) * (n_arrays - len(args)))
        values = tuple([attrs.get(name, default) for name, default in zip(attr_names, defaults, strict=True)])
        watched = _watched(given, devices)
        if torch.is_grad_enabled() and any(a is not None and a.requires_grad for a in given):
            return _bare(_tuple(train_op(*given, *values))[:n_outputs]) if watched else Direct.apply(*given, *values)
        return infer_op(*given, *values) if watched else _bare(kernel.forward(*given, **named(values)))

    return call


def _watched(arrays: Sequence[Tensor | None], devices: Sequence[str] | None) -> bool:
    """Whether somebody has to see operators: a compiler, a tracer, a mode, a transform of torch.func, a tensor's own
    class; or none is for this device."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return True
    if torch._C._are_functorch_transforms_active() or torch._C._get_tracing_state() is not None:
        return True
    given = [a for a in arrays if a is not None]
    if devices is not None and given[0].device.type not in devices:
        return True
    return not _PLAIN.issuperset(map(type, given))


def inference_operator(op: Op, kernel: Callable[..., Tensor], label: str, device: str) -> Callable[..., Tensor]:
    """A kernel of an op without attributes and gradients as one operator, which the compiler sees as a whole."""
    arrays = [f"Tensor{'? ' + name + '=None' if name in op.optional else ' ' + name}" for name in op.arrays]

    def fake(*args: Tensor | None) -> Tensor:
        given = (*args, *(None,) * (len(op.arrays) - len(args)))
        (shape,) = op.shapes(*(None if a is None else tuple(a.shape) for a in given))
        return _floating(args).new_empty(shape)

    _library.define(f"{label}({', '.join(arrays)}) -> Tensor")
    _library.impl(label, kernel, device)
    torch.library.register_fake(f"{NAMESPACE}::{label}", fake, lib=_library)
    found: Callable[..., Tensor] = getattr(getattr(torch.ops, NAMESPACE), label).default
    return found


def _floating(arrays: Sequence[Tensor | None]) -> Tensor:
    """The first array that is no index or mask, or the first in half precision if one is: outputs have its dtype."""
    found = [a for a in arrays if a is not None and a.is_floating_point()]
    return next((a for a in found if a.dtype in (torch.bfloat16, torch.float16)), found[0])


def _wide(like: Tensor) -> torch.dtype:
    """What is summed in and kept beside arrays like this one."""
    return torch.promote_types(like.dtype, torch.float32)


def _bare(values: tuple[Tensor, ...]) -> Any:
    """What an operator returns: one tensor is not wrapped."""
    return values[0] if len(values) == 1 else values


def _tuple(values: Any) -> tuple[Tensor, ...]:
    """What an operator returned, wrapped in any case."""
    return (values,) if isinstance(values, Tensor) else tuple(values)
