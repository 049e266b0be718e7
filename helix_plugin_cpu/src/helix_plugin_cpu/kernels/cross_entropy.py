"""Cross-entropy on the CPU: what is kept for the backward is one number a row, never a second array of logits.

torch keeps the logarithm of the softmax, as large as the logits themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from helix_plugin_cpu.kernels._arguments import address, check, empty, from_forward, zeros
from helix_plugin_cpu.kernels._jit import kernel
from helix_plugin_cpu.kernels._math import canonical, exp, maximum
from helix_plugin_cpu.kernels._memory import FLOAT, get, get_int, put, take_job
from helix_plugin_cpu.kernels._simd import LANES, VECTOR, keep_first, splat, store
from helix_plugin_cpu.kernels._storage import kind, read, size_of, write
from helix_plugin_cpu.kernels._threads import launch
from helix_plugin_torch.arguments import FLOATS, Shape, dense
from helix_plugin_torch.targets import Rows, rows_of

ROWS = 8
LOWEST = -3.4e38


@kernel
def forward_jobs(
    counter: int, jobs: int, scratch: int, kind: float,
    logits: int, targets: int, nats: int, log_sums: int, rows: int, V: int,
) -> None:  # fmt: skip
    """Logits are stored as `kind` says."""
    wide = size_of(kind)
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        for row in range(job * ROWS, min((job + 1) * ROWS, rows)):
            at = logits + wide * row * V
            most = splat(LOWEST)
            for v in range(0, V, LANES):
                most = maximum(most, keep_first(read(kind, at + wide * v, V - v), V - v, LOWEST))
            store(scratch, most)
            largest = np.float32(LOWEST)
            for lane in range(LANES):
                largest = max(largest, get(scratch + FLOAT * lane))
            sums = splat(0.0)
            for v in range(0, V, LANES):
                e = exp(canonical(read(kind, at + wide * v, V - v) - largest))
                sums = sums + keep_first(e, V - v, 0.0)
            store(scratch, sums)
            total = 0.0
            for lane in range(LANES):
                total += np.float64(get(scratch + FLOAT * lane))
            log_sum = np.log(total) + np.float64(largest)
            put(log_sums + FLOAT * row, np.float32(log_sum))
            store(scratch, read(kind, at + wide * get_int(targets + 8 * row), 1))
            put(nats + FLOAT * row, np.float32(log_sum - np.float64(get(scratch))))


@kernel
def backward_jobs(
    counter: int, jobs: int, scratch: int, kind: float,
    logits: int, targets: int, log_sums: int, dnats: int, dlogits: int, rows: int, V: int,
) -> None:  # fmt: skip
    """(softmax - 1 at the target) times the row's gradient; it may take the place of the logits."""
    wide = size_of(kind)
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        for row in range(job * ROWS, min((job + 1) * ROWS, rows)):
            at, out = logits + wide * row * V, dlogits + wide * row * V
            log_sum = np.float64(get(log_sums + FLOAT * row))
            scale = np.float64(get(dnats + FLOAT * row))
            target = wide * get_int(targets + 8 * row)
            at_target = (exp(canonical(read(kind, at + target, 1) - log_sum)) - 1.0) * scale
            for v in range(0, V, LANES):
                p = exp(canonical(read(kind, at + wide * v, V - v) - log_sum))
                write(kind, out + wide * v, p * scale, V - v)
            write(kind, out + target, at_target, 1)


def residuals(logits: Shape, targets: Shape, **attrs: Any) -> tuple[Shape, ...]:
    """The logarithm of each row's sum of exponentials."""
    return (tuple(targets),)


def forward(*arrays: Tensor | None, ignore_index: int | None = None) -> tuple[Tensor]:
    """logits (..., V) float32 or half precision, integer targets (...) -> nats (...) float32.

    Raises IndexOutOfRange for a target outside 0..V-1 that is not ignored, TypeError for other logits.
    """
    return forward_train(*arrays, ignore_index=ignore_index)[0]


def forward_train(*arrays: Tensor | None, ignore_index: int | None = None) -> tuple[tuple[Tensor], tuple[Tensor, ...]]:
    """`forward`, with the residuals that `backward` needs."""
    logits, taken = _checked(arrays, ignore_index)
    targets = taken.targets
    nats, log_sums = empty(targets.shape), empty(targets.shape)
    rows, V = targets.numel(), logits.shape[-1]
    launch(
        forward_jobs, -(-rows // ROWS), 4 * logits.numel(), VECTOR, kind(logits),
        *map(address, (logits, targets, nats, log_sums)), rows, V,
    )  # fmt: skip
    return (taken.nats(nats),), (log_sums,)


def backward(
    grads: tuple[Tensor | None, ...],
    arrays: tuple[Tensor | None, ...],
    saved: tuple[Tensor, ...],
    *,
    ignore_index: int | None = None,
) -> tuple[Tensor | None, ...]:
    """The gradient of nats -> that of logits."""
    logits, taken = _checked(arrays, ignore_index)
    targets = taken.targets
    dnats = dense(zeros(targets.shape) if grads[0] is None else taken.counted(grads[0]))
    check("cross_entropy's backward", {"nats": (dnats, tuple(targets.shape))})
    dlogits = empty(logits.shape, dtype=logits.dtype)
    slopes(logits, targets, from_forward("cross_entropy", saved[0], tuple(targets.shape)), dnats, dlogits)
    return dlogits, None


def slopes(logits: Tensor, targets: Tensor, log_sums: Tensor, dnats: Tensor, dlogits: Tensor) -> None:
    """Fill `dlogits`, which may be the logits themselves; everything is checked and contiguous."""
    rows, V = targets.numel(), logits.shape[-1]
    launch(
        backward_jobs, -(-rows // ROWS), 4 * logits.numel(), VECTOR, kind(logits),
        *map(address, (logits, targets, log_sums, dnats, dlogits)), rows, V,
    )  # fmt: skip


def _checked(arrays: tuple[Tensor | None, ...], ignore_index: int | None) -> tuple[Tensor, Rows]:
    logits, targets = dense(arrays[0]), dense(arrays[1])
    if logits is None or targets is None:
        raise ValueError("cross_entropy: logits and targets are needed")
    V = logits.shape[-1]
    shapes = {"logits": (logits, (*targets.shape, V)), "targets": (targets, tuple(targets.shape))}
    check("cross_entropy", shapes, dtypes=FLOATS)
    return logits, rows_of("cross_entropy: targets", targets, V, ignore_index)
