"""From recorded instructions to a program: which may run side by side, how they are split, and running it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from helix_plugin_cpu.kernels import _executor, _threads
from helix_plugin_cpu.kernels._arguments import address, integers, zeros
from helix_plugin_cpu.kernels._instructions import WORDS
from helix_plugin_cpu.kernels._simd import LANES, VECTOR

MIN_JOB_BYTES = 32 << 10
"""Bytes that a job should read at least: a few microseconds."""
NARROW = 256
"""Columns that would make too few jobs if split by sixteen."""
SERIAL_BYTES = 400 << 10
"""A program that reads less is done by one thread before another has woken."""

Access = tuple[Tensor, bool]
"""An array that an instruction reads or writes, and whether a job touches only its own columns or rows of it."""


def own_parts(*arrays: Tensor | None) -> list[Access]:
    """Accesses to the given arrays, of which a job touches no more than its own columns or rows."""
    return [(a, True) for a in arrays if a is not None]


@dataclass
class Instruction:
    """A native instruction.

    words    code and operands
    split    "columns" or "rows": what is split into jobs, and how many there are
    cost     bytes read for each
    fine     jobs of four columns are as good as of sixteen
    """

    words: list[int]
    split: tuple[str, int]
    cost: float
    reads: list[Access]
    writes: list[Access]
    fine: bool = False


@dataclass
class Call:
    """A function called from Python between native instructions; its results are copied to `outputs`."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[Tensor]

    def run(self) -> None:
        """Call it and copy what it returns."""
        results = self.function(*self.args, **self.kwargs)
        results = results if isinstance(results, list | tuple) else (results,)
        for output, value in zip(self.outputs, results, strict=True):
            output.copy_(value)


@dataclass
class _Stage:
    split: tuple[str, int]
    instructions: list[Instruction] = field(default_factory=list)

    def takes(self, new: Instruction) -> bool:
        """Whether an instruction may run in the same jobs: on their own columns or rows, or on other memory."""
        if new.split != self.split:
            return False
        for old in self.instructions:
            written_then_used = itertools.product(old.writes, new.reads + new.writes)
            read_then_written = itertools.product(old.reads, new.writes)
            for (a, a_own), (b, b_own) in itertools.chain(written_then_used, read_then_written):
                if overlap(a, b) and not (a_own and b_own and _layout(a) == _layout(b)):
                    return False
        return True

    def bounds(self, threads: int) -> list[int]:
        """Where jobs begin and end: large ones first, small ones last, so that all threads finish together."""
        split, size = self.split
        unit = LANES if split == "columns" else 1
        if split == "columns" and size <= NARROW and all(i.fine for i in self.instructions):
            unit = 4
        units = -(-size // unit)
        least = max(1, round(MIN_JOB_BYTES / max(1.0, unit * sum(i.cost for i in self.instructions))))
        bounds, at = [0], 0
        while at < units:
            step = min(units - at, max(least, (units - at) // (2 * threads)))
            at += units - at if units - at < step + least else step
            bounds.append(min(at * unit, size))
        return bounds


def _runs(steps: Sequence[Instruction | Call]) -> Iterator[list[Instruction] | Call]:
    """Calls, and the instructions between one and the next."""
    run: list[Instruction] = []
    for step in steps:
        if isinstance(step, Instruction):
            run.append(step)
            continue
        if run:
            yield run
            run = []
        yield step
    if run:
        yield run


def _stages(instructions: Sequence[Instruction]) -> list[_Stage]:
    """As few as keep the order of what depends on each other."""
    stages: list[_Stage] = []
    for instruction in instructions:
        if not stages or not stages[-1].takes(instruction):
            stages.append(_Stage(instruction.split))
        stages[-1].instructions.append(instruction)
    return stages


def overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two arrays may share memory."""
    (a_first, a_last), (b_first, b_last) = _extent(a), _extent(b)
    return a_first < b_last and b_first < a_last


def _extent(a: Tensor) -> tuple[int, int]:
    reach = sum((size - 1) * stride for size, stride in zip(a.shape, a.stride(), strict=True)) + 1
    return a.data_ptr(), a.data_ptr() + reach * a.element_size()


def _layout(a: Tensor) -> tuple[Any, ...]:
    return a.data_ptr(), *((size, stride) for size, stride in zip(a.shape, a.stride(), strict=True) if size > 1)


class Program:
    """Recorded instructions, ready to run. Not for two threads at once.

    steps    native instructions and calls, in order
    scratch  bytes that a thread needs
    keep     arrays whose addresses instructions hold
    """

    def __init__(self, steps: Sequence[Instruction | Call], scratch: int, keep: Sequence[Tensor]) -> None:
        self.threads = torch.get_num_threads()
        self.keep = list(keep)
        self.space = -(-scratch // VECTOR) * VECTOR
        self.scratch: list[Tensor] = []
        stages: list[_Stage] = []
        self.parts: list[tuple[int, int] | Call] = []  # calls, and the first and last of the stages between them
        for run in _runs(steps):
            if isinstance(run, Call):
                self.parts.append(run)
            else:
                first = len(stages)
                stages += _stages(run)
                self.parts.append((first, len(stages)))
        self._encode(stages)
        costs = [sum(i.cost * i.split[1] for i in stage.instructions) for stage in stages]
        self.costs = [sum(costs[p[0] : p[1]]) if isinstance(p, tuple) else 0.0 for p in self.parts]

    def _encode(self, stages: list[_Stage]) -> None:
        bounds = [stage.bounds(self.threads) for stage in stages]
        words = [i.words + [0] * (WORDS - len(i.words)) for stage in stages for i in stage.instructions]
        self.words = integers(words).reshape(-1, WORDS)
        self.bounds = integers([b for stage_bounds in bounds for b in stage_bounds])
        table, word, bound = [], address(self.words), address(self.bounds)
        for stage, stage_bounds in zip(stages, bounds, strict=True):
            table.append([len(stage_bounds) - 1, bound, word, len(stage.instructions)])
            word += 8 * WORDS * len(stage.instructions)
            bound += 8 * len(stage_bounds)
        self.stages = integers(table).reshape(-1, _executor.STAGE_WORDS)
        space = zeros(len(stages) * 8 + 8, dtype=torch.int64)
        self.counters = space[-space.data_ptr() // 8 % 8 :][: len(stages) * 8]

    def run(self) -> None:
        """Do everything once."""
        self.counters.zero_()
        for part, cost in zip(self.parts, self.costs, strict=True):
            if isinstance(part, Call):
                part.run()
            else:
                self._run_stages(*part, torch.get_num_threads() if cost > SERIAL_BYTES else 1)

    def _run_stages(self, first: int, last: int, threads: int) -> None:
        while len(self.scratch) < threads:
            self.scratch.append(zeros(self.space + VECTOR, dtype=torch.uint8))
        shares = [
            (address(self.stages), address(self.counters), first, last, -(-address(s) // VECTOR) * VECTOR)
            for s in self.scratch[:threads]
        ]
        _threads.call_together(_executor.run_stages, shares)
