"""Shapes, strides and offsets: where the elements of an array lie in a buffer, or in the numbers 0, 1, 2, ..."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]


def contiguous(shape: Shape) -> Shape:
    """Strides of elements that lie one after the other."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * max(shape[i + 1], 1)
    return tuple(strides)


@dataclass(frozen=True)
class View:
    """Element `i` lies at `offset + sum(i * strides)`."""

    shape: Shape
    strides: Shape
    offset: int = 0

    @staticmethod
    def of(shape: Shape) -> View:
        """All elements, one after the other."""
        return View(shape, contiguous(shape))

    @property
    def is_contiguous(self) -> bool:
        """Whether elements lie one after the other, last axis first."""
        expected = contiguous(self.shape)
        return all(n == 1 or s == e for n, s, e in zip(self.shape, self.strides, expected, strict=True))

    def permute(self, axes: Sequence[int]) -> View:
        """The view with its axes in another order."""
        return View(tuple(self.shape[a] for a in axes), tuple(self.strides[a] for a in axes), self.offset)

    def cut(self, starts: Shape, steps: Shape, sizes: Shape) -> View:
        """Along every axis, `size` elements from `start` in steps of `step`."""
        offset = self.offset + sum(a * s for a, s in zip(starts, self.strides, strict=True))
        return View(sizes, tuple(a * s for a, s in zip(steps, self.strides, strict=True)), offset)

    def broadcast(self, shape: Shape) -> View:
        """The view as one of a larger shape, in which elements repeat."""
        lead = len(shape) - len(self.shape)
        strides = tuple(
            0 if i < lead or (self.shape[i - lead] == 1 and n != 1) else self.strides[i - lead]
            for i, n in enumerate(shape)
        )
        return View(shape, strides, self.offset)

    def reshape(self, shape: Shape) -> View | None:
        """The same elements in order under another shape; None where no strides say that."""
        if 0 in shape or 0 in self.shape:
            return View(shape, contiguous(shape), self.offset)
        merged: list[list[int]] = []  # [size, stride] of axes that can be walked as one
        for n, s in zip(self.shape, self.strides, strict=True):
            if n == 1:
                continue
            if merged and merged[-1][1] == s * n:
                merged[-1] = [merged[-1][0] * n, s]
            else:
                merged.append([n, s])
        strides = []
        for n in reversed(shape):
            if n == 1:
                strides.append(0)
                continue
            while merged and merged[-1][0] == 1:
                merged.pop()
            if not merged or merged[-1][0] % n:
                return None
            strides.append(merged[-1][1])
            merged[-1] = [merged[-1][0] // n, merged[-1][1] * n]
        return View(shape, tuple(reversed(strides)), self.offset)


def collapsed(views: Sequence[View], boundary: int) -> tuple[list[int], list[list[int]], int]:
    """Merge axes that all views walk as one, never across axis `boundary`.

    -> sizes, the strides of each view, and how many of the sizes lie before the boundary.
    """
    shape = views[0].shape
    sizes: list[int] = []
    strides: list[list[int]] = [[] for _ in views]
    before = 0
    for axis, n in enumerate(shape):
        if axis == boundary:
            before = len(sizes)
        if n == 1:
            continue
        mergeable = len(sizes) > (before if axis >= boundary else 0)
        if mergeable and all(own[-1] == v.strides[axis] * n for own, v in zip(strides, views, strict=True)):
            sizes[-1] *= n
            for own, v in zip(strides, views, strict=True):
                own[-1] = v.strides[axis]
        else:
            sizes.append(n)
            for own, v in zip(strides, views, strict=True):
                own.append(v.strides[axis])
    return sizes, strides, before if boundary < len(shape) else len(sizes)


def broadcast_shapes(*shapes: Shape) -> Shape:
    """As in NumPy; ValueError for shapes that do not fit."""
    length = max(map(len, shapes), default=0)
    found = []
    for i in range(length):
        sizes = {s[len(s) - length + i] for s in shapes if len(s) - length + i >= 0} - {1}
        if len(sizes) > 1:
            raise ValueError(f"shapes {', '.join(map(str, shapes))} cannot be broadcast together")
        found.append(sizes.pop() if sizes else 1)
    return tuple(found)


def size_of(shape: Shape) -> int:
    """How many elements."""
    return math.prod(shape)
