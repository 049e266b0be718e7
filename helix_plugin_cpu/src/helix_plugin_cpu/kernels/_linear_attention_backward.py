"""Linear attention with a decaying state, backward: jobs as in the forward pass, last chunks first.

The forward pass kept the states in front of every span. Those in front of the chunks of a span are computed again,
then the chunks are gone through from the last to the first, with the gradient of the state behind each.
"""

from __future__ import annotations

import numpy as np

from helix_plugin_cpu.kernels._blocks import (
    clear_rows,
    clear_vectors,
    copy_vectors,
    last_start,
    next_start,
    starts_at,
)
from helix_plugin_cpu.kernels._jit import inline, kernel
from helix_plugin_cpu.kernels._linear_attention_adjoint import (
    adjoint_products,
    finish_ssd,
    fold,
    fold_keys,
    fold_products,
    fold_scores,
    log_decay_gradient,
)
from helix_plugin_cpu.kernels._linear_attention_chunk import (
    by_key,
    by_value,
    chunk_scratch,
    prepare_chunk,
    prepare_head,
    round_up,
    small,
)
from helix_plugin_cpu.kernels._linear_attention_forward import load_state, number
from helix_plugin_cpu.kernels._linear_attention_parts import EACH_KEY, SSD, advance, pack, padded, unpack
from helix_plugin_cpu.kernels._memory import FLOAT, get, get_int, put, take_job
from helix_plugin_cpu.kernels._simd import LANES, VECTOR
from helix_plugin_cpu.kernels._storage import FLOAT32, clear_stored, size_of


def backward_scratch(keys: int, values: int, chunk: int, share: int, span: int) -> int:
    """Bytes that `backward_jobs` needs per thread."""
    K, V = round_up(keys), round_up(values)
    states = (1 + span // chunk) * share * K * V
    local = 5 * chunk * K + 3 * chunk * V + 2 * chunk * chunk + K * V + K + 5 * chunk + 4 * LANES
    return FLOAT * (states + local) + chunk_scratch(keys, values, chunk)


@inline
def unpack_column(source: int, steps: int, target: int, target_t: int) -> None:
    for t in range(steps):
        put(target + FLOAT * t * target_t, get(source + FLOAT * t))


@kernel
def backward_jobs(
    counter: int, jobs: int, scratch: int, stored: float, g_stored: float, sum_stored: float,
    q: int, q_b: int, q_t: int, q_h: int, k: int, k_b: int, k_t: int, k_h: int,
    v: int, v_b: int, v_t: int, v_h: int, g: int, g_b: int, g_t: int, g_h: int,
    dy: int, dy_b: int, dy_t: int, dy_h: int,
    A: int, bias: int, D: int, dlast: int, resets: int, ends: int, kept: int,
    dq: int, dk: int, dv: int, dg: int, dA: int, dbias: int, dD: int, dinitial: int,
    batch: int, length: int, heads: int, groups: int, share: int, keys: int, values: int,
    kind: int, chunk: int, span: int, soft: int, low: float, high: float, scale: float,
) -> None:  # fmt: skip
    """dq, dk (jobs of a group, B, L, groups, keys) and dA, dbias, dD (B, H) are partial sums.

    dg is (B, L, H), or (B, L, H, keys) where every key has a decay; it is then stored as `g_stored` says, like g. dq
    and dk are stored as `sum_stored` says, q, k, v, dv and dy as `stored` does, the rest as float32.
    """
    wide, g_wide, sum_wide = size_of(stored), size_of(g_stored), size_of(sum_stored)
    K, V = padded(keys), padded(values)
    spans, parts, together = (length + span - 1) // span, heads // share, heads // groups
    size, per_span = K * V // LANES, span // chunk
    dstates_l = scratch
    states_l = dstates_l + VECTOR * size * share
    dq_l = states_l + VECTOR * size * share * per_span
    dk_l = dq_l + FLOAT * chunk * K
    dqs_l = dk_l + FLOAT * chunk * K
    dks_l = dqs_l + FLOAT * chunk * K
    dg_l = dks_l + FLOAT * chunk * K
    dy_l = dg_l + FLOAT * chunk * K
    dv_l = dy_l + FLOAT * chunk * V
    turned_v = dv_l + FLOAT * chunk * V
    dscores_l = turned_v + FLOAT * chunk * V
    dproducts_l = dscores_l + FLOAT * chunk * chunk
    turned_s = dproducts_l + FLOAT * chunk * chunk
    dtotal_l = turned_s + FLOAT * K * V
    later_l = dtotal_l + FLOAT * K
    earlier_l = later_l + FLOAT * chunk
    entering_l = earlier_l + FLOAT * chunk
    leaving_l = entering_l + FLOAT * chunk
    dlog_l = leaving_l + FLOAT * chunk
    work = dlog_l + FLOAT * chunk
    one_l, spare_l, weight_l, _, _, since_l, until_l, total_l = small(work, chunk)
    q_l, k_l, qs_l, ks_l, _, decay_k, since_k, until_k, _ = by_key(work, chunk, K)
    v_l, _, _, gaps_l, scores_l, sums_l = by_value(work, chunk, K, V)
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        row, first = job // parts, (job % parts) * share
        group, part = first // together, (first % together) // share
        end = get_int(ends + 8 * row) if ends != 0 else length
        flags = resets + row * length if resets != 0 else 0
        shared = ((part * batch + row) * length * groups + group) * keys
        dq_job, dk_job = dq + sum_wide * shared, dk + sum_wide * shared
        clear_stored(sum_stored, dq_job + sum_wide * end * groups * keys, groups * keys, length - end, keys)
        clear_stored(sum_stored, dk_job + sum_wide * end * groups * keys, groups * keys, length - end, keys)
        rest = (row * length + end) * heads + first
        clear_stored(stored, dv + wide * rest * values, heads * values, length - end, share * values)
        if kind == EACH_KEY:
            clear_stored(g_stored, dg + g_wide * rest * keys, heads * keys, length - end, share * keys)
        else:
            clear_rows(dg + FLOAT * rest, heads, length - end, share)
        for h in range(share):
            each = row * heads + first + h
            at = FLOAT * each * keys * values
            load_state(dlast + at if dlast != 0 else 0, keys, values, dstates_l + VECTOR * size * h)
            if kind == SSD:
                for target in (dA, dbias, dD):
                    put(target + FLOAT * each, np.float32(0.0))
        for index in range((end + span - 1) // span - 1, -1, -1):
            begin, stop = index * span, min((index + 1) * span, end)
            for h in range(share):
                head = first + h
                state = kept + VECTOR * size * ((row * spans + index) * heads + head)
                copy_vectors(state, states_l + VECTOR * size * h, size)
            # The states in front of the span's chunks; where a document starts there is none.
            t = begin
            while t < stop:
                t_end = next_start(flags, t, min((t // chunk + 1) * chunk, stop))
                slot = (t - begin) // chunk
                if t_end < stop and t_end % chunk == 0 and not starts_at(flags, t_end):
                    k_at = k + wide * (row * k_b + t * k_t + group * k_h)
                    prepare_chunk(stored, work, chunk, k_at, k_t, k_at, k_t, t_end - t, keys, values, EACH_KEY, 1.0)
                    for h in range(share):
                        head = first + h
                        state = states_l + VECTOR * size * (slot * share + h)
                        target = state + VECTOR * size * share
                        if starts_at(flags, t):
                            clear_vectors(target, size)
                        else:
                            copy_vectors(state, target, size)
                        prepare_head(
                            stored, g_stored, work, chunk, v + wide * (row * v_b + t * v_t + head * v_h), v_t,
                            g + g_wide * (row * g_b + t * g_t + head * g_h), g_t, number(A, head, 1.0),
                            number(bias, head, 0.0), soft, low, high, t_end - t, keys, values, kind, 0,
                        )  # fmt: skip
                        advance(target, ks_l, v_l, t_end - t, K, V, total_l)
                t = t_end
            t_end = stop
            while t_end > begin:
                t = last_start(flags, (t_end - 1) // chunk * chunk, t_end)
                steps, slot, fresh = t_end - t, (t - begin) // chunk, starts_at(flags, t)
                rows = padded(steps)
                q_at, k_at = (
                    q + wide * (row * q_b + t * q_t + group * q_h),
                    k + wide * (row * k_b + t * k_t + group * k_h),
                )
                prepare_chunk(stored, work, chunk, q_at, q_t, k_at, k_t, steps, keys, values, kind, scale)
                clear_vectors(dq_l, rows * K // LANES)
                clear_vectors(dk_l, rows * K // LANES)
                clear_vectors(dproducts_l, chunk * chunk // LANES)
                for h in range(share):
                    head = first + h
                    g_at = g + g_wide * (row * g_b + t * g_t + head * g_h)
                    v_at = v + wide * (row * v_b + t * v_t + head * v_h)
                    rate, shift = number(A, head, 1.0), number(bias, head, 0.0)
                    prepare_head(
                        stored,
                        g_stored,
                        work,
                        chunk,
                        v_at,
                        v_t,
                        g_at,
                        g_t,
                        rate,
                        shift,
                        soft,
                        low,
                        high,
                        steps,
                        keys,
                        values,
                        kind,
                        1,
                    )
                    dy_at = dy + wide * (row * dy_b + t * dy_t + head * dy_h)
                    pack(stored, dy_at, dy_t, steps, values, one_l, 0, dy_l, spare_l)
                    state = 0 if fresh else states_l + VECTOR * size * (slot * share + h)
                    adjoint_products(
                        state, dstates_l + VECTOR * size * h, qs_l, ks_l, v_l, dy_l, scores_l, chunk, total_l, steps,
                        keys, values, turned_v, turned_s, dqs_l, dks_l, dv_l, dscores_l, dtotal_l,
                    )  # fmt: skip
                    here = (row * length + t) * heads + head
                    dv_at = dv + wide * here * values
                    if kind == EACH_KEY:
                        fold_keys(
                            q_l, k_l, decay_k, since_k, until_k, ks_l, dqs_l, dks_l, dscores_l, chunk, dtotal_l,
                            steps, K, dq_l, dk_l, dg_l,
                        )  # fmt: skip
                        unpack(dg_l, K, steps, keys, 1.0, g_stored, dg + g_wide * here * keys, heads * keys)
                    else:
                        fold(dqs_l, qs_l, since_l, rows, K, dq_l, sums_l, entering_l)
                        fold(dks_l, ks_l, until_l, rows, K, dk_l, sums_l, leaving_l)
                        fold_scores(dscores_l, scores_l, gaps_l, rows, chunk, dproducts_l, sums_l, later_l, earlier_l)
                        log_decay_gradient(later_l, earlier_l, entering_l, leaving_l, dtotal_l, steps, keys, dlog_l)
                        if kind != SSD:
                            unpack_column(dlog_l, steps, dg + FLOAT * here, heads)
                    if kind == SSD:
                        each = FLOAT * (row * heads + head)
                        finish_ssd(
                            stored, g_stored, v_at, v_t, dy_l, dv_l, weight_l, dlog_l, g_at, g_t, rate, shift,
                            number(D, head, 0.0), soft, low, high, steps, values, sums_l, dv_at, heads * values,
                            dg + FLOAT * here, heads, dA + each, dD + each, dbias + each,
                        )  # fmt: skip
                    else:
                        unpack(dv_l, V, steps, values, 1.0, stored, dv_at, heads * values)
                if kind != EACH_KEY:
                    fold_products(dproducts_l, chunk, q_l, k_l, rows, K, dq_l, dk_l)
                at = sum_wide * t * groups * keys
                unpack(dq_l, K, steps, keys, scale, sum_stored, dq_job + at, groups * keys)
                unpack(dk_l, K, steps, keys, 1.0, sum_stored, dk_job + at, groups * keys)
                t_end = t
        for h in range(share):
            target = dinitial + FLOAT * (row * heads + first + h) * keys * values
            unpack(dstates_l + VECTOR * size * h, V, keys, values, 1.0, FLOAT32, target, values)
