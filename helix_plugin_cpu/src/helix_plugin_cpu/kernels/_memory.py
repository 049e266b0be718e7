"""Scalar access to memory by address, and the counter from which workers take their jobs."""

from __future__ import annotations

from llvmlite import ir
from numba import types

from helix_plugin_cpu.kernels._jit import instruction
from helix_plugin_cpu.kernels._simd import F32, I8, I32, I64, Value, call

FLOAT = 4
"""Bytes of a float."""


@instruction(types.float32, types.intp)
def get(b: ir.IRBuilder, address: Value) -> Value:
    """The float at an address."""
    return b.load(b.inttoptr(address, F32.as_pointer()))


@instruction(types.void, types.intp, types.float32)
def put(b: ir.IRBuilder, address: Value, value: Value) -> None:
    """Write a float32."""
    b.store(value, b.inttoptr(address, F32.as_pointer()))


@instruction(types.intp, types.intp)
def get_flag(b: ir.IRBuilder, address: Value) -> Value:
    """The byte at an address."""
    return b.zext(b.load(b.inttoptr(address, I8.as_pointer())), I64)


@instruction(types.void, types.intp, types.intp)
def put_flag(b: ir.IRBuilder, address: Value, value: Value) -> None:
    """Write a byte."""
    b.store(b.trunc(value, I8), b.inttoptr(address, I8.as_pointer()))


@instruction(types.void, types.intp, types.intp)
def put_int(b: ir.IRBuilder, address: Value, value: Value) -> None:
    """Write an int64."""
    b.store(value, b.inttoptr(address, I64.as_pointer()))


@instruction(types.intp, types.intp)
def get_int(b: ir.IRBuilder, address: Value) -> Value:
    """The int64 at an address."""
    return b.load(b.inttoptr(address, I64.as_pointer()))


@instruction(types.void, types.intp)
def prefetch(b: ir.IRBuilder, address: Value) -> None:
    """Ask for the cache line at an address, which need not exist."""
    read, keep, data = (ir.Constant(I32, i) for i in (0, 3, 1))
    call(b, "llvm.prefetch.p0", ir.VoidType(), b.inttoptr(address, I8.as_pointer()), read, keep, data)


@instruction(types.intp, types.intp)
def take_job(b: ir.IRBuilder, counter: Value) -> Value:
    """The next number of the int64 counter at an address; no two threads get the same."""
    return b.atomic_rmw("add", b.inttoptr(counter, I64.as_pointer()), ir.Constant(I64, 1), "monotonic")
