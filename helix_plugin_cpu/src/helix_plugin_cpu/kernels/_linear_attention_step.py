"""One step of linear attention with a decaying state, for decoding: the state is read once and written once."""

from __future__ import annotations

import numpy as np

from helix_plugin_cpu.kernels._blocks import starts_at
from helix_plugin_cpu.kernels._jit import kernel
from helix_plugin_cpu.kernels._linear_attention_chunk import round_up
from helix_plugin_cpu.kernels._linear_attention_forward import write_outputs
from helix_plugin_cpu.kernels._linear_attention_parts import (
    EACH_KEY,
    SSD,
    head_decays,
    key_decays,
    one_step,
    pack,
    padded,
)
from helix_plugin_cpu.kernels._linear_attention_records import number
from helix_plugin_cpu.kernels._memory import FLOAT, get, get_int, put, take_job
from helix_plugin_cpu.kernels._simd import LANES, VECTOR
from helix_plugin_cpu.kernels._storage import clear_stored, size_of


def step_scratch(keys: int, values: int) -> int:
    """Bytes that `step_jobs` needs per thread."""
    return VECTOR * 7 + FLOAT * (LANES * 8 * round_up(keys) + (LANES + 1) * round_up(values))


@kernel
def step_jobs(
    counter: int, jobs: int, scratch: int, stored: float, g_stored: float,
    q: int, q_b: int, q_t: int, q_h: int, k: int, k_b: int, k_t: int, k_h: int,
    v: int, v_b: int, v_t: int, v_h: int, g: int, g_b: int, g_t: int, g_h: int,
    A: int, bias: int, D: int, initial: int, resets: int, ends: int, y: int, last: int,
    heads: int, groups: int, keys: int, values: int, kind: int, soft: int, low: float, high: float, scale: float,
) -> None:  # fmt: skip
    """A job is a head of a row; the arguments are those of `forward_jobs` for L = 1."""
    K, wide = padded(keys), size_of(stored)
    one_l, spare_l, weight_l = scratch, scratch + VECTOR, scratch + 2 * VECTOR
    upper_l, lower_l, since_l, until_l = (
        scratch + 3 * VECTOR, scratch + 4 * VECTOR, scratch + 5 * VECTOR, scratch + 6 * VECTOR,
    )  # fmt: skip
    rows = FLOAT * LANES * K  # `pack` and `key_decays` fill up sixteen rows
    q_l = scratch + 7 * VECTOR
    decay_l, total_l = q_l + rows, q_l + 2 * rows
    k_l, v_l = q_l + 7 * rows, q_l + 8 * rows
    y_l = v_l + FLOAT * LANES * padded(values)
    put(one_l, np.float32(1.0))
    put(one_l + FLOAT, np.float32(scale))
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        row, head = job // heads, job % heads
        group = head // (heads // groups)
        at = FLOAT * job * keys * values
        out = y + wide * job * values
        state = initial + at if initial != 0 else 0
        if ends != 0 and get_int(ends + 8 * row) == 0:
            clear_stored(stored, out, values, 1, values)
            for i in range(keys * values):
                put(last + at + FLOAT * i, get(state + FLOAT * i) if state != 0 else np.float32(0.0))
            continue
        if starts_at(resets, row):
            state = 0
        pack(stored, q + wide * (row * q_b + group * q_h), q_t, 1, keys, one_l + FLOAT, 0, q_l, spare_l)
        pack(stored, k + wide * (row * k_b + group * k_h), k_t, 1, keys, one_l, 0, k_l, spare_l)
        v_at = v + wide * (row * v_b + head * v_h)
        g_at = g + size_of(g_stored) * (row * g_b + head * g_h)
        decay, decay_step, factor = since_l, 0, one_l
        if kind == EACH_KEY:
            decay, decay_step = decay_l, 1
            key_decays(
                g_stored, g_at, g_t, 1, keys, decay_l, q_l + 3 * rows, q_l + 4 * rows, total_l, q_l + 5 * rows,
                q_l + 6 * rows, spare_l,
            )  # fmt: skip
        else:
            head_decays(
                kind, g_stored, g_at, g_t, number(A, head, 1.0), number(bias, head, 0.0), soft, low, high, 1,
                weight_l, upper_l, lower_l, since_l, until_l,
            )  # fmt: skip
        if kind == SSD:
            factor = weight_l
        pack(stored, v_at, v_t, 1, values, factor, 0, v_l, spare_l)
        one_step(state, values, last + at, values, q_l, k_l, v_l, decay, decay_step, keys, values, y_l)
        write_outputs(y_l, stored, v_at, v_t, D + FLOAT * head if D != 0 else 0, 1, values, out, values)
