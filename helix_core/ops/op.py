"""What an op is: a name, a signature, one reference definition, and sample inputs for the conformance kit.

The reference is written once, in the Python array API alone, and takes the namespace as its first argument. Run on
NumPy in float64 it is the oracle for every kernel of every backend; run on any other namespace it is the op's
fallback, so a new backend works on its first day with no kernels at all.

The reference's own signature is the op's signature: positional parameters are arrays (a default of None makes one
optional), keyword-only parameters are plain Python values.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

Array = Any
Shape = tuple[int, ...]
Reference = TypeVar("Reference", bound=Callable[..., Any])


@dataclass(frozen=True)
class Sample:
    """One set of inputs for an op: NumPy arrays by argument name (float64 or integer or bool), and attributes."""

    arrays: Mapping[str, Array]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""


@dataclass(frozen=True)
class Op:
    """One op of the table.

    name        attribute of the table (`F.rms_norm`)
    reference   `reference(xp, *arrays, **attrs)`, in the array API alone
    outputs     names of what it returns; one output is returned bare, several as a tuple
    no_grad     array arguments without a gradient (indices, masks)
    shapes      `shapes(*shapes, **attrs)` -> one shape per output; an absent optional array has shape None.
                Plain arithmetic, so that it also works on symbolic sizes.
    wide        outputs that stay float32 beside activations in half precision: states, sums, losses
    flops       `flops(*shapes, **attrs)` -> additions, multiplications and exponentials of its products and of its
                recurrence, computed step by step as it is defined; None for elementwise work, which is not counted
    samples     `samples(rng)` -> inputs of ragged and degenerate sizes, fresh from a NumPy Generator
    """

    name: str
    reference: Callable[..., Any]
    outputs: tuple[str, ...]
    no_grad: frozenset[str]
    shapes: Callable[..., tuple[Shape, ...]]
    samples: Callable[[Any], Iterable[Sample]]
    arrays: tuple[str, ...]
    optional: frozenset[str]
    wide: frozenset[str]
    attrs: Mapping[str, Any]
    flops: Callable[..., float] | None = None

    @property
    def summary(self) -> str:
        """The first line of the reference's docstring."""
        return (inspect.getdoc(self.reference) or "").split("\n", 1)[0]

    def split(self, values: Iterable[Any]) -> dict[str, Any]:
        """Name positional array arguments, filling absent optional ones with None."""
        given = list(values)
        return dict(zip(self.arrays, given + [None] * (len(self.arrays) - len(given)), strict=True))


OPS: dict[str, Op] = {}
"""Every op of the table by name, in order of definition."""


def define_op(
    *,
    shapes: Callable[..., tuple[Shape, ...]],
    samples: Callable[[Any], Iterable[Sample]],
    outputs: tuple[str, ...] = ("y",),
    no_grad: tuple[str, ...] = (),
    wide: tuple[str, ...] | None = None,
    flops: Callable[..., float] | None = None,
) -> Callable[[Reference], Reference]:
    """Make an op of a reference function and add it to `OPS`; the function itself is returned unchanged.

    By default, every output but the first is `wide`.
    """

    def register(reference: Reference) -> Reference:
        parameters = list(inspect.signature(reference).parameters.values())[1:]
        arrays = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        name = reference.__name__
        if name in OPS:
            raise ValueError(f"op {name!r} is defined twice")
        OPS[name] = Op(
            name=name,
            reference=reference,
            outputs=outputs,
            no_grad=frozenset(no_grad),
            shapes=shapes,
            samples=samples,
            arrays=tuple(p.name for p in arrays),
            optional=frozenset(p.name for p in arrays if p.default is None),
            wide=frozenset(outputs[1:] if wide is None else wide),
            attrs={p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY},
            flops=flops,
        )
        return reference

    return register
