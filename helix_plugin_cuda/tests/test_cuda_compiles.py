"""Every kernel compiles for NVIDIA's sm_90 and AMD's gfx942, though neither is here: the compilers come with Triton.

What ops would launch is recorded, for their own samples and for the sizes of models, and compiled by another process.
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
from helix_core.ops import OPS, Sample
from helix_core.plugin_system import kernel_descriptors
from helix_plugin_cuda.kernels import _launch, long_conv
from helix_testing.levels.base import as_tuple
from helix_testing.levels.ops import call, to_backend

TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.uint8: "*u8",
    torch.int8: "*i8",
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
    if isinstance(argument, int) and argument == 1:
        return "one"  # Triton makes a constant of it
    return "fp32" if isinstance(argument, float) else "i32"


def real_sizes(op, rng):
    """The op's last sample, which has every optional input, one where sizes are 1, and one of the sizes of models."""
    B, L, D, H, K = 1, 300, 1024, 2, 128
    normal = rng.normal
    heads = {"q": normal(size=(B, L, H, K)), "k": normal(size=(B, L, H, K)), "v": normal(size=(B, L, H, K))}
    gated = dict.fromkeys(("u", "pre", "post"), normal(size=(2, 2048, 3)))
    made = {
        "long_conv": {**gated, "filter": normal(size=(2048, 3))},
        "bit_linear": {
            "x": normal(size=(64, 2560)), "packed": np.full((6912, 640), 0x55, np.uint8), "scale": normal(size=1),
        },
        "rms_norm": {"x": normal(size=(B, 8192)), "weight": normal(size=8192)},
        "linear_cross_entropy": {
            "x": normal(size=(B, L, D)), "weight": normal(size=(5000, D)), "targets": np.zeros((B, L), np.int64),
        },
        "selective_scan": {
            "u": normal(size=(B, L, D)), "delta": normal(size=(B, L, D)), "A": -rng.random((D, 16)),
            "B": normal(size=(B, L, 16)), "C": normal(size=(B, L, 16)),
        },
        "ssd": {
            "x": normal(size=(B, L, H, 64)), "dt": rng.random((B, L, H)), "A": -rng.random(H),
            "B": normal(size=(B, L, 1, K)), "C": normal(size=(B, L, 1, K)),
        },
        "gated_linear_attention": {**heads, "log_decay": -rng.random((B, L, H, K))},
        "diagonal_ssm": {
            "u": normal(size=(B, L, D)), "log_a": -rng.random((D, 32, 2)), "c": normal(size=(D, 32, 2)),
        },
        "wkv4": {
            "k": normal(size=(B, L, D)), "v": normal(size=(B, L, D)), "log_decay": -rng.random(D),
            "bonus": normal(size=D),
        },
        "rwkv7": {name: normal(size=(B, L, H, 64)) for name in ("r", "log_decay", "k", "v", "a", "b")},
        "gated_delta_rule": {**heads, "log_decay": -rng.random((B, L, H)), "beta": rng.random((B, L, H))},
    }  # fmt: skip
    samples = list(OPS[op].samples(rng))
    yield samples[-1]
    yield next((s for s in samples if any(np.size(a) == 1 and np.ndim(a) > 1 for a in s.arrays.values())), samples[0])
    if op in made:
        yield Sample(made[op])
    if op == "gated_linear_attention":
        yield Sample({**heads, "log_decay": -rng.random((1, 1, H, 1))})


def one_step(op, sample):
    """The first step of a sample, from a state."""
    B, L = sample.arrays[OPS[op].arrays[0]].shape[:2]
    arrays = {n: a[:, :1] if np.shape(a)[:2] == (B, L) else a for n, a in sample.arrays.items()}
    attrs = {**OPS[op].attrs, **sample.attrs}
    state = OPS[op].shapes(*(np.shape(arrays[n]) if n in arrays else None for n in OPS[op].arrays), **attrs)[1]
    return Sample({"initial_state": np.zeros(state), **arrays}, sample.attrs)


def record(op, dtype, rng):
    """The launches of an op, forward and backward, without repeats; nothing is run."""
    backend = create("backend", "cuda")
    found = {}

    def listen(kernel, args, meta):
        launch = {"module": kernel.fn.__module__, "name": kernel.fn.__name__, "types": [type_of(a) for a in args]}
        launch["meta"] = meta
        found[json.dumps(launch)] = None

    _launch.listeners.append(listen)
    try:
        for sample in real_sizes(op, rng):
            F = backend.bind(dtype=dtype, mode="train", pins={op: f"cuda/{op}"})
            arrays = to_backend(backend, sample, dtype)
            trains = {n for n, a in arrays.items() if a.is_floating_point()} - OPS[op].no_grad
            leaves = {n: a.requires_grad_() if n in trains else a for n, a in arrays.items()}
            outputs = as_tuple(getattr(F, op)(*(leaves.get(n) for n in OPS[op].arrays), **sample.attrs))
            if trains:
                sum(o.float().sum() for o in outputs).backward()
            if "initial_state" in OPS[op].arrays and len(OPS[op].outputs) > 1:
                step, pins = one_step(op, sample), {op: f"cuda/{op}"}
                F = backend.bind(dtype=dtype, mode="infer", pins=pins)
                call(backend, F, OPS[op], to_backend(backend, step, dtype), step)
    finally:
        _launch.listeners.remove(listen)
    return list(found)


OURS = sorted({d.op for plugin, d in kernel_descriptors() if plugin == "cuda" and d.name == d.op})


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("op", OURS)
def test_it_compiles(op, tmp_path, monkeypatch):
    if not _launch.INTERPRETED:
        pytest.skip("a card is here: the other tests compile")
    from triton.runtime.interpreter import InterpretedFunction

    monkeypatch.setattr(InterpretedFunction, "run", lambda *args, **kwargs: None)
    monkeypatch.setattr(long_conv, "chosen", lambda kernel, shapes, ways, run: ways[-1])
    rng = np.random.default_rng(0)
    launches = [line for dtype in ("float32", "bfloat16") for line in record(op, dtype, rng)]
    assert launches
    file = tmp_path / "launches"
    file.write_text("\n".join(launches), encoding="utf-8")
    script = Path(__file__).with_name("compile_launches.py")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, script, file, *LIMITS], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for line in done.stdout.splitlines():
        kernel, card, shared = line.split()
        assert int(shared) <= LIMITS[card], f"{kernel} takes {shared} bytes of shared memory on {card}"
