"""What the kernels share: inputs as plain buffers, marks of steps, channels in vectors."""

from __future__ import annotations

from collections.abc import Sequence

from helix_device_arrays.array import Array, apply
from helix_device_arrays.device import Buffer, Device
from helix_device_arrays.dtypes import DType, float32, int32
from helix_device_arrays.evaluate import copied
from helix_device_arrays.nodes import Const, Iota, Leaf, Node
from helix_device_arrays.program import Binding
from helix_device_arrays.views import Shape, View, size_of

RESET, PADDING = 1, 2
"""Marks of a step: a document starts there; it is padding."""


def buffer_of(x: Array, dtype: DType = float32) -> Buffer:
    """The elements one after the other, from the first byte on."""
    leaf = x.astype(dtype).packed()
    return (copied(x.device, leaf) if leaf.view.offset else leaf).buffer


def marks(reset: Array | None, lengths: Array | None, batch: int, length: int, device: Device) -> Array | None:
    """int32 (B, L): RESET, PADDING or 0; None where no step is marked."""
    found: Array | None = None
    if reset is not None:
        found = reset.astype(int32) * RESET
    if lengths is not None:
        steps = Array(device, Iota(View.of((length,)), int32))
        padding = steps[None, :] >= lengths.astype(int32)[:, None]
        rest = found if found is not None else Array(device, Const(0, (batch, length), int32))
        found = apply(device, "where", (padding, PADDING, rest))
    return found


def fresh(device: Device, shape: Shape, dtype: DType = float32) -> Leaf:
    """A new buffer for an output."""
    return Leaf(device.allocate(size_of(shape) * dtype.itemsize), View.of(shape), dtype)


def started(device: Device, state: Array | None, shape: Shape) -> Leaf:
    """A state of its own that a kernel may write to: a copy, or zeros."""
    node: Node = Const(0.0, shape, float32) if state is None else state.astype(float32).node
    return copied(device, node)


def lanes_for(device: Device, *channels: int) -> int:
    """Channels that an item takes at once."""
    return device.lanes if all(n % device.lanes == 0 for n in channels) else 1


def read(*names: str) -> tuple[Binding, ...]:
    """Bindings of float inputs."""
    return tuple(Binding(name) for name in names)


def written(*names: str) -> tuple[Binding, ...]:
    """Bindings of float outputs."""
    return tuple(Binding(name, writes=True) for name in names)


def joined(shared: int, name: str, operation: str, part: str = "part") -> str:
    """Make `name`, a number of each of `shared` items, that of all, through an array `part` that they share."""
    if shared == 1:
        return ""
    both = operation.format(f"{part}[lane]", f"{part}[lane + s]")
    return f"""
  workgroupBarrier();
  {part}[lane] = {name};
  workgroupBarrier();
  for (var s: i32 = {shared // 2}; s > 0; s = s / 2) {{
    if (lane < s) {{ {part}[lane] = {both}; }}
    workgroupBarrier();
  }}
  {name} = {part}[0];"""


def items(count: int, width: int) -> int:
    """Work-groups for so many items."""
    return -(-count // width)


def given(pairs: Sequence[tuple[bool, str]]) -> tuple[str, ...]:
    """The names whose flag is set."""
    return tuple(name for flag, name in pairs if flag)
