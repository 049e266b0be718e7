"""The op table `F`: every op bound once to the best kernel for what is known at bind time.

Known at bind time are namespace, device, dtype and mode; never batch or length, so a bound op is one plain call.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from helix_core.errors import ComponentNotFound, ComponentUnavailable, UsageError
from helix_core.isolation import isolated
from helix_core.ops.half import HALF, between_casts, narrowed
from helix_core.ops.op import OPS, Op
from helix_core.ops.signature import as_op
from helix_core.suggest import did_you_mean
from helix_core.tree import tree_map

if TYPE_CHECKING:
    from helix_core.ops.typed import TypedOps
    from helix_core.plugin_system.descriptors import KernelDescriptor
else:
    TypedOps = object

REFERENCE = "core/reference"
MODES = ("train", "infer")
REPLACEABLE = ("zeros", "concrete", "cond")
"""Methods of a table that a backend may replace; the rest of it are ops."""

Wrap = Callable[[Op, "KernelDescriptor", Any], Callable[..., Any]]


@dataclass(frozen=True)
class DispatchKey:
    """What is known when ops are bound: all that a kernel may base its `supports` verdict on.

    namespace   array namespace: "numpy", "torch", "mlx", "jax", ...
    device      device type: "cpu", "cuda", ...
    dtype       element type of the activations: "float32", "bfloat16", ...
    mode        "train", which needs gradients, or "infer"
    """

    namespace: str
    device: str
    dtype: str
    mode: str


@dataclass(frozen=True)
class Refusal:
    """A kernel that was not taken, and why."""

    kernel: str
    reason: str


@dataclass(frozen=True)
class Choice:
    """How one op was bound."""

    op: str
    chosen: str
    reason: str
    refused: tuple[Refusal, ...] = ()


class OpTable(TypedOps):
    """The bound ops, as attributes: `F.rms_norm(x, w)`. `F.xp` is the array namespace, `F.trail` says why."""

    def __init__(
        self,
        xp: Any,
        dispatch_key: DispatchKey,
        bound: Mapping[str, Callable[..., Any]],
        trail: Mapping[str, Choice],
        asarray: Callable[[Any], Any],
        bound_by: Callable[[], OpTable] | None = None,
    ) -> None:
        self.bound_by = bound_by
        self.xp = xp
        self.dispatch_key = dispatch_key
        self.trail = dict(trail)
        self.asarray = asarray
        self.__dict__.update(bound)

    def replace(self, **functions: Callable[..., Any]) -> Self:
        """A table in which these functions serve instead: ops by name, or the methods that a backend may refine.

        Those are `zeros`, `concrete` and `cond`. An op keeps the signature of its reference, whatever serves it. Raises
        UsageError for any other name.
        """
        table = object.__new__(type(self))
        table.__dict__.update(self.__dict__)
        for name, function in functions.items():
            if name not in OPS and name not in REPLACEABLE:
                known = (*OPS, *REPLACEABLE)
                raise UsageError(f"a table has no {name!r} to replace{did_you_mean(name, known)}")
            table.__dict__[name] = as_op(OPS[name], function) if name in OPS else function
        return table

    def zeros(self, *shape: int) -> Any:
        """Zeros on the table's device, for states: in its dtype, or float32 beside half precision."""
        import numpy as np

        return self.asarray(np.zeros(shape, dtype=np.float32))

    def check(self, holds: Any, error: Exception) -> None:
        """Raise `error` unless all of the boolean array `holds` is true; skipped where `concrete` cannot tell."""
        if self.concrete(self.xp.all(holds)) == 0:
            raise error

    def concrete(self, scalar: Any) -> int | None:
        """The number in an integer or boolean array of no axes; None while a compiler only traces it."""
        try:
            return int(scalar)
        except (TypeError, ValueError):  # what namespaces that trace raise (MLX: ValueError)
            return None

    def cond(self, holds: Any, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
        """`then()` if a boolean of no axes holds, else `otherwise()`; both return trees of the same arrays.

        Where the boolean is not known, because a compiler traces, both are computed and one is taken, unless the
        backend's table has a form of its own.
        """
        known = self.concrete(holds)
        if known is not None:
            return then() if known else otherwise()
        return tree_map(lambda a, b: self.xp.where(holds, a, b), then(), otherwise())

    if not TYPE_CHECKING:  # type checkers know the ops, and that there are no others

        def __getattr__(self, name: str) -> Any:
            # Reached only for unknown names: bound ops live in the instance's own dictionary.
            raise AttributeError(f"no op {name!r} in the table{did_you_mean(name, OPS)}; the ops are {', '.join(OPS)}")

    def __reduce__(self) -> tuple[Callable[[], OpTable], tuple[()]]:
        # Compiled functions cannot go to another process; the call that bound them can.
        if self.bound_by is None:
            raise TypeError("an op table is pickled as the call of Backend.bind that made it, and this one has none")
        return self.bound_by, ()

    def __deepcopy__(self, memo: dict[int, Any]) -> OpTable:
        # A table is bound functions and nothing else, so copies of a module may share it.
        return self

    def __repr__(self) -> str:
        key = self.dispatch_key
        return f"OpTable({key.namespace}, {key.device}, {key.dtype}, {key.mode})"


def bind_ops(
    xp: Any,
    key: DispatchKey,
    kernels: Iterable[tuple[str, KernelDescriptor]],
    *,
    wrap: Wrap,
    asarray: Callable[[Any], Any],
    bound_by: Callable[[], OpTable] | None = None,
    pins: Mapping[str, str] | None = None,
) -> OpTable:
    """Bind every op for a dispatch key: the best kernel that accepts them, else the op's reference.

    kernels  pairs of plugin name and descriptor; the highest priority that fits wins, ties go by name
    asarray  turns a NumPy array into one of the namespace, in the dtype of the key (float32 beside half precision)
    bound_by makes an equal table, in another process too: what the table is pickled as
    wrap     turns a loaded kernel into a callable of the namespace (autodiff registration and the like)
    pins     kernel by op name, exact and never falling back; "core/reference" pins the reference

    Whatever serves an op is called with the signature of its reference. Raises ComponentNotFound for a pin that names
    no kernel or no op, ComponentUnavailable for a pinned kernel that refuses. Warns of kernels for ops that there are
    not.
    """
    if key.mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, not {key.mode!r}")
    by_op: dict[str, list[tuple[str, KernelDescriptor]]] = {}
    for plugin, descriptor in kernels:
        by_op.setdefault(descriptor.op, []).append((f"{plugin}/{descriptor.name}", descriptor))
    _check_op_names(by_op, pins or {})
    bound: dict[str, Callable[..., Any]] = {}
    trail: dict[str, Choice] = {}
    for op in OPS.values():
        ranked = sorted(by_op.get(op.name, ()), key=lambda pair: (-pair[1].priority, pair[0]))
        pin = (pins or {}).get(op.name)
        function, trail[op.name] = _bind_at(op, xp, key, ranked, wrap, pin)
        bound[op.name] = as_op(op, function)
    return OpTable(xp, key, bound, trail, asarray, bound_by)


def _check_op_names(by_op: Mapping[str, list[tuple[str, KernelDescriptor]]], pins: Mapping[str, str]) -> None:
    for op in pins:
        if op not in OPS:
            raise ComponentNotFound(
                f"kernel {pins[op]!r} is pinned for an op {op!r}, which there is not{did_you_mean(op, OPS)}",
                hint="`helix explain op` lists the ops",
            )
    for op in by_op:
        if op not in OPS:
            names = ", ".join(name for name, _ in by_op[op])
            text = f"kernel {names} is for an op {op!r}, which there is not{did_you_mean(op, OPS)}"
            warnings.warn(text, RuntimeWarning, stacklevel=3)


def _bind_at(
    op: Op, xp: Any, key: DispatchKey, ranked: list[tuple[str, KernelDescriptor]], wrap: Wrap, pin: str | None
) -> tuple[Callable[..., Any], Choice]:
    """`_bind`; in half precision, a kernel that does not name the dtype serves between casts."""
    if key.dtype not in HALF:
        return _bind(op, xp, key, ranked, wrap, pin)
    native = [pair for pair in ranked if key.dtype in pair[1].dtypes]
    if native and pin is None:
        function, choice = _bind(op, xp, key, native, wrap, pin)
        if choice.chosen != REFERENCE:
            return narrowed(xp, op, function, key.dtype), choice
    elif pin is not None and any(pin in (name, descriptor.name) for name, descriptor in native):
        function, choice = _bind(op, xp, key, native, wrap, pin)
        return narrowed(xp, op, function, key.dtype), choice
    function, choice = _bind(op, xp, replace(key, dtype="float32"), ranked, wrap, pin)
    choice = replace(choice, reason=f"{choice.reason}; in float32, between casts")
    return between_casts(xp, op, function, key.dtype), choice


def _bind(
    op: Op, xp: Any, key: DispatchKey, ranked: list[tuple[str, KernelDescriptor]], wrap: Wrap, pin: str | None
) -> tuple[Callable[..., Any], Choice]:
    reference = functools.partial(op.reference, xp)
    if pin == REFERENCE:
        return reference, Choice(op.name, REFERENCE, "pinned")
    if pin is not None:
        names = [REFERENCE, *(name for full, descriptor in ranked for name in (full, descriptor.name))]
        ranked = [pair for pair in ranked if pin in (pair[0], pair[1].name)]
        if not ranked:
            raise ComponentNotFound(
                f"op {op.name!r} is pinned to kernel {pin!r}, and no installed plugin provides it"
                f"{did_you_mean(pin, names)}",
                hint=f"`helix explain op {op.name}` lists its kernels",
            )
    refused: list[Refusal] = []
    for name, descriptor in ranked:
        reason = _refusal(descriptor, key)
        if reason is None:
            try:
                from helix_core.plugin_system.refs import load_ref

                target = isolated(functools.partial(load_ref, descriptor.target))
                function = wrap(op, descriptor, target)
            except Exception as error:
                reason = f"broken: {type(error).__name__}: {error}"
                if pin is None:
                    warnings.warn(f"kernel {name} of op {op.name} is {reason}", RuntimeWarning, stacklevel=2)
            else:
                why = "pinned" if pin else f"highest priority ({descriptor.priority}) that fits"
                return function, Choice(op.name, name, why, tuple(refused))
        refused.append(Refusal(name, reason))
    if pin is not None:
        raise ComponentUnavailable(
            f"op {op.name!r} is pinned to kernel {pin!r}, which refuses: {refused[-1].reason}",
            hint="remove the pin, or bind for what the kernel accepts",
        )
    why = "no kernel fits" if refused else "no kernel installed for it"
    return reference, Choice(op.name, REFERENCE, why, tuple(refused))


def _refusal(descriptor: KernelDescriptor, key: DispatchKey) -> str | None:
    """Why a kernel cannot serve `key`, or None."""
    if descriptor.namespace != key.namespace:
        return f"works on {descriptor.namespace} arrays, not {key.namespace}"
    if key.device not in descriptor.devices:
        return f"runs on {', '.join(descriptor.devices)}, not {key.device}"
    if key.dtype not in descriptor.dtypes:
        return f"takes {', '.join(descriptor.dtypes)}, not {key.dtype}"
    differentiable = set(OPS[descriptor.op].arrays) - OPS[descriptor.op].no_grad
    if key.mode == "train" and descriptor.gradient == "none" and differentiable:
        return "has no gradient (inference only)"
    from helix_core.plugin_system.requirements import unmet_requirement

    for requirement in descriptor.requires:
        if reason := unmet_requirement(requirement):
            return reason
    supports = descriptor.supports
    if supports is not None:
        from helix_core.plugin_system.refs import load_ref

        try:
            verdict: str | None = isolated(lambda: load_ref(supports)(key))
        except Exception as error:
            return f"its supports() failed: {type(error).__name__}: {error}"
        return verdict
    return None
