"""BitNet's linear map: rows of activations as bytes, then sums of bytes times two-bit codes, in whole numbers."""

from __future__ import annotations

import functools

from helix_core.ops import OPS
from helix_core.ops.bit_linear import LEVELS, SMALLEST, check_shapes
from helix_device_arrays.array import Array
from helix_device_arrays.device import Device
from helix_device_arrays.dtypes import int32, uint8
from helix_device_arrays.kernels._arguments import buffer_of, fresh, joined, read
from helix_device_arrays.nodes import Leaf
from helix_device_arrays.program import Binding, Program
from helix_device_arrays.views import size_of

MANY = 256
"""From so many rows on, weights are unpacked and multiplied as floats, which hold the same whole numbers."""
TOGETHER = 4
"""Rows that are multiplied with a weight once it is unpacked."""


def _walk(shared: int) -> tuple[str, int]:
    """Where an item begins and how far it steps, if so many share the work."""
    return ("lane", shared) if shared > 1 else ("0", 1)


@functools.cache
def _levels(shared: int) -> Program:
    """Levels of a row, four in a word; words in the order of the packed weights, plane after plane."""
    first, step = _walk(shared)
    body = f"""
let row: i32 = group * P.over;
var top: f32 = 0.0f;
for (var j: i32 = {first}; j < P.over; j = j + {step}) {{ let v: f32 = x[row + j]; top = max_(top, abs_(v)); }}
{joined(shared, "top", "max_({0}, {1})")}
let s: f32 = {LEVELS}.0f / max({SMALLEST!r}f, top);
let words: i32 = (P.plane + 3) / 4;
var sum: i32 = 0;
for (var w: i32 = {first}; w < 4 * words; w = w + {step}) {{
  let begin: i32 = w % words * 4;
  let k: i32 = w / words * P.plane + begin;
  var word: i32 = 0;
  for (var i: i32 = 0; i < 4; i = i + 1) {{
    if (begin + i < P.plane && k + i < P.over) {{
      let level: i32 = i32(max(min(round_(x[row + k + i] * s), {LEVELS}.0f), -{LEVELS + 1}.0f));
      sum = sum + level;
      word = word | ((level & 255) << u32(8 * i));
    }}
  }}
  levels[group * 4 * words + w] = word;
}}
{joined(shared, "sum", "{0} + {1}", "whole")}
sums[group] = sum;
factors[group] = select(nan_(), scale[0] / s, top < inf_());"""
    made = (Binding("levels", "i32", True), Binding("sums", "i32", True), Binding("factors", writes=True))
    room = (("part", "f32", shared), ("whole", "i32", shared)) if shared > 1 else ()
    return Program("bit_levels", (*made, *read("x", "scale")), ("over", "plane"), body, shared, shared=room)


@functools.cache
def _products(shared: int, together: int, stored: str, bias: bool) -> Program:
    """A column of the result for some rows; `stored` says in what the codes come: "words", or elements one by one."""
    first, step = _walk(shared)
    rows = range(together)
    element = "LOADB(packed, {0})" if stored == "u8" else "packed[{0}]"
    if stored == "words":
        word = "let word: i32 = packed[at + j];"
    else:
        bytes_ = (element.format(f"min(at + 4 * j + {i}, at + P.plane - 1)") for i in range(4))
        word = f"let word: i32 = {' | '.join(f'({b} << {8 * i}u)' for i, b in enumerate(bytes_))};"
    codes = "\n".join(f"let c{p}: i32 = (word >> {2 * p}u) & {0x03030303};" for p in range(4))
    sums = "\n".join(
        f"a{t} = a{t} + {' + '.join(f'dot4_(c{p}, levels[q{t} + {p} * P.words + j])' for p in range(4))};" for t in rows
    )
    start = "\n".join(f"let q{t}: i32 = min(m + {t}, P.rows - 1) * 4 * P.words;\nvar a{t}: i32 = 0;" for t in rows)
    add = " + bias[n]" if bias else ""
    write = "\n".join(
        f"if (m + {t} < P.rows) {{ y[(m + {t}) * P.columns + n] = f32(a{t} - sums[m + {t}]) * factors[m + {t}]{add}; }}"
        for t in rows
    )
    body = f"""
let n: i32 = group % P.columns;
let m: i32 = group / P.columns * {together};
let at: i32 = P.begin + n * P.row;
{start}
for (var j: i32 = {first}; j < P.words; j = j + {step}) {{
{word}
{codes}
{sums}
}}
{"".join(joined(shared, f"a{t}", "{0} + {1}", "whole") for t in rows)}
if (lane == 0) {{
{write}
}}"""
    packed = Binding("packed", "i32" if stored == "words" else stored)
    given = (Binding("levels", "i32"), packed, Binding("sums", "i32"), *read("factors", *(("bias",) if bias else ())))
    room = (("whole", "i32", shared),) if shared > 1 else ()
    params = ("rows", "columns", "words", "plane", "begin", "row")
    return Program("bit_linear", (Binding("y", writes=True), *given), params, body, shared, shared=room)


def bit_linear(x: Array, packed: Array, scale: Array, bias: Array | None = None) -> Array:
    """The op `bit_linear`."""
    check_shapes(x.shape, packed.shape)
    device: Device = x.device
    rows, columns = size_of(x.shape[:-1]), packed.shape[0]
    if rows >= MANY or 0 in (rows, columns):
        found: Array = OPS["bit_linear"].reference(device.namespace, x, packed, scale, bias)
        return found
    over, plane = x.shape[-1], packed.shape[1]
    words = -(-plane // 4)
    levels, sums = fresh(device, (rows, 4, words), int32), fresh(device, (rows,), int32)
    factors, y = fresh(device, (rows,)), fresh(device, (*x.shape[:-1], columns))
    made = [levels.buffer, sums.buffer, factors.buffer]
    device.launch(_levels(device.rows), [*made, buffer_of(x), buffer_of(scale)], [over, plane], rows)

    codes = _codes(packed)
    begin, row, stored = codes.view.offset, codes.view.strides[0], codes.dtype.stored
    if stored == "u8" and begin % 4 == 0 and row % 4 == 0:
        begin, row, stored = begin // 4, row // 4, "words"
    together = TOGETHER if rows > 1 else 1
    program = _products(device.rows, together, stored, bias is not None)
    buffers = [y.buffer, levels.buffer, codes.buffer, sums.buffer, factors.buffer]
    if bias is not None:
        buffers.append(buffer_of(bias))
    device.launch(program, buffers, [rows, columns, words, plane, begin, row], columns * -(-rows // together))
    return Array(device, y)


def _codes(packed: Array) -> Leaf:
    """The bytes as they were uploaded; those of another dtype, or of a view that has gaps in its rows, as int32."""
    leaf = packed.leaf()
    if leaf.dtype is not uint8:
        return packed.astype(int32).packed()
    return leaf if leaf.view.strides[1] == 1 or leaf.shape[1] == 1 else packed.packed()
