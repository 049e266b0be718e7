"""Rows in one pass over memory: a work-group shares a row, or an item has its own."""

from __future__ import annotations

from helix_device_arrays.array import Array
from helix_device_arrays.device import Device
from helix_device_arrays.kernels._arguments import buffer_of, items, joined, lanes_for, read, written
from helix_device_arrays.nodes import Leaf
from helix_device_arrays.program import Program
from helix_device_arrays.views import size_of


class Rows:
    """The frame of a kernel over rows of `P.over` numbers: loops over a row's vectors, and sums of what items found.

    `width` items of a work-group share a row, or have one each.
    """

    def __init__(self, lanes: int, width: int, together: bool) -> None:
        self.lanes, self.width, self.shared = lanes, width, width if together else 1

    def loop(self, body: str) -> str:
        """A loop of `body` over the elements of a row."""
        first, step = (f"lane * {self.lanes}", self.shared * self.lanes) if self.shared > 1 else ("0", self.lanes)
        return f"for (var j: i32 = {first}; j < P.over; j = j + {step}) {{ {body} }}"

    def joined(self, name: str, operation: str) -> str:
        """Make `name`, a number of each item, that of the whole row."""
        return joined(self.shared, name, operation)

    def program(self, name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], body: str) -> Program:
        """The kernel that carries out `body` for each row."""
        if self.shared > 1:
            text = f"let row: i32 = group * P.over;\n{body}"
            shared: tuple[tuple[str, str, int], ...] = (("part", "f32", self.shared),)
        else:
            begin = f"let item: i32 = group * {self.width} + lane;\nif (item < P.count) {{"
            text = f"{begin}\nlet row: i32 = item * P.over;\n{body}\n}}"
            shared = ()
        buffers = (*written(*outputs), *read(*inputs))
        return Program(name, buffers, ("count", "over"), text, self.width, self.lanes, shared)


def frame_of(device: Device, over: int) -> tuple[int, int, bool]:
    """Lanes, items of a work-group, and whether these share a row: the arguments of `Rows`."""
    lanes = lanes_for(device, over)
    return (lanes, device.apart, False) if device.vectors else (lanes, device.rows, True)


def launch(device: Device, program: Program, outputs: list[Leaf], inputs: list[Array]) -> None:
    """Run a program of `Rows` on all rows."""
    shape = outputs[0].shape
    count = size_of(shape[:-1])
    groups = count if program.shared else items(count, program.width)
    buffers = [*(o.buffer for o in outputs), *map(buffer_of, inputs)]
    device.launch(program, buffers, [count, shape[-1]], groups)
