"""What kernels are made of: instructions that emit LLVM IR, functions inlined into kernels, and kernels.

Kernels run without the GIL and without Python's error checks; their machine code is cached on disk.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

from llvmlite import ir
from numba import njit, types
from numba._dynfunc import make_function
from numba.core.caching import FunctionCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import lower_builtin

from helix_core.events import emit

F = TypeVar("F", bound=Callable[..., Any])
Emitter = Callable[..., Any]


def _sources() -> str:
    """A digest of this package's files."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _PackageCache(FunctionCache):
    """Numba's cache, whose key also covers the helpers that a kernel is made of.

    Numba looks at the file of the kernel only: after a change to another file it would run the old machine
    code. Its own key already holds the CPU's name and features, so one directory may serve different
    machines. What has to be compiled is told as events, since it takes a second or so each.
    """

    _digest = _sources()
    _began = 0.0

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = super().load_overload(sig, target_context)
        if found is None:
            self._began = time.perf_counter()
            emit("compiling", kernel=self._name)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        emit("compiled", kernel=self._name, seconds=time.perf_counter() - self._began)
        super().save_overload(sig, data)

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
_INSIDE = {
    "nogil": True,
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "pipeline_class": _LinkedCompiler,
}


def inline(function: F) -> F:
    """A part of kernels, compiled into each."""
    return cast(F, njit(**_INSIDE, forceinline=True)(function))


def part(function: F) -> F:
    """A part of kernels that is called, for what is large and used in many places."""
    dispatcher = njit(**_INSIDE)(function)
    resolve = dispatcher.get_call_template

    def as_variables(args: Sequence[types.Type], kws: Any) -> Any:
        # Numba would compile it anew for every constant that it is called with.
        return resolve([types.unliteral(a) for a in args], kws)

    dispatcher.get_call_template = as_variables
    return cast(F, dispatcher)


def kernel(function: F) -> F:
    """A function to call from Python with integers: addresses, strides, sizes and flags."""
    dispatcher = njit(nogil=True, error_model="numpy", pipeline_class=_Compiler)(function)
    # RuntimeError: neither this package, nor NUMBA_CACHE_DIR, nor the user's cache directory is writable.
    with suppress(RuntimeError):
        dispatcher._cache = _PackageCache(function)
    return cast(F, dispatcher)
