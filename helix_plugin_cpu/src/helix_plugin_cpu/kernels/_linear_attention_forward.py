"""Linear attention with a decaying state, forward: a job is one row of the batch and a few heads.

Within a chunk all pairs of steps meet in matrix products; a state is carried from chunk to chunk. Chunks end where
documents do. A chunk with infinities or NaN is run a step at a time: in a product, zero times NaN would carry it to
steps that must not see it.
"""

from __future__ import annotations

from helix_plugin_cpu.kernels._blocks import clear_vectors, copy_vectors, next_start, starts_at
from helix_plugin_cpu.kernels._jit import kernel, part
from helix_plugin_cpu.kernels._linear_attention_chunk import (
    by_key,
    by_value,
    chunk_scratch,
    prepare_chunk,
    round_up,
    small,
)
from helix_plugin_cpu.kernels._linear_attention_parts import (
    EACH_KEY,
    advance,
    attend,
    head_decays,
    one_step,
    padded,
    unpack,
)
from helix_plugin_cpu.kernels._linear_attention_records import (
    ByHead,
    Gates,
    Sizes,
    Strided,
    element,
    number,
    prepare_head_at,
)
from helix_plugin_cpu.kernels._memory import FLOAT, get_int, take_job
from helix_plugin_cpu.kernels._simd import LANES, VECTOR, broadcast, fma, load, load_first, store
from helix_plugin_cpu.kernels._storage import FLOAT32, clear_stored, read, size_of, write


def forward_scratch(keys: int, values: int, chunk: int, share: int) -> int:
    """Bytes that `forward_jobs` needs per thread."""
    return FLOAT * share * round_up(keys) * round_up(values) + chunk_scratch(keys, values, chunk)


@part
def load_state(source: int, keys: int, values: int, state: int) -> None:
    """(keys, values), or zeros for the address 0 -> padded."""
    V = padded(values)
    clear_vectors(state, padded(keys) * V // LANES)
    if source != 0:
        for n in range(keys):
            for p in range(0, values, LANES):
                store(state + FLOAT * (n * V + p), load_first(source + FLOAT * (n * values + p), values - p))


@part
def step_by_step(
    g_stored: float, work: int, chunk: int, state: int, g: int, g_t: int, rate: float, bias: float, soft: int,
    low: float, high: float, steps: int, keys: int, values: int, kind: int,
) -> None:  # fmt: skip
    """A prepared chunk as the recurrence has it."""
    K, V = padded(keys), padded(values)
    upper_l, lower_l, since_l, until_l = small(work, chunk)[3:7]
    q_l, k_l, _, _, turned_l, decay_k = by_key(work, chunk, K)[:6]
    v_l, y_l = by_value(work, chunk, K, V)[:2]
    for t in range(steps):
        decay, decay_step = decay_k + FLOAT * t * K, 1
        if kind != EACH_KEY:
            # The decay of this step alone: sums over several are not finite.
            head_decays(
                kind, g_stored, g + size_of(g_stored) * t * g_t, g_t, rate, bias, soft, low, high, 1,
                turned_l, upper_l, lower_l, since_l, until_l,
            )  # fmt: skip
            decay, decay_step = since_l, 0
        one_step(
            state, V, state, V, q_l + FLOAT * t * K, k_l + FLOAT * t * K, v_l + FLOAT * t * V, decay, decay_step,
            keys, V, y_l + FLOAT * t * V,
        )  # fmt: skip


@part
def write_outputs(
    y: int, stored: float, x: int, x_t: int, skip: int, steps: int, values: int, target: int, target_t: int
) -> None:
    """y + skip x of a chunk; skip is an address or 0."""
    V = padded(values)
    if skip == 0:
        unpack(y, V, steps, values, 1.0, stored, target, target_t)
        return
    D, wide = broadcast(skip), size_of(stored)
    for t in range(steps):
        for p in range(0, values, LANES):
            x_v = read(stored, x + wide * (t * x_t + p), values - p)
            found = fma(D, x_v, load(y + FLOAT * (t * V + p)))
            write(stored, target + wide * (t * target_t + p), found, values - p)


@kernel
def forward_jobs(
    counter: int, jobs: int, scratch: int, stored: float, g_stored: float,
    q: Strided, k: Strided, v: Strided, g: Strided, by_head: ByHead,
    initial: int, resets: int, ends: int, y: int, last: int, kept: int, sizes: Sizes, gates: Gates, scale: float,
) -> None:  # fmt: skip
    """q, k have `groups` heads; `kept` (B, spans, H, padded keys, padded values) takes the states before every span.

    Optional arrays have the address 0. q, k, v and y are stored as `stored` says, g as `g_stored` does, the rest as
    float32.
    """
    wide, length, heads, share = size_of(stored), sizes.length, sizes.heads, sizes.share
    keys, values, kind, chunk, span = sizes.keys, sizes.values, sizes.kind, sizes.chunk, sizes.span
    K, V = padded(keys), padded(values)
    spans, parts = (length + span - 1) // span, heads // share
    size = K * V // LANES
    work = scratch + VECTOR * size * share
    qs_l, ks_l = by_key(work, chunk, K)[2:4]
    v_l, y_l, _, _, scores_l, _ = by_value(work, chunk, K, V)
    total_l = small(work, chunk)[7]
    while True:
        job = take_job(counter)
        if job >= jobs:
            return
        row, first = job // parts, (job % parts) * share
        group = first // (heads // sizes.groups)
        end = get_int(ends + 8 * row) if ends != 0 else length
        flags = resets + row * length if resets != 0 else 0
        for h in range(share):
            at = FLOAT * (row * heads + first + h) * keys * values
            load_state(initial + at if initial != 0 else 0, keys, values, scratch + VECTOR * size * h)
        t = 0
        while t < end:
            t_end = next_start(flags, t, min((t // chunk + 1) * chunk, end))
            steps = t_end - t
            q_at, k_at = element(q, stored, row, t, group), element(k, stored, row, t, group)
            sound = prepare_chunk(stored, work, chunk, q_at, q.step, k_at, k.step, steps, keys, values, kind, scale)
            for h in range(share):
                head, state = first + h, scratch + VECTOR * size * h
                if kept != 0 and t % span == 0:
                    copy_vectors(state, kept + VECTOR * size * ((row * spans + t // span) * heads + head), size)
                if starts_at(flags, t):
                    clear_vectors(state, size)
                fine = sound + prepare_head_at(
                    stored, g_stored, work, v, g, by_head, gates, row, t, steps, head, sizes, 1
                )
                if fine == fine:
                    attend(qs_l, state, scores_l, chunk, v_l, padded(steps), K, V, y_l)
                    advance(state, ks_l, v_l, steps, K, V, total_l)
                else:
                    step_by_step(
                        g_stored, work, chunk, state, element(g, g_stored, row, t, head), g.step,
                        number(by_head.A, head, 1.0), number(by_head.bias, head, 0.0), gates.soft, gates.low,
                        gates.high, steps, keys, values, kind,
                    )  # fmt: skip
                out = y + wide * ((row * length + t) * heads + head) * values
                skip = by_head.D + FLOAT * head if by_head.D != 0 else 0
                x_at = element(v, stored, row, t, head)
                write_outputs(y_l, stored, x_at, v.step, skip, steps, values, out, heads * values)
            t = t_end
        rest = y + wide * ((row * length + end) * heads + first) * values
        clear_stored(stored, rest, heads * values, length - end, share * values)
        for h in range(share):
            target = last + FLOAT * (row * heads + first + h) * keys * values
            unpack(scratch + VECTOR * size * h, V, keys, values, 1.0, FLOAT32, target, values)
