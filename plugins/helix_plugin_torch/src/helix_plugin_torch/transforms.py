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

HALF = {torch.bfloat16: "bfloat16", torch.float16: "float16"}


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
    return (reference if half is None else between_casts(xp, op, reference, HALF[half]))(*arrays, **attrs)


def seen_through(op: Op, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel without a gradient; where torch differentiates or transforms, the reference serves."""

    def call(*arrays: Tensor | None, **attrs: Any) -> Any:
        asked = torch.is_grad_enabled() and any(a is not None and a.requires_grad for a in arrays)
        if asked or transformed():
            return by_reference(op, *arrays, **attrs)
        return kernel(*arrays, **attrs)

    return call


def gradients_by_reference(
    op: Op,
    grads: Sequence[Tensor | None],
    arrays: Sequence[Tensor | None],
    attrs: dict[str, Any],
    wanted: Sequence[int],
) -> tuple[Tensor, ...]:
    """Those of the arrays at the places `wanted`, from those of the outputs; differentiable themselves."""

    def outputs(*values: Tensor) -> tuple[Tensor, ...]:
        found = by_reference(op, *_replaced(arrays, wanted, values), **attrs)
        found = (found,) if isinstance(found, Tensor) else found
        return tuple(y.to(g.dtype) for y, g in zip(found, grads, strict=True) if g is not None)

    _, pull = torch.func.vjp(outputs, *(arrays[i] for i in wanted))
    found: tuple[Tensor, ...] = pull(tuple(g for g in grads if g is not None))
    return found


def second_gradients(
    op: Op,
    slopes: Sequence[Tensor | None],
    given: Sequence[Tensor | None],
    attrs: dict[str, Any],
    wanted: Sequence[int],
) -> list[Tensor | None]:
    """Of the function (grads, arrays) -> gradients of the arrays at `wanted`, from `slopes`, those of its outputs.

    `given` are its inputs: a gradient for each output of the op, and the op's arrays. One for each of them comes back.
    """
    n = len(op.outputs)
    asked = [(i, s) for i, s in zip(wanted, slopes, strict=True) if s is not None and given[n + i] is not None]
    open_ = [n + i for i, name in enumerate(op.arrays) if name not in op.no_grad and given[n + i] is not None]
    places = [i for i in range(n) if given[i] is not None] + open_
    result: list[Tensor | None] = [None] * len(given)
    if asked:

        def gradients(*values: Tensor) -> tuple[Tensor, ...]:
            full = _replaced(given, places, values)
            return gradients_by_reference(op, full[:n], full[n:], attrs, [i for i, _ in asked])

        _, pull = torch.func.vjp(gradients, *(given[i] for i in places))
        for place, value in zip(places, pull(tuple(s for _, s in asked)), strict=True):
            result[place] = value
    return result


def in_turn(apply: Callable[..., Any], info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
    """The rule of `vmap` for `apply`: one sample after the other."""
    found = [
        apply(*(a if d is None else a.select(d, i) for a, d in zip(args, in_dims, strict=True)))
        for i in range(info.batch_size)
    ]
    if isinstance(found[0], Tensor):
        return torch.stack(found), 0
    return tuple(torch.stack(values) for values in zip(*found, strict=True)), (0,) * len(found[0])


def refuse_batched(op: Op, grads: Sequence[Tensor | None]) -> None:
    """Raise UsageError for gradients with the batch axis of torch's older vmap, which nothing of ours can look into."""
    if any(g is not None and torch._C._functorch.is_legacy_batchedtensor(g) for g in grads):
        raise UsageError(
            f"the backward of {op.name} takes one gradient at a time, not a batch (is_grads_batched, vectorize=True)",
            hint="torch.func.vjp with torch.func.vmap, or torch.func.jacrev, does the same and works",
        )


def _replaced(values: Sequence[Any], places: Sequence[int], new: Sequence[Any]) -> list[Any]:
    result = list(values)
    for place, value in zip(places, new, strict=True):
        result[place] = value
    return result
