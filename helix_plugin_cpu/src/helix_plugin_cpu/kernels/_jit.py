"""What kernels are made of: instructions that emit LLVM IR, functions inlined into kernels, and kernels.

Kernels run without the GIL and without Python's error checks; their machine code is cached on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ctypes import CFUNCTYPE, addressof, c_void_p, create_string_buffer
from functools import wraps
from inspect import signature as parameters_of
from struct import Struct
from typing import Any, ClassVar, TypeVar, cast, get_type_hints

from llvmlite import ir
from numba import types
from numba.core.compiler import CompilerBase
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import lower_builtin

from helix_plugin_cpu._isa import features
from helix_plugin_cpu.kernels._numba import SOURCES, Dispatcher, KernelCompiler, LinkedCompiler
from helix_plugin_cpu.prepared import load

features()  # before Numba compiles anything

F = TypeVar("F", bound=Callable[..., Any])
Emitter = Callable[..., Any]
Entry: Any = CFUNCTYPE(None, c_void_p)
TEAM = Struct("=5q")


def _lowering(emit: Emitter) -> Callable[..., Any]:
    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Sequence[Any]) -> Any:
        value = emit(builder, *args)
        return context.get_dummy_value() if value is None else value

    return lower


def register(name: Any, result: types.Type, signatures: Sequence[Sequence[types.Type]], emit: Emitter | None) -> None:
    """Teach Numba that `name`, an operator or a function, applied to such arguments, is what `emit` emits.

    Without `emit`, only that it may be applied to them.
    """

    class Typing(ConcreteTemplate):
        key = name
        cases: ClassVar = [signature(result, *arguments) for arguments in signatures]

    infer_global(name, types.Function(Typing))
    if emit is not None:
        for arguments in signatures:
            lower_builtin(name, *arguments)(_lowering(emit))


def instruction(result: types.Type, *arguments: types.Type) -> Callable[[Emitter], Callable[..., Any]]:
    """Make a function of kernels from `function(builder, *values)`, which emits its code."""

    def decorate(emit: Emitter) -> Callable[..., Any]:
        @wraps(emit)
        def function(*args: Any) -> Any:
            raise TypeError(f"{emit.__name__} exists only in compiled code")

        register(function, result, [arguments], emit)
        return function

    return decorate


def overloaded(name: str, result: types.Type, *cases: tuple[Sequence[types.Type], Emitter]) -> Callable[..., Any]:
    """An instruction whose code depends on its arguments' types."""

    def function(*args: Any) -> Any:
        raise TypeError(f"{name} exists only in compiled code")

    function.__name__ = name
    register(function, result, [arguments for arguments, _ in cases], None)
    for arguments, lower in cases:
        lower_builtin(function, *arguments)(_lowering(lower))
    return function


# Never called from Python, so without the wrappers for it, which take as long to compile as a small function.
_INSIDE: dict[str, Any] = {
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "pipeline_class": LinkedCompiler,
}


def _dispatcher(function: Callable[..., Any], *, pipeline_class: type[CompilerBase], **options: Any) -> Dispatcher:
    options = {"nopython": True, "nogil": True, "error_model": "numpy", **options}
    return Dispatcher(function, targetoptions=options, pipeline_class=pipeline_class)


def inline(function: F) -> F:
    """A part of kernels, compiled into each."""
    return cast(F, _dispatcher(function, **_INSIDE, forceinline=True))


def part(function: F) -> F:
    """A part of kernels that is called, for what is large and used in many places."""
    dispatcher = _dispatcher(function, **_INSIDE)
    dispatcher.take_constants_as_variables()
    return cast(F, dispatcher)


class Unsigned(int):
    """An argument that a kernel takes as uint64: of another type than other integers."""


CODES = {float: "d", Unsigned: "Q"}
"""How arguments are packed; the rest are int64, "q"."""
TYPES = {"q": types.int64, "d": types.float64, "Q": types.uint64}


def group(function: Callable[..., None], words: Sequence[types.Type]) -> list[types.Type]:
    """Types of a kernel's parameters, from those of the words that it gets: a NamedTuple takes one for each field."""
    hints, rest, found = get_type_hints(function), iter(words), []
    for name in parameters_of(function).parameters:
        record = hints.get(name)
        if isinstance(record, type) and issubclass(record, tuple):
            fields = [next(rest) for _ in get_type_hints(record)]
            found.append(types.BaseTuple.from_types(fields, record))
        else:
            found.append(next(rest))
    return [*found, *rest]


class Kernel:
    """A function of integers (addresses, strides, sizes, flags) and floats, which is called outside the GIL.

    A parameter may be a NamedTuple of them, by its annotation; it is called with the fields one after the other.

    Its `entry` is what threads run: a C function of a team's address. A team is five int64: how many of its members
    have come, how many there are, where their arguments begin, the bytes of each one's, and a counter for them.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__qualname__}"
        self.dispatcher = _dispatcher(function, pipeline_class=KernelCompiler, no_cpython_wrapper=True)
        self.dispatcher.keep(function)
        self._entries: dict[tuple[type, ...], tuple[Any, Struct]] = {}

    def entry(self, args: tuple[int | float, ...]) -> tuple[Any, Struct]:
        """The entry for such arguments, and how they are packed."""
        kinds = tuple(map(type, args))
        found = self._entries.get(kinds)
        if found is None:
            codes = "".join(CODES.get(kind, "q") for kind in kinds)
            address = load.address(load.symbol(self.name, codes), SOURCES)
            if address is None:
                address = self.dispatcher.entry_address(self.parameters(codes))
            found = self._entries[kinds] = Entry(address), Struct("=" + codes)
        return found

    def parameters(self, codes: str) -> list[types.Type]:
        """Numba's types of the parameters, for arguments packed by `codes`."""
        return group(self.function, [TYPES[code] for code in codes])

    def used(self) -> list[str]:
        """The entries that were asked for in this process, by the names that `helix_plugin_cpu.prepared` gives them."""
        return [load.symbol(self.name, packing.format[1:]) for _, packing in self._entries.values()]

    def __call__(self, *args: int | float) -> None:
        entry, packing = self.entry(args)
        block = create_string_buffer(packing.pack(*args))
        team = create_string_buffer(TEAM.pack(0, 1, addressof(block), 0, 0))
        entry(addressof(team))


def kernel(function: Callable[..., None]) -> Kernel:
    """A function to call from Python, or on several threads."""
    return Kernel(function)
