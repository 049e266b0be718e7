"""Kernels of torch with one fault each, which the kernel kit must find.

All are made of the op's reference and its derivative by autograd, so that nothing but the fault is wrong.
"""

import numpy as np
import torch

from helix_core.kinds.kernel import Kernel
from helix_core.ops import OPS
from helix_plugin_torch.backend import namespace

xp = namespace()


class Right:
    """A kernel without a fault, in pieces that the faulty ones replace."""

    def __init__(self, op):
        self.op = OPS[op]

    def values(self, *arrays, **attrs):
        result = self.op.reference(xp, *arrays, **attrs)
        return result if isinstance(result, tuple) else (result,)

    def forward(self, *arrays, **attrs):
        with torch.no_grad():
            return self.values(*arrays, **attrs)

    def forward_train(self, *arrays, **attrs):
        return self.forward(*arrays, **attrs), ()

    def backward(self, grads, arrays, residuals, **attrs):
        wanted = [i for i, a in enumerate(arrays) if a is not None and self.op.arrays[i] not in self.op.no_grad]
        with torch.enable_grad():
            leaves = [a.detach().requires_grad_(i in wanted) if a is not None else None for i, a in enumerate(arrays)]
            pairs = [(y, g) for y, g in zip(self.values(*leaves, **attrs), grads, strict=True) if g is not None]
            pairs = [(y, g) for y, g in pairs if y.requires_grad]
            outputs, given = [y for y, _ in pairs], [g for _, g in pairs]
            found = torch.autograd.grad(outputs, [leaves[i] for i in wanted], given, allow_unused=True)
        result = [None] * len(arrays)
        for i, grad in zip(wanted, found, strict=True):
            result[i] = grad
        return tuple(result)

    def kernel(self):
        return Kernel(self.forward, self.forward_train, self.backward, lambda *shapes, **attrs: ())


class WritesGradient(Right):
    """Its backward works in the gradient that comes in."""

    def backward(self, grads, arrays, residuals, **attrs):
        found = super().backward(grads, arrays, residuals, **attrs)
        grads[0].mul_(2.0)
        return found


class Widens(Right):
    def forward(self, *arrays, **attrs):
        return tuple(y.double() for y in super().forward(*arrays, **attrs))


class SwallowsNaN(Right):
    def forward(self, *arrays, **attrs):
        return tuple(torch.nan_to_num(y) for y in super().forward(*arrays, **attrs))


class SwallowsNaNOfLater(Right):
    """NaN of one row only: in most of the outputs, they come out."""

    def forward(self, *arrays, **attrs):
        (y,) = super().forward(*arrays, **attrs)
        y = y.reshape(-1).clone()
        y[1:] = torch.nan_to_num(y[1:])
        return (y.reshape(arrays[0].shape),)


class SwallowsNaNGradient(Right):
    def backward(self, grads, arrays, residuals, **attrs):
        found = super().backward(grads, arrays, residuals, **attrs)
        return tuple(None if g is None else torch.nan_to_num(g) for g in found)


class Writes(Right):
    """In place, and right."""

    def forward(self, x):
        (y,) = super().forward(x)
        return (x.copy_(y),)


class Aliases(Right):
    """Hands out its input where the values are the same."""

    def forward(self, x, *arrays, **attrs):
        y, last = super().forward(x, *arrays, **attrs)
        view = x[:, x.shape[1] - last.shape[1] :]
        return y, view if view.shape == last.shape and torch.equal(view, last) else last


class ReusesOutput(Right):
    """One buffer for the results of all calls."""

    buffers = {}  # noqa: RUF012

    def forward(self, *arrays, **attrs):
        (y,) = super().forward(*arrays, **attrs)
        return (self.buffers.setdefault((y.shape, y.dtype), torch.empty_like(y)).copy_(y),)


class KeepsTheLast(Right):
    """What the backward needs is kept outside of the graph."""

    def forward_train(self, *arrays, **attrs):
        self.kept = arrays
        return super().forward_train(*arrays, **attrs)

    def backward(self, grads, arrays, residuals, **attrs):
        return super().backward(grads, self.kept, residuals, **attrs)


def as_if_packed(x):
    """The elements as they lie in memory, read as if they lay in order."""
    room = x.untyped_storage().nbytes() // x.element_size() - x.storage_offset()
    if x.is_contiguous() or room < x.numel():
        return torch.full_like(x, float(x.reshape(-1)[0])) if room < x.numel() else x
    strides = np.cumprod([1, *x.shape[:0:-1]])[::-1].tolist()
    return torch.as_strided(x, x.shape, strides)


class ReadsPacked(Right):
    def forward(self, x):
        return super().forward(as_if_packed(x))


class ReadsPackedGradient(Right):
    def backward(self, grads, arrays, residuals, **attrs):
        (g,) = grads
        spread = g.stride() != arrays[0].contiguous().stride() and g.numel() > 1
        return super().backward((g * 2 if spread else g,), arrays, residuals, **attrs)


class WrongForTraining(Right):
    def forward_train(self, *arrays, **attrs):
        return tuple(1.01 * y for y in super().forward(*arrays, **attrs)), ()


class TakesMissingForOnes(Right):
    """A gradient that nobody gave counts as one of ones."""

    def backward(self, grads, arrays, residuals, **attrs):
        shapes = [y.shape for y in self.forward(*arrays, **attrs)]
        given = tuple(arrays[0].new_ones(s) if g is None else g for g, s in zip(grads, shapes, strict=True))
        return super().backward(given, arrays, residuals, **attrs)


FAULTS = (
    WritesGradient,
    Widens,
    SwallowsNaN,
    SwallowsNaNOfLater,
    SwallowsNaNGradient,
    Writes,
    ReusesOutput,
    KeepsTheLast,
    ReadsPacked,
    ReadsPackedGradient,
    WrongForTraining,
)
"""Of silu; of `Aliases` and `TakesMissingForOnes`, which need two outputs, there are kernels of causal_conv1d."""

for fault in (Right, *FAULTS):
    globals()[f"silu_{fault.__name__.lower()}"] = fault("silu").kernel()
for fault in (Right, Aliases, TakesMissingForOnes):
    globals()[f"causal_conv1d_{fault.__name__.lower()}"] = fault("causal_conv1d").kernel()
