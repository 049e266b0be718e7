"""Kernels of this process carried out by an emulator of another machine, instruction by instruction."""

import ctypes
import shutil
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import torch

from helix_plugin_cpu.kernels import _threads
from helix_plugin_cpu.kernels._fft_plan import plan_of
from helix_plugin_cpu.kernels._jit import CODES
from helix_plugin_cpu.prepared.build import intermediate_code, machine_code
from helix_plugin_cpu.prepared.load import symbol
from helix_plugin_cpu.prepared.targets import TARGETS, Target

HARNESS = Path(__file__).with_name("harness.c")
SCRATCH = 8 << 20
"""Bytes that every call gets; of the kernels, none needs as much on the samples of the tests."""
MACHINES = {
    "aarch64": TARGETS["aarch64"],
    "riscv64": Target("riscv64", "riscv64", "generic-rv64", ("v",), flags="+m,+a,+f,+d,+c,+v", abi="lp64d"),
}
EMULATORS = {
    "aarch64": ["qemu-aarch64", "-cpu", "cortex-a72"],
    "riscv64": ["qemu-riscv64", "-cpu", "rv64,v=true,vlen=256,vext_spec=v1.0"],
}


def missing(machine):
    """The programs that are not installed here, of those that it takes."""
    return [program for program in (EMULATORS[machine][0], f"{machine}-linux-gnu-gcc") if shutil.which(program) is None]


class Machine:
    """An emulated machine: `running` has every kernel launched here run there. Programs are built in `folder`."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        self.calls = {}
        self._programs = {}
        self._arrays = {}

    def _program(self, kernel):
        if kernel not in self._programs:
            code = self.folder / f"{len(self._programs)}.o"
            code.write_bytes(machine_code(*intermediate_code(kernel), kernel, MACHINES[self.name]))
            program = code.with_suffix("")
            command = [f"{self.name}-linux-gnu-gcc", "-O1", "-static", f'-DKERNEL="{kernel}"', str(HARNESS)]
            subprocess.run([*command, str(code), "-lm", "-o", str(program)], check=True, timeout=100)
            command = [*EMULATORS[self.name], str(program)]
            self._programs[kernel] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._programs[kernel]

    def _call(self, kernel, shares):
        args = shares[0]  # one thread does every job
        codes = "".join(CODES.get(type(a), "q") for a in args)
        name = symbol(kernel.name, codes)
        running = self._program(name)
        self.calls[name] = self.calls.get(name, 0) + 1
        blocks = self._reached(args)
        running.stdin.write(struct.pack("=3q", len(blocks), len(args), SCRATCH))
        for start, (size, words) in blocks.items():
            running.stdin.write(struct.pack("=3q", start, size, words) + ctypes.string_at(start, size))
        running.stdin.write(struct.pack(f"={len(args)}q", *(isinstance(a, float) for a in args)))
        running.stdin.write(struct.pack("=" + codes, *args))
        running.stdin.flush()
        for start, (size, _) in blocks.items():
            found = running.stdout.read(size)
            assert len(found) == size, f"{name} ended with {running.wait()} on {self.name}"
            ctypes.memmove(start, found, size)

    def _reached(self, args):
        """Memory that arguments, and words in such memory, point to: {start: (bytes, whether it holds words)}."""
        known = [(storage.data_ptr(), storage.nbytes(), words) for storage, words in self._arrays.values()]
        waiting, found = [a for a in args if type(a) is int], {}
        while waiting:
            word = waiting.pop()
            for start, size, words in known:
                if start <= word <= start + size and start not in found:
                    found[start] = size, words
                    if words:
                        waiting += struct.unpack(f"={size // 8}q", ctypes.string_at(start, size // 8 * 8))
        return found

    @contextmanager
    def running(self, monkeypatch):
        """While this lasts, kernels run there."""
        address = _threads.address
        plan_of.cache_clear()  # it holds addresses that were not noted

        def noted(array):
            """The address of an array, whose memory a call may touch; the array is held until the end."""
            if array is not None and array.numel():
                storage = array.untyped_storage()
                self._arrays[storage.data_ptr()] = storage, array.dtype == torch.int64
            return address(array)

        with monkeypatch.context() as patch:
            for name, module in list(sys.modules.items()):
                if name.startswith("helix_plugin_cpu.kernels.") and getattr(module, "address", None) is address:
                    patch.setattr(module, "address", noted)
            patch.setattr(_threads, "call_together", self._call)
            yield self
        plan_of.cache_clear()
        self._arrays.clear()

    def stop(self):
        """End the programs."""
        for program in self._programs.values():
            program.stdin.close()
            program.stdout.close()
            program.wait(timeout=60)
