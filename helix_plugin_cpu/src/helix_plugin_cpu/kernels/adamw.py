"""A step of AdamW on the CPU in one pass: four streams read and three written, where torch's ops take some twenty."""

from __future__ import annotations

from torch import Tensor
from torch.autograd.graph import increment_version

from helix_core.ops.adamw import step_numbers
from helix_plugin_cpu.kernels._arguments import address, check, empty
from helix_plugin_cpu.kernels._jit import kernel
from helix_plugin_cpu.kernels._math import sqrt
from helix_plugin_cpu.kernels._memory import FLOAT, take_job
from helix_plugin_cpu.kernels._simd import LANES, fma, load_first, splat, store_first
from helix_plugin_cpu.kernels._threads import launch
from helix_plugin_torch.arguments import dense

PIECE = 16 * 1024
"""Elements of a job."""


@kernel
def jobs_of_a_step(
    counter: int, jobs: int, scratch: int,
    p: int, g: int, m: int, v: int, p_new: int, m_new: int, v_new: int, size: int,
    keep: float, beta1: float, beta2: float, rate: float, unroot: float, eps: float,
) -> None:  # fmt: skip
    """`unroot` is 1 / root of `StepNumbers`, to multiply by; the others are theirs."""
    new1, new2 = splat(1.0 - beta1), splat(1.0 - beta2)
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        for i in range(job * PIECE, min((job + 1) * PIECE, size), LANES):
            at, rest = FLOAT * i, size - i
            g_v = load_first(g + at, rest)
            m_v = fma(load_first(m + at, rest), splat(beta1), new1 * g_v)
            v_v = fma(load_first(v + at, rest), splat(beta2), new2 * (g_v * g_v))
            step_v = (m_v * rate) / (sqrt(v_v) * unroot + eps)
            store_first(p_new + at, load_first(p + at, rest) * keep - step_v, rest)
            store_first(m_new + at, m_v, rest)
            store_first(v_new + at, v_v, rest)


def step(
    *arrays: Tensor | None,
    lr: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    step: int = 1,
    donate: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """p, g, m, v of one shape, float32 -> the next p, m, v; with `donate` the same tensors, written over.

    Raises TypeError for other dtypes.
    """
    p, g, m, v = (dense(array) for array in arrays)
    if p is None or g is None or m is None or v is None:
        raise ValueError("adamw: p, g, m and v are needed")
    check("adamw", {name: (a, tuple(p.shape)) for name, a in zip("pgmv", (p, g, m, v), strict=True)})
    new = (p, m, v) if donate else tuple(empty(p.shape) for _ in range(3))
    size = p.numel()
    n = step_numbers(lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay, step=step)
    launch(
        jobs_of_a_step, -(-size // PIECE), size, 0, *map(address, (p, g, m, v, *new)), size,
        float(n.keep), float(n.beta1), float(n.beta2), float(n.rate), 1 / n.root, float(n.eps),
    )  # fmt: skip
    if donate:
        increment_version(new)  # what was computed from the old values is known to be out of date
    return new  # type: ignore[return-value]
