"""Matrix products, by what the device is good at.

Graphics cards have tiles in shared memory. Processors have panels of columns where items run one by one, and
`blocked_matmul` where they run side by side.
"""

from __future__ import annotations

import functools

from helix_device_arrays.array import Array
from helix_device_arrays.batches import BATCH, PAIR, batches
from helix_device_arrays.blocked_matmul import blocked_matmul
from helix_device_arrays.device import Buffer, Device
from helix_device_arrays.dtypes import float32
from helix_device_arrays.nodes import Const, Leaf
from helix_device_arrays.program import Binding, Program
from helix_device_arrays.views import Shape, View, broadcast_shapes, size_of

TILE, DEPTH = 64, 16
ROWS = 6
"""Rows of a product that an item of a processor's kernel holds; its columns are two vectors wide."""
NARROW = 4
"""Up to so many rows, a product is a sum over rows of the right matrix, each read once."""


def matmul(a: Array, b: Array, bias: Array | None = None) -> Array:
    """a (..., M, K), b (..., K, N) -> (..., M, N), plus bias (N,); one-dimensional arrays as in NumPy."""
    if a.ndim == 1:
        found = matmul(a[None, :], b)
        return found[..., 0, :]
    if b.ndim == 1:
        return matmul(a, b[:, None])[..., 0]
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matrices of shape {a.shape} and {b.shape} do not fit together")
    device = a.device
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows, depth, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    if b.ndim == 2 and a.ndim > 2:  # one matrix for all rows of a batch
        found = matmul(a.reshape((size_of(a.shape[:-1]), depth)), b, bias)
        return found.reshape((*a.shape[:-1], columns))
    if depth == 0 or rows * size_of(batch) == 0 or columns == 0:
        return Array(device, Const(0.0, (*batch, rows, columns), float32))
    a, b = a.astype(float32), b.astype(float32)
    if device.vectors and device.apart > 1:
        return blocked_matmul(a, b, bias, batch)
    if rows <= NARROW and not (device.vectors and b.leaf().view.strides[-1] == 1 and rows > 1):
        right = b.permute((*range(b.ndim - 2), b.ndim - 1, b.ndim - 2))
        found = (a[..., :, None, :] * right[..., None, :, :]).reduced("sum", -1, False)
        return found if bias is None else found + bias
    left = a.leaf()
    left = Leaf(left.buffer, left.view.broadcast((*batch, rows, depth)), float32)
    right_leaf = b.leaf()
    if device.vectors:
        whole = bias is not None and columns % (2 * device.lanes) == 0
        added = bias.astype(float32).packed() if bias is not None and whole else None
        found = Array(device, _by_panels(device, left, right_leaf, added, batch))
        return found if bias is None or whole else found + bias
    added = None if bias is None else bias.astype(float32).packed()
    right_leaf = Leaf(right_leaf.buffer, right_leaf.view.broadcast((*batch, depth, columns)), float32)
    out = Leaf(device.allocate(4 * size_of(batch) * rows * columns), View.of((*batch, rows, columns)), float32)
    _by_tiles(device, left, right_leaf, out, added, batch)
    return Array(device, out)


# Here and not in its class: the product is made of arrays, so it stands above them.
setattr(Array, "__matmul__", matmul)  # noqa: B010  (which a type checker would take for a mistake)


@functools.cache
def _tiles(bias: bool) -> Program:
    per = TILE // 16
    loads = "\n".join(
        f"""
    {{
      let e: i32 = lane + {i * 256};
      let ar: i32 = e / {DEPTH};
      let ak: i32 = e % {DEPTH};
      ta[ak * {TILE} + ar] = select(0.0f, a[a0 + min(row0 + ar, P.rows - 1) * P.ar + min(k0 + ak, P.depth - 1) * P.ak],
                                    row0 + ar < P.rows && k0 + ak < P.depth);
      let bc: i32 = e % {TILE};
      let bk: i32 = e / {TILE};
      tb[e] = select(0.0f, b[b0 + min(k0 + bk, P.depth - 1) * P.bk + min(col0 + bc, P.columns - 1) * P.bc],
                     col0 + bc < P.columns && k0 + bk < P.depth);
    }}"""
        for i in range(TILE * DEPTH // 256)
    )
    cells = [(i, j) for i in range(per) for j in range(per)]
    start = "\n".join(f"var c{i}{j}: f32 = 0.0f;" for i, j in cells)
    read = "\n".join(
        f"let x{i}: f32 = ta[k * {TILE} + ly * {per} + {i}];\nlet y{i}: f32 = tb[k * {TILE} + lx + {i * 16}];"
        for i in range(per)
    )
    multiply = "\n".join(f"c{i}{j} = c{i}{j} + x{i} * y{j};" for i, j in cells)
    write = "\n".join(
        f"""if (row0 + ly * {per} + {i} < P.rows && col0 + lx + {j * 16} < P.columns) {{
  out[(batch * P.rows + row0 + ly * {per} + {i}) * P.columns + col0 + lx + {j * 16}] =
    c{i}{j}{f" + bias[P.bias + col0 + lx + {j * 16}]" if bias else ""};
}}"""
        for i, j in cells
    )
    body = f"""
let column_tile: i32 = group % P.tiles;
let row_tile: i32 = (group / P.tiles) % P.row_tiles;
let batch: i32 = group / (P.tiles * P.row_tiles);
{PAIR}let row0: i32 = row_tile * {TILE};
let col0: i32 = column_tile * {TILE};
let lx: i32 = lane % 16;
let ly: i32 = lane / 16;
{start}
for (var k0: i32 = 0; k0 < P.depth; k0 = k0 + {DEPTH}) {{
  {loads}
  workgroupBarrier();
  for (var k: i32 = 0; k < {DEPTH}; k = k + 1) {{
    {read}
    {multiply}
  }}
  workgroupBarrier();
}}
{write}"""
    buffers = (Binding("out", writes=True), Binding("a"), Binding("b"), *((Binding("bias"),) if bias else ()))
    params = (
        "rows", "depth", "columns", "tiles", "row_tiles", "n0", "n1", "n2", "ao", "a0", "a1", "a2", "ar", "ak",
        "bo", "b0", "b1", "b2", "bk", "bc", "bias",
    )  # fmt: skip
    shared = (("ta", "f32", TILE * DEPTH), ("tb", "f32", TILE * DEPTH))
    return Program("matmul", buffers, params, body, 256, shared=shared)


def _by_tiles(device: Device, a: Leaf, b: Leaf, out: Leaf, bias: Leaf | None, batch: Shape) -> None:
    rows, depth, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    sizes, (along_a, along_b) = batches([a.view, b.view], batch)
    tiles, row_tiles = -(-columns // TILE), -(-rows // TILE)
    params = [
        rows, depth, columns, tiles, row_tiles, *sizes,
        a.view.offset, *along_a, *a.view.strides[-2:], b.view.offset, *along_b, *b.view.strides[-2:],
        bias.view.offset if bias else 0,
    ]  # fmt: skip
    buffers = [out.buffer, a.buffer, b.buffer, *([bias.buffer] if bias else [])]
    device.launch(_tiles(bias is not None), buffers, params, tiles * row_tiles * size_of(batch))


@functools.cache
def _packing(wide: int) -> Program:
    """Panels of columns, each with its rows one after the other, filled up with zeros; an item has a column."""
    body = f"""
let panel: i32 = group % P.panels;
let batch: i32 = group / P.panels;
let column: i32 = panel * {wide} + lane;
let at2: i32 = batch % P.n2;
let at1: i32 = (batch / P.n2) % P.n1;
let at0: i32 = batch / (P.n2 * P.n1);
let from_: i32 = P.bo + at0 * P.b0 + at1 * P.b1 + at2 * P.b2 + min(column, P.columns - 1) * P.bc;
let to: i32 = group * P.depth * {wide} + lane;
let real: bool = column < P.columns;
for (var k: i32 = 0; k < P.depth; k = k + 1) {{
  out[to + k * {wide}] = select(0.0f, b[from_ + k * P.bk], real);
}}"""
    params = ("depth", "panels", "columns", "n0", "n1", "n2", "bo", "b0", "b1", "b2", "bk", "bc")
    return Program("pack_columns", (Binding("out", writes=True), Binding("b")), params, body, wide)


@functools.cache
def _panels(lanes: int, bias: bool, close: bool) -> Program:
    """An item multiplies ROWS rows with a panel; `close`: the numbers of a row lie next to each other."""
    wide = 2 * lanes
    both = [f"{name}{i}" for i in range(ROWS) for name in "cd"]
    start = "\n".join(f"var {name}: vec = splat_(0.0f);" for name in both)
    rows = "\n".join(f"let r{i}: i32 = a0 + min(row + {i}, P.rows - 1) * P.ar;" for i in range(ROWS))
    next_ = "k" if close else "k * P.ak"
    step = "\n".join(
        f"let x{i}: vec = splat_(a[r{i} + {next_}]);\n  c{i} = c{i} + x{i} * y;\n  d{i} = d{i} + x{i} * z;"
        for i in range(ROWS)
    )
    add = f"""
let v: vec = LOADV(bias, P.bias + column);
let w: vec = LOADV(bias, P.bias + column + {lanes});
{" ".join(f"c{i} = c{i} + v; d{i} = d{i} + w;" for i in range(ROWS))}"""
    write = "\n".join(
        f"if (row + {i} < P.rows) {{ STOREV(out, place + {i} * across, c{i}); "
        f"STOREV(out, place + {i} * across + {lanes}, d{i}); }}"
        for i in range(ROWS)
    )
    body = f"""
let blocks: i32 = (P.rows + {ROWS - 1}) / {ROWS};
let row: i32 = (group % blocks) * {ROWS};
let panel: i32 = (group / blocks) % P.panels;
let batch: i32 = group / (blocks * P.panels);
{BATCH}
let b0: i32 = (P.fixed * batch * P.panels + panel) * P.depth * {wide};
let column: i32 = panel * {wide};
{rows}
{start}
for (var k: i32 = 0; k < P.depth; k = k + 1) {{
  let y: vec = LOADV(b, b0 + k * {wide});
  let z: vec = LOADV(b, b0 + k * {wide} + {lanes});
  {step}
}}
{add if bias else ""}
let across: i32 = P.panels * {wide};
let place: i32 = (batch * P.rows + row) * across + column;
{write}"""
    buffers = (Binding("out", writes=True), Binding("a"), Binding("b"), *((Binding("bias"),) if bias else ()))
    params = (
        "rows", "depth", "panels", "fixed", "n0", "n1", "n2", "ao", "a0", "a1", "a2", "ar", "ak", "bias",
    )  # fmt: skip
    return Program("matmul", buffers, params, body, 1, lanes)


def _by_panels(device: Device, a: Leaf, b: Leaf, bias: Leaf | None, batch: Shape) -> Leaf:
    """The columns beyond the last are those of an unfinished panel: the result is a view."""
    rows, depth, columns = a.shape[-2], a.shape[-1], b.shape[-1]
    own = size_of(b.shape[:-2]) > 1  # else one matrix serves the whole batch
    inner = batch if own else ()
    one = View((depth, columns), b.view.strides[-2:], b.view.offset)
    view = b.view.broadcast((*batch, depth, columns)) if own else one
    wide = 2 * device.lanes
    panels = -(-columns // wide)
    copy: Buffer = device.allocate(4 * size_of(inner) * panels * depth * wide)
    sizes, (along,) = batches([view], inner)
    params = [depth, panels, columns, *sizes, view.offset, *along, *view.strides[-2:]]
    device.launch(_packing(wide), [copy, b.buffer], params, panels * size_of(inner))
    sizes, (along,) = batches([a.view], batch)
    params = [rows, depth, panels, int(own), *sizes, a.view.offset, *along, *a.view.strides[-2:]]
    params.append(bias.view.offset if bias else 0)
    whole = View.of((*batch, rows, panels * wide))
    shape = (*batch, rows, columns)
    out = Leaf(device.allocate(4 * size_of(whole.shape)), View(shape, whole.strides), float32)
    buffers = [out.buffer, a.buffer, copy, *([bias.buffer] if bias else [])]
    groups = -(-rows // ROWS) * panels * size_of(batch)
    device.launch(_panels(device.lanes, bias is not None, a.view.strides[-1] == 1), buffers, params, groups)
    return out
