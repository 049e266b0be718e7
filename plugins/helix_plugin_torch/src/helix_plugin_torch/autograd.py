"""Gradients of kernels for torch's autograd: what is saved, the formulas, and functions without torch's dispatcher."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from helix_plugin_torch.flat_kernel import FlatKernel, as_tuple, unwrapped
from helix_plugin_torch.transforms import refuse_batched, second_gradients, transformed, vmap_in_turn


def save_forward(kernel: FlatKernel, ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    """Keep what `gradients` needs: `inputs` and `output` are those of `FlatKernel.train`."""
    arrays, attributes = inputs[: kernel.n_arrays], inputs[kernel.n_arrays :]
    ctx.kernel, ctx.attributes = kernel, attributes
    ctx.save_for_backward(*arrays, *as_tuple(output)[kernel.n_outputs :])
    ctx.set_materialize_grads(False)


def gradients(ctx: Any, backward: Callable[..., Any], output_grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """Compute the gradients of `FlatKernel.train`'s arguments by `backward`, which takes what the kernel's takes."""
    kernel: FlatKernel = ctx.kernel
    saved = ctx.saved_tensors  # arrays, then residuals
    result: list[Tensor | None] = [None] * (kernel.n_arrays + len(ctx.attributes))
    output_grads = output_grads[: kernel.n_outputs]
    if any(grad is not None for grad in output_grads):
        grads = as_tuple(backward(*output_grads, *saved, *ctx.attributes))
        for index, grad in zip(kernel.differentiable, grads, strict=True):
            result[index] = None if saved[index] is None else grad
        for index, other in kernel.shared:
            result[index] = result[other]
    return tuple(result)


def save_backward(kernel: FlatKernel, ctx: Any, inputs: Sequence[Any], output: Any) -> None:
    """Keep what `second_order_gradients` needs: `inputs` are those of `FlatKernel.backward`."""
    ctx.kernel, ctx.attributes = kernel, inputs[len(inputs) - len(kernel.op.attrs) :]
    ctx.save_for_backward(*inputs[: kernel.n_outputs + kernel.n_arrays])  # gradients and arrays
    ctx.set_materialize_grads(False)


def second_order_gradients(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    """Compute the gradients of `FlatKernel.backward`'s arguments by the op's reference; residuals have none."""
    kernel: FlatKernel = ctx.kernel
    result = second_gradients(
        kernel.op, grads, ctx.saved_tensors, kernel.attributes(ctx.attributes), kernel.differentiable
    )
    return (*result, *(None,) * (kernel.n_residuals + len(ctx.attributes)))


class EagerKernel(torch.autograd.Function):
    """A kernel without torch's dispatcher, which takes longer than a small kernel: `apply(kernel, *args)`."""

    @staticmethod
    def forward(ctx: Any, kernel: FlatKernel, *args: Any) -> Any:
        results = kernel.train(*args)
        save_forward(kernel, ctx, args, results)
        return unwrapped(results[: kernel.n_outputs])

    @staticmethod
    def backward(ctx: Any, *output_grads: Any) -> Any:
        kernel: FlatKernel = ctx.kernel
        refuse_batched(kernel.op, output_grads)
        if torch.is_grad_enabled() or transformed():
            return None, *gradients(ctx, functools.partial(KernelBackward.apply, kernel), output_grads)
        return None, *gradients(ctx, kernel.backward, output_grads)


class TransformedKernel(torch.autograd.Function):
    """The same for `torch.func`, which wants the residuals among the outputs."""

    @staticmethod
    def forward(kernel: FlatKernel, *args: Any) -> Any:
        return kernel.train(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        kernel, *args = inputs
        save_forward(kernel, ctx, args, output)
        ctx.mark_non_differentiable(*output[kernel.n_outputs :])

    @staticmethod
    def backward(ctx: Any, *output_grads: Any) -> Any:
        return None, *gradients(ctx, functools.partial(KernelBackward.apply, ctx.kernel), output_grads)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        return vmap_in_turn(TransformedKernel.apply, info, in_dims, *args)


class KernelBackward(torch.autograd.Function):
    """A kernel's backward with a gradient of its own: `apply(kernel, *args)`."""

    @staticmethod
    def forward(kernel: FlatKernel, *args: Any) -> Any:
        return kernel.backward_tensors(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        kernel, *args = inputs
        save_backward(kernel, ctx, args, output)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return None, *second_order_gradients(ctx, *grads)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        return vmap_in_turn(KernelBackward.apply, info, in_dims, *args)
