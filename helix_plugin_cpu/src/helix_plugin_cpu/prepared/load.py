"""Find a kernel's machine code in the archive that came with the installation."""

from __future__ import annotations

import functools
import os
import threading
from typing import Any

from llvmlite import binding

from helix_core.events import emit
from helix_plugin_cpu._isa import VARIABLE, features
from helix_plugin_cpu.prepared.archive import Archive, UnusableArchive, archive_of
from helix_plugin_cpu.prepared.targets import target_for

_lock = threading.Lock()


def symbol(kernel: str, codes: str) -> str:
    """Name a kernel's entry: `kernel` is module and function, `codes` a letter for each argument's type."""
    return f"{kernel}.{codes}"


@functools.cache
def opened(sources: str) -> Archive | None:
    """Return the archive for this process; None if none suits, or none came with the installation.

    With HELIX_CPU_ISA=native, kernels are always compiled for this very processor.
    """
    target = target_for(features())
    if target is None or os.environ.get(VARIABLE) == "native" or not archive_of(target.name).exists():
        return None
    try:
        return Archive(archive_of(target.name), target.name, sources)
    except UnusableArchive as error:
        emit("prepared_unused", path=str(archive_of(target.name)), reason=str(error))
        return None


def address(name: str, sources: str) -> int | None:
    """Load a kernel and return the address of its entry; None if it has to be compiled."""
    archive = opened(sources)
    if archive is None or name not in archive:
        return None
    try:
        data = archive.read(name)
        with _lock:
            engine = _engine()
            engine.add_object_file(binding.ObjectFileRef.from_data(data))
            engine.finalize_object()
            found: int = engine.get_function_address(name)
    except (UnusableArchive, RuntimeError) as error:
        emit("prepared_unused", kernel=name, reason=str(error))
        return None
    return found or None


def described() -> str:
    """Say where machine code comes from, for `helix doctor`."""
    from helix_plugin_cpu.kernels._numba import SOURCES

    target, archive = target_for(features()), opened(SOURCES)
    return f"prepared for {target.name}" if archive is not None and target is not None else "compiled at first use"


@functools.cache
def _engine() -> Any:
    """LLVM's loader, which keeps what it has loaded for as long as the process lives."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine()
    return binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
