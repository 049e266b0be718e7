"""Linear attention with a decaying state, backward: jobs as in the forward pass, last chunks first.

The forward pass kept the states in front of every span. Those in front of the chunks of a span are computed again,
then the chunks are gone through from the last to the first, with the gradient of the state behind each.

Sizes: B rows of the batch, L steps, H heads, K keys and V values of a head, both padded to whole vectors.
Names that end in _l are addresses in a thread's scratch memory, those in _at of one chunk or head in an argument.
The functions between kernel and arithmetic are parts: inlined, they would make one body with too many live addresses.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from helix_plugin_cpu.kernels._blocks import (
    clear_rows,
    clear_vectors,
    copy_vectors,
    last_start,
    next_start,
    starts_at,
)
from helix_plugin_cpu.kernels._jit import inline, kernel, part
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
    round_up,
    small,
)
from helix_plugin_cpu.kernels._linear_attention_forward import load_state
from helix_plugin_cpu.kernels._linear_attention_parts import EACH_KEY, SSD, advance, pack, padded, unpack
from helix_plugin_cpu.kernels._linear_attention_records import (
    ByHead,
    Gates,
    Sizes,
    Strided,
    element,
    number,
    prepare_head_at,
)
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
    """Write `steps` contiguous floats `target_t` floats apart."""
    for t in range(steps):
        put(target + FLOAT * t * target_t, get(source + FLOAT * t))


class Scratch(NamedTuple):
    """Addresses of a thread's scratch memory; states of a job's heads come first, then what a chunk needs."""

    dstates: int
    states: int
    dq: int
    dk: int
    dqs: int
    dks: int
    dg: int
    dy: int
    dv: int
    turned_v: int
    dscores: int
    dproducts: int
    turned_s: int
    dtotal: int
    later: int
    earlier: int
    entering: int
    leaving: int
    dlog: int
    work: int


class Gradients(NamedTuple):
    """Addresses of what the backward pass writes; 0 for A, bias and D unless the op is ssd."""

    q: int
    k: int
    v: int
    g: int
    A: int
    bias: int
    D: int
    initial: int


class Job(NamedTuple):
    """A row of the batch and its heads first..first+share-1, which are of one group."""

    row: int
    first: int
    group: int
    end: int
    flags: int
    dq: int
    dk: int


@inline
def lay_out(scratch: int, sizes: Sizes) -> Scratch:
    """Divide a thread's scratch memory, of `backward_scratch` bytes, among what a job needs."""
    K, V, chunk = padded(sizes.keys), padded(sizes.values), sizes.chunk
    by_keys, by_values, pairs, steps = FLOAT * chunk * K, FLOAT * chunk * V, FLOAT * chunk * chunk, FLOAT * chunk
    states = scratch + FLOAT * K * V * sizes.share
    dq = states + FLOAT * K * V * sizes.share * (sizes.span // chunk)
    dy = dq + 5 * by_keys
    dscores = dy + 3 * by_values
    turned_s = dscores + 2 * pairs
    dtotal = turned_s + FLOAT * K * V
    later = dtotal + FLOAT * K
    return Scratch(
        scratch, states, dq, dq + by_keys, dq + 2 * by_keys, dq + 3 * by_keys, dq + 4 * by_keys,
        dy, dy + by_values, dy + 2 * by_values, dscores, dscores + pairs, turned_s, dtotal,
        later, later + steps, later + 2 * steps, later + 3 * steps, later + 4 * steps, later + 5 * steps,
    )  # fmt: skip


@inline
def begin_job(job: int, sum_stored: float, grads: Gradients, resets: int, ends: int, sizes: Sizes) -> Job:
    """Where a job's rows lie. The heads of a group that do not share a job write sums of their own."""
    parts, together = sizes.heads // sizes.share, sizes.heads // sizes.groups
    row, first = job // parts, (job % parts) * sizes.share
    group, sums = first // together, (first % together) // sizes.share
    shared = ((sums * sizes.batch + row) * sizes.length * sizes.groups + group) * sizes.keys
    end = get_int(ends + 8 * row) if ends != 0 else sizes.length
    flags = resets + row * sizes.length if resets != 0 else 0
    return Job(
        row, first, group, end, flags, grads.q + size_of(sum_stored) * shared, grads.k + size_of(sum_stored) * shared
    )


@inline
def clear_padding(stored: float, g_stored: float, sum_stored: float, grads: Gradients, job: Job, sizes: Sizes) -> None:
    """Gradients of the steps from the row's end on are zeros."""
    padding, row = sizes.length - job.end, sizes.groups * sizes.keys
    at = size_of(sum_stored) * job.end * row
    clear_stored(sum_stored, job.dq + at, row, padding, sizes.keys)
    clear_stored(sum_stored, job.dk + at, row, padding, sizes.keys)
    rest, heads = (job.row * sizes.length + job.end) * sizes.heads + job.first, sizes.heads
    at = size_of(stored) * rest * sizes.values
    clear_stored(stored, grads.v + at, heads * sizes.values, padding, sizes.share * sizes.values)
    if sizes.kind == EACH_KEY:
        at = size_of(g_stored) * rest * sizes.keys
        clear_stored(g_stored, grads.g + at, heads * sizes.keys, padding, sizes.share * sizes.keys)
    else:
        clear_rows(grads.g + FLOAT * rest, heads, padding, sizes.share)


@inline
def begin_sums(dlast: int, grads: Gradients, job: Job, sizes: Sizes, local: Scratch) -> None:
    """The gradient of each head's last state, and zeros for the sums over steps."""
    state_bytes = FLOAT * padded(sizes.keys) * padded(sizes.values)
    for h in range(sizes.share):
        each = job.row * sizes.heads + job.first + h
        at = FLOAT * each * sizes.keys * sizes.values
        load_state(dlast + at if dlast != 0 else 0, sizes.keys, sizes.values, local.dstates + state_bytes * h)
        if sizes.kind == SSD:
            for target in (grads.A, grads.bias, grads.D):
                put(target + FLOAT * each, np.float32(0.0))


@inline
def load_span(kept: int, index: int, job: Job, sizes: Sizes, local: Scratch) -> None:
    """The states in front of a span, which the forward pass kept."""
    state_bytes = FLOAT * padded(sizes.keys) * padded(sizes.values)
    spans = (sizes.length + sizes.span - 1) // sizes.span
    for h in range(sizes.share):
        state = kept + state_bytes * ((job.row * spans + index) * sizes.heads + job.first + h)
        copy_vectors(state, local.states + state_bytes * h, state_bytes // VECTOR)


@part
def states_in_front(
    stored: float, g_stored: float, k: Strided, v: Strided, g: Strided, by_head: ByHead, gates: Gates,
    begin: int, stop: int, job: Job, sizes: Sizes, local: Scratch,
) -> None:  # fmt: skip
    """Compute the states in front of a span's chunks again, except where a document starts: there is none."""
    K, V, chunk = padded(sizes.keys), padded(sizes.values), sizes.chunk
    size = K * V // LANES
    keys_decayed = by_key(local.work, chunk, K)[3]
    v_l, total_l = by_value(local.work, chunk, K, V)[0], small(local.work, chunk)[7]
    t = begin
    while t < stop:
        t_end = next_start(job.flags, t, min((t // chunk + 1) * chunk, stop))
        if t_end < stop and t_end % chunk == 0 and not starts_at(job.flags, t_end):
            k_at = element(k, stored, job.row, t, job.group)
            prepare_chunk(
                stored, local.work, chunk, k_at, k.step, k_at, k.step, t_end - t, sizes.keys, sizes.values, EACH_KEY,
                1.0,
            )  # fmt: skip
            for h in range(sizes.share):
                state = local.states + VECTOR * size * ((t - begin) // chunk * sizes.share + h)
                following = state + VECTOR * size * sizes.share
                if starts_at(job.flags, t):
                    clear_vectors(following, size)
                else:
                    copy_vectors(state, following, size)
                prepare_head_at(
                    stored, g_stored, local.work, v, g, by_head, gates, job.row, t, t_end - t, job.first + h, sizes, 0
                )
                advance(following, keys_decayed, v_l, t_end - t, K, V, total_l)
        t = t_end


@part
def head_gradients(
    stored: float, g_stored: float, v: Strided, g: Strided, dy: Strided, by_head: ByHead, gates: Gates,
    grads: Gradients, t: int, steps: int, h: int, state: int, job: Job, sizes: Sizes, local: Scratch,
) -> None:  # fmt: skip
    """A chunk of one head: dv, dg and ssd's own are written, dq and dk added up; its state is 0 if there is none."""
    K, V, chunk, keys, values, kind = (
        padded(sizes.keys),
        padded(sizes.values),
        sizes.chunk,
        sizes.keys,
        sizes.values,
        sizes.kind,
    )
    rows, heads, head = padded(steps), sizes.heads, job.first + h
    one_l, spare_l, weight_l, _, _, since_l, until_l, total_l = small(local.work, chunk)
    q_l, k_l, qs_l, ks_l, _, decay_k, since_k, until_k, _ = by_key(local.work, chunk, K)
    v_l, _, _, gaps_l, scores_l, sums_l = by_value(local.work, chunk, K, V)
    prepare_head_at(stored, g_stored, local.work, v, g, by_head, gates, job.row, t, steps, head, sizes, 1)
    pack(stored, element(dy, stored, job.row, t, head), dy.step, steps, values, one_l, 0, local.dy, spare_l)
    adjoint_products(
        state, local.dstates + FLOAT * K * V * h, qs_l, ks_l, v_l, local.dy, scores_l, chunk, total_l, steps,
        keys, values, local.turned_v, local.turned_s, local.dqs, local.dks, local.dv, local.dscores, local.dtotal,
    )  # fmt: skip
    here = (job.row * sizes.length + t) * heads + head
    dv_at = grads.v + size_of(stored) * here * values
    if kind == EACH_KEY:
        fold_keys(
            q_l, k_l, decay_k, since_k, until_k, ks_l, local.dqs, local.dks, local.dscores, chunk, local.dtotal,
            steps, K, local.dq, local.dk, local.dg,
        )  # fmt: skip
        dg_at = grads.g + size_of(g_stored) * here * keys
        unpack(local.dg, K, steps, keys, 1.0, g_stored, dg_at, heads * keys)
    else:
        fold(local.dqs, qs_l, since_l, rows, K, local.dq, sums_l, local.entering)
        fold(local.dks, ks_l, until_l, rows, K, local.dk, sums_l, local.leaving)
        fold_scores(local.dscores, scores_l, gaps_l, rows, chunk, local.dproducts, sums_l, local.later, local.earlier)
        log_decay_gradient(
            local.later, local.earlier, local.entering, local.leaving, local.dtotal, steps, keys, local.dlog
        )
        if kind != SSD:
            unpack_column(local.dlog, steps, grads.g + FLOAT * here, heads)
    if kind == SSD:
        each = FLOAT * (job.row * heads + head)
        finish_ssd(
            stored, g_stored, element(v, stored, job.row, t, head), v.step, local.dy, local.dv, weight_l, local.dlog,
            element(g, g_stored, job.row, t, head), g.step, number(by_head.A, head, 1.0),
            number(by_head.bias, head, 0.0), number(by_head.D, head, 0.0), gates.soft, gates.low, gates.high,
            steps, values, sums_l, dv_at, heads * values, grads.g + FLOAT * here, heads,
            grads.A + each, grads.D + each, grads.bias + each,
        )  # fmt: skip
    else:
        unpack(local.dv, V, steps, values, 1.0, stored, dv_at, heads * values)


@part
def chunk_gradients(
    stored: float, g_stored: float, sum_stored: float, q: Strided, k: Strided, v: Strided, g: Strided, dy: Strided,
    by_head: ByHead, gates: Gates, scale: float, grads: Gradients, t: int, steps: int, slot: int, job: Job,
    sizes: Sizes, local: Scratch,
) -> None:  # fmt: skip
    """A chunk of all of a job's heads, whose gradients of q and k are summed."""
    K, V, chunk, rows = padded(sizes.keys), padded(sizes.values), sizes.chunk, padded(steps)
    q_l, k_l = by_key(local.work, chunk, K)[:2]
    q_at, k_at = element(q, stored, job.row, t, job.group), element(k, stored, job.row, t, job.group)
    prepare_chunk(
        stored, local.work, chunk, q_at, q.step, k_at, k.step, steps, sizes.keys, sizes.values, sizes.kind, scale
    )
    clear_vectors(local.dq, rows * K // LANES)
    clear_vectors(local.dk, rows * K // LANES)
    clear_vectors(local.dproducts, chunk * chunk // LANES)
    fresh = starts_at(job.flags, t)
    for h in range(sizes.share):
        state = 0 if fresh else local.states + FLOAT * K * V * (slot * sizes.share + h)
        head_gradients(stored, g_stored, v, g, dy, by_head, gates, grads, t, steps, h, state, job, sizes, local)
    if sizes.kind != EACH_KEY:
        fold_products(local.dproducts, chunk, q_l, k_l, rows, K, local.dq, local.dk)
    row = sizes.groups * sizes.keys
    at = size_of(sum_stored) * t * row
    unpack(local.dq, K, steps, sizes.keys, scale, sum_stored, job.dq + at, row)
    unpack(local.dk, K, steps, sizes.keys, 1.0, sum_stored, job.dk + at, row)


@inline
def store_initial(grads: Gradients, job: Job, sizes: Sizes, local: Scratch) -> None:
    """What has reached the first step is the gradient of the initial state."""
    K, V, keys, values = padded(sizes.keys), padded(sizes.values), sizes.keys, sizes.values
    for h in range(sizes.share):
        target = grads.initial + FLOAT * (job.row * sizes.heads + job.first + h) * keys * values
        unpack(local.dstates + FLOAT * K * V * h, V, keys, values, 1.0, FLOAT32, target, values)


@kernel
def backward_jobs(
    counter: int, jobs: int, scratch: int, stored: float, g_stored: float, sum_stored: float,
    q: Strided, k: Strided, v: Strided, g: Strided, dy: Strided, by_head: ByHead,
    dlast: int, resets: int, ends: int, kept: int, grads: Gradients, sizes: Sizes, gates: Gates, scale: float,
) -> None:  # fmt: skip
    """dq, dk (jobs of a group, B, L, groups, keys) and dA, dbias, dD (B, H) are partial sums.

    dg is (B, L, H), or (B, L, H, keys) where every key has a decay; it is then stored as `g_stored` says, like g. dq
    and dk are stored as `sum_stored` says, q, k, v, dv and dy as `stored` does, the rest as float32.
    """
    local = lay_out(scratch, sizes)
    span, chunk = sizes.span, sizes.chunk
    while True:
        taken = take_job(counter)
        if taken >= jobs:
            return
        job = begin_job(taken, sum_stored, grads, resets, ends, sizes)
        clear_padding(stored, g_stored, sum_stored, grads, job, sizes)
        begin_sums(dlast, grads, job, sizes, local)
        for index in range((job.end + span - 1) // span - 1, -1, -1):
            begin, stop = index * span, min((index + 1) * span, job.end)
            load_span(kept, index, job, sizes, local)
            states_in_front(stored, g_stored, k, v, g, by_head, gates, begin, stop, job, sizes, local)
            t_end = stop
            while t_end > begin:
                t = last_start(job.flags, (t_end - 1) // chunk * chunk, t_end)
                chunk_gradients(
                    stored, g_stored, sum_stored, q, k, v, g, dy, by_head, gates, scale, grads, t, t_end - t,
                    (t - begin) // chunk, job, sizes, local,
                )  # fmt: skip
                t_end = t
        store_initial(grads, job, sizes, local)
