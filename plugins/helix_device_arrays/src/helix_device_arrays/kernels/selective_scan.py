"""Mamba's scan."""

from __future__ import annotations

import functools

from helix_device_arrays.array import Array, apply
from helix_device_arrays.dtypes import int32
from helix_device_arrays.kernels._arguments import PADDING, buffer_of, fresh, given, marks, read, started, written
from helix_device_arrays.kernels._over_time import launch, on_marks, over_time, widths
from helix_device_arrays.program import Binding, Program

UNROLLED = 32
"""States of a channel up to which each is a variable of its own."""


@functools.cache
def _selective_scan(
    lanes: int, width: int, states: int, marked: bool, skip: bool, gate: bool, bias: bool, softplus: bool
) -> Program:
    few = states <= UNROLLED
    # Items that run in vectors of the processor load each float for themselves: a vector of floats is one load.
    wide = few and lanes > 1 and width > 1 and states % lanes == 0
    place = f"(b * {states} + [n]) * P.channels + c"

    def every(text: str) -> str:
        """`text` for every state [n], whose numbers are h[n], A[n], B[n] and C[n]."""
        if not few:
            row = text.replace("A[n]", "LOADV(A, n * P.channels + c)").replace("B[n]", "B[from_ + n]")
            row = row.replace("C[n]", "C[from_ + n]").replace(" [n]", " n")
            return f"for (var n: i32 = 0; n < {states}; n = n + 1) {{ {row} }}"
        lines = []
        for n in range(states):
            line = text.replace("h[n]", f"h{n}").replace("A[n]", f"A{n}").replace(" [n]", f" {n}")
            for x in "BC":
                line = line.replace(f"{x}[n]", f"at_({x}{n // lanes}, {n % lanes})" if wide else f"{x}[from_ + {n}]")
            lines.append(line)
        return "\n".join(lines)

    if few:
        begin = every(f"var h[n]: vec = LOADV(state, {place});\nlet A[n]: vec = LOADV(A, [n] * P.channels + c);")
    else:
        begin = f"var h: array<vec, {states}>;\n{every(f'h[n] = LOADV(state, {place});')}"
    begin += "".join(f"\nlet {name}_: vec = LOADV({name}, c);" for name in given([(skip, "D"), (bias, "bias")]))
    parts = [f"let {x}{i}: vec = LOADV({x}, from_ + {i * lanes});" for x in "BC" for i in range(states // lanes)]
    step = f"""{on_marks(marked, "STOREV(y, at, splat_(0.0f));", every("h[n] = splat_(0.0f);"))}
    let v: vec = LOADV(u, at);
    let d0: vec = LOADV(delta, at){" + bias_" if bias else ""};
    let d: vec = {"softplus_v_(d0)" if softplus else "d0"};
    let dv: vec = d * v;
    let from_: i32 = (row + t) * {states};
    {" ".join(parts) if wide else ""}
    var out: vec = {"v * D_" if skip else "splat_(0.0f)"};
    {every("h[n] = exp_v_(d * A[n]) * h[n] + dv * splat_(B[n]); out = out + h[n] * splat_(C[n]);")}
    STOREV(y, at, {"out * silu_v_(LOADV(z, at))" if gate else "out"});"""
    end = every(f"STOREV(state, {place}, h[n]);")
    extra = given([(skip, "D"), (gate, "z"), (bias, "bias")])
    code = (Binding("code", "i32"),) if marked else ()
    buffers = (*written("y", "state"), *read("u", "delta", "A", "B", "C", *extra), *code)
    return over_time("selective_scan", lanes, width, begin, step, end, buffers)


def selective_scan(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array | None = None,
    z: Array | None = None,
    delta_bias: Array | None = None,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
    *,
    delta_softplus: bool = False,
) -> tuple[Array, Array]:
    """The op `selective_scan`; step size, skip and gate within the kernel where the device binds so many buffers."""
    device = u.device
    batch, length, channels = u.shape
    states = A.shape[1]
    code = marks(reset, lengths, batch, length, device)
    behind = D, z
    if device.max_buffers < 11:  # then skip and gate are computed behind, the bias before
        if delta_bias is not None:
            delta = delta + delta_bias
        D = z = delta_bias = None
    before = None if initial_state is None else initial_state.permute((0, 2, 1))
    y, state = fresh(device, u.shape), started(device, before, (batch, states, channels))
    flags = (code is not None, D is not None, z is not None, delta_bias is not None, delta_softplus)
    program = _selective_scan(*widths(device, channels), states, *flags)
    optional = [buffer_of(a) for a in (D, z, delta_bias) if a is not None]
    buffers = [y.buffer, state.buffer, buffer_of(u), buffer_of(delta), buffer_of(A.permute((1, 0)))]
    buffers += [buffer_of(B), buffer_of(C), *optional, *([buffer_of(code, int32)] if code is not None else [])]
    launch(device, program, buffers, u.shape)
    found = Array(device, y)
    if behind[0] is not None and D is None:
        found = found + u * behind[0]
    if behind[1] is not None and z is None:
        gate = behind[1]
        found = found * (gate * (apply(device, "tanh", (gate * 0.5,)) * 0.5 + 0.5))
    if code is not None and device.max_buffers < 11:
        found = apply(device, "where", (code[..., None] == PADDING, 0.0, found))
    return found, Array(device, state).permute((0, 2, 1))
