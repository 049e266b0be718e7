"""Compile kernels ahead, for processors that need not be this one.

Numba turns a kernel into LLVM's intermediate code, once for narrow vectors and once for wide ones; LLVM makes machine
code of that for each target. Nothing of it is run.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from llvmlite import binding

from helix_plugin_cpu.prepared.archive import FOLDER, archive_of, write_archive
from helix_plugin_cpu.prepared.targets import TARGETS, Target

KERNELS = FOLDER / "kernels.txt"
PAUSES = {
    "x86_64": ("@llvm.x86.sse2.pause", "", ""),
    "aarch64": ("@llvm.aarch64.hint", "i32", "i32 1"),
    "riscv64": ("@llvm.riscv.pause", "", ""),
}
"""The hint of a waiting loop on each machine: LLVM's name, types and arguments."""


def listed(path: Path = KERNELS) -> list[str]:
    """Return the names of the kernels to prepare, each with its arguments' types."""
    return path.read_text().split()


def build(folder: Path = FOLDER, targets: Iterable[str] = TARGETS, kernels: Path = KERNELS) -> list[Path]:
    """Write an archive of the kernels that a file lists, for each target, and return the archives.

    Raises KeyError for an unknown target, RuntimeError if a kernel cannot be compiled.
    """
    wanted = [TARGETS[name] for name in targets]
    with tempfile.TemporaryDirectory() as cache:
        waiting = []
        for wide in sorted({target.wide for target in wanted}):
            names = [target.name for target in wanted if target.wide == wide]
            # A process of its own: how wide vectors are is settled when the kernels are imported.
            level = TARGETS["x86-64-v4" if wide else "x86-64-v3"]
            environment = {
                **os.environ,
                "NUMBA_CACHE_DIR": f"{cache}/{wide}",
                "NUMBA_CPU_NAME": level.cpu,
                "NUMBA_CPU_FEATURES": ",".join(f"+{feature}" for feature in level.needs),
            }
            command = [
                sys.executable,
                "-m",
                "helix_plugin_cpu.prepared",
                "--here",
                "--folder",
                str(folder),
                "--kernels",
                str(kernels),
                *names,
            ]
            waiting.append(subprocess.Popen(command, env=environment))
        failed = [process.wait() for process in waiting]
    if any(failed):
        raise RuntimeError("not all kernels could be compiled: see the error above")
    return [archive_of(target.name, folder) for target in wanted]


def build_here(folder: Path, targets: Iterable[str], kernels: Path) -> None:
    """Write the archives of targets that have the vectors of this process."""
    from helix_plugin_cpu.kernels._numba import SOURCES

    codes = {name: intermediate_code(name) for name in listed(kernels)}
    for target in (TARGETS[name] for name in targets):
        objects = {name: machine_code(code, entry, name, target) for name, (code, entry) in codes.items()}
        write_archive(archive_of(target.name, folder), target.name, SOURCES, objects)
        print(json.dumps({"target": target.name, "kernels": len(objects), "bytes": sum(map(len, objects.values()))}))


def intermediate_code(name: str) -> tuple[str, str]:
    """Return a kernel's code before it is optimised, and what its entry is called there."""
    from helix_plugin_cpu.kernels import _jit

    module, function, codes = name.split(".")
    kernel = getattr(importlib.import_module(f"helix_plugin_cpu.kernels.{module}"), function)
    assert isinstance(kernel, _jit.Kernel)
    fresh = _jit.Kernel(kernel.function)  # what is compiled already has no such code any more
    return fresh.dispatcher.intermediate_code(kernel.parameters(codes))


def machine_code(code: str, entry: str, name: str, target: Target) -> bytes:
    """Return the object file of a kernel, whose only name to the outside is `name`."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.flags, opt=3, reloc="pic", codemodel="small", abiname=target.abi
    )
    module = binding.parse_assembly(_for_machine(code, target.machine))
    module.triple, module.data_layout = target.triple, str(machine.target_data)
    for function in module.functions:
        if not function.is_declaration and function.name != entry:
            function.linkage = "internal"
    module.get_function(entry).name = name
    builder = binding.create_pass_builder(machine, binding.create_pipeline_tuning_options(speed_level=3))
    builder.getModulePassManager().run(module, builder)
    found: bytes = machine.emit_object(module)
    return found


def _for_machine(code: str, machine: str) -> str:
    """Code that Numba made on any machine, with the hints of the one that is meant."""
    name, types, arguments = PAUSES[machine]
    for other, *_ in PAUSES.values():
        code = re.sub(rf"call void {re.escape(other)}\([^)]*\)", f"call void {name}({arguments})", code)
        code = re.sub(rf"declare void {re.escape(other)}\([^)]*\)", f"declare void {name}({types})", code)
    return code
