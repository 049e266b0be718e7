"""A kernel with flat arguments and results, as torch's operators and autograd functions have them.

    infer     (*arrays, *attributes) -> outputs
    train     (*arrays, *attributes) -> (*outputs, *residuals)
    backward  (*output gradients, *arrays, *residuals, *attributes) -> gradients of the differentiable arrays

The shapes of each are known too, from tensors without values: what compilers trace.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from helix_core.kinds.kernel import Kernel
from helix_core.ops import Op
from helix_plugin_torch.dtypes import HALF, wide

_SCHEMA_TYPES = {bool: "bool", int: "int", float: "float", str: "str", type(None): "int?"}
"""Type of an attribute in a schema, by its default; attributes that may be absent are numbers."""


class FlatKernel:
    """A kernel of an op, without keywords.

    differentiable   indices of the arrays whose gradients `backward` returns
    shared           pairs of indices: the first array's gradient is that of the second
    """

    def __init__(self, op: Op, kernel: Kernel) -> None:
        self.op, self.kernel = op, kernel
        residuals = _sample_residuals(op, kernel)
        self.n_arrays, self.n_outputs, self.n_residuals = len(op.arrays), len(op.outputs), len(residuals)
        self.residual_layout = f"{zlib.crc32(repr(residuals).encode()):08x}"
        self.differentiable = [
            i for i, name in enumerate(op.arrays) if name not in op.no_grad and name not in kernel.shared
        ]
        self.shared = [(op.arrays.index(name), op.arrays.index(other)) for name, other in kernel.shared.items()]

    def infer(self, *args: Any) -> tuple[Tensor, ...]:
        """Compute the outputs, for inference."""
        arrays, attrs = self._split(args)
        return self.kernel.forward(*arrays, **attrs)

    def train(self, *args: Any) -> tuple[Tensor, ...]:
        """Compute the outputs, and the residuals that `backward` needs."""
        arrays, attrs = self._split(args)
        outputs, residuals = self.kernel.forward_train(*arrays, **attrs)
        return (*outputs, *residuals)

    def backward(self, *args: Any) -> list[Tensor | None]:
        """Compute the gradients of the differentiable arrays."""
        output_grads, arrays, residuals, attrs = self._split_backward(args)
        grads = self.kernel.backward(output_grads, arrays, residuals, **attrs)
        return [grads[i] for i in self.differentiable]

    def backward_tensors(self, *args: Any) -> tuple[Tensor, ...]:
        """`backward` as `backward_shapes` announces it: contiguous tensors, an empty one for an absent gradient."""
        _, arrays, _, _ = self._split_backward(args)
        absent = floating(arrays)
        return tuple(absent.new_empty(0) if g is None else g.contiguous() for g in self.backward(*args))

    def infer_shapes(self, *args: Any) -> tuple[Tensor, ...]:
        """Make tensors of the shapes and dtypes that `infer` returns."""
        arrays, attrs = self._split(args)
        like = floating(arrays)
        return tuple(
            like.new_empty(shape, dtype=wide(like) if name in self.op.wide else like.dtype)
            for name, shape in zip(self.op.outputs, self.op.shapes(*shapes_of(arrays), **attrs), strict=True)
        )

    def train_shapes(self, *args: Any) -> tuple[Tensor, ...]:
        """Make tensors of the shapes and dtypes that `train` returns."""
        arrays, attrs = self._split(args)
        like = floating(arrays)
        residuals = self.kernel.residuals(*shapes_of(arrays), **attrs)
        return (*self.infer_shapes(*args), *(like.new_empty(shape, dtype=wide(like)) for shape in residuals))

    def backward_shapes(self, *args: Any) -> tuple[Tensor, ...]:
        """Make tensors of the shapes and dtypes that `backward_tensors` returns."""
        _, arrays, _, _ = self._split_backward(args)
        absent = floating(arrays)
        return tuple(
            absent.new_empty(0) if (array := arrays[i]) is None else array.new_empty(array.shape)
            for i in self.differentiable
        )

    def schema(self) -> list[str]:
        """Declare the parameters of `infer` and `train`, in the language of torch's schemas."""
        return [*self._array_schema(), *self._attribute_schema()]

    def backward_schema(self) -> list[str]:
        """Declare the parameters of `backward`."""
        grads = [f"Tensor? grad_{name}" for name in self.op.outputs]
        residuals = [f"Tensor residual_{i}" for i in range(self.n_residuals)]
        return [*grads, *self._array_schema(), *residuals, *self._attribute_schema()]

    def attributes(self, values: Sequence[Any]) -> dict[str, Any]:
        """Name the values of attributes."""
        return dict(zip(self.op.attrs, values, strict=True))

    def _split(self, args: Sequence[Any]) -> tuple[Sequence[Tensor | None], dict[str, Any]]:
        return args[: self.n_arrays], self.attributes(args[self.n_arrays :])

    def _split_backward(self, args: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any], Any]:
        """Output gradients, arrays, residuals and attributes."""
        first_array = self.n_outputs
        first_residual = first_array + self.n_arrays
        first_attribute = first_residual + self.n_residuals
        return (
            args[:first_array],
            args[first_array:first_residual],
            args[first_residual:first_attribute],
            self.attributes(args[first_attribute:]),
        )

    def _array_schema(self) -> list[str]:
        return [f"Tensor{'?' if name in self.op.optional else ''} {name}" for name in self.op.arrays]

    def _attribute_schema(self) -> list[str]:
        return [f"{_SCHEMA_TYPES[type(default)]} {name}" for name, default in self.op.attrs.items()]


def _sample_residuals(op: Op, kernel: Kernel) -> tuple[tuple[int, ...], ...]:
    """Shapes of the residuals for the op's first sample: how many there are, and how they are laid out."""
    sample = next(iter(op.samples(np.random.default_rng(0))))
    shapes = [np.shape(sample.arrays[name]) if name in sample.arrays else None for name in op.arrays]
    return kernel.residuals(*shapes, **{**op.attrs, **sample.attrs})


def shapes_of(arrays: Sequence[Tensor | None]) -> list[tuple[int, ...] | None]:
    """The shape of each array; None for an absent one."""
    """The shape of each array; None for an absent one."""
    return [None if a is None else tuple(a.shape) for a in arrays]


def floating(arrays: Sequence[Tensor | None]) -> Tensor:
    """The first array that is no index or mask, or the first in half precision if one is: outputs have its dtype."""
    floating = [a for a in arrays if a is not None and a.is_floating_point()]
    return next((a for a in floating if a.dtype in HALF), floating[0])


def unwrapped(results: tuple[Tensor, ...]) -> Any:
    """What an operator returns: a single tensor is not in a tuple."""
    return results[0] if len(results) == 1 else results


def as_tuple(results: Any) -> tuple[Tensor, ...]:
    """What an operator returned, in a tuple in any case."""
    return (results,) if isinstance(results, Tensor) else tuple(results)
