"""Matrix products for drivers that run items side by side in vectors of a processor, as Mesa's lavapipe does.

Such a driver loads what an index points to for one item after the other, a vector as fast as a number, and what a
work-group shares is memory like any other. So an item loads vectors along the depth and holds many sums.
"""

from __future__ import annotations

import functools

from helix_device_arrays.array import Array
from helix_device_arrays.batches import PAIR, batches
from helix_device_arrays.dtypes import float32
from helix_device_arrays.evaluate import copied
from helix_device_arrays.nodes import Const, Leaf
from helix_device_arrays.program import Binding, Program
from helix_device_arrays.views import Shape, View, size_of

HIGH = (1, 4, 16)
"""Rows that an item holds: the next number to a product's own."""
BLOCK = 12
"""Columns that an item holds. 16 x 12 sums took 13 % less time than 16 x 8 on lavapipe, and 16 x 16 or 24 x 12 more."""


@functools.cache
def _blocks(lanes: int, width: int, rows: int, bias: bool) -> Program:
    """The sums of some rows of a and columns of b, the numbers of which lie next to each other along the depth."""
    columns = range(BLOCK)
    left = "\n".join(f"let r{i}: i32 = a0 + min(row + {i}, P.rows - 1) * P.ar;" for i in range(rows))
    right = "\n".join(f"let s{j}: i32 = b0 + min(column + {j}, P.columns - 1) * P.bc;" for j in columns)
    quads = [(i, q) for i in range(rows) for q in range(BLOCK // lanes)]
    start = "\n".join(f"var c{i}_{q}: vec = splat_(0.0f);" for i, q in quads)
    load = "\n".join(f"let y{j}: vec = LOADV(b, s{j} + k);" for j in columns)

    def dots(i: int, q: int) -> str:
        return ", ".join(f"sum_(x{i} * y{q * lanes + j})" for j in range(lanes))

    def plus(q: int) -> str:
        return f" + v{q}" if bias else ""

    step = "\n".join(
        f"let x{i}: vec = LOADV(a, r{i} + k);\n"
        + "\n".join(f"c{i}_{q} = c{i}_{q} + vec_({dots(i, q)});" for q in range(BLOCK // lanes))
        for i in range(rows)
    )
    places = [f"bias[P.bias + min(column + {j}, P.columns - 1)]" for j in columns]
    add = [f"vec_({', '.join(places[q * lanes : (q + 1) * lanes])})" for q in range(BLOCK // lanes)] if bias else []
    added = "\n".join(f"let v{q}: vec = {value};" for q, value in enumerate(add))
    write = "\n".join(
        f"if (row + {i} < P.rows && column + {q * lanes} < P.across) {{ "
        f"STOREV(out, place + {i} * P.across + {q * lanes}, c{i}_{q}{plus(q)}); }}"
        for i, q in quads
    )
    body = f"""
let item: i32 = group * {width} + lane;
if (item < P.count) {{
  let block: i32 = item / P.panels;
  let column: i32 = (item - block * P.panels) * {BLOCK};
  let batch: i32 = block / P.blocks;
  let row: i32 = (block - batch * P.blocks) * {rows};
  {PAIR}  {left}
  {right}
  {start}
  for (var k: i32 = 0; k < P.depth; k = k + {lanes}) {{
    {load}
    {step}
  }}
  {added}
  let place: i32 = (batch * P.rows + row) * P.across + column;
  {write}
}}"""
    buffers = (Binding("out", writes=True), Binding("a"), Binding("b"), *((Binding("bias"),) if bias else ()))
    params = (
        "count", "rows", "depth", "columns", "across", "panels", "blocks", "n0", "n1", "n2", "ao", "a0", "a1", "a2",
        "ar", "bo", "b0", "b1", "b2", "bc", "bias",
    )  # fmt: skip
    return Program("matmul", buffers, params, body, width, lanes)


def blocked_matmul(a: Array, b: Array, bias: Array | None, batch: Shape) -> Array:
    """a (..., M, K), b (..., K, N) -> (batch, M, N), plus bias (N,).

    The columns beyond the last are those of an unfinished vector: the result is a view.
    """
    device, (rows, _), columns = a.device, a.shape[-2:], b.shape[-1]
    left, right = _along_depth(a), _along_depth(b.permute((*range(b.ndim - 2), b.ndim - 1, b.ndim - 2)))
    depth = left.shape[-1]
    one = left.view.broadcast((*batch, rows, depth)), right.view.broadcast((*batch, columns, depth))
    sizes, (along_a, along_b) = batches(list(one), batch)
    high = next(n for n in HIGH if n >= min(rows, HIGH[-1]))
    panels, blocks, across = -(-columns // BLOCK), -(-rows // high), -(-columns // device.lanes) * device.lanes
    count = panels * blocks * size_of(batch)
    added = None if bias is None else bias.astype(float32).packed()
    params = [
        count, rows, depth, columns, across, panels, blocks, *sizes, left.view.offset, *along_a, left.view.strides[-2],
        right.view.offset, *along_b, right.view.strides[-2], added.view.offset if added else 0,
    ]  # fmt: skip
    whole = View.of((*batch, rows, across))
    out = Leaf(device.allocate(4 * size_of(whole.shape)), View((*batch, rows, columns), whole.strides), float32)
    program = _blocks(device.lanes, device.width, high, bias is not None)
    buffers = [out.buffer, left.buffer, right.buffer, *([added.buffer] if added else [])]
    device.launch(program, buffers, params, -(-count // device.width))
    return Array(device, out)


def _along_depth(x: Array) -> Leaf:
    """Its values in a buffer, those of the last axis in vectors: next to each other, filled up with zeros."""
    missing = -x.shape[-1] % x.device.lanes
    if missing:
        zeros = Array(x.device, Const(0.0, (*x.shape[:-1], missing), float32))
        filled: Array = x.device.namespace.concat([x, zeros], axis=-1)
        return filled.packed()
    leaf = x.leaf()
    *others, last = leaf.view.strides
    ready = last == 1 and all(n % x.device.lanes == 0 for n in (leaf.view.offset, *others))
    return leaf if ready else copied(x.device, leaf)
