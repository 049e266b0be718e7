"""What the first use of the CPU kernels costs: every op alone, a Mamba training step, and all ops together.

python benchmarks/compile_time.py [--dtype float32 bfloat16] [--only OP ...] [--json FILE]

Each line is a process of its own with an empty cache: forward and backward on the op's own samples. "compiled" is the
time in Numba and LLVM, by the `compiled` events that `helix train` shows too; "wall" is the first use whole, over that
of a process that finds everything in the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TRAINING, ALL = "Mamba training step", "all ops together"


def operations() -> list[str]:
    """Names of the ops that the CPU plugin has kernels for."""
    from helix_plugin_cpu.plugin import helix_kernels

    return [descriptor.op for descriptor in helix_kernels()]


def use_op(name: str, dtype: str) -> None:
    import numpy as np
    import torch

    from helix_core import create
    from helix_core.ops import OPS

    op = OPS[name]
    sample = max(op.samples(np.random.default_rng(0)), key=lambda sample: len(sample.arrays))
    F = create("backend", "cpu").bind(dtype=dtype, mode="infer" if name == "adamw" else "train")
    arrays: list[Any] = []
    for argument in op.arrays:
        if argument not in sample.arrays:
            arrays.append(None)
            continue
        array = torch.from_numpy(np.asarray(sample.arrays[argument]))
        if array.is_floating_point():
            # States and parameters stay float32 beside activations in bfloat16.
            batched = array.ndim >= 3 and "state" not in argument
            array = array.to(getattr(torch, dtype) if batched else torch.float32).requires_grad_(name != "adamw")
        arrays.append(array)
    outputs = getattr(F, name)(*arrays, **sample.attrs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    if name != "adamw":
        sum(y.float().sum() for y in outputs).backward()


def use_training(dtype: str) -> None:
    import torch

    from helix_core import create
    from helix_plugin_lm.models import LanguageModel, ModelConfig, loss

    backend = create("backend", "cpu")
    F = backend.bind(dtype=dtype, mode="train")
    model = LanguageModel(ModelConfig(vocab_size=64, d_model=32, n_layers=1, mixer=[{"name": "mamba"}]))
    params = {name: backend.asarray(array) for name, array in model.init(0).items()}
    optimizer = create("optimizer", "adamw", lr=1e-3)
    tokens = torch.arange(2 * 33).reshape(2, 33) % 61
    value, grads = backend.value_and_grad(lambda p: loss(model, F, p, tokens[:, :-1], tokens[:, 1:]))(params)
    with backend.inference():
        optimizer.update(F, params, grads, optimizer.init(F, params), lr=1e-3, step=1)
    float(value)


def child(what: str, dtype: str) -> None:
    """Use `what` and print how long every kernel took to compile, and all of it."""
    import torch  # noqa: F401  (its import is no part of the figure)

    from helix_core.events import subscribe

    kernels: list[dict[str, Any]] = []
    began = time.perf_counter()
    with subscribe(lambda event: kernels.append(dict(event.data)) if event.name == "compiled" else None):
        for name in operations() if what == ALL else [what]:
            if name == TRAINING:
                use_training(dtype)
            else:
                use_op(name, dtype)
    print(json.dumps({"kernels": kernels, "wall": time.perf_counter() - began}))


def first_use(what: str, dtype: str) -> dict[str, Any]:
    """The row of one first use, and how long the second takes."""
    with tempfile.TemporaryDirectory() as cache:
        found = []
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, __file__, "--child", what, dtype],
                env={**os.environ, "NUMBA_CACHE_DIR": cache},
                stdout=subprocess.PIPE,
                check=True,
                text=True,
            )
            found.append(json.loads(done.stdout.splitlines()[-1]))
    first, second = found
    assert not second["kernels"], "the second process found an empty cache"
    return {
        "what": what,
        "dtype": dtype,
        "kernels": first["kernels"],
        "compiled_s": sum(kernel["seconds"] for kernel in first["kernels"]),
        "wall_s": first["wall"] - second["wall"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--only", nargs="+", help=f"ops, {TRAINING!r} or {ALL!r}")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    rows = []
    print(f"{'':26}{'dtype':10}{'kernels':>8}{'compiled':>12}{'wall':>10}")
    for what in arguments.only or [*operations(), TRAINING, ALL]:
        for dtype in arguments.dtype:
            row = first_use(what, dtype)
            rows.append(row)
            print(
                f"{what:26}{dtype:10}{len(row['kernels']):8}{row['compiled_s']:10.2f} s{row['wall_s']:8.2f} s",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
