"""Batches of matrices in kernels: up to three axes that are walked with strides."""

from __future__ import annotations

from helix_device_arrays.views import Shape, View, collapsed

BATCH = """
let at2: i32 = batch % P.n2;
let at1: i32 = (batch / P.n2) % P.n1;
let at0: i32 = batch / (P.n2 * P.n1);
let a0: i32 = P.ao + at0 * P.a0 + at1 * P.a1 + at2 * P.a2;
"""
"""Where the left matrix number `batch` begins, `a0`; `at0` to `at2` are the places along the axes."""

PAIR = BATCH + "let b0: i32 = P.bo + at0 * P.b0 + at1 * P.b1 + at2 * P.b2;\n"
"""And where the right one begins, `b0`."""


def batches(views: list[View], batch: Shape) -> tuple[list[int], list[list[int]]]:
    """Sizes of the batch's merged axes, three of them, and the strides of every view along them."""
    heads = [View(batch, v.strides[: len(batch)]) for v in views]
    sizes, strides, _ = collapsed(heads, len(batch)) if batch else ([], [[] for _ in views], 0)
    assert len(sizes) <= 3, "more than three batch axes that cannot be walked as one"
    lead = 3 - len(sizes)
    return [1] * lead + sizes, [[0] * lead + own for own in strides]
