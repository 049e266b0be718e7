"""A kernel with its own backward pass, for namespaces that cannot differentiate through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Self

from helix_core.ops.op import Array, Shape


@dataclass(frozen=True)
class Kernel:
    """The functions that a kernel with `gradient="vjp"` is made of.

    forward         `(*arrays, **attrs) -> outputs tuple`
    forward_train   `(*arrays, **attrs) -> (outputs tuple, residuals tuple)`
    backward        `(output gradients or None, arrays, residuals, **attrs) -> one gradient or None per array`
    residuals       `(*shapes, **attrs) -> shape of each residual`; arithmetic only, sizes may be symbolic
    shared          arrays whose gradient is that of another one, {"residual": "x"}; `backward` returns None for them

    The namespace's own plugin wraps them for its autodiff system (`torch.library`, `jax.custom_vjp`, ...).
    """

    forward: Callable[..., tuple[Array, ...]]
    forward_train: Callable[..., tuple[tuple[Array, ...], tuple[Array, ...]]]
    backward: Callable[..., tuple[Array | None, ...]]
    residuals: Callable[..., tuple[Shape, ...]]
    shared: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_module(cls, module: ModuleType) -> Self:
        """Return the kernel of a file `kernels/<op>.py` that defines those functions under their names."""
        return cls(
            module.forward, module.forward_train, module.backward, module.residuals, getattr(module, "shared", {})
        )
