"""Recurrences of single channels: an item walks through time with the states of its channels."""

from __future__ import annotations

import functools

from helix_core.ops.wkv4 import EMPTY
from helix_device_arrays.array import Array, apply
from helix_device_arrays.device import Buffer, Device
from helix_device_arrays.dtypes import float32, int32
from helix_device_arrays.evaluate import write
from helix_device_arrays.kernels.common import (
    PADDING,
    RESET,
    buffer_of,
    fresh,
    given,
    items,
    lanes_for,
    marks,
    read,
    started,
    written,
)
from helix_device_arrays.nodes import Const, Leaf
from helix_device_arrays.program import Binding, Program


def _marked(marked: bool, on_padding: str, on_reset: str) -> str:
    if not marked:
        return ""
    return f"""
    let mark: i32 = code[row + t];
    if (mark == {PADDING}) {{ {on_padding} continue; }}
    if (mark == {RESET}) {{ {on_reset} }}"""


def _over_time(
    name: str, lanes: int, width: int, begin: str, step: str, end: str, buffers: tuple[Binding, ...]
) -> Program:
    """`begin`, then `step` at every t, then `end`; `c` is the first channel, `row` the place of (b, 0) and `at` of
    (b, t, c)."""
    body = f"""
let item: i32 = group * {width} + lane;
if (item < P.count) {{
  let chunks: i32 = P.channels / {lanes};
  let c: i32 = (item % chunks) * {lanes};
  let b: i32 = item / chunks;
  let row: i32 = b * P.length;
  {begin}
  for (var t: i32 = 0; t < P.length; t = t + 1) {{
    let at: i32 = (row + t) * P.channels + c;
    {step}
  }}
  {end}
}}"""
    return Program(name, buffers, ("count", "channels", "length", "states"), body, width, lanes)


def _launch(device: Device, program: Program, buffers: list[Buffer], shape: tuple[int, ...], states: int = 0) -> None:
    batch, length, channels = shape
    count = batch * channels // program.lanes
    device.launch(program, buffers, [count, channels, length, states], items(count, program.width))


def _widths(device: Device, channels: int) -> tuple[int, int]:
    """Lanes and items of a work-group; on graphics cards, items next to each other read next to each other."""
    return (lanes_for(device, channels) if device.vectors else 1), device.apart


@functools.cache
def _linear_scan(lanes: int, width: int, marked: bool) -> Program:
    begin = "var h: vec = LOADV(state, b * P.channels + c);"
    step = f"""{_marked(marked, "STOREV(y, at, splat_(0.0f));", "h = splat_(0.0f);")}
    h = LOADV(a, at) * h + LOADV(x, at);
    STOREV(y, at, h);"""
    end = "STOREV(state, b * P.channels + c, h);"
    buffers = (*written("y", "state"), *read("a", "x"), *((Binding("code", "i32"),) if marked else ()))
    return _over_time("linear_scan", lanes, width, begin, step, end, buffers)


def linear_scan(
    a: Array, x: Array, initial_state: Array | None = None, reset: Array | None = None, lengths: Array | None = None
) -> tuple[Array, Array]:
    """The op `linear_scan`."""
    device = x.device
    batch, length, channels = x.shape
    code = marks(reset, lengths, batch, length, device)
    y, state = fresh(device, x.shape), started(device, initial_state, (batch, channels))
    program = _linear_scan(*_widths(device, channels), code is not None)
    buffers = [
        y.buffer,
        state.buffer,
        buffer_of(a),
        buffer_of(x),
        *([buffer_of(code, int32)] if code is not None else []),
    ]
    _launch(device, program, buffers, x.shape)
    return Array(device, y), Array(device, state)


ROOM = 16
"""States are held in multiples of it, so that models with other numbers of them share a program."""
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
    step = f"""{_marked(marked, "STOREV(y, at, splat_(0.0f));", every("h[n] = splat_(0.0f);"))}
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
    return _over_time("selective_scan", lanes, width, begin, step, end, buffers)


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
    program = _selective_scan(*_widths(device, channels), states, *flags)
    optional = [buffer_of(a) for a in (D, z, delta_bias) if a is not None]
    buffers = [y.buffer, state.buffer, buffer_of(u), buffer_of(delta), buffer_of(A.permute((1, 0)))]
    buffers += [buffer_of(B), buffer_of(C), *optional, *([buffer_of(code, int32)] if code is not None else [])]
    _launch(device, program, buffers, u.shape)
    found = Array(device, y)
    if behind[0] is not None and D is None:
        found = found + u * behind[0]
    if behind[1] is not None and z is None:
        gate = behind[1]
        found = found * (gate * (apply(device, "tanh", (gate * 0.5,)) * 0.5 + 0.5))
    if code is not None and device.max_buffers < 11:
        found = apply(device, "where", (code[..., None] == PADDING, 0.0, found))
    return found, Array(device, state).permute((0, 2, 1))


@functools.cache
def _diagonal_ssm(lanes: int, width: int, room: int, marked: bool) -> Program:
    begin = f"""
  var re: array<vec, {room}>;
  var im: array<vec, {room}>;
  for (var n: i32 = 0; n < P.states; n = n + 1) {{
    re[n] = LOADV(state, ((b * 2) * P.states + n) * P.channels + c);
    im[n] = LOADV(state, ((b * 2 + 1) * P.states + n) * P.channels + c);
  }}"""
    clear = "for (var n: i32 = 0; n < P.states; n = n + 1) { re[n] = splat_(0.0f); im[n] = splat_(0.0f); }"
    step = f"""{_marked(marked, "STOREV(y, at, splat_(0.0f));", clear)}
    let v: vec = LOADV(u, at);
    var out: vec = splat_(0.0f);
    for (var n: i32 = 0; n < P.states; n = n + 1) {{
      let x: vec = LOADV(a, n * P.channels + c);
      let w: vec = LOADV(a, (P.states + n) * P.channels + c);
      let r: vec = x * re[n] - w * im[n] + v;
      im[n] = x * im[n] + w * re[n];
      re[n] = r;
      out = out + LOADV(k, n * P.channels + c) * r - LOADV(k, (P.states + n) * P.channels + c) * im[n];
    }}
    STOREV(y, at, out + out);"""
    end = """
  for (var n: i32 = 0; n < P.states; n = n + 1) {
    STOREV(state, ((b * 2) * P.states + n) * P.channels + c, re[n]);
    STOREV(state, ((b * 2 + 1) * P.states + n) * P.channels + c, im[n]);
  }"""
    buffers = (*written("y", "state"), *read("u", "a", "k"), *((Binding("code", "i32"),) if marked else ()))
    return _over_time("diagonal_ssm", lanes, width, begin, step, end, buffers)


def diagonal_ssm(
    u: Array,
    log_a: Array,
    c: Array,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
) -> tuple[Array, Array]:
    """The op `diagonal_ssm`."""
    device = u.device
    batch, length, channels = u.shape
    states = log_a.shape[1]
    code = marks(reset, lengths, batch, length, device)
    size, angle = apply(device, "exp", (log_a[..., 0],)), log_a[..., 1]
    a = fresh(device, (2, states, channels))
    for i, part in enumerate((size * apply(device, "cos", (angle,)), size * apply(device, "sin", (angle,)))):
        _place(device, part.permute((1, 0)), a, i)
    before = None if initial_state is None else initial_state.permute((0, 3, 2, 1))
    y, state = fresh(device, u.shape), started(device, before, (batch, 2, states, channels))
    program = _diagonal_ssm(*_widths(device, channels), -(-states // ROOM) * ROOM, code is not None)
    buffers = [y.buffer, state.buffer, buffer_of(u), a.buffer, buffer_of(c.permute((2, 1, 0)))]
    _launch(device, program, [*buffers, *([buffer_of(code, int32)] if code is not None else [])], u.shape, states)
    return Array(device, y), Array(device, state).permute((0, 3, 2, 1))


def _place(device: Device, part: Array, whole: Leaf, index: int) -> None:
    """Evaluate into `whole[index]`."""
    view = whole.view.cut((index, *(0,) * part.ndim), (1,) * (part.ndim + 1), (1, *part.shape))
    write(device, part[None].node, Leaf(whole.buffer, view, whole.dtype))


@functools.cache
def _wkv4(lanes: int, width: int, marked: bool, empty: float) -> Program:
    begin = """
  var m: vec = LOADV(state, b * 2 * P.channels + c);
  var z: vec = LOADV(state, (b * 2 + 1) * P.channels + c);
  let w: vec = LOADV(decay, c);
  let first: vec = LOADV(bonus, c);"""
    step = f"""{_marked(marked, "STOREV(y, at, splat_(0.0f));", f"m = splat_(0.0f); z = splat_({empty!r}f);")}
    let key: vec = LOADV(k, at);
    let value: vec = LOADV(v, at);
    let faded: vec = z + w;
    STOREV(y, at, m + sigmoid_v_(key + first - z) * (value - m));
    m = m + sigmoid_v_(key - faded) * (value - m);
    z = max_v_(key, faded) + log1p_v_(exp_v_(-abs_v_(key - faded)));"""
    end = """
  STOREV(state, b * 2 * P.channels + c, m);
  STOREV(state, (b * 2 + 1) * P.channels + c, z);"""
    code = (Binding("code", "i32"),) if marked else ()
    buffers = (*written("y", "state"), *read("k", "v", "decay", "bonus"), *code)
    return _over_time("wkv4", lanes, width, begin, step, end, buffers)


def wkv4(
    k: Array,
    v: Array,
    log_decay: Array,
    bonus: Array,
    initial_state: Array | None = None,
    reset: Array | None = None,
    lengths: Array | None = None,
) -> tuple[Array, Array]:
    """The op `wkv4`."""
    device = k.device
    batch, length, channels = k.shape
    code = marks(reset, lengths, batch, length, device)
    state = started(device, initial_state, (batch, 2, channels))
    if initial_state is None:
        view = state.view.cut((0, 1, 0), (1, 1, 1), (batch, 1, channels))
        write(device, Const(EMPTY, (batch, 1, channels), float32), Leaf(state.buffer, view, float32))
    y = fresh(device, k.shape)
    program = _wkv4(*_widths(device, channels), code is not None, EMPTY)
    buffers = [y.buffer, state.buffer, *map(buffer_of, (k, v, log_decay, bonus))]
    _launch(device, program, [*buffers, *([buffer_of(code, int32)] if code is not None else [])], k.shape)
    return Array(device, y), Array(device, state)
