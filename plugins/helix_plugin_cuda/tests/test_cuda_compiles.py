"""Every kernel compiles for NVIDIA's sm_90 and AMD's gfx942, though neither is here: the compilers come with Triton.

What is launched by the ops' own samples in the interpreter is recorded, and compiled by another process.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from helix_core import create
from helix_core.ops import OPS
from helix_core.plugin_system import kernel_descriptors
from helix_core.testing.levels.base import as_tuple
from helix_core.testing.levels.ops import to_backend
from helix_plugin_cuda.kernels import _launch

TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.uint8: "*u8",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
LIMITS = {"sm_90": 227 * 1024, "gfx942": 64 * 1024}
"""Bytes of shared memory that a program may take."""


def type_of(argument):
    if argument is None:
        return "constexpr"
    if isinstance(argument, torch.Tensor):
        return TYPES[argument.dtype]
    return "fp32" if isinstance(argument, float) else "i32"


def record(op, dtype, rng):
    """The launches of an op's last sample, which has every optional input, forward and backward, without repeats."""
    backend = create("backend", "cuda")
    found = {}

    def listen(kernel, args, meta):
        launch = {"module": kernel.fn.__module__, "name": kernel.fn.__name__, "types": [type_of(a) for a in args]}
        launch["meta"] = meta
        found[json.dumps(launch)] = None

    samples = list(OPS[op].samples(rng))
    _launch.listeners.append(listen)
    try:
        for mode, sample in (("train", samples[-1]), ("infer", samples[0])):
            F = backend.bind(dtype=dtype, mode=mode)
            arrays = to_backend(backend, sample, dtype)
            leaves = {n: a.requires_grad_() if a.is_floating_point() else a for n, a in arrays.items()}
            outputs = as_tuple(getattr(F, op)(*(leaves.get(n) for n in OPS[op].arrays), **sample.attrs))
            sum(o.float().sum() for o in outputs).backward()
    finally:
        _launch.listeners.remove(listen)
    return list(found)


OURS = sorted({d.op for plugin, d in kernel_descriptors() if plugin == "cuda" and d.name == d.op})


@pytest.mark.slow
@pytest.mark.parametrize("op", OURS)
def test_it_compiles(op, tmp_path):
    if not _launch.INTERPRETED:
        pytest.skip("a card is here: the other tests compile")
    rng = np.random.default_rng(0)
    launches = [line for dtype in ("float32", "bfloat16") for line in record(op, dtype, rng)]
    assert launches
    file = tmp_path / "launches"
    file.write_text("\n".join(launches), encoding="utf-8")
    script = Path(__file__).with_name("compile_launches.py")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, script, file, *LIMITS], env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for line in done.stdout.splitlines():
        kernel, card, shared = line.split()
        assert int(shared) <= LIMITS[card], f"{kernel} takes {shared} bytes of shared memory on {card}"
