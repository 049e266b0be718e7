"""What kernels use of Numba's compiler that is no part of its public interface.

- a cache with a checksum and with a key of our own (`FunctionCache`, `CompileResultCacheImpl`)
- libraries of machine code that are optimised once, or only within another (`JITCodeLibrary`)
- a compiler that fills them (`CompilerBase`, `NativeLowering`), and writes the entry that threads call (`Lower`)
- a dispatcher that ignores NUMBA_DISABLE_JIT and treats constants as variables (`CPUDispatcher`)

It was seen to work with the versions that SEEN says. The distribution asks for them, and `test_numba.py` fails for
others: run the tests of the kernels with a new one, and move the bound.
"""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import numba
from llvmlite import ir
from numba import types
from numba._dynfunc import make_function
from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower
from numba.core.registry import CPUDispatcher
from numba.core.serialize import dumps
from numba.core.typed_passes import NativeLowering

from helix_core.events import emit

SEEN = ("0.62", "0.69")
"""The first version that this was seen to work with, and the first that it was not tried with."""
config: Any = numba.config


def _sources() -> str:
    """A digest of this package's files."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


SOURCES = _sources()


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
        return (*super()._index_key(sig, codegen), SOURCES)


class _LinkedLibrary(JITCodeLibrary):
    """Code that runs only as a part of kernels: optimised and made machine code of with each, never by itself."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True


class _KernelLibrary(JITCodeLibrary):
    """A kernel with all its parts: optimised once. Numba does it twice, to remove reference counts in between."""

    def _optimize_final_module(self) -> None:
        if _intermediate is not None:
            _intermediate.append(str(self._final_module))
        manager, builder = self._codegen._module_pass_manager()
        manager.run(self._final_module, builder)


_intermediate: list[str] | None = None
"""While `Dispatcher.intermediate_code` waits for it: the code of kernels before it is optimised."""


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
            args, word_index = [], 0
            for kind in found.argtypes:  # a tuple of words lies in memory as in a register
                args.append(b.load(at(block, word_index, self.context.get_value_type(kind))))
                word_index += len(kind) if isinstance(kind, types.BaseTuple) else 1
            callee = ir.Function(
                module, convention.get_function_type(found.restype, found.argtypes), found.llvm_func_name
            )
            convention.call_function(b, callee, found.restype, found.argtypes, args)
        b.ret_void()
        self.library.add_ir_module(module)


class KernelCompiler(CompilerBase):
    """Numba's compiler, which optimises a kernel once and writes the entry that threads call."""

    lowering: ClassVar[type[NativeLowering]] = _LowerKernel

    def define_pipelines(self) -> list[Any]:
        builder = DefaultPassBuilder.define_nopython_pipeline(self.state)
        builder.passes = [
            (self.lowering, what) if found is NativeLowering else (found, what) for found, what in builder.passes
        ]
        builder.finalize()
        return [builder]


class LinkedCompiler(KernelCompiler):
    """Numba's compiler for parts of kernels, which are optimised within each."""

    lowering = _LowerForLinking


class Dispatcher(CPUDispatcher):
    """Numba's, which compiles also under NUMBA_DISABLE_JIT: instructions have no meaning in Python."""

    _cache: Any

    def keep(self, function: Callable[..., Any]) -> None:
        """Keep the machine code on disk, where anything is writable: here, in NUMBA_CACHE_DIR or the user's cache."""
        with suppress(RuntimeError, OSError):
            self._cache = _PackageCache(function)

    def take_constants_as_variables(self) -> None:
        """Numba would compile a function anew for every constant that another calls it with."""
        resolve: Any = self.get_call_template
        self.__dict__["get_call_template"] = lambda args, kws: resolve([types.unliteral(a) for a in args], kws)

    def entry_address(self, signature: Sequence[types.Type]) -> int:
        """Compile for these arguments: the address of the entry that `_KernelLower` wrote."""
        self.compile(tuple(signature))
        compiled: Any = self.overloads[tuple(signature)]
        address: int = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)
        return address

    def intermediate_code(self, signature: Sequence[types.Type]) -> tuple[str, str]:
        """LLVM's code for these arguments before it is optimised, and the entry's name there; past the cache."""
        global _intermediate
        kept, self._cache = self._cache, NullCache()
        with global_compiler_lock:
            _intermediate = []
            try:
                self.compile(tuple(signature))
                (code,) = _intermediate
            finally:
                _intermediate, self._cache = None, kept
        compiled: Any = self.overloads[tuple(signature)]
        return code, compiled.fndesc.llvm_cfunc_wrapper_name

    def compile(self, sig: Any) -> Any:
        """Compile for these arguments, whatever NUMBA_DISABLE_JIT says."""
        with global_compiler_lock:
            disabled, config.DISABLE_JIT = config.DISABLE_JIT, 0
            try:
                return super().compile(sig)
            finally:
                config.DISABLE_JIT = disabled
