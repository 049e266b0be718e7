"""One source for other processors: vector code for ARM, and the same results when compiled for AVX2."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import numba
import pytest
from numba import types

from helix_plugin_cpu.kernels import _conv_jobs, _scan_backward, _scan_forward, cross_entropy, rms_norm

FLOATS = ("kind", "dx_kind", "eps")
"""Parameters of kernels that are floats; all others are integers."""


@pytest.fixture(scope="module")
def arm():
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple("aarch64-linux-gnu").create_target_machine(cpu="neoverse-n1", opt=3)


@pytest.mark.parametrize(
    "kernel",
    [
        _scan_forward.forward_jobs,
        _scan_backward.backward_jobs,
        _conv_jobs.conv_backward_jobs,
        rms_norm.forward_jobs,
        cross_entropy.backward_jobs,
    ],
    ids=["scan", "scan-backward", "conv-backward", "norm", "cross-entropy-backward"],
)
def test_kernels_become_vector_code_on_arm(arm, kernel):
    function = kernel.dispatcher.py_func
    dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
    names = inspect.signature(function).parameters
    signature = tuple(types.float64 if name in FLOATS else types.int64 for name in names)
    dispatcher.compile(signature)
    code = dispatcher.inspect_llvm(signature)
    code = re.sub(r"target triple = .*", 'target triple = "aarch64-linux-gnu"', code)
    code = re.sub(r"target datalayout = .*", f'target datalayout = "{arm.target_data}"', code)
    code = re.sub(r'"target-(cpu|features)"="[^"]*"', "", code)
    assembly = arm.emit_assembly(llvm.parse_assembly(code))
    # A vector of sixteen is four instructions; how often a loop is unrolled depends on the machine that optimizes it.
    assert len(re.findall(r"\bfmla\s+v\d+\.4s", assembly)) >= 4
    called = set(re.findall(r"\bbl\s+(\w+)", assembly))
    # Python's own functions are the wrapper's. No part of the arithmetic may be left to a library.
    assert not {name for name in called if re.match(r"(fma|exp|pow|sqrt|__)", name)}, called


@pytest.mark.slow
@pytest.mark.skipif("x86" not in os.uname().machine, reason="the features named are those of x86")
def test_kernels_pass_when_compiled_for_avx2(tmp_path):
    environment = {**os.environ, "HELIX_CPU_ISA": "avx2", "NUMBA_CACHE_DIR": str(tmp_path)}
    tests = [
        str(Path(__file__).with_name(f"test_{name}.py"))
        for name in (
            "kernels",
            "fused_kernels",
            "half_precision",
            "half_products",
            "linear_attention_kernels",
            "cpu_bit_linear",
        )
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-3000:]
