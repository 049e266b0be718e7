"""Kernels under torch's transforms: `torch.func`, forward mode, gradients of gradients.

A kernel computes its op and the op's gradient, of arrays with the op's own axes. The samples of a `vmap` go through it
one after the other; every other derivative is that of the op's reference, which torch sees through.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from helix_core.errors import UsageError
from helix_core.ops import Op
from helix_core.ops.half import between_casts
from helix_plugin_torch import namespace as xp
from helix_plugin_torch.dtypes import HALF, dtype_name


def transformed() -> bool:
    """Whether a transform of `torch.func` or forward mode looks at what is computed."""
    return in_forward_mode() or torch._C._are_functorch_transforms_active()


def in_forward_mode() -> bool:
    """Whether tensors may carry tangents, which no kernel reads."""
    return forward_ad._current_level >= 0


def by_reference(op: Op, *arrays: Tensor | None, **attrs: Any) -> Any:
    """The op by its reference, which every transform sees through."""
    reference = functools.partial(op.reference, xp)
    half = next((a.dtype for a in arrays if a is not None and a.dtype in HALF), None)
    return (reference if half is None else between_casts(xp, op, reference, dtype_name(half)))(*arrays, **attrs)


def with_reference_gradient(op: Op, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel without a gradient; where torch differentiates or transforms, the reference serves."""

    def call(*arrays: Tensor | None, **attrs: Any) -> Any:
        differentiated = torch.is_grad_enabled() and any(a is not None and a.requires_grad for a in arrays)
        if differentiated or transformed():
            return by_reference(op, *arrays, **attrs)
        return kernel(*arrays, **attrs)

    return call


def reference_gradients(
    op: Op,
    output_grads: Sequence[Tensor | None],
    arrays: Sequence[Tensor | None],
    attrs: dict[str, Any],
    wanted: Sequence[int],
) -> tuple[Tensor, ...]:
    """Gradients of the arrays at the indices `wanted`, from those of the outputs; differentiable themselves."""

    def outputs(*values: Tensor) -> tuple[Tensor, ...]:
        results = by_reference(op, *_replaced(arrays, wanted, values), **attrs)
        results = (results,) if isinstance(results, Tensor) else results
        return tuple(y.to(grad.dtype) for y, grad in zip(results, output_grads, strict=True) if grad is not None)

    vjp = torch.func.vjp(outputs, *(arrays[i] for i in wanted))[1]
    grads: tuple[Tensor, ...] = vjp(tuple(grad for grad in output_grads if grad is not None))
    return grads


def second_gradients(
    op: Op,
    grads: Sequence[Tensor | None],
    inputs: Sequence[Tensor | None],
    attrs: dict[str, Any],
    wanted: Sequence[int],
) -> list[Tensor | None]:
    """Gradients of the arguments of `reference_gradients` from `grads`, those of its results.

    inputs   a gradient for each output of the op, then the op's arrays; the result has one gradient for each of them
    """
    n = len(op.outputs)
    # Gradients that were not asked for, and those of absent arrays, carry nothing.
    used = [(i, grad) for i, grad in zip(wanted, grads, strict=True) if grad is not None and inputs[n + i] is not None]
    arrays = [n + i for i, name in enumerate(op.arrays) if name not in op.no_grad and inputs[n + i] is not None]
    variables = [i for i in range(n) if inputs[i] is not None] + arrays
    result: list[Tensor | None] = [None] * len(inputs)
    if used:

        def first_gradients(*values: Tensor) -> tuple[Tensor, ...]:
            full = _replaced(inputs, variables, values)
            return reference_gradients(op, full[:n], full[n:], attrs, [i for i, _ in used])

        vjp = torch.func.vjp(first_gradients, *(inputs[i] for i in variables))[1]
        result = _replaced(result, variables, vjp(tuple(grad for _, grad in used)))
    return result


def vmap_in_turn(apply: Callable[..., Any], info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
    """The rule of `vmap` for `apply`: one sample after the other."""
    results = [
        apply(*(a if d is None else a.select(d, i) for a, d in zip(args, in_dims, strict=True)))
        for i in range(info.batch_size)
    ]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    return tuple(torch.stack(values) for values in zip(*results, strict=True)), (0,) * len(results[0])


def refuse_batched(op: Op, grads: Sequence[Tensor | None]) -> None:
    """Raise UsageError for gradients with the batch axis of torch's older vmap, which kernels cannot look into."""
    if any(g is not None and torch._C._functorch.is_legacy_batchedtensor(g) for g in grads):
        raise UsageError(
            f"the backward of {op.name} takes one gradient at a time, not a batch (is_grads_batched, vectorize=True)",
            hint="torch.func.vjp with torch.func.vmap, or torch.func.jacrev, does the same and works",
        )


def _replaced(values: Sequence[Any], indices: Sequence[int], new: Sequence[Any]) -> list[Any]:
    result = list(values)
    for index, value in zip(indices, new, strict=True):
        result[index] = value
    return result
