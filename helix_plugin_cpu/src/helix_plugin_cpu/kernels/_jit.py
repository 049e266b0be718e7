"""What kernels are made of: instructions that emit LLVM IR, functions inlined into kernels, and kernels.

Kernels run without the GIL and without Python's error checks; their machine code is cached on disk.
"""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from ctypes import CFUNCTYPE, addressof, c_void_p, create_string_buffer
from functools import wraps
from pathlib import Path
from struct import Struct
from typing import Any, ClassVar, TypeVar, cast

from llvmlite import ir
from numba import config, types
from numba._dynfunc import make_function
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.registry import CPUDispatcher
from numba.core.serialize import dumps
from numba.core.typed_passes import NativeLowering
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import lower_builtin

from helix_core.events import emit
from helix_plugin_cpu._isa import features

features()  # before Numba compiles anything

F = TypeVar("F", bound=Callable[..., Any])
Emitter = Callable[..., Any]
Entry = CFUNCTYPE(None, c_void_p)
TEAM = Struct("=5q")


def _sources() -> str:
    """A digest of this package's files."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _Sealed(CompileResultCacheImpl):
    """What Numba stores, with a checksum: machine code that a disk has damaged would crash, or compute nonsense."""

    def reduce(self, cres: Any) -> tuple[bytes, bytes]:
        data = dumps(super().reduce(cres))
        return hashlib.sha256(data).digest(), data

    def rebuild(self, target_context: Any, payload: tuple[bytes, bytes]) -> Any:
        checksum, data = payload
        if hashlib.sha256(data).digest() != checksum:
            raise ValueError("damaged machine code")
        return super().rebuild(target_context, pickle.loads(data))


class _PackageCache(FunctionCache):
    """Numba's cache, whose key also covers the helpers that a kernel is made of.

    Numba looks at the file of the kernel only: after a change to another file it would run the old machine
    code. Its own key already holds the CPU's name and features, so one directory may serve different
    machines. What has to be compiled is told as events, since it takes a second or so each.

    A cache saves time and nothing else: what is damaged is compiled anew, and what cannot be written is done without.
    """

    _impl_class = _Sealed
    _digest = _sources()
    _began = 0.0

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            found = super().load_overload(sig, target_context)
            if found is not None and tuple(found.signature.args) != tuple(sig):
                raise ValueError("machine code for other arguments")
        except Exception as error:  # pickle raises anything
            emit("cache_damaged", kernel=self._name, path=self.cache_path, reason=f"{type(error).__name__}: {error}")
            found = None
            with suppress(OSError):
                self.flush()
        if found is None:
            self._began = time.perf_counter()
            emit("compiling", kernel=self._name)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        emit("compiled", kernel=self._name, seconds=time.perf_counter() - self._began)
        try:
            super().save_overload(sig, data)
        except Exception as error:  # no space, no permission, no folder any more; or a damaged index once again
            emit("cache_unused", kernel=self._name, path=self.cache_path, reason=f"{type(error).__name__}: {error}")

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(sig, codegen), self._digest)


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
    for arguments in signatures if emit else ():
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


class _LinkedLibrary(JITCodeLibrary):
    """Code that runs only as a part of kernels: optimised and made machine code of with each, never by itself."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True


class _KernelLibrary(JITCodeLibrary):
    """A kernel with all its parts: optimised once. Numba does it twice, to remove reference counts in between."""

    def _optimize_final_module(self) -> None:
        manager, builder = self._codegen._module_pass_manager()
        manager.run(self._final_module, builder)


@register_pass(mutates_CFG=True, analysis_only=False)
class _LowerKernel(NativeLowering):
    _name = "helix_lower_kernel"

    @property
    def lowering_class(self) -> type[Lower]:
        return _KernelLower

    def run_pass(self, state: Any) -> bool:
        state.library = _KernelLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.library.enable_object_caching()
        return bool(super().run_pass(state))


@register_pass(mutates_CFG=True, analysis_only=False)
class _LowerForLinking(NativeLowering):
    _name = "helix_lower_for_linking"

    def run_pass(self, state: Any) -> bool:
        state.library = _LinkedLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        super().run_pass(state)
        # Numba's dispatcher wants a function; this one's address is 0, and nothing calls it.
        found = state["cr"]
        name = found.fndesc.qualname
        handle = make_function(found.fndesc.lookup_module(), name, "", 0, found.env, (state.library,))
        state.targetctx.insert_user_function(handle, found.fndesc, [state.library])
        state["cr"] = found._replace(cfunc=handle)
        return True


class _KernelLower(Lower):
    def create_cfunc_wrapper(self) -> None:
        """`Kernel.entry`: take a place in the team and call the kernel with the arguments of that place."""
        module = self.context.create_module("entry")
        convention, found = self.context.call_conv, self.fndesc
        word = ir.IntType(64)
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [word]), found.llvm_cfunc_wrapper_name)
        b = ir.IRBuilder(function.append_basic_block())

        def at(address: Any, index: int, kind: ir.Type = word) -> Any:
            return b.inttoptr(b.add(address, ir.Constant(word, 8 * index)), kind.as_pointer())

        (team,) = function.args
        place = b.atomic_rmw("add", at(team, 0), ir.Constant(word, 1), "monotonic")
        with b.if_then(b.icmp_signed("<", place, b.load(at(team, 1)))):
            block = b.add(b.load(at(team, 2)), b.mul(place, b.load(at(team, 3))))
            kinds = [self.context.get_value_type(kind) for kind in found.argtypes]
            args = [b.load(at(block, i, kind)) for i, kind in enumerate(kinds)]
            callee = ir.Function(
                module, convention.get_function_type(found.restype, found.argtypes), found.llvm_func_name
            )
            convention.call_function(b, callee, found.restype, found.argtypes, args)
        b.ret_void()
        self.library.add_ir_module(module)


class _Compiler(CompilerBase):
    lowering: ClassVar[type[NativeLowering]] = _LowerKernel

    def define_pipelines(self) -> list[Any]:
        builder = DefaultPassBuilder.define_nopython_pipeline(self.state)
        builder.passes = [
            (self.lowering, what) if found is NativeLowering else (found, what) for found, what in builder.passes
        ]
        builder.finalize()
        return [builder]


class _LinkedCompiler(_Compiler):
    lowering = _LowerForLinking


# Never called from Python, so without the wrappers for it, which take as long to compile as a small function.
_INSIDE: dict[str, Any] = {
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "pipeline_class": _LinkedCompiler,
}


class _Dispatcher(CPUDispatcher):
    """Numba's, which compiles also under NUMBA_DISABLE_JIT: instructions have no meaning in Python."""

    def compile(self, sig: Any) -> Any:
        with global_compiler_lock:
            disabled, config.DISABLE_JIT = config.DISABLE_JIT, 0
            try:
                return super().compile(sig)
            finally:
                config.DISABLE_JIT = disabled


def _dispatcher(function: Callable[..., Any], *, pipeline_class: type[CompilerBase], **options: Any) -> _Dispatcher:
    options = {"nopython": True, "nogil": True, "error_model": "numpy", **options}
    return _Dispatcher(function, targetoptions=options, pipeline_class=pipeline_class)


def inline(function: F) -> F:
    """A part of kernels, compiled into each."""
    return cast(F, _dispatcher(function, **_INSIDE, forceinline=True))


def part(function: F) -> F:
    """A part of kernels that is called, for what is large and used in many places."""
    dispatcher = _dispatcher(function, **_INSIDE)
    resolve = dispatcher.get_call_template

    def as_variables(args: Sequence[types.Type], kws: Any) -> Any:
        # Numba would compile it anew for every constant that it is called with.
        return resolve([types.unliteral(a) for a in args], kws)

    dispatcher.get_call_template = as_variables
    return cast(F, dispatcher)


class Unsigned(int):
    """An argument that a kernel takes as uint64: of another type than other integers."""


ARGUMENTS: dict[type, tuple[types.Type, str]] = {float: (types.float64, "d"), Unsigned: (types.uint64, "Q")}
"""Numba's types of arguments, and how they are packed; the rest are int64."""


class Kernel:
    """A function of integers (addresses, strides, sizes, flags) and floats, which is called outside the GIL.

    Its `entry` is what threads run: a C function of a team's address. A team is five int64: how many of its members
    have come, how many there are, where their arguments begin, the bytes of each one's, and a counter for them.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.dispatcher = _dispatcher(function, pipeline_class=_Compiler, no_cpython_wrapper=True)
        # RuntimeError: neither this package, nor NUMBA_CACHE_DIR, nor the user's cache directory is writable.
        with suppress(RuntimeError, OSError):
            self.dispatcher._cache = _PackageCache(function)
        self._entries: dict[tuple[type, ...], tuple[Entry, Struct]] = {}

    def entry(self, args: tuple[int | float, ...]) -> tuple[Entry, Struct]:
        """The entry for such arguments, and how they are packed."""
        kinds = tuple(map(type, args))
        found = self._entries.get(kinds)
        if found is None:
            found_types = [ARGUMENTS.get(kind, (types.int64, "q")) for kind in kinds]
            signature = tuple(argument for argument, _ in found_types)
            self.dispatcher.compile(signature)
            compiled = self.dispatcher.overloads[signature]
            address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)
            found = Entry(address), Struct("=" + "".join(code for _, code in found_types))
            self._entries[kinds] = found
        return found

    def __call__(self, *args: int | float) -> None:
        entry, packing = self.entry(args)
        block = create_string_buffer(packing.pack(*args))
        team = create_string_buffer(TEAM.pack(0, 1, addressof(block), 0, 0))
        entry(addressof(team))


def kernel(function: Callable[..., None]) -> Kernel:
    """A function to call from Python, or on several threads."""
    return Kernel(function)
